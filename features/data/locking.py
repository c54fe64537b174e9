"""Locks of files: of a lake, whose writers replace the content that they started from, of champions and a workspace."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from typing import IO, Any

from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace, explain_os_errors

try:
    import fcntl
except ImportError:  # Windows has no fcntl; the lock is not taken there
    fcntl = None  # type: ignore[assignment]

CHAMPIONS_SECONDS, CHAMPIONS_STEP = 20.0, 0.1  # how long to wait for another process that changes a champion


def try_lock(handle: IO[Any], shared: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends; return whether no other process stands against it.

    Several may share a lock.
    """
    if fcntl is not None:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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


@contextlib.contextmanager
def champions_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the lock of changes of champions and of the tags that they have published inside the `with` block.

    Raises
    ------
    WorkspaceError
        If another process holds it for longer than a change takes.
    """
    with contextlib.ExitStack() as stack:
        with explain_os_errors(workspace.root):
            workspace.online.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context((workspace.online / ".champions.lock").open("a"))
        for _ in range(round(CHAMPIONS_SECONDS / CHAMPIONS_STEP)):
            if try_lock(handle):
                break
            time.sleep(CHAMPIONS_STEP)
        else:
            raise WorkspaceError(
                "another process is changing a champion",
                where=str(workspace.root),
                hint="wait until it has finished, then run the command again",
            )
        yield


@contextlib.contextmanager
def workspace_lock(workspace: Workspace, exclusive: bool = False) -> Iterator[None]:
    """Hold the lock of erasures: whoever writes what was read of customers shares it, such as builds and scores.

    Raises
    ------
    WorkspaceError
        An erasure is running; or, for an erasure, anything is.
    """
    file = workspace.root / "erasures" / ".lock"
    if not exclusive and not workspace.root.is_dir():
        yield  # there is nothing to erase yet
        return
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(exist_ok=True)
            handle = stack.enter_context(file.open("a"))
        except OSError as error:
            if exclusive or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            yield  # a workspace that nobody here may write: nobody erases in it either
            return
        if not try_lock(handle, shared=not exclusive):
            raise WorkspaceError(
                "profiles are being built, models trained or scores written, or another customer is being erased"
                if exclusive
                else "a customer is being erased",
                where=str(workspace.root),
                hint="wait until it has finished, then run the command again",
            )
        yield
