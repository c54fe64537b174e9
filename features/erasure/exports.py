"""The files that commands have written for people: where they are, so that an erasure reaches them.

``exports.json`` of the workspace has the path of each file that `qianmian score`, `features`, `analytics`,
`identity link` or `models export` wrote, and the digest it had then. A file that was changed since is not ours to
rewrite.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from features.data.locking import try_lock
from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace, write_json

TABLE, CHAMPIONS = "table", "champions"  # kinds: a file or folder of rows; a folder of models and profiles
UNFINISHED = ""
CHAMPIONS_INDEX = "index.json"
LOCK_SECONDS = 20.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """A file or folder that a command wrote.

    Attributes
    ----------
    path : str
        Absolute.
    kind : str
        `TABLE` or `CHAMPIONS`.
    digest : str
        As `digest_of` returns it; `UNFINISHED` until the file is complete.
    written_at : str
        ISO 8601, naive UTC.
    """

    path: str
    kind: str
    digest: str
    written_at: str


def blocks_of(path: Path) -> list[Path]:
    """The folders with finished blocks of a file whose writing was interrupted (`serving.scoring.blocks`)."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.blocks"))


def index_file(workspace: Workspace) -> Path:
    """The index of a workspace; it exists once a file was written."""
    return workspace.root / "exports.json"


def read_exports(workspace: Workspace) -> list[Export]:
    """All files that commands have written, oldest first.

    Raises
    ------
    WorkspaceError
        The index is damaged.
    """
    file = index_file(workspace)
    if not file.exists():
        return []
    try:
        return [Export(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))["exports"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            "the index of written files cannot be read",
            where=str(file),
            hint="restore it from a backup; without it, an erasure does not reach the files that commands have written",
        ) from error


def begin_export(workspace: Workspace, path: Path, written_at: datetime) -> None:
    """Note that a command is about to write `path`, unless it is known; whatever is there until it has is its own."""
    try:
        with _lock(workspace):
            known = read_exports(workspace)
            if str(path.absolute()) not in [one.path for one in known]:
                begun = Export(str(path.absolute()), TABLE, UNFINISHED, written_at.isoformat(timespec="seconds"))
                write_exports(workspace, [*known, begun])
    except (OSError, WorkspaceError) as error:
        _warn(error)


def record_export(workspace: Workspace, path: Path, written_at: datetime, kind: str = TABLE) -> None:
    """Note that a command has written `path`; a path that is written again has one entry.

    A workspace that cannot be written is left as it is, with a warning: the file is there, so the command succeeds.
    """
    try:
        export = Export(str(path.absolute()), kind, digest_of(path), written_at.isoformat(timespec="seconds"))
        with _lock(workspace):
            others = [one for one in read_exports(workspace) if one.path != export.path]
            write_exports(workspace, [*others, export])
    except (OSError, WorkspaceError) as error:
        _warn(error)


def _warn(error: Exception) -> None:
    logger.warning("exports=not recorded fix=delete the file by hand when a customer is erased reason=%s", error)


def replace_digests(workspace: Workspace, digests: dict[str, str]) -> None:
    """Store the digests of files that an erasure has rewritten, by path."""
    with _lock(workspace):
        known = read_exports(workspace)
        found = [Export(one.path, one.kind, digests.get(one.path, one.digest), one.written_at) for one in known]
        if found != known:
            write_exports(workspace, found)


def write_exports(workspace: Workspace, exports: Sequence[Export]) -> None:
    """Replace the index."""
    write_json(index_file(workspace), {"format": 1, "exports": [asdict(one) for one in exports]})


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder; of champions, of their index alone."""
    if (path / CHAMPIONS_INDEX).is_file():
        path = path / CHAMPIONS_INDEX
    if path.is_file():
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    parts = [f"{file.relative_to(path)} {digest_of(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@contextlib.contextmanager
def _lock(workspace: Workspace) -> Iterator[None]:
    with (workspace.root / ".exports.lock").open("a") as handle:
        end = time.monotonic() + LOCK_SECONDS
        while not try_lock(handle):
            if time.monotonic() > end:
                raise WorkspaceError(
                    "another process holds the index of written files",
                    where=str(index_file(workspace)),
                    hint="wait until it has finished, then run the command again",
                )
            time.sleep(0.02)
        yield
