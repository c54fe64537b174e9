"""What is expensive to make and the same in every process of a test run: the first that needs it makes it for all.

`pytest --numprocesses` gives each process its own session fixtures. A fixture that trains models would train them as
often as there are processes.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from qianmian import model_store
from qianmian.workspace import Workspace

Made = TypeVar("Made")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """A folder that `make` fills in one process while the others wait, and what it returns, which must be picklable.

    Tests must neither change nor lock the folder, which other processes read at the same time: `own_copy` is for them.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the folder of the whole run
    folder, result = base / name, base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what another process began and could not finish
            folder.mkdir()
            made = make(folder)
            partial = result.with_suffix(".partial")
            partial.write_bytes(pickle.dumps(made))
            partial.rename(result)
    return folder, pickle.loads(result.read_bytes())


def own_copy(workspace: Workspace, root: Path) -> Workspace:
    """A copy that the tests of a process may change; its MLflow store names the folders of the copy."""
    copy = Workspace(Path(shutil.copytree(workspace.root, root)))
    model_store.adopt(copy, required=True)
    return copy
