"""Merge of a fact table (transactions, events, touches): a known row is a duplicate, and a fact is not overwritten.

Only the status of an order line may change; the newer row replaces the known line then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb

from features.data.ingest.columns import cast_columns, column_list, told_columns
from features.data.ingest.contract import StagedTable
from features.data.ingest.order_lines import MONEY, number_lines
from features.data.ingest.status_changes import REPLACED, TURNED, StatusChanges, settle_status
from features.data.lake import quote
from qianmian.schema import Table


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


def merge_fact(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    staged: StagedTable,
    good: str,
    known: str,
    verdicts: str,
) -> MergedFacts:
    """Give a verdict to each valid staged row that is not kept; see `merge`."""
    if table.name != "transactions":
        _compare(connection, table, columns, staged, good, known, verdicts)
        return MergedFacts()
    known_duplicates, further = "", 0
    lines = (
        f"SELECT _row, _file, _negative, {cast_columns(columns, staged.columns)} "
        f"FROM {staged.typed} WHERE _reason IS NULL"
    )
    if "line_no" not in staged.mapped:
        shared = number_lines(connection, columns, staged, lines, known)
        if shared is None:  # lines were numbered within their orders, so no key occurs twice
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {verdicts} (_row BIGINT, verdict VARCHAR)")
            return MergedFacts()
        semi_join = f"SEMI JOIN {shared.differing} USING (source, order_id)"
        known_duplicates, further = shared.duplicates, shared.further
        known = f"SELECT * FROM ({known}) {semi_join}"
        lines = f"SELECT * FROM ({lines}) {semi_join}"
    _compare(connection, table, columns, staged, lines, known, verdicts)
    status = StatusChanges()
    if connection.execute(f"SELECT 1 FROM {verdicts} WHERE verdict = 'conflict' LIMIT 1").fetchone():
        status = settle_status(connection, table, list(columns), staged, lines, known, verdicts)
    if known_duplicates:
        connection.execute(f"INSERT INTO {verdicts} SELECT _row, 'duplicate' FROM ({known_duplicates})")
    return MergedFacts(status, further)


def _compare(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    staged: StagedTable,
    good: str,
    known: str,
    verdicts: str,
) -> None:
    """Compare the rows that have the same key: equal ones are duplicates of the first, others conflict with it."""
    keys, content = column_list(table.key), column_list(told_columns(table, columns, staged.mapped))
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


def changed_rows(columns: Mapping[str, str], good: str, known: str) -> tuple[str, str]:
    """SELECT of the staged and of the lake's rows after the status changes."""
    values = ", ".join(
        f"CASE WHEN t._row IS NULL THEN g.{quote(name)} ELSE t.{quote(name)} END AS {quote(name)}"
        if name in ("line_no", *MONEY)
        else f"g.{quote(name)}"
        for name in columns
    )
    return (
        f"SELECT g._row, {values} FROM ({good}) AS g LEFT JOIN {TURNED} AS t USING (_row)",
        f"SELECT * FROM ({known}) ANTI JOIN {REPLACED} USING (source, order_id, line_no)",
    )
