"""Replacing a folder that others may be reading: the new one is made beside it, and takes its place by two renames.

Processes that have opened or mapped files of the old folder keep them. A replacement that was killed is finished by
`finish_replacement`; between the two renames, for as long as one takes, there is no folder at its place.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

WORK = ".erasing-"  # begins the name of the folder beside it that exists while a folder is replaced


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield the path at which to make the new folder; on an error the old one stays."""
    finish_replacement(folder)
    work = _work(folder)
    new, old = work / "new", work / "old"
    work.mkdir()
    try:
        yield new
        folder.rename(old)
        new.rename(folder)
    finally:
        finish_replacement(folder)


def finish_replacement(folder: Path) -> None:
    """Let a folder whose replacement was interrupted be whole again: the new one once it was complete, else the old."""
    work = _work(folder)
    if not folder.exists() and (work / "old").exists():  # killed between the renames, so the new one is complete
        (work / "new").rename(folder)
    if work.exists():
        shutil.rmtree(work)


def original(path: Path) -> Path | None:
    """The folder that a path inside the work of an interrupted replacement belongs to; None if it is in none."""
    work = next((parent for parent in path.parents if parent.name.startswith(WORK)), None)
    return None if work is None else work.with_name(work.name.removeprefix(WORK))


def _work(folder: Path) -> Path:
    return folder.with_name(f"{WORK}{folder.name}")
