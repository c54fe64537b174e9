"""Options that several verbs share. This module imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

STRICT_EXIT = 3  # of a check with --strict that found something
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Folder of the workspace. Default: $QIANMIAN_WORKSPACE or ./workspace.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else.")]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="Cutoff: rows at or after it are not read. YYYY-MM-DD or an ISO time, UTC without a time zone. "
        "Default: midnight after the last row, or the last full hour if it is in the future.",
        show_default=False,
    ),
]


class Lang(StrEnum):
    """Language of printed words."""

    EN = "en"
    ZH = "zh"


LangOption = Annotated[Lang, typer.Option("--lang", help="Language of names and sentences.")]

EngineOption = Annotated[
    str, typer.Option("--engine", metavar="duckdb|spark", help="Engine: this process with DuckDB, or Spark.")
]
SparkMasterOption = Annotated[
    str | None,
    typer.Option("--spark-master", metavar="URL", help="Spark master, such as spark://host:7077. Default: local[*]."),
]
