"""`FileChanges`: waits until a process has written to a file, without a look at it every few milliseconds.

A thread that wakes up 200 times a second takes the interpreter away from the thread that answers requests each time,
which made every answer 2.7 µs longer (a tenth of a kept list), whatever it then looked at.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.005  # between two looks where the system does not tell
# of inotify(7)
IN_CLOSE_WRITE, IN_MOVED_TO, IN_DELETE = 0x8, 0x80, 0x200
HEAD = struct.Struct("iIII")  # watch, mask, cookie, length of the name
BUFFER_BYTES = 65_536


class FileChanges:
    """The moments at which any process closes a file after writing, or one beside it whose name begins with its name.

    The end of the writing counts, because what a write has begun may not be readable yet. Linux tells it (inotify). On
    another system, or if this one has no watch left, `wait` returns every 5 ms.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._name = os.fsencode(path.name)
        self._file = _watch(path.absolute().parent)

    def wait(self, seconds: float) -> None:
        """Return when a file was closed, if no earlier call has returned for it, at the latest after some seconds."""
        if self._file is None:
            time.sleep(min(seconds, POLL_SECONDS))
            return
        poll, deadline = select.poll(), time.monotonic() + seconds
        poll.register(self._file, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1e3) and self._is_ours(os.read(self._file, BUFFER_BYTES)):
                return

    def close(self) -> None:
        """End the watch; no thread may be waiting."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _is_ours(self, told: bytes) -> bool:
        place = 0
        while place < len(told):
            watch, _, _, length = HEAD.unpack_from(told, place)
            place += HEAD.size + length
            if watch < 0 or told[place - length : place].startswith(self._name):  # a watch below 0: some were dropped
                return True
        return False


def _watch(folder: Path) -> int | None:
    """A file descriptor that tells the changes in a folder; None if the system does not."""
    library: Any = ctypes.CDLL(None, use_errno=True)
    start: Callable[[int], int] | None = getattr(library, "inotify_init1", None)
    if start is None:
        return None
    file = start(os.O_NONBLOCK | os.O_CLOEXEC)
    if file < 0:  # too many in use
        return None
    if library.inotify_add_watch(file, os.fsencode(folder), IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE) < 0:
        code = ctypes.get_errno()
        os.close(file)
        if code == errno.ENOENT:
            raise FileNotFoundError(code, os.strerror(code), str(folder))
        return None
    return file
