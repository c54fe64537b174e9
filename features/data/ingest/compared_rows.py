"""Rows of a dimension compared with the lake by key and content, before the merge looks at their columns one by one.

Nearly all rows are of one of two kinds, for which one hash a row tells all: the key is new, or the lake has this very
row. Only the others (the key occurs several times in the input, or its content differs) are merged column by column,
which takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import duckdb

from features.data.ingest.columns import column_list
from features.data.ingest.contract import StagedTable
from features.data.lake import literal, quote
from features.data.tables import TOLD
from qianmian.schema import Table

NEW, REPEATED, OTHER = "new", "repeated", "other"
CONSENT_PREFIX = "consent_"
SAME_KEY = "IS NOT DISTINCT FROM"  # the key of a sighting without a time contains a null

TELLING = frozenset({"items", "contents", "campaigns"})  # their rows say in `_told` when each column was told last


def told_text(content: Collection[str]) -> str:
    """The names of columns as a line of `_told` has them."""
    return ",".join(sorted(content))


def rows_table(table: Table) -> str:
    """Name of the temp table (_row, kind) of the valid rows of the input."""
    return f"rows_{table.name}"


def compare_rows(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    staged: StagedTable,
    content: Collection[str],
    dated: str | None,
    good: str,
    known: str,
) -> dict[str, int]:
    """Tell the kinds of the valid rows in a temp table, and return the number of rows of each kind.

    Parameters
    ----------
    content : collection of str
        Columns by which two rows with the same key are compared.
    dated : str or None
        Column with the date of a row. A repeated row is not newer than that of the lake.
    good, known : str
        SELECT of the valid rows and of the lake's rows, with the same columns and types.
    """
    name, keys = rows_table(table), column_list(table.key)
    # a row without a consent says nothing about it, so consents are compared one by one
    consents = [column for column in content if column.startswith(CONSENT_PREFIX)]
    plain = column_list(column for column in content if column not in consents) or "0"
    told = "".join(f", {quote(column)}" for column in (*consents, *([dated] if dated else [])))
    if staged.absent:  # a file says nothing about the columns that it lacks
        query = f"SELECT _row, '{OTHER}' AS kind FROM ({good})"
    else:
        several = f"SELECT hash({keys}) AS k FROM ({good}) GROUP BY k HAVING count(*) > 1"
        new = f"SELECT _row, {keys}, hash({keys}) AS _key, hash({plain}) AS _content{told} FROM ({good})"
        cells = f", {TOLD}" if table.name in TELLING else ""
        old = f"SELECT {keys}, hash({plain}) AS _content{told}{cells} FROM ({known})"
        same = ["n._content = l._content"]
        same += [
            f"(n.{quote(column)} IS NULL OR n.{quote(column)} {SAME_KEY} l.{quote(column)})" for column in consents
        ]
        if table.name in TELLING:  # a row that only carried some of its cells, or told others, is merged
            told_all = f"coalesce(l.{quote(dated or '')}::VARCHAR, '') || {literal(f'|{told_text(content)}|')}"
            same.append(f"coalesce(l.{TOLD} = {told_all}, true)")
        if dated:
            same.append(f"(n.{quote(dated)} IS NULL OR coalesce(n.{quote(dated)} <= l.{quote(dated)}, false))")
        joined = " AND ".join(f"n.{quote(key)} {SAME_KEY} l.{quote(key)}" for key in table.key)
        query = (
            f"SELECT n._row, CASE WHEN n._key IN ({several}) THEN '{OTHER}' WHEN l._content IS NULL THEN '{NEW}' "
            f"WHEN {' AND '.join(same)} THEN '{REPEATED}' ELSE '{OTHER}' END AS kind "
            f"FROM ({new}) AS n LEFT JOIN ({old}) AS l ON {joined}"
        )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    counts: Mapping[str, int] = dict(connection.execute(f"SELECT kind, count(*) FROM {name} GROUP BY 1").fetchall())
    return {kind: int(counts.get(kind, 0)) for kind in (NEW, REPEATED, OTHER)}


def of_kind(table: Table, rows: str, kind: str, counts: Mapping[str, int]) -> str:
    """SELECT of those rows of the input that are of one kind."""
    if counts[kind] == sum(counts.values()):
        return rows
    return f"SELECT * FROM ({rows}) SEMI JOIN (SELECT _row FROM {rows_table(table)} WHERE kind = '{kind}') USING (_row)"
