"""List the users of a restored workspace who were erased before, as `SOURCE<tab>USER_ID`, to be erased again.

    python deploy/erased_again.py WORKSPACE

A backup holds customers who were erased after it was made. Their tombstones, which are restored last and from the
newest copy (docs/operations.md), say which of the user ids of the lake these are. The key of personal data is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from features.data.lake import Lake  # noqa: E402
from features.data.pii_key import load_key  # noqa: E402
from features.erasure.tombstones import read_tombstones, tombstone  # noqa: E402
from qianmian.workspace import Workspace  # noqa: E402


def erased_again(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """The users, each (source, user_id), of the lake who have a tombstone."""
    tombstones = read_tombstones(workspace)
    if not tombstones:
        return
    key = load_key(workspace)
    query = "SELECT DISTINCT source, source_user_id FROM customers ORDER BY ALL"
    for source, user_id in Lake(workspace.require()).connect().con.execute(query).fetchall():
        if tombstone(key, source, user_id) in tombstones:
            yield source, user_id


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/erased_again.py WORKSPACE")
    for source, user_id in erased_again(Workspace.locate(sys.argv[1])):
        print(f"{source}\t{user_id}")
