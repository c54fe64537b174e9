"""Interface of identity resolution, the one_id of a record, and the resolver that links no records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import duckdb

# computed from the customer's oldest record, so that the oldest one_id survives a merge
ONE_ID_SQL = "'u' || substr(sha256(source || chr(31) || source_user_id), 1, 16)"
CUSTOMER_COLUMNS = "one_id, source, source_user_id, valid_from, ledger_id"
# a profile that says nothing but consents was made by accepted events; it is dated, by the last of them
_ATTRIBUTES = """concat(*COLUMNS(lambda name: NOT starts_with(name, 'consent_')
    AND name NOT IN ('source', 'source_user_id', 'valid_from')))"""
# a record is valid from its first row; if any of its rows is undated, it is always valid
FIRST_SEEN_SQL = f"""
    WITH seen AS (
        SELECT source, source_user_id, ts FROM transactions
        UNION ALL SELECT source, source_user_id, ts FROM events
        UNION ALL SELECT source, source_user_id, ts FROM touches
        UNION ALL SELECT source, source_user_id,
            CASE WHEN attributes = '' THEN valid_from ELSE registered_at END
        FROM (SELECT source, source_user_id, registered_at, valid_from, {_ATTRIBUTES} AS attributes FROM profiles)
        UNION ALL SELECT source, source_user_id, observed_at FROM identities)
    SELECT source, source_user_id, CASE WHEN count(ts) = count(*) THEN min(ts) END AS first_seen
    FROM seen WHERE source_user_id IS NOT NULL GROUP BY source, source_user_id"""


@dataclass(frozen=True)
class Resolution:
    """Result of an identity resolution that is not yet written.

    Attributes
    ----------
    customers : str
        SELECT with the columns of `features.data.lake.CUSTOMERS`.
    entries : str or None
        SELECT of the new entries of the merge ledger; None if the resolver makes no decisions.
    """

    customers: str
    entries: str | None = None


class Resolver(Protocol):
    """Maps source records to customers."""

    def plan(self, connection: duckdb.DuckDBPyConnection) -> Resolution:
        """Resolve the records of the canonical tables in the views of `connection`; nothing is written."""
        ...


class SingleSourceResolver:
    """Makes one customer per record; `one_id` is a digest of the record key and never changes."""

    def plan(self, connection: duckdb.DuckDBPyConnection) -> Resolution:
        return Resolution(
            f"SELECT {ONE_ID_SQL} AS one_id, source, source_user_id, first_seen AS valid_from, "
            f"NULL::VARCHAR AS ledger_id FROM ({FIRST_SEEN_SQL}) ORDER BY source, source_user_id"
        )
