"""Writer lock: only one process may write a lake, because each writer replaces the content it started from."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace

try:
    import fcntl
except ImportError:  # Windows has no fcntl; the lock is not taken there
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def exclusive_writer(workspace: Workspace) -> Iterator[None]:
    """Hold the writer lock of the lake inside the `with` block; leftovers of killed ingests are removed.

    Raises
    ------
    WorkspaceError
        If another process holds the lock.
    """
    with (workspace.lake / ".lock").open("a") as handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WorkspaceError(
                    "another process is writing this lake",
                    where=str(workspace.lake),
                    hint="wait until it has finished, then run the command again",
                ) from error
        for leftover in workspace.root.glob(".ingest-*"):  # temporary folder of an ingest that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        yield
