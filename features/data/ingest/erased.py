"""Rows of erased users: they are dropped before anything is written, the quarantine included.

Only tombstones are known of these users, so the tombstone of each user id of the input is computed and looked up.
"""

from __future__ import annotations

import duckdb

from features.data.ingest.contract import StagedTable
from features.data.lake import literal
from features.erasure.sql import tombstone_sql
from features.erasure.tombstones import read_tombstones
from qianmian.schema import ANONYMOUS_ID
from qianmian.workspace import Workspace

TOMBSTONES, HERE = "erased_tombstones", "erased_here"
NO_ID = r"[^\w.@:+-]+"  # between the words of a rejected row that may be user ids


def load_tombstones(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> bool:
    """Make the tombstones of a workspace a table of the connection; return whether there are any."""
    tombstones = sorted(read_tombstones(workspace))
    if tombstones:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {TOMBSTONES} AS SELECT unnest($1) AS tombstone", [tombstones])
    return bool(tombstones)


def drop_erased_rows(connection: duckdb.DuckDBPyConnection, staged: StagedTable) -> int:
    """Delete the rows of erased users from a staged table, valid or not; return their number.

    A sighting of the id of a visitor who was erased names that visitor, so it goes too, whoever's it is.
    """
    if "source_user_id" not in staged.columns:
        return 0
    typed = staged.typed
    users = f"SELECT DISTINCT source, source_user_id FROM {typed} WHERE source_user_id IS NOT NULL"
    condition = f"(source, source_user_id) IN (SELECT * FROM {HERE})"
    if staged.table.name == "identities":
        visitor = "substr(id_value, length(source) + 2)"
        sighted = f"id_type = '{ANONYMOUS_ID}' AND starts_with(id_value, source || ':')"
        users += f" UNION SELECT source, {visitor} FROM {typed} WHERE {sighted}"
        condition += f" OR ({sighted} AND (source, {visitor}) IN (SELECT * FROM {HERE}))"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {HERE} AS SELECT source, source_user_id FROM ({users}) AS u "
        f"WHERE {tombstone_sql('source', 'source_user_id')} IN (SELECT tombstone FROM {TOMBSTONES})"
    )
    return _deleted(connection, f"DELETE FROM {typed} WHERE ({condition}) IS TRUE")


def drop_erased_rejects(
    connection: duckdb.DuckDBPyConnection, rejected: str, staged: StagedTable, source: str
) -> tuple[int, int]:
    """Delete the rejected rows in which any word is the id of an erased user.

    The columns of such a row may be mixed up, or it may not even have been split into columns.

    Returns
    -------
    (int, int)
        Number of deleted rows, and of those of them that were lines without columns.
    """
    told = f" UNION SELECT DISTINCT source FROM {staged.typed}" if "source" in staged.columns else ""
    values = "json_extract_string(CASE WHEN json_valid(row) THEN row END, '$.*')"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {HERE} AS WITH words AS ("
        f"SELECT rowid AS place, unnest(regexp_split_to_array(row, {literal(NO_ID)})) AS word FROM {rejected} "
        f"UNION SELECT rowid, trim(unnest({values})) FROM {rejected}), "
        f"sources AS (SELECT {literal(source)} AS source UNION SELECT DISTINCT source FROM lake_customers{told}) "
        f"SELECT DISTINCT place FROM words, sources WHERE word <> '' AND "
        f"{tombstone_sql('source', 'word')} IN (SELECT tombstone FROM {TOMBSTONES})"
    )
    inside = f"rowid IN (SELECT place FROM {HERE})"
    row = connection.execute(f"SELECT count(*) FROM {rejected} WHERE {inside} AND position IS NULL").fetchone()
    return _deleted(connection, f"DELETE FROM {rejected} WHERE {inside}"), int(row[0]) if row else 0


def _deleted(connection: duckdb.DuckDBPyConnection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0
