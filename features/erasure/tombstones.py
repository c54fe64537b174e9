"""Tombstones: keyed hashes of the user ids that were erased, so that they can be recognised but not read.

They are in ``erasures/tombstones.txt`` of the workspace, outside the lake, so that a lake that is deleted and ingested
again has none of these users. A tombstone is the hash of `features.data.privacy` in a domain of its own, over the
source, the unit separator and the user id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from features.data.pii_key import PiiKey
from features.erasure.customer import User
from qianmian.workspace import Workspace, atomic_path

DOMAIN = "erased"
DIGITS = 32  # of the hash, in hex


def tombstone(key: PiiKey, source: str, source_user_id: str) -> str:
    """The tombstone of one user id, 32 hex digits.

    Examples
    --------
    >>> tombstone(PiiKey.of("a key of the workspace"), "shop", "u-17")
    'ab9deb78163e35fe76ed117d62b12930'
    """
    text = f"{key.inner}{DOMAIN}\x1f{source}\x1f{source_user_id}"
    inner = hashlib.sha256(text.encode()).hexdigest()
    return hashlib.sha256((key.outer + inner).encode()).hexdigest()[:DIGITS]


def tombstone_file(workspace: Workspace) -> Path:
    """The file of all tombstones, one a line."""
    return workspace.root / "erasures" / "tombstones.txt"


def read_tombstones(workspace: Workspace) -> frozenset[str]:
    """All tombstones of a workspace; none if nobody was erased."""
    file = tombstone_file(workspace)
    return frozenset(file.read_text(encoding="utf-8").split()) if file.exists() else frozenset()


def add_tombstones(workspace: Workspace, key: PiiKey, users: Iterable[User]) -> frozenset[str]:
    """Write the tombstones of some users; returns when they are durable, with all tombstones."""
    known = read_tombstones(workspace)
    found = known | {tombstone(key, *user) for user in users}
    if found != known:
        with atomic_path(tombstone_file(workspace)) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text("".join(f"{one}\n" for one in sorted(found)), encoding="utf-8")
    return found
