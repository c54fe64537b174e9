"""The workspace: the folder of all data and models of one company, and atomic writes into it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qianmian.errors import WorkspaceError
from qianmian.paths import sqlite_url, unusable_characters
from qianmian.private_files import make_private_folder

ENVIRONMENT_VARIABLE = "QIANMIAN_WORKSPACE"
DEFAULT_ROOT = "workspace"


@dataclass(frozen=True)
class Workspace:
    """Paths of one workspace. The constructor does not touch the disk; `create()` does.

    Attributes
    ----------
    root : Path
        Absolute folder. Inside: ``lake/`` canonical tables, ``quarantine/`` rejected rows, ``online/`` serving state,
        ``features/`` built profiles, ``mlflow.db`` and ``mlartifacts/`` models, ``qianmian.yaml`` optional settings.

    Raises
    ------
    WorkspaceError
        The path contains a control character, a backslash or bytes that are no text, which the databases cannot read.
    """

    root: Path

    def __post_init__(self) -> None:
        if found := unusable_characters(self.root):
            raise WorkspaceError(
                "the path of a workspace may not contain control characters, backslashes or bytes that are no text",
                where=ascii(str(self.root)),
                got=ascii(found),
                hint="rename the folder, or name another --workspace",
            )

    @classmethod
    def locate(cls, given: str | Path | None = None) -> Workspace:
        """The workspace named by the argument, else by ``QIANMIAN_WORKSPACE``, else ``./workspace``."""
        return cls(Path(given or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_ROOT).expanduser().absolute())

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def online(self) -> Path:
        return self.root / "online"

    @property
    def config_file(self) -> Path:
        return self.root / "qianmian.yaml"

    @property
    def artifact_root(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def mlflow_db(self) -> Path:
        """The SQLite file in which MLflow keeps runs and registered models."""
        return self.root / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI`` if set, else the SQLite store of the workspace."""
        return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(self.mlflow_db)

    @property
    def secrets(self) -> Path:
        """Folder of the keys; everything in it is readable by its owner only."""
        return self.root / "secrets"

    def create(self) -> Workspace:
        """Create the missing folders; an existing workspace is left unchanged. Only the owner may enter a new one."""
        with explain_os_errors(self.root):
            make_private_folder(self.root)
            for folder in (self.lake, self.quarantine, self.features, self.online):
                folder.mkdir(parents=True, exist_ok=True)
        return self

    def require(self) -> Workspace:
        """Return this workspace if it exists.

        Raises
        ------
        WorkspaceError
            The workspace does not exist; the error says how to create one.
        """
        if not self.lake.is_dir():
            raise WorkspaceError(
                "the workspace does not exist",
                where=str(self.root),
                hint="run `qianmian ingest completejourney` (or `qianmian demo`), or name another one with --workspace",
            )
        return self


@contextlib.contextmanager
def explain_os_errors(where: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a `WorkspaceError` that says how to fix it."""
    other = "name another --workspace"
    other_disk = "name a --workspace on another disk; existing files are unchanged"
    hints = {
        errno.ENOSPC: f"free some space or {other_disk}",
        errno.EDQUOT: f"raise the quota or {other_disk}",
        errno.EACCES: f"give this user write permission, or {other}",
        errno.EROFS: "the disk is read-only: name a --workspace on another disk",
        errno.ENOTDIR: f"a path component is a file, not a folder: {other}",
        errno.EEXIST: f"a path component is a file, not a folder: {other}",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in hints:
            raise
        raise WorkspaceError(
            f"cannot write: {os.strerror(error.errno)}", where=str(where), hint=hints[error.errno]
        ) from error


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, renamed to `target` on success and removed on an error.

    Works for a file or a folder. A folder replaces nothing: `target` must not exist then.
    """
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            yield temporary
            if temporary.is_file():
                with temporary.open("rb") as handle:
                    os.fsync(handle.fileno())
            temporary.replace(target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
