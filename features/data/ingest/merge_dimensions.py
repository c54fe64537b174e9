"""Merge of a dimension table: a newer row replaces the older row with the same key."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from features.data.ingest.columns import column_list, content_columns
from features.data.ingest.contract import StagedTable
from features.data.lake import quote
from qianmian.schema import Table


def merge_dimension(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    staged: StagedTable,
    good: str,
    known: str,
    verdicts: str,
) -> int:
    keys, content = column_list(table.key), column_list(content_columns(table, columns))
    final = f"final_{table.name}"
    joined = " AND ".join(f"n.{quote(key)} IS NOT DISTINCT FROM l.{quote(key)}" for key in table.key)
    # A column that the new input lacks keeps its older value: two files may each hold a part of one profile.
    mapped_columns = staged.mapped | set(table.key)
    qualified = {name: f"{'n' if name in mapped_columns else 'l'}.{quote(name)}" for name in columns}
    compared = ", ".join(qualified[name] for name in content_columns(table, columns))
    for column in table.columns:
        if column.derived:  # the first source that described a row stays its source
            qualified[column.name] = f"coalesce(l.{quote(column.name)}, n.{quote(column.name)})"
    values = ", ".join(f"{value} AS {quote(name)}" for name, value in qualified.items())
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {final} AS "
        f"SELECT n._row AS _row, {values}, l._known IS NOT NULL AS _known, "
        f"l._content IS NOT DISTINCT FROM hash({compared}) AS _same, "
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
