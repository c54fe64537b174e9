"""The lifecycle stage of each customer in the profiles that were published before: what has moved since.

It is the one tag that does not follow from the lake alone. A build of the same date as the published profiles keeps
their previous stages; of an earlier date, nothing is known of what was published before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from features.profiles.snapshot import Snapshot, load_current
from qianmian.errors import ArtifactError, WorkspaceError
from qianmian.workspace import Workspace

STAGE, PREVIOUS = "lifecycle_stage", "previous_lifecycle_stage"  # names of tags
SOURCE_PREFIX = "profiles of "  # of the source of the tag, before the date of those profiles


def previous_stages(workspace: Workspace, table: pa.Table, as_of: datetime) -> tuple[pa.Array, str] | None:
    """The previous stage of each row of `table`, null for customers who were unknown, and where it comes from.

    Parameters
    ----------
    workspace : Workspace
    table : pyarrow.Table
        Table of a profile build at `as_of`.
    as_of : datetime
        Naive UTC.

    Returns
    -------
    tuple or None
        n texts, and the source of the tag. None if no profiles of an earlier date were published.
    """
    try:
        published = load_current(workspace)
    except (WorkspaceError, ArtifactError):  # none yet, or none that can be read, which are built anew
        return None
    if published.as_of == as_of and PREVIOUS in published.tag_facts:
        name, source = PREVIOUS, published.tag_facts[PREVIOUS].source
    else:
        name, source = STAGE, f"{SOURCE_PREFIX}{published.as_of.isoformat()}"
    if name not in published.tags or (name == STAGE and published.as_of >= as_of):
        return None
    stages = dict(zip(published.one_ids, published.tags[name], strict=True))
    return pa.array([stages.get(one_id) for one_id in table["one_id"].to_pylist()], pa.string()), source


@dataclass(frozen=True)
class StageMoves:
    """How many customers went from one lifecycle stage to another.

    Attributes
    ----------
    previous_as_of : datetime
        `as_of` of the profiles before, naive UTC.
    moves : dict of (str, str) to int
        (stage before, stage now) → customers who moved, the most frequent first.
    stayed : int
        Customers whose stage is the same.
    """

    previous_as_of: datetime
    moves: dict[tuple[str, str], int]
    stayed: int


def stage_moves(snapshot: Snapshot) -> StageMoves | None:
    """What moved since the profiles before; None if none were published, or there are no stages."""
    facts = snapshot.tag_facts.get(PREVIOUS)
    if facts is None or STAGE not in snapshot.tags:
        return None
    pairs = Counter(
        (str(before), str(now))
        for before, now in zip(snapshot.tags[PREVIOUS], snapshot.tags[STAGE], strict=True)
        if before is not None and now is not None
    )
    moved = sorted(((pair, n) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda move: (-move[1], move[0]))
    previous_as_of = datetime.fromisoformat(facts.source.removeprefix(SOURCE_PREFIX))
    return StageMoves(previous_as_of, dict(moved), pairs.total() - sum(n for _, n in moved))
