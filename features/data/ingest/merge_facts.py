"""Merge of a fact table (transactions, events, touches): a known row is a duplicate, and a fact is not overwritten.

Only the status of an order line may change; the newer row replaces the known line then, or is a refund beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import duckdb

from features.data.ingest.columns import cast_columns, column_list
from features.data.ingest.logged_rows import told_by_source
from features.data.ingest.merge_rows import MergeRows
from features.data.ingest.order_lines import MONEY, number_lines
from features.data.ingest.status_changes import MOVED, REPLACED, TURNED, StatusChanges, settle_status
from features.data.lake import quote
from features.data.tables import LOGGED


@dataclass(frozen=True)
class MergedFacts:
    """What a merge changes beside the verdicts.

    Attributes
    ----------
    status : StatusChanges
        Order lines whose status changed.
    further : int
        Lines that were added to an order after the first input that holds it.
    """

    status: StatusChanges = field(default_factory=StatusChanges)
    further: int = 0


def merge_fact(connection: duckdb.DuckDBPyConnection, rows: MergeRows) -> MergedFacts:
    """Give a verdict to each valid staged row that is not kept; see `merge`."""
    staged = rows.staged
    known_duplicates, others, further = "", "", 0
    if LOGGED in staged.columns:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE told_rows AS {told_by_source(staged, rows.good, rows.known)}")
        known_duplicates, others = "SELECT _row FROM told_rows", " AND _row NOT IN (SELECT _row FROM told_rows)"
    if rows.table.name != "transactions":
        _compare(connection, replace(rows, good=rows.good + others))
        _add_duplicates(connection, rows, known_duplicates)
        return MergedFacts()
    good = (
        f"SELECT _row, _file, _negative, {cast_columns(rows.columns, staged.columns)} "
        f"FROM {staged.typed} WHERE _reason IS NULL{others}"
    )
    lines = replace(rows, good=good)
    if "line_no" not in staged.mapped:
        shared = number_lines(connection, lines)
        if shared is None:  # lines were numbered within their orders, so no key occurs twice
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {rows.verdicts} (_row BIGINT, verdict VARCHAR)")
            return MergedFacts()
        semi_join = f"SEMI JOIN {shared.differing} USING (source, order_id)"
        known_duplicates, further = shared.duplicates, shared.further
        lines = replace(
            rows, good=f"SELECT * FROM ({good}) {semi_join}", known=f"SELECT * FROM ({rows.known}) {semi_join}"
        )
    _compare(connection, lines)
    status = StatusChanges()
    if connection.execute(f"SELECT 1 FROM {rows.verdicts} WHERE verdict = 'conflict' LIMIT 1").fetchone():
        status = settle_status(connection, lines)
    _add_duplicates(connection, rows, known_duplicates)
    return MergedFacts(status, further)


def _add_duplicates(connection: duckdb.DuckDBPyConnection, rows: MergeRows, duplicates: str) -> None:
    if duplicates:
        connection.execute(f"INSERT INTO {rows.verdicts} SELECT _row, 'duplicate' FROM ({duplicates})")


def _compare(connection: duckdb.DuckDBPyConnection, rows: MergeRows) -> None:
    """Compare the rows that have the same key: equal ones are duplicates of the first, others conflict with it."""
    keys, content = column_list(rows.table.key), column_list(rows.told)
    # Nearly all keys occur once: find the repeated ones by their hash, and compare only those rows.
    clash = f"clash_{rows.table.name}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {clash} AS SELECT key_hash FROM ("
        f"SELECT hash({keys}) AS key_hash FROM ({rows.known}) UNION ALL SELECT hash({keys}) FROM ({rows.good})) "
        "GROUP BY ALL HAVING count(*) > 1"
    )
    compared = " UNION ALL ".join(
        f"SELECT {number} AS _row, {keys}, hash({content}) AS content FROM ({relation}) "
        f"WHERE hash({keys}) IN (SELECT key_hash FROM {clash})"
        for number, relation in (("-1", rows.known), ("_row", rows.good))
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {rows.verdicts} AS "
        "SELECT _row, CASE WHEN content = first_content THEN 'duplicate' ELSE 'conflict' END AS verdict FROM ("
        "SELECT _row, content, first_value(content) OVER of_key AS first_content, row_number() OVER of_key AS nth "
        f"FROM ({compared}) WINDOW of_key AS (PARTITION BY {keys} ORDER BY _row)) WHERE _row >= 0 AND nth > 1"
    )


def changed_rows(rows: MergeRows) -> tuple[str, str]:
    """SELECT of the staged and of the lake's rows after the status changes."""
    values = ", ".join(
        f"CASE WHEN t._row IS NULL THEN g.{quote(name)} ELSE t.{quote(name)} END AS {quote(name)}"
        if name in ("line_no", *MONEY)
        else f"g.{quote(name)}"
        for name in rows.columns
    )
    known = ", ".join(
        f"coalesce(m.number, k.{quote(name)}) AS {quote(name)}" if name == "line_no" else f"k.{quote(name)}"
        for name in rows.columns
    )
    return (
        f"SELECT g._row, {values} FROM ({rows.good}) AS g LEFT JOIN {TURNED} AS t USING (_row)",
        f"SELECT {known} FROM (SELECT * FROM ({rows.known}) ANTI JOIN {REPLACED} USING (source, order_id, line_no)) "
        f"AS k LEFT JOIN {MOVED} AS m USING (source, order_id, line_no)",
    )
