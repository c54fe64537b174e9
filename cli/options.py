"""Options that several verbs share, spelt once. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Folder of the workspace. [default: $QIANMIAN_WORKSPACE, else ./workspace]",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Machine output: one JSON object on stdout, nothing else there.")
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="No row at or after it is read: YYYY-MM-DD or an ISO time; UTC where it says no zone. [default: midnight after the last row]",
        show_default=False,
    ),
]
