"""The customer of each linked record over time."""

from __future__ import annotations

import numpy as np

from features.data.identity.components import RecordClusters
from features.data.identity.links import NO_RECORD, Codes, Ints


def periods(clusters: RecordClusters, first_seen: Ints) -> tuple[Codes, Codes, Ints, Codes]:
    """Rows of the table `customers` for linked records: the customer of each record over time.

    A row that another row replaces at the same moment is left out. So is the row of a record as its own customer, if
    the record was linked when it was first seen.

    Parameters
    ----------
    first_seen : int64 array, shape (n,)
        Time at which each record was first seen, in µs or `UNDATED`.

    Returns
    -------
    record, owner : int32 array, shape (k,)
        Record, and oldest record of its customer from that time on.
    valid_from : int64 array, shape (k,)
        Start of the period, in µs or `UNDATED`.
    link : int32 array, shape (k,)
        Link that assigned the record, or `NO_RECORD` if the record is its own customer.
    """
    merged_into, merged_at, merged_by = clusters.merged_into, clusters.merged_at, clusters.merged_by
    joined = np.flatnonzero(merged_into != NO_RECORD).astype(np.int32)
    alone = np.flatnonzero((merged_into == NO_RECORD) | (merged_at > first_seen)).astype(np.int32)
    rows = [(alone, alone, first_seen[alone], np.full(len(alone), NO_RECORD, dtype=np.int32))]
    record, current = joined, joined
    while len(record):
        above = merged_into[current]
        ends = merged_into[above] == NO_RECORD
        lasting = ends | (merged_at[above] > merged_at[current])
        rows.append((record[lasting], above[lasting], merged_at[current[lasting]], merged_by[current[lasting]]))
        record, current = record[~ends], above[~ends]
    record, owner, valid_from, link = (np.concatenate(column) for column in zip(*rows, strict=True))
    return record, owner, valid_from, link
