"""One writer at a time: two ingests, or an ingest and a merge decision, would each start from the lake as it was."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def exclusive_writer(workspace: Workspace) -> Iterator[None]:
    """Hold the lake's lock for the length of the block.

    Raises
    ------
    WorkspaceError
        Somebody else holds it.
    """
    with (workspace.lake / ".lock").open("a") as handle:
        if fcntl is not None:  # not on Windows
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WorkspaceError(
                    "another ingest is writing this lake",
                    where=str(workspace.lake),
                    hint="wait until it has ended and run the command again",
                ) from error
        for left_behind in workspace.root.glob(".ingest-*"):  # by an ingest that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        yield
