"""Merge of a fact table (transactions, events, touches): a known row is a duplicate, and a fact is not overwritten."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from features.data.ingest.columns import column_list, content_columns
from features.data.ingest.contract import StagedTable
from qianmian.schema import Table


def merge_fact(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    staged: StagedTable,
    good: str,
    known: str,
    verdicts: str,
) -> int:
    keys, content = column_list(table.key), column_list(content_columns(table, columns))
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
