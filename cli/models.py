"""`qianmian models`: lists, shows, promotes, rolls back, exports and reproduces the registered models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Output
from cli.models_reproduce import reproduce
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from cli.train import format_number
from qianmian.errors import NotFound
from qianmian.schema import registered_name
from qianmian.workspace import Workspace

models = typer.Typer(help="List, show, promote, roll back and export the registered models.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A registered model or its job, such as churn.")]


@models.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the registered models with their served version."""
    from serving.model_registry import list_models

    output, located = Output(as_json), Workspace.locate(workspace).require()
    found = list_models(located)
    output.result({"workspace": located.root, "models": found})
    if not found:
        output.say("no model is registered yet; run `qianmian train all`")
        return
    columns = list(found[0])
    output.table("", columns, [[model.get(column) for column in columns] for model in found])


@models.command("show")
def show(name: NameArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show the versions of one model, newest first, with the metrics of their runs."""
    from serving.model_registry import show as show_model

    output, located = Output(as_json), Workspace.locate(workspace).require()
    found = show_model(located, name)
    output.result(found)
    for version in found["versions"]:
        aliases = f" ({', '.join(version['aliases'])})" if version["aliases"] else ""
        columns, rows = metric_rows(version["metrics"])
        output.table(f"{found['name']} version {version['version']}{aliases}", columns, rows, right=columns[1:])
        output.say(f"  registered {version['created_at']}, run {version['run_id']}")


@models.command("promote")
def promote(
    name: NameArgument,
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="The version to serve.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion; the current champion becomes `previous`."""
    from training.promotion import promote as promote_model

    output, located = Output(as_json), Workspace.locate(workspace).require()
    _print_change(output, promote_model(located, name, version, utc_now()))


@models.command("rollback")
def rollback(name: NameArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Make the previous version the champion again."""
    from training.promotion import rollback as roll_back

    output, located = Output(as_json), Workspace.locate(workspace).require()
    _print_change(output, roll_back(located, name, utc_now()))


@models.command("history")
def history(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A registered model or its job. Default: all models.", show_default=False
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List which version was served at which time."""
    from serving.model_registry import history as model_history
    from serving.model_registry import list_models

    output, located = Output(as_json), Workspace.locate(workspace).require()
    names = [registered_name(name)] if name else [str(model["name"]) for model in list_models(located)]
    events = [{"name": model, **event.as_dict()} for model in names for event in model_history(located, model)]
    output.result({"workspace": located.root, "events": events})
    columns = ["at", "name", "action", "version", "previous"]
    output.table(
        "",
        columns,
        [[event[column] for column in columns] for event in sorted(events, key=lambda event: str(event["at"]))],
    )


@models.command("export")
def export(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the champions to this folder instead.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the champions and the profiles to BentoML's model store, where `bentoml build` finds them."""
    from features.data.locking import workspace_lock
    from features.erasure.exports import CHAMPIONS, record_export
    from qianmian.config import load_settings

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    if out is not None:
        from serving.champions import export as export_champions

        output.step(f"writing the champions to {out}")
        with workspace_lock(located):
            export_champions(located, settings, out)
            record_export(located, out, utc_now(), CHAMPIONS)
        output.result({"workspace": located.root, "out": out})
        output.say(f"written: {out}")
        return
    from serving.package import store_champions, stored_folder

    output.step("writing the champions to BentoML's model store")
    with workspace_lock(located):
        tag = store_champions(located, settings)
        record_export(located, stored_folder(tag), utc_now(), CHAMPIONS)
    output.result({"workspace": located.root, "tag": str(tag)})
    output.say(f"stored: {tag}. Next: bentoml build")


models.command("reproduce")(reproduce)


def metric_rows(metrics: dict[str, float]) -> tuple[list[str], list[list[object]]]:
    """Make a table of a run's metrics with intervals and the same metric of each baseline.

    Examples
    --------
    >>> metric_rows({"auc": 0.8, "auc.low": 0.7, "auc.high": 0.9, "baseline/recency/auc": 0.6})
    (['metric', 'value', '95 % interval', 'recency'], [['auc', '0.800', '0.700 – 0.900', '0.600']])
    """
    own = [name for name in sorted(metrics) if "/" not in name and not name.endswith((".low", ".high"))]
    baselines = sorted({name.split("/")[1] for name in metrics if name.startswith("baseline/")})
    rows: list[list[object]] = []
    for name in own:
        ends = [metrics.get(f"{name}.{end}") for end in ("low", "high")]
        interval = " – ".join(format_number(end) for end in ends if end is not None)
        others = [metrics.get(f"baseline/{baseline}/{name}") for baseline in baselines]
        rows.append(
            [
                name,
                format_number(metrics[name]),
                interval,
                *("" if other is None else format_number(other) for other in others),
            ]
        )
    return ["metric", "value", "95 % interval", *baselines], rows


def _print_change(output: Output, changed: dict[str, Any]) -> None:
    if not changed:
        raise NotFound("nothing changed", hint="run `qianmian models list`")
    output.result(changed)
    before = f"; version {changed['previous']} is kept as previous" if changed.get("previous") is not None else ""
    output.say(f"{changed['name']}: version {changed['version']} is the champion now{before}")
