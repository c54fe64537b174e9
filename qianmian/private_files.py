"""Files that only their owner may read: the folder of a workspace, which has personal data, and the keys in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE_FOLDER = 0o700
OTHERS, GROUP_AND_OTHERS = 0o007, 0o077


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, so that the modes of what is in it do not matter.

    A folder that exists keeps its mode: its owner may have opened it to a group.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def is_open(path: Path, to: int = GROUP_AND_OTHERS) -> bool:
    """Whether the mode of a file or folder lets others in; False for what does not exist, or has no modes."""
    try:
        return os.name == "posix" and bool(stat.S_IMODE(path.stat().st_mode) & to)
    except OSError:
        return False
