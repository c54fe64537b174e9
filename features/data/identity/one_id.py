"""The identity interface: what a resolver answers, the one_id of a record, and the resolver that links nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import duckdb

# of the customer's oldest record, so that the oldest known one_id survives a merge
ONE_ID_SQL = "'u' || substr(sha256(source || chr(31) || source_user_id), 1, 16)"
CUSTOMER_COLUMNS = "one_id, source, source_user_id, valid_from, ledger_id"
# a record exists from the first thing known of it; one of which anything undated is known exists always, whatever comes later
FIRST_SEEN_SQL = """
    WITH seen AS (
        SELECT source, source_user_id, ts FROM transactions
        UNION ALL SELECT source, source_user_id, ts FROM events
        UNION ALL SELECT source, source_user_id, ts FROM touches
        UNION ALL SELECT source, source_user_id, registered_at FROM profiles
        UNION ALL SELECT source, source_user_id, observed_at FROM identities)
    SELECT source, source_user_id, CASE WHEN count(ts) = count(*) THEN min(ts) END AS first_seen
    FROM seen WHERE source_user_id IS NOT NULL GROUP BY source, source_user_id"""


@dataclass(frozen=True)
class Resolution:
    """Who is who, worked out and not yet written.

    Attributes
    ----------
    customers : str
        A SELECT with the columns of `features.data.lake.CUSTOMERS`.
    entries : str or None
        A SELECT of what the merge ledger has to learn; None where nothing was decided.
    """

    customers: str
    entries: str | None = None


class Resolver(Protocol):
    """Maps source records to customers."""

    def plan(self, connection: duckdb.DuckDBPyConnection) -> Resolution:
        """The customers of the canonical tables that `connection` has views of; nothing is written."""
        ...


class SingleSourceResolver:
    """One customer per (source, source_user_id); `one_id` is a digest of the two, so it never changes between builds."""

    def plan(self, connection: duckdb.DuckDBPyConnection) -> Resolution:
        return Resolution(
            f"SELECT {ONE_ID_SQL} AS one_id, source, source_user_id, first_seen AS valid_from, NULL::VARCHAR AS ledger_id "
            f"FROM ({FIRST_SEEN_SQL}) ORDER BY source, source_user_id"
        )
