"""The workspace: where everything a company's Qianmian knows is kept, and how a file gets there whole or not at all."""

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

ENVIRONMENT_VARIABLE = "QIANMIAN_WORKSPACE"
DEFAULT_ROOT = "workspace"


@dataclass(frozen=True)
class Workspace:
    """Paths of one workspace. Making one touches no disk; `create()` does.

    Attributes
    ----------
    root : Path
        Absolute folder. Inside: ``lake/`` canonical tables, ``quarantine/`` refused rows, ``online/`` serving state,
        ``features/`` built profiles, ``mlflow.db`` and ``mlartifacts/`` models, ``qianmian.yaml`` optional settings.
    """

    root: Path

    @classmethod
    def locate(cls, given: str | Path | None = None) -> Workspace:
        """The workspace asked for: the argument, else ``QIANMIAN_WORKSPACE``, else ``./workspace``."""
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
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI`` when set, else the workspace's own SQLite store."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    def create(self) -> Workspace:
        """Make the folders that are missing; an existing workspace is left as it is."""
        with explain_os_errors(self.root):
            for folder in (self.lake, self.quarantine, self.features, self.online):
                folder.mkdir(parents=True, exist_ok=True)
        return self

    def require(self) -> Workspace:
        """This workspace, or the error that says how to make one."""
        if not self.lake.is_dir():
            raise WorkspaceError(
                "there is no workspace here",
                where=str(self.root),
                hint="run `qianmian ingest completejourney` (or `qianmian demo`), or name another with --workspace",
            )
        return self


@contextlib.contextmanager
def explain_os_errors(where: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a `WorkspaceError` that says how to mend it."""
    hints = {
        errno.ENOSPC: "free some space or name a --workspace on another disk; nothing that was there before has changed",
        errno.EDQUOT: "raise the quota or name a --workspace on another disk; nothing that was there before has changed",
        errno.EACCES: "give this user the right to write there, or name another --workspace",
        errno.EROFS: "the disk is read-only: name a --workspace on another one",
        errno.ENOTDIR: "a file stands where a folder is needed: name another --workspace",
        errno.EEXIST: "a file stands where a folder is needed: name another --workspace",
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
    """A temporary path beside `target`, renamed onto it when the block ends well and removed when it does not.

    Works for a file or a folder (a folder replaces nothing: `target` must not exist then).
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
    """Write `value` as readable JSON, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
