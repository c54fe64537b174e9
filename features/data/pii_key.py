"""The key that hashes personal data of a workspace: in the environment, or in a file that only its owner reads."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shlex import quote

from qianmian.errors import UsageError, WorkspaceError
from qianmian.private_files import is_open, make_private_folder
from qianmian.workspace import Workspace, atomic_path, write_json

logger = logging.getLogger(__name__)

KEY_VARIABLE = "QIANMIAN_PII_KEY"
MIN_KEY_LENGTH = 16


@dataclass(frozen=True)
class PiiKey:
    """Key of one workspace for hashing personal data; its `repr` shows only the fingerprint."""

    inner: str
    outer: str
    fingerprint: str

    def __repr__(self) -> str:
        return f"PiiKey(fingerprint={self.fingerprint})"

    @classmethod
    def of(cls, secret: str) -> PiiKey:
        inner, outer, fingerprint = (
            hashlib.sha256((part + secret).encode()).hexdigest() for part in ("inner", "outer", "fingerprint")
        )
        return cls(inner, outer, fingerprint[:16])


def key_file(workspace: Workspace) -> Path:
    return workspace.secrets / "pii.key"


def fingerprint_file(workspace: Workspace) -> Path:
    return workspace.root / "identity" / "key.json"


def load_key(workspace: Workspace) -> PiiKey:
    """Load the key from ``QIANMIAN_PII_KEY`` or from the workspace; without either, create one.

    A created key file is readable by its owner only; the log says how to mend one that others can read.

    Raises
    ------
    UsageError
        If the key in the environment variable is too short.
    WorkspaceError
        If the data of the lake was hashed with another key, or its key is missing: new hashes would not match the
        existing ones.
    """
    expected = None
    if fingerprint_file(workspace).exists():
        try:
            expected = str(json.loads(fingerprint_file(workspace).read_text(encoding="utf-8"))["fingerprint"])
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                "the fingerprint of the key for personal data cannot be read",
                where=str(fingerprint_file(workspace)),
                hint="restore the file, or delete it if you are certain that the key has not changed",
            ) from error
    from_environment, file = os.environ.get(KEY_VARIABLE), key_file(workspace)
    if from_environment is not None and len(from_environment) < MIN_KEY_LENGTH:
        raise UsageError(
            "the key for personal data is too short",
            where=KEY_VARIABLE,
            got=f"{len(from_environment)} characters",
            allowed=f"at least {MIN_KEY_LENGTH}",
            hint=f"set {KEY_VARIABLE} to a long random text, or unset it to use the key file of the workspace",
        )
    if from_environment is None and not file.exists() and expected is None:
        for folder in (workspace.root, workspace.secrets):
            make_private_folder(folder)
        with atomic_path(file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32), encoding="utf-8")
    if from_environment is None and is_open(file):
        _warn_open(file)
    secret = from_environment or (file.read_text(encoding="utf-8").strip() if file.exists() else "")
    key = PiiKey.of(secret)
    if expected is not None and key.fingerprint != expected:
        raise WorkspaceError(
            "personal data in this workspace was hashed with another key"
            if secret
            else "the key for personal data is missing",
            where=KEY_VARIABLE if from_environment else str(file),
            got=f"a key with fingerprint {key.fingerprint}" if secret else "no key",
            allowed=expected,
            hint=f"restore the previous key (in {KEY_VARIABLE} or {file}); "
            "to use a new key, ingest all data into a new workspace",
        )
    return key


@cache
def _warn_open(file: Path) -> None:
    """Say once that others can read the key."""
    logger.warning("other users of this machine can read the key for personal data: chmod 600 %s", quote(str(file)))


def save_key_fingerprint(workspace: Workspace, key: PiiKey) -> None:
    """Store the fingerprint of the key of the lake's hashes; `load_key` rejects any other key from then on."""
    if not fingerprint_file(workspace).exists():
        write_json(fingerprint_file(workspace), {"fingerprint": key.fingerprint})
