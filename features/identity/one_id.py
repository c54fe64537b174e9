"""The identity interface, and its first implementation: one customer per (source, source_user_id)."""

from __future__ import annotations

from typing import Protocol, cast

import duckdb

from features.lake import Lake, TableState

ONE_ID_SQL = "'u' || substr(sha256(source || chr(31) || source_user_id), 1, 16)"


class Resolver(Protocol):
    """Maps source records to customers."""

    def query(self, lake: Lake) -> str:
        """A SELECT with the columns of `features.lake.CUSTOMERS`, over the lake's views."""
        ...


class SingleSourceResolver:
    """One customer per (source, source_user_id); `one_id` is a digest of the two, so it never changes between builds."""

    def query(self, lake: Lake) -> str:
        # a record exists from the first thing known of it; one of which anything undated is known exists always, whatever comes later
        return f"""
            WITH seen AS (
                SELECT source, source_user_id, ts FROM transactions
                UNION ALL SELECT source, source_user_id, ts FROM events
                UNION ALL SELECT source, source_user_id, ts FROM touches
                UNION ALL SELECT source, source_user_id, registered_at FROM profiles
                UNION ALL SELECT source, source_user_id, observed_at FROM identities)
            SELECT {ONE_ID_SQL} AS one_id, source, source_user_id, CASE WHEN count(ts) = count(*) THEN min(ts) END AS valid_from,
                   NULL::VARCHAR AS ledger_id
            FROM seen WHERE source_user_id IS NOT NULL GROUP BY source, source_user_id ORDER BY source, source_user_id"""


def resolve(lake: Lake, resolver: Resolver | None = None) -> TableState:
    """Rebuild the `customers` table of the lake and return its state."""
    connection = cast(duckdb.DuckDBPyConnection, lake.connect().con)
    return lake.commit(connection, {"customers": (resolver or SingleSourceResolver()).query(lake)})["customers"]
