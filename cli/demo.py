"""`qianmian demo`: the whole way on a real grocer's year, from raw files to HTTP answers."""

from __future__ import annotations

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption
from qianmian.workspace import Workspace


def demo(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Complete Journey from raw files to HTTP answers: ingest, features, train all, serve, ask, stop."""
    place = Workspace.locate(workspace)
    Output(as_json).step(f"workspace {place.root}")
