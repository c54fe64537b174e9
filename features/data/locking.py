"""Locks of files; the one of a lake, because each writer replaces the content that it started from."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import IO, Any

from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace

try:
    import fcntl
except ImportError:  # Windows has no fcntl; the lock is not taken there
    fcntl = None  # type: ignore[assignment]


def try_lock(handle: IO[Any]) -> bool:
    """Lock an open file until it is closed or the process ends; return whether no other process has locked it."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextlib.contextmanager
def exclusive_writer(workspace: Workspace) -> Iterator[None]:
    """Hold the writer lock of the lake inside the `with` block; leftovers of killed ingests are removed.

    Raises
    ------
    WorkspaceError
        If another process holds the lock.
    """
    with (workspace.lake / ".lock").open("a") as handle:
        if not try_lock(handle):
            raise WorkspaceError(
                "another process is writing this lake",
                where=str(workspace.lake),
                hint="wait until it has finished, then run the command again",
            )
        for leftover in workspace.root.glob(".ingest-*"):  # temporary folder of an ingest that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        yield
