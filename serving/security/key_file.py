"""The file of the API keys: where it is, who may read it, and how it changes.

The process that supervises the workers reads it too, so this module imports little.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from qianmian.errors import NotFound, WorkspaceError
from qianmian.workspace import Workspace, atomic_path, explain_os_errors
from serving.security.keys import ApiKey

FILE_VARIABLE = "QIANMIAN_API_KEYS"  # names another file than that of the workspace
FOLDER, NAME = "secrets", "api_keys.json"
FORMAT = 1
LOOSE = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO  # a group may read it: a mounted secret belongs to root and a group
LOCK_SECONDS = 10.0  # that a change waits for another one

Signature = tuple[int, int, int, int]


@dataclass(frozen=True)
class KeyFile:
    """The API keys of a server, stored without their secrets.

    Attributes
    ----------
    path : Path
    is_named : bool
        Whether `QIANMIAN_API_KEYS` names it, so that it must be there.
    """

    path: Path
    is_named: bool = False

    @classmethod
    def locate(cls, workspace: Workspace | None) -> KeyFile | None:
        """The file that ``QIANMIAN_API_KEYS`` names, else that of the workspace; None without either."""
        if named := os.environ.get(FILE_VARIABLE):
            return cls(Path(named).expanduser().absolute(), is_named=True)
        return None if workspace is None else cls(workspace.root / FOLDER / NAME)

    def signature(self) -> Signature | None:
        """What changes whenever the file or its permissions do; None without a file."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def read(self) -> tuple[ApiKey, ...] | None:
        """Read the keys, also revoked and expired ones; None if there is no file, because no key was ever made.

        Raises
        ------
        WorkspaceError
            If others may read or change the file, if it cannot be read or has another shape, or if it is named and
            missing.
        """
        try:
            with self.path.open(encoding="utf-8") as handle:
                self._check_permissions(stat.S_IMODE(os.fstat(handle.fileno()).st_mode))
                content = json.load(handle)
            return _keys_of(content)
        except FileNotFoundError:
            if not self.is_named:
                return None
            raise WorkspaceError(
                f"the file of API keys that {FILE_VARIABLE} names does not exist",
                where=str(self.path),
                hint="create a key with `qianmian keys create`, or correct the variable",
            ) from None
        except OSError as error:
            raise WorkspaceError(
                f"the file of API keys cannot be read: {os.strerror(error.errno or 0)}",
                where=str(self.path),
                hint="let the user that runs the server read it",
            ) from error
        except (ValueError, RecursionError) as error:  # of JSON too, whose message quotes nothing of the file
            raise WorkspaceError(
                f"the file of API keys is damaged: {error}",
                where=str(self.path),
                hint="restore it, or move it away and create the keys again",
            ) from None

    def add(self, key: ApiKey) -> None:
        """Store a new key; a missing file is made, readable for its owner only."""
        self._change(lambda keys: (*keys, key))

    def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """Revoke a key, and return it; one that is revoked already keeps the moment when it was.

        Raises
        ------
        NotFound
            If there is no such key.
        """
        moment = now.replace(microsecond=0)

        def revoked(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
            if all(key.id != key_id for key in keys):
                raise NotFound(
                    "no API key has this id",
                    where=str(self.path),
                    allowed=", ".join(key.id for key in keys) or None,
                    hint="see `qianmian keys list`",
                )
            return tuple(replace(key, revoked_at=key.revoked_at or moment) if key.id == key_id else key for key in keys)

        return next(key for key in self._change(revoked) if key.id == key_id)

    def _change(self, changed: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> tuple[ApiKey, ...]:
        with self._locked():
            keys = changed(() if self.signature() is None else self.read() or ())
            with atomic_path(self.path) as temporary:
                temporary.touch(mode=0o600)
                content = {"format": FORMAT, "keys": [key.as_dict() for key in keys]}
                temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return keys

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Change the file alone; the folder is made, or that of a workspace closed to others."""
        from features.data.locking import try_lock

        folder = self.path.parent
        with explain_os_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.is_named:
                folder.chmod(0o700)
            lock = os.open(folder / f".{self.path.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        with open(lock, "r+") as handle:
            end = time.monotonic() + LOCK_SECONDS
            while not try_lock(handle):
                if time.monotonic() > end:
                    raise WorkspaceError(
                        "another process is changing the API keys", where=str(self.path), hint="run the command again"
                    )
                time.sleep(0.02)
            yield

    def _check_permissions(self, mode: int) -> None:
        if os.name == "posix" and mode & LOOSE:
            raise WorkspaceError(
                "other users may read or change the file of API keys",
                where=str(self.path),
                got=f"mode {mode:04o}",
                allowed="0600 (or read-only for a group: 0640, 0440)",
                hint=f"chmod 600 {self.path}",
            )


def _keys_of(content: object) -> tuple[ApiKey, ...]:
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("keys"), list):
        raise ValueError(f"it is no object with format {FORMAT} and keys")
    keys = tuple(ApiKey.from_dict(raw) for raw in content["keys"])
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have the same id")
    return keys
