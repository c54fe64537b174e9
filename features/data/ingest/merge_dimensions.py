"""Merge of a dimension table: a newer row replaces the older row with the same key, column by column.

All that is known of a key is put in order: the row of the lake and the rows of the input, by their date, then by their
order. The value of a column is the last one that a row told. A row tells a column if its file has it, whatever the
cell holds; it tells a consent only if the cell is filled, so that silence neither gives nor withdraws one.

Rows with a new key, and rows that the lake has already, need none of this (`features.data.ingest.compared_rows`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import duckdb

from features.data.ingest.columns import column_list, content_columns
from features.data.ingest.compared_rows import (
    CONSENT_PREFIX,
    NEW,
    OTHER,
    REPEATED,
    SAME_KEY,
    compare_rows,
    of_kind,
    rows_table,
)
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge_rows import MergeRows
from features.data.lake import literal, quote


def merge_dimension(connection: duckdb.DuckDBPyConnection, rows: MergeRows, now: datetime | None) -> int:
    """Create the temp tables `verdicts` and ``final_<table>``, and return the number of keys whose row is replaced.

    ``final_<table>`` has one row per key of the input, without the keys of repeated rows: the columns of the table
    after the merge, `_row` (the newest row of the input), `_known` (the lake had the key), `_same` (the content is that
    of the lake) and `_written` (the row differs from that of the lake, maybe only in its date).
    """
    table, staged, good, known = rows.table, rows.staged, rows.good, rows.known
    dated = next((column.name for column in table.columns if column.dates_row), None)
    # a column that the input does not map keeps its value
    content = [name for name in content_columns(table, rows.columns) if name in staged.mapped and name not in table.key]
    derived = [column.name for column in table.columns if column.derived]
    final = f"final_{table.name}"
    counts = compare_rows(connection, table, staged, content, dated, good, known)
    of_input = {*table.key, *content, *derived, *([dated] if dated else [])}
    values = ", ".join(
        f"{quote(name) if name in of_input else f'NULL::{kind}'} AS {quote(name)}"
        for name, kind in rows.columns.items()
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {final} AS SELECT _row, {values}, false AS _known, false AS _same, "
        f"true AS _written FROM ({of_kind(table, good, NEW, counts)})"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {rows.verdicts} AS "
        f"SELECT _row, 'duplicate' AS verdict FROM {rows_table(table)} WHERE kind = '{REPEATED}'"
    )
    if not counts[OTHER]:
        return 0
    others = replace(rows, good=of_kind(table, good, OTHER, counts))
    return _merge_columns(connection, others, now, content, derived, dated)


def _merge_columns(
    connection: duckdb.DuckDBPyConnection,
    rows: MergeRows,
    now: datetime | None,
    content: list[str],
    derived: list[str],
    dated: str | None,
) -> int:
    """Merge the rows `good` column by column into ``final_<table>`` and `verdicts`; see `merge_dimension`."""
    table, staged, good, known = rows.table, rows.staged, rows.good, rows.known
    keys, observed, final = column_list(table.key), f"observed_{table.name}", f"final_{table.name}"
    date = quote(dated) if dated else "NULL::TIMESTAMP"
    history = connection.execute("DESCRIBE lake_profile_history").fetchall() if table.name == "profiles" else []
    in_history = [name for name, *_ in history if name in content and name.startswith(CONSENT_PREFIX)]
    if staged.absent and staged.file_column is not None:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {files_table(staged)} AS "
            f"SELECT rowid AS _row, {quote(staged.file_column)}::VARCHAR AS _file FROM {staged.raw}"
        )
    of_lake = lake_observations(rows, content, date, in_history)
    told = "".join(f", {box(name, condition)} AS {quote(name)}" for name, condition in told_columns(staged, content))
    carried = "".join(f", {quote(name)}" for name in derived)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {observed} AS "
        f"SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY _moment, _row) AS _place FROM ("
        f"SELECT _row, {keys}, {date} AS _date, {moment_of_rows(date, now)} AS _moment{carried}{told} "
        f"FROM ({with_files(staged, good)}) UNION ALL {of_lake})"
    )
    last = "".join(f", (arg_max({quote(name)}, _place)).v AS {quote(name)}" for name in content)
    # the first source that described a row stays its source
    first = "".join(f", arg_min({quote(name)}, _row) AS {quote(name)}" for name in derived)
    newest = (
        f"SELECT {keys}, arg_max(_row, _place) FILTER (_row >= 0) AS _row, max(_date) AS _date, "
        f"arg_max(_date IS NOT NULL, _place) FILTER (_row >= 0) AS _dated{last}{first} FROM {observed} GROUP BY ALL"
    )
    joined = " AND ".join(f"n.{quote(key)} {SAME_KEY} l.{quote(key)}" for key in table.key)
    of_input = {*table.key, *content, *derived}
    values = {name: f"{'n' if name in of_input else 'l'}.{quote(name)}" for name in rows.columns}
    for name in content:
        if name.startswith(CONSENT_PREFIX):
            # a dated row does not give back the consent that was withdrawn at an unknown date
            unknown = f"l._moment = '-infinity' AND n._dated AND l.{quote(name)} = false"
            values[name] = f"CASE WHEN {unknown} THEN false ELSE n.{quote(name)} END"
    if dated:
        values[dated] = "n._date"
    same = " AND ".join([f"{values[name]} {SAME_KEY} l.{quote(name)}" for name in content] or ["true"])
    made = ", ".join(f"{value} AS {quote(name)}" for name, value in values.items())
    lake_row = f"SELECT k.*, o._moment FROM ({known}) AS k JOIN {observed} AS o ON o._row = -1 AND " + " AND ".join(
        f"k.{quote(key)} {SAME_KEY} o.{quote(key)}" for key in table.key
    )
    still = f" AND n._date {SAME_KEY} l.{quote(dated)}" if dated else ""
    connection.execute(
        f"INSERT INTO {final} SELECT n._row, {made}, l._moment IS NOT NULL AS _known, "
        f"l._moment IS NOT NULL AND {same} AS _same, NOT (l._moment IS NOT NULL AND {same}{still}) AS _written "
        f"FROM ({newest}) AS n LEFT JOIN ({lake_row}) AS l ON {joined}"
    )
    of_final = " AND ".join(f"o.{quote(key)} {SAME_KEY} f.{quote(key)}" for key in table.key)
    agrees = " AND ".join(
        [f"(o.{quote(name)} IS NULL OR (o.{quote(name)}).v {SAME_KEY} f.{quote(name)})" for name in content] or ["true"]
    )
    connection.execute(
        f"INSERT INTO {rows.verdicts} "
        f"SELECT o._row, CASE WHEN {agrees} THEN 'duplicate' ELSE 'superseded' END AS verdict "
        f"FROM {observed} AS o JOIN {final} AS f ON {of_final} WHERE o._row >= 0 AND (f._same OR o._row <> f._row)"
    )
    updated = f"SELECT count(*) FROM {final} WHERE NOT _same AND _known"
    return int((connection.execute(updated).fetchone() or (0,))[0])


def box(name: str, told: str) -> str:
    """SQL of a value in a struct, null where the row does not tell the column: it tells a null from no value."""
    return f"CASE WHEN {told} THEN struct_pack(v := {quote(name)}) END"


def told_columns(staged: StagedTable, content: list[str]) -> list[tuple[str, str]]:
    """Each column with the SQL condition of the input rows that tell it."""
    conditions = []
    for name in content:
        condition = "true" if name in staged.mapped else "false"
        without = [file for file, absent in staged.absent.items() if name in absent]
        if without and name in staged.mapped:
            condition = f"coalesce(_file NOT IN ({', '.join(literal(file) for file in without)}), true)"
        if name.startswith(CONSENT_PREFIX):
            condition += f" AND {quote(name)} IS NOT NULL"
        conditions.append((name, condition))
    return conditions


def with_files(staged: StagedTable, good: str) -> str:
    """SELECT of the valid rows with the file of each in `_file`, if some files lack a column."""
    if not staged.absent or staged.file_column is None:
        return good
    return f"SELECT g.*, f._file FROM ({good}) AS g JOIN {files_table(staged)} AS f USING (_row)"


def files_table(staged: StagedTable) -> str:
    """Name of the temp table with the file of each row, which outlives the raw rows."""
    return f"files_{staged.table.name}"


def moment_of_rows(date: str, now: datetime | None) -> str:
    """SQL of the moment of an input row: its own date, else that of the ingest, after all others if unknown."""
    ingest = f"TIMESTAMP {literal(now.isoformat(sep=' '))}" if now else "'infinity'::TIMESTAMP"
    return f"coalesce({date}, {ingest})"


def lake_observations(rows: MergeRows, content: list[str], date: str, in_history: list[str]) -> str:
    """SELECT of the lake's rows with a key of the input, as observations before those of the same moment.

    A null of the lake tells that there is no value only if the lake has the column at all for that source; else an
    older file that comes in later would lose what only it tells. The consents of a profile are observations of their
    own, at the moment of their last change: rows that were silent about them came later.

    Parameters
    ----------
    in_history : list of str
        Consents that the profile history has.
    """
    table = rows.table
    keys = column_list(table.key)
    source = ", source" if "source" in table.key else ""
    same_source = f"ON k.source {SAME_KEY} t.source" if source else "ON true"
    counts = "".join(f", count({quote(name)}) > 0 AS {quote(name)}" for name in content)
    told = f"SELECT true AS _any{source}{counts} FROM ({rows.known}) GROUP BY ALL"
    row_date = f"k.{date}" if date.startswith('"') else date
    moment, history = f"coalesce({row_date}, '-infinity'::TIMESTAMP)", ""
    if table.name == "profiles":
        # a profile without a date is as old as the last change of its history
        moment = f"coalesce(greatest({row_date}, h._seen), '-infinity'::TIMESTAMP)"
        history = (
            f" LEFT JOIN ({_changes(in_history)}) AS h ON k.source = h.source AND k.source_user_id = h.source_user_id"
        )
    same_key = " AND ".join(f"k.{quote(key)} {SAME_KEY} n.{quote(key)}" for key in table.key)
    related = (
        f"FROM ({rows.known}) AS k LEFT JOIN ({told}) AS t {same_source}{history} "
        f"WHERE EXISTS (SELECT 1 FROM (SELECT {keys} FROM ({rows.good})) AS n WHERE {same_key})"
    )
    shown_keys = ", ".join(f"k.{quote(key)}" for key in table.key)
    carried = [f"k.{quote(column.name)}" for column in table.columns if column.derived]
    never = {name: f"NULL::STRUCT(v {rows.columns[name]})" for name in content}
    boxes = {
        name: f"CASE WHEN k.{quote(name)} IS NOT NULL OR t.{quote(name)} THEN struct_pack(v := k.{quote(name)}) END"
        for name in content
        if name not in in_history
    }
    parts = [", ".join(["SELECT -1", shown_keys, row_date, moment, *carried, *{**never, **boxes}.values()])]
    for name in in_history:
        value = f"CASE WHEN k.{quote(name)} IS NOT NULL THEN struct_pack(v := k.{quote(name)}) END"
        changed_at = f"coalesce(h.{quote(name)}, {moment})"
        parts.append(
            ", ".join(["SELECT -2", shown_keys, row_date, changed_at, *carried, *{**never, name: value}.values()])
        )
    return " UNION ALL ".join(f"{part} {related}" for part in parts)


def _changes(consents: list[str]) -> str:
    """SELECT of each record's last moment in the profile history, and of the last change of each consent."""
    before = "".join(f", lag({quote(name)}) OVER in_order AS {quote('_' + name)}" for name in consents)
    changed_at = "".join(
        f", max(valid_from) FILTER ({quote(name)} IS DISTINCT FROM {quote('_' + name)}) AS {quote(name)}"
        for name in consents
    )
    rows = (
        f"SELECT *{before} FROM lake_profile_history WHERE valid_from IS NOT NULL "
        "WINDOW in_order AS (PARTITION BY source, source_user_id ORDER BY valid_from)"
    )
    return f"SELECT source, source_user_id, max(last_seen) AS _seen{changed_at} FROM ({rows}) GROUP BY ALL"
