"""`qianmian models reproduce`: trains a registered version again, and says whether it is the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import Output
from cli.options import STRICT_EXIT, JsonOption, WorkspaceOption
from cli.train import format_number
from qianmian.workspace import Workspace

SHOWN_METRICS = 10


def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered model or its job, such as churn.")],
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="The version to train again.")],
    lake: Annotated[
        Path | None,
        typer.Option(
            "--lake",
            metavar="DIR",
            help="Workspace whose lake is read, such as a restored backup. Default: the same workspace.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="classify, uplift: the table that the version was trained on.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a version again on the same data, and compare hash and metrics; nothing is registered.

    The arguments, settings and tuned parameters are those that MLflow holds of its run. A lake or a table of another
    digest is refused. The exit code is 3 if the model or a metric differs.
    """
    from training.reproduce import reproduce as reproduce_version

    output, located = Output(as_json), Workspace.locate(workspace).require()
    with output.working():
        found = reproduce_version(
            located,
            name,
            version,
            lake_workspace=None if lake is None else Workspace.locate(lake),
            data=data,
            progress=output.step,
        )
    output.result(found.as_dict())
    if found.same:
        output.say(
            f"{found.name} version {found.version} is reproduced: the same model ({found.model_hash}) "
            f"and {found.metrics} metrics"
        )
    else:
        is_same = found.model_hash == found.repeated_hash
        output.say(
            f"{found.name} version {found.version}: the model is the same ({found.model_hash}), its metrics are not"
            if is_same
            else f"{found.name} version {found.version} is NOT reproduced: model hash {found.model_hash} in the run, "
            f"{found.repeated_hash} now"
        )
        if found.other_files:
            output.say(f"files that differ: {', '.join(found.other_files)}")
        if found.other_metrics:
            rows = [
                [metric, *map(format_number, pair)]
                for metric, pair in list(found.other_metrics.items())[:SHOWN_METRICS]
            ]
            title = f"{len(found.other_metrics)} of {found.metrics} metrics differ"
            output.table(title, ["metric", "in the run", "now"], rows, right=["in the run", "now"])
    if not found.same or found.differences:
        also = "what differs between both trainings" if found.same else "what may explain it"
        output.say(f"{also}: {'; '.join(found.differences) or 'nothing that is recorded'}")
    if not found.same:
        raise typer.Exit(STRICT_EXIT)
