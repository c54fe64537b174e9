"""Merge staged rows with the lake: new, duplicate, superseded or conflicting rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from features.data.ingest.contract import StagedTable
from features.data.lake import quote
from qianmian.schema import TABLES, Table

# In a dimension the newer row replaces the older one with the same key; a fact is never overwritten.
DIMENSIONS = frozenset({"profiles", "identities", "items", "contents", "campaigns"})
CONFLICT_REASON = "same key, different content: another row has this key, and facts are not overwritten"


@dataclass(frozen=True)
class MergedTable:
    """Result of merging a staged table with the lake.

    Attributes
    ----------
    query : str
        SELECT of the complete new content of the table.
    new : str
        SELECT of the kept rows.
    verdicts : str
        Temp table (_row, verdict) of the rows that are not kept: 'duplicate', 'superseded' or 'conflict'.
    kept, duplicates, superseded, conflicts : int
        Number of rows by result.
    updated : int
        Kept rows that replace an older row with the same key.
    """

    query: str
    new: str
    verdicts: str
    kept: int
    duplicates: int
    superseded: int
    conflicts: int
    updated: int


def merge(connection: duckdb.DuckDBPyConnection, staged: StagedTable, lake_columns: Mapping[str, str]) -> MergedTable:
    """Merge the valid rows of `staged` with the view ``lake_<table>``.

    Parameters
    ----------
    lake_columns : mapping of str to str
        Columns of the view: name → SQL type.
    """
    table, verdicts = staged.table, f"verdicts_{staged.table.name}"
    columns = _common_columns(staged.columns, lake_columns)
    good = f"SELECT _row, {_cast_columns(columns, staged.columns)} FROM {staged.typed} WHERE _reason IS NULL"
    known = f"SELECT {_cast_columns(columns, lake_columns)} FROM lake_{table.name}"
    make = _merge_dimension if table.name in DIMENSIONS else _merge_fact
    updated = make(connection, table, columns, staged, good, known, verdicts)
    counts = {
        str(verdict): int(count)
        for verdict, count in connection.execute(f"SELECT verdict, count(*) FROM {verdicts} GROUP BY 1").fetchall()
    }
    total = int(
        (connection.execute(f"SELECT count(*) FROM {staged.typed} WHERE _reason IS NULL").fetchone() or (0,))[0]
    )
    names = ", ".join(quote(name) for name in columns)
    if table.name in DIMENSIONS:
        # IS NOT DISTINCT FROM, because the key of a sighting without a time contains a null
        new = f"SELECT _row, {names} FROM final_{table.name} WHERE _row NOT IN (SELECT _row FROM {verdicts})"
        keys = " AND ".join(f"l.{quote(key)} IS NOT DISTINCT FROM n.{quote(key)}" for key in table.key)
        old = f"SELECT {names} FROM ({known}) AS l WHERE NOT EXISTS (SELECT 1 FROM ({new}) AS n WHERE {keys})"
    else:
        new = f"SELECT * FROM ({good})" + (f" WHERE _row NOT IN (SELECT _row FROM {verdicts})" if counts else "")
        old = f"SELECT {names} FROM ({known})"
    query = f"{old} UNION ALL (SELECT {names} FROM ({new}) ORDER BY _row)"
    return MergedTable(
        query,
        new,
        verdicts,
        kept=total - sum(counts.values()),
        duplicates=counts.get("duplicate", 0),
        superseded=counts.get("superseded", 0),
        conflicts=counts.get("conflict", 0),
        updated=updated,
    )


def _merge_fact(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    staged: StagedTable,
    good: str,
    known: str,
    verdicts: str,
) -> int:
    keys, content = _column_list(table.key), _column_list(columns)
    # Nearly all keys occur once: find the repeated ones by their hash, and compare only those rows.
    clash = f"clash_{table.name}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {clash} AS SELECT key_hash FROM ("
        f"SELECT hash({keys}) AS key_hash FROM ({known}) UNION ALL SELECT hash({keys}) FROM ({good})) "
        "GROUP BY ALL HAVING count(*) > 1"
    )
    rows = " UNION ALL ".join(
        f"SELECT {number} AS _row, {keys}, hash({content}) AS content FROM ({relation}) "
        f"WHERE hash({keys}) IN (SELECT key_hash FROM {clash})"
        for number, relation in (("-1", known), ("_row", good))
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {verdicts} AS "
        "SELECT _row, CASE WHEN content = first_content THEN 'duplicate' ELSE 'conflict' END AS verdict FROM ("
        "SELECT _row, content, first_value(content) OVER of_key AS first_content, row_number() OVER of_key AS nth "
        f"FROM ({rows}) WINDOW of_key AS (PARTITION BY {keys} ORDER BY _row)) WHERE _row >= 0 AND nth > 1"
    )
    return 0


def _merge_dimension(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    staged: StagedTable,
    good: str,
    known: str,
    verdicts: str,
) -> int:
    keys, content = _column_list(table.key), _column_list(columns)
    final = f"final_{table.name}"
    joined = " AND ".join(f"n.{quote(key)} IS NOT DISTINCT FROM l.{quote(key)}" for key in table.key)
    # A column that the new input lacks keeps its older value: two files may each hold a part of one profile.
    mapped_columns = staged.mapped | set(table.key)
    qualified = {name: f"{'n' if name in mapped_columns else 'l'}.{quote(name)}" for name in columns}
    values = ", ".join(f"{value} AS {quote(name)}" for name, value in qualified.items())
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {final} AS "
        f"SELECT n._row AS _row, {values}, l._known IS NOT NULL AS _known, "
        f"l._content IS NOT DISTINCT FROM hash({', '.join(qualified.values())}) AS _same, "
        "n._last = n._row AS _latest, n._hash = n._last_hash AS _repeat FROM ("
        f"SELECT *, hash({content}) AS _hash, max(_row) OVER of_key AS _last, "
        f"arg_max(hash({content}), _row) OVER of_key AS _last_hash "
        f"FROM ({good}) WINDOW of_key AS (PARTITION BY {keys})) AS n "
        f"LEFT JOIN (SELECT *, true AS _known, hash({content}) AS _content FROM ({known})) AS l ON {joined}"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {verdicts} AS "
        "SELECT _row, CASE WHEN _repeat THEN 'duplicate' ELSE 'superseded' END AS verdict "
        f"FROM {final} WHERE NOT _latest UNION ALL SELECT _row, 'duplicate' FROM {final} WHERE _latest AND _same"
    )
    updated = f"SELECT count(*) FROM {final} WHERE _latest AND NOT _same AND _known"
    return int((connection.execute(updated).fetchone() or (0,))[0])


def _column_list(names: Mapping[str, str] | tuple[str, ...]) -> str:
    return ", ".join(quote(name) for name in names)


def _common_columns(new: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Columns of either side with their SQL types; an attribute whose type changed becomes text."""
    return {
        name: new.get(name, sql_type) if known.get(name, sql_type) == new.get(name, sql_type) else "VARCHAR"
        for name, sql_type in {**new, **known}.items()
    }


