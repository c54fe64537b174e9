"""`TombstoneHasher`: tombstones of single user ids, for event logs and servers, which meet one at a time."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from features.data.pii_key import KEY_VARIABLE, MIN_KEY_LENGTH, PiiKey, key_file, load_key
from features.erasure.tombstones import DIGITS, DOMAIN
from qianmian.errors import NotReady, UsageError
from qianmian.workspace import Workspace


class TombstoneHasher:
    """Makes the tombstone of a user id with the key of personal data, in 0.9 µs.

    The key is looked for when the first tombstone is made: a server starts long before anybody is erased, and the first
    erasure may be what makes the key.

    Parameters
    ----------
    workspace : Workspace, optional
        Where the key is, unless it is in the environment; a Bento has none.
    """

    def __init__(self, workspace: Workspace | None = None) -> None:
        self._workspace = workspace
        self._hashes: tuple[Any, Any] | None = None  # that have read what is the same for all user ids

    def __call__(self, source: str, source_user_id: str) -> str:
        """The tombstone; see `features.erasure.tombstones.tombstone`.

        Raises
        ------
        NotReady
            There is no key.
        UsageError or WorkspaceError
            It is too short, or not that of the workspace.
        """
        if self._hashes is None:
            key = find_key(self._workspace)
            self._hashes = hashlib.sha256(f"{key.inner}{DOMAIN}\x1f".encode()), hashlib.sha256(key.outer.encode())
        inner, outer = self._hashes[0].copy(), self._hashes[1].copy()
        inner.update(f"{source}\x1f{source_user_id}".encode())
        outer.update(inner.hexdigest().encode())
        found: str = outer.hexdigest()
        return found[:DIGITS]


def find_key(workspace: Workspace | None) -> PiiKey:
    """The key of the environment or of a workspace; none is created.

    Raises
    ------
    NotReady
        There is none.
    UsageError or WorkspaceError
        As `load_key`.
    """
    if workspace is not None and (KEY_VARIABLE in os.environ or key_file(workspace).exists()):
        return load_key(workspace)
    secret = os.environ.get(KEY_VARIABLE)
    if secret is None:
        raise NotReady(
            "users were erased, and the key that recognises them is missing",
            where=KEY_VARIABLE if workspace is None else str(key_file(workspace)),
            hint=f"set {KEY_VARIABLE} to the key of the workspace, or restore its file secrets/pii.key",
        )
    if len(secret) < MIN_KEY_LENGTH:
        raise UsageError(
            "the key for personal data is too short",
            where=KEY_VARIABLE,
            allowed=f"at least {MIN_KEY_LENGTH} characters",
        )
    return PiiKey.of(secret)
