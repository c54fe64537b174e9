"""`qianmian models`: lists, shows, compares, promotes, rolls back, exports, prunes and reproduces registered models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
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

models = typer.Typer(
    help="List, show, compare, promote, roll back, export, prune and reproduce the registered models.",
    no_args_is_help=True,
)
SLICE = "slice/"  # prefix of the metrics of slices in a run
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why, for `models history`.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A registered model or its job, such as churn.")]


@models.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the registered models with their served version."""
    from serving.model_registry import list_models

    output, located = _opened(workspace, as_json)
    found = list_models(located)
    output.result({"workspace": located.root, "models": found})
    if not found:
        output.say("no model is registered yet; run `qianmian train all`")
        return
    columns = list(found[0])
    output.table("", columns, [[model.get(column) for column in columns] for model in found])


@models.command("show")
def show(
    name: NameArgument,
    slices: Annotated[
        bool, typer.Option("--slices", help="Also print the metrics of slices (groups of customers).")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the versions of one model, newest first: data, verdict of the gate, and metrics beside the baselines."""
    from serving.model_registry import show as show_model

    output, located = _opened(workspace, as_json)
    found = show_model(located, name)
    output.result(found)
    for version in found["versions"]:
        columns, rows = metric_rows(version["metrics"])
        output.table(f"{found['name']} {_title(version)}", columns, rows, right=columns[1:])
        if slices and (of_slices := slice_rows([version])):
            output.table("slices", ["slice", "metric", "value"], of_slices)
        for line in described(version):
            output.say(f"  {line}")
        output.say(f"  registered {version['created_at']}, run {version['run_id']}")


@models.command("compare")
def compare(
    name: NameArgument,
    first: Annotated[
        int | None, typer.Argument(min=1, metavar="[V1]", help="Default: the champion.", show_default=False)
    ] = None,
    second: Annotated[
        int | None,
        typer.Argument(
            min=1, metavar="[V2]", help="Default: the challenger, else the previous champion.", show_default=False
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: horizon, data, gate, metrics and slices. Each was measured on its own test period."""
    from serving.model_registry import compare as compare_versions

    output, located = _opened(workspace, as_json)
    pair = compare_versions(located, name, *(None if number is None else str(number) for number in (first, second)))
    output.result({"name": registered_name(name), "versions": pair})
    titles = [_title(version) for version in pair]
    facts = ["as_of", "horizon_days", "data_digest", "gate", "decision"]
    output.table(
        registered_name(name), ["", *titles], [[fact, *(version[fact] or "" for version in pair)] for fact in facts]
    )
    metrics = [version["metrics"] for version in pair]
    shared = list(dict.fromkeys(key for found in metrics for key in sorted(found) if is_own(key)))
    rows: list[list[object]] = [[key, *(with_interval(found, key) for found in metrics)] for key in shared]
    output.table("metrics", ["metric", *titles], rows, right=titles)
    if of_slices := slice_rows(pair):
        output.table("slices", ["slice", "metric", *titles], of_slices, right=titles)
    for version, title in zip(pair, titles, strict=True):
        for reason in version["gate_reasons"]:
            output.say(f"  {title}: {reason}")
    if pair[0]["as_of"] != pair[1]["as_of"]:
        output.say(
            "  the test periods differ, so the difference of two values is not that of the models; the gate has "
            "compared them on the same rows where its reasons say so"
        )


@models.command("promote")
def promote(
    name: NameArgument,
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="The version to serve.")],
    reason: ReasonOption = "",
    despite_gate: Annotated[
        bool, typer.Option("--despite-gate", help="Also promote a version that the gate has refused.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion; the current champion becomes `previous`."""
    from training.promotion import promote as promote_model

    output, located = _opened(workspace, as_json)
    _print_change(output, promote_model(located, name, version, utc_now(), reason=reason, despite_gate=despite_gate))


@models.command("rollback")
def rollback(
    name: NameArgument, reason: ReasonOption = "", workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Make the previous version the champion again."""
    from training.promotion import rollback as roll_back

    output, located = _opened(workspace, as_json)
    _print_change(output, roll_back(located, name, utc_now(), reason=reason))


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
    """List which version was in production from which time on, why, and on which data it was trained."""
    from serving.model_registry import history as model_history
    from serving.model_registry import list_models

    output, located = _opened(workspace, as_json)
    names = [registered_name(name)] if name else [str(model["name"]) for model in list_models(located)]
    events = [{"name": model, **event.as_dict()} for model in names for event in model_history(located, model)]
    output.result({"workspace": located.root, "events": events})
    columns = ["at", "name", "action", "version", "previous", "as_of", "data_digest", "reason"]
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

    output, located = _opened(workspace, as_json)
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


@models.command("prune")
def prune(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A registered model or its job. Default: all models.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        int, typer.Option("--keep", min=0, metavar="N", help="Number of the newest versions of each model that stay.")
    ] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, and list what would be.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old versions and their artifacts; champion, challenger, previous and the runs in MLflow stay."""
    from training.pruning import prune as prune_versions

    output, located = _opened(workspace, as_json)
    pruned = [asdict(one) for one in prune_versions(located, name, keep, dry_run=dry_run)]
    output.result({"workspace": located.root, "dry_run": dry_run, "pruned": pruned})
    for one in pruned:
        output.say(f"{one['name']}: version {one['version']} {'would be' if dry_run else 'is'} removed")
    if not pruned:
        output.say("there is nothing to remove")


models.command("reproduce")(reproduce)


def metric_rows(metrics: dict[str, float]) -> tuple[list[str], list[list[object]]]:
    """Make a table of a run's metrics with intervals and the same metric of each baseline.

    Examples
    --------
    >>> metric_rows({"auc": 0.8, "auc.low": 0.7, "auc.high": 0.9, "baseline/recency/auc": 0.6})
    (['metric', 'value', '95 % interval', 'recency'], [['auc', '0.800', '0.700 – 0.900', '0.600']])
    """
    own = [name for name in sorted(metrics) if is_own(name)]
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


def is_own(name: str) -> bool:
    """Whether a metric of a run is one of the model itself, and no end of an interval.

    Examples
    --------
    >>> [name for name in ("auc", "auc.low", "baseline/recency/auc") if is_own(name)]
    ['auc']
    """
    return "/" not in name and not name.endswith((".low", ".high"))


def with_interval(metrics: dict[str, float], name: str) -> str:
    """Format a metric with its 95 % interval; empty if it is not there.

    Examples
    --------
    >>> with_interval({"auc": 0.8, "auc.low": 0.7, "auc.high": 0.9}, "auc")
    '0.800 [0.700, 0.900]'
    """
    if name not in metrics:
        return ""
    ends = [format_number(metrics[f"{name}.{end}"]) for end in ("low", "high") if f"{name}.{end}" in metrics]
    return format_number(metrics[name]) + (f" [{', '.join(ends)}]" if ends else "")


def slice_rows(versions: Sequence[dict[str, Any]]) -> list[list[object]]:
    """A row for each metric of each slice: its name, and its value with interval for each version."""
    metrics = [version["metrics"] for version in versions]
    keys = [key for found in metrics for key in sorted(found) if key.startswith(SLICE)]
    names = dict.fromkeys(key for key in keys if not key.endswith((".low", ".high")))
    return [
        [*key.removeprefix(SLICE).rsplit("/", 1), *(with_interval(found, key) for found in metrics)] for key in names
    ]


def described(version: dict[str, Any]) -> list[str]:
    """What is known of the data, the gate and the decision of a version, in lines."""
    data = f"data before {version['as_of']}, digest {version['data_digest']}" if version["as_of"] else ""
    horizon = f"horizon {version['horizon_days']} days" if version["horizon_days"] else ""
    lines = [", ".join(filter(None, [data, horizon]))]
    if version["gate"]:
        lines += [f"gate: {version['gate']}", *(f"  {reason}" for reason in version["gate_reasons"])]
    if version["decision"]:
        lines.append(f"decision: {version['decision']}")
    return [line for line in lines if line]


def _title(version: dict[str, Any]) -> str:
    aliases = f" ({', '.join(version['aliases'])})" if version["aliases"] else ""
    return f"version {version['version']}{aliases}"


def _opened(workspace: Path | None, as_json: bool) -> tuple[Output, Workspace]:
    """The output and the workspace, after what killed processes had begun to change is finished."""
    from training.promotion import mend

    output, located = Output(as_json), Workspace.locate(workspace).require()
    for event in mend(located):
        output.step(
            f"{event['name']}: the {event['action']} of version {event['version']} was interrupted; finished now"
        )
    return output, located


def _print_change(output: Output, changed: dict[str, Any] | None) -> None:
    if not changed:
        raise NotFound("nothing changed", hint="run `qianmian models list`")
    output.result(changed)
    before = f"; version {changed['previous']} is kept as previous" if changed.get("previous") is not None else ""
    output.say(f"{changed['name']}: version {changed['version']} is the champion now{before}")
    if changed["tags_published"]:
        output.say("its tags are published; the next `qianmian train`, `score` or `features` builds profiles with them")
    elif changed["tags_of_another"]:
        output.say("its tags are no longer kept: those of the former champion stay published until the next training")
