"""The tags of all customers as one table, written by `qianmian score tags`."""

from __future__ import annotations

import pyarrow as pa

from features.profiles.snapshot import Snapshot
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE


def tags_table(snapshot: Snapshot) -> pa.Table:
    """Return one row per customer with the value of every tag.

    Returns
    -------
    pyarrow.Table
        user_id, user_source, one_id, one column per present tag (null if unknown), as_of, and `TAG_as_of` for each tag
        of a model, which may have computed its values at another moment.
    """
    columns = {name: snapshot.table[name].cast(kind) for name, kind in IDENTITY_COLUMNS}
    for name, values in snapshot.tags.items():
        column = pa.array(values)
        # a tag that is unknown for all customers has no type of its own
        columns[name] = column.cast(pa.string()) if pa.types.is_null(column.type) else column
    n, (as_of, kind) = len(snapshot.one_ids), PROVENANCE[0]
    columns[as_of] = pa.repeat(pa.scalar(snapshot.as_of, kind), n)
    for name, facts in snapshot.tag_facts.items():
        if facts.how == "model" and name in snapshot.tags:
            columns[f"{name}_{as_of}"] = pa.repeat(pa.scalar(facts.as_of, kind), n)
    return pa.table(columns)