def _cast_columns(columns: Mapping[str, str], present: Mapping[str, str]) -> str:
    parts = []
    for name, sql_type in columns.items():
        if name not in present:
            parts.append(f"NULL::{sql_type} AS {quote(name)}")
        else:
            parts.append(quote(name) if present[name] == sql_type else f"{quote(name)}::{sql_type} AS {quote(name)}")
    return ", ".join(parts)


def refunds_without_sale(merged: MergedTable) -> str:
    """SQL that counts kept refunds whose customer and item have no paid line, neither in the lake nor in this input."""
    return (
        f"SELECT count(*) FROM ({merged.new}) AS r "
        "WHERE r.status = 'refunded' AND r.source_user_id IS NOT NULL AND NOT EXISTS ("
        f"SELECT 1 FROM ({merged.query}) AS s WHERE s.status = 'paid' AND s.source = r.source "
        "AND s.source_user_id = r.source_user_id AND r.item_id IS NOT DISTINCT FROM s.item_id)"
    )


def flag_queries(staged: StagedTable, merged: MergedTable) -> dict[str, str]:
    """SQL that counts kept rows with an unusual property, by the name of the flag."""
    new, table = f"({merged.new})", TABLES[staged.table.name]
    flags = {
        f"{column.name}_above_{column.maximum:.0f}": f"count(*) FILTER (abs({quote(column.name)}) > {column.maximum})"
        for column in table.columns
        if column.maximum is not None and column.name in staged.mapped
    }
    if table.name in ("transactions", "events"):
        flags["no_customer"] = "count(*) FILTER (source_user_id IS NULL)"
    queries = {name: f"SELECT {count} FROM {new}" for name, count in flags.items()}
    if table.name == "transactions":
        queries["refund_by_sign"] = (
            f"SELECT count(*) FROM {staged.typed} WHERE _signed AND _row IN (SELECT _row FROM {new})"
        )
        queries["refund_without_sale"] = refunds_without_sale(merged)
    return queries
