"""`qianmian score`: answers for every customer in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsOfOption, JsonOption, WorkspaceOption


def score(
    what: Annotated[str, typer.Argument(metavar="recommend|churn|predictions", help="What to score.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write: .parquet or .csv.")],
    as_of: AsOfOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every customer with the champions."""
