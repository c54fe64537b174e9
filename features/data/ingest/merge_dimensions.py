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
    TELLING,
    compare_rows,
    of_kind,
    rows_table,
    told_text,
)
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge_rows import MergeRows
from features.data.ingest.observations import (
    KNOWN_HISTORY,
    NEW_LINE,
    box,
    fixed_attributes,
    forget_unaware_consents,
    lines_of_moments,
    moment_of_rows,
    observations_of_lake,
    place,
    repeated_undated,
    store_known_history,
    told_columns,
)
from features.data.lake import literal, quote
from features.data.tables import TOLD


def merge_dimension(connection: duckdb.DuckDBPyConnection, rows: MergeRows, now: datetime | None) -> int:
    """Create the temp tables `verdicts` and ``final_<table>``, and return the number of keys whose row is replaced.

    ``final_<table>`` has one row per key of the input, without the keys of repeated rows: the columns of the table
    after the merge, `_row` (the newest row of the input), `_known` (the lake had the key), `_same` (the content is that
    of the lake) and `_written` (the row differs from that of the lake, maybe only in its date).
    """
    table, columns, staged, good = rows.table, rows.columns, rows.staged, rows.good
    dated = next((column.name for column in table.columns if column.dates_row), None)
    # a column that the input does not map keeps its value
    content = [name for name in content_columns(table, columns) if name in staged.mapped and name not in table.key]
    derived = [column.name for column in table.columns if column.derived]
    final = f"final_{table.name}"
    if table.name == "profiles":
        store_known_history(connection)
    counts = compare_rows(connection, table, staged, content, dated, good, rows.known)
    of_input = {*table.key, *content, *derived, *([dated] if dated else [])}
    made = {name: quote(name) if name in of_input else f"NULL::{kind}" for name, kind in columns.items()}
    if table.name in TELLING:
        made[TOLD] = f"coalesce({quote(dated or '')}::VARCHAR, '') || {literal(f'|{told_text(content)}|')}"
    values = ", ".join(f"{value} AS {quote(name)}" for name, value in made.items())
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
    table, columns, staged, good, known = rows.table, rows.columns, rows.staged, rows.good, rows.known
    keys, observed, final = column_list(table.key), f"observed_{table.name}", f"final_{table.name}"
    date = quote(dated) if dated else "NULL::TIMESTAMP"
    if staged.absent and staged.file_column is not None:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {files_table(staged)} AS "
            f"SELECT rowid AS _row, {quote(staged.file_column)}::VARCHAR AS _file FROM {staged.raw}"
        )
    mapped = content
    if table.name in TELLING:  # what other inputs told stays told
        content = [name for name in content_columns(table, columns) if name not in (*table.key, TOLD)]
    of_lake = lake_observations(connection, rows, content, date)
    told = "".join(f", {box(name, condition)} AS {quote(name)}" for name, condition in told_columns(staged, content))
    carried = "".join(f", {quote(name)}" for name in derived)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {observed} AS "
        f"SELECT _row, {keys}, {date} AS _date, {moment_of_rows(date, now)} AS _moment{carried}{told} "
        f"FROM ({with_files(staged, good)}) UNION ALL {of_lake}"
    )
    fixed = fixed_attributes(staged) if table.name == "profiles" else set()
    consents = [name for name in content if name.startswith(CONSENT_PREFIX)]
    if table.name == "profiles":
        changing_consents = [name for name in consents if name not in fixed]
        # the row of the lake is at no moment of its own if the history tells its values
        forget_unaware_consents(
            connection,
            observed,
            changing_consents,
            "_date IS NULL AND _row <> -1",
            "_date IS NOT NULL AND isfinite(_moment)",
        )
    given = f"SELECT count(*) FROM {observed} WHERE _row >= 0 AND _date IS NULL"
    if table.name == "profiles" and (connection.execute(given).fetchone() or (0,))[0]:
        changing = [name for name in content if name not in fixed]
        undated = f"SELECT *, _date IS NULL AS _undated FROM {observed} WHERE _row"
        again = repeated_undated(f"{undated} >= 0", f"{undated} = -2", changing)
        connection.execute(
            f"UPDATE {observed} SET _moment = '-infinity' WHERE _row >= 0 AND _date IS NULL AND ({keys}) IN ({again})"
        )
    # a fixed attribute has no moment without a date: a dated row is newer
    of_fixed = "CASE WHEN _row <> -1 AND _date IS NULL THEN '-infinity'::TIMESTAMP ELSE _moment END"
    last = "".join(
        f", (arg_max({quote(name)}, {'_fixed_place' if name in fixed else '_place'})).v AS {quote(name)}"
        for name in content
    )
    last += "".join(
        f", max(_moment) FILTER (_row < 0 AND {quote(name)} IS NOT NULL) AS {quote('_at_' + name)}" for name in consents
    )
    if table.name in TELLING:
        # the clock of the ingest counts only against the date of another row
        for name in content:
            at = f"max(_moment) FILTER ({quote(name)} IS NOT NULL)"
            unknown = f"{at} IS NOT NULL AND (max(_date) IS NULL OR NOT isfinite({at}))"
            last += f", CASE WHEN {unknown} THEN '-infinity'::TIMESTAMP ELSE {at} END AS {quote('_at_' + name)}"
    # the first source that described a row stays its source
    first = "".join(f", arg_min({quote(name)}, _row) AS {quote(name)}" for name in derived)
    newest = (
        f"SELECT {keys}, arg_max(_row, _place) FILTER (_row >= 0) AS _row, max(_date) AS _date, "
        f"arg_max(_date IS NOT NULL, _place) FILTER (_row >= 0) AS _dated{last}{first} "
        f"FROM (SELECT *, {place('_moment')} AS _place, {place(of_fixed)} AS _fixed_place FROM {observed}) GROUP BY ALL"
    )
    joined = " AND ".join(f"n.{quote(key)} {SAME_KEY} l.{quote(key)}" for key in table.key)
    of_input = {*table.key, *mapped, *derived, *([TOLD] if table.name in TELLING else [])}
    values = {name: f"{'n' if name in of_input else 'l'}.{quote(name)}" for name in columns}
    for name in consents:
        # a dated row does not give back the consent that was withdrawn at an unknown date
        unknown = f"n.{quote('_at_' + name)} = '-infinity' AND n._dated AND l.{quote(name)} = false"
        values[name] = f"CASE WHEN {unknown} THEN false ELSE n.{quote(name)} END"
    if dated:
        values[dated] = "n._date"
    same = " AND ".join([f"{values[name]} {SAME_KEY} l.{quote(name)}" for name in content] or ["true"])
    made = ", ".join(f"{value} AS {quote(name)}" for name, value in values.items())
    lake_row = f"SELECT k.*, o._moment FROM ({known}) AS k JOIN {observed} AS o ON o._row = -1 AND " + " AND ".join(
        f"k.{quote(key)} {SAME_KEY} o.{quote(key)}" for key in table.key
    )
    still = f" AND n._date {SAME_KEY} l.{quote(dated)}" if dated else ""
    if table.name in TELLING:
        newest = f"SELECT *, {lines_of_moments(content)} AS {TOLD} FROM ({newest})"
        # rows without a date that say what is known say it at no new moment
        still += f" AND (NOT n._dated OR n.{TOLD} {SAME_KEY} l.{TOLD})"
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


def with_files(staged: StagedTable, good: str) -> str:
    """SELECT of the valid rows with the file of each in `_file`, if some files lack a column."""
    if not staged.absent or staged.file_column is None:
        return good
    return f"SELECT g.*, f._file FROM ({good}) AS g JOIN {files_table(staged)} AS f USING (_row)"


def files_table(staged: StagedTable) -> str:
    """Name of the temp table with the file of each row, which outlives the raw rows."""
    return f"files_{staged.table.name}"


def lake_observations(connection: duckdb.DuckDBPyConnection, rows: MergeRows, content: list[str], date: str) -> str:
    """SELECT of the lake's rows with a key of the input, as observations before those of the same moment.

    A null of the lake tells that there is no value only if the lake has the column at all for that source; else an
    older file that comes in later would lose what only it tells. What the profile history says of a record comes with
    the moments at which it was told, nulls too; the profile then has no moment of its own.
    """
    table, columns, known, good = rows.table, rows.columns, rows.known, rows.good
    keys = column_list(table.key)
    source = ", source" if "source" in table.key else ""
    same_source = f"ON k.source {SAME_KEY} t.source" if source else "ON true"
    counts = "".join(f", count({quote(name)}) > 0 AS {quote(name)}" for name in content)
    told = f"SELECT true AS _any{source}{counts} FROM ({known}) GROUP BY ALL"
    row_date = f"k.{date}" if date.startswith('"') else date
    moment, history, more = f"coalesce({row_date}, '-infinity'::TIMESTAMP)", "", ""
    shown_keys = ", ".join(f"k.{quote(key)}" for key in table.key)
    derived = [column.name for column in table.columns if column.derived]
    if table.name == "profiles":
        has = [row[0] for row in connection.execute(f"DESCRIBE {KNOWN_HISTORY}").fetchall()]
        told_before = observations_of_lake(columns, dict.fromkeys(content, "true"), has, f"SELECT {keys} FROM ({good})")
        moment = f"CASE WHEN h._any IS NULL THEN {moment} ELSE '-infinity' END"
        history = (
            f" LEFT JOIN (SELECT DISTINCT {keys}, true AS _any FROM ({told_before})) AS h "
            "ON k.source = h.source AND k.source_user_id = h.source_user_id"
        )
        more = (
            f" UNION ALL SELECT -2, {keys}, CASE WHEN NOT _undated THEN _moment END, _moment"
            f"{''.join(f', {quote(name)}' for name in content)} FROM ({told_before})"
        )
    same_key = " AND ".join(f"k.{quote(key)} {SAME_KEY} n.{quote(key)}" for key in table.key)
    unless_told = ""
    if table.name in TELLING:
        unless_told = f"k.{TOLD} IS NULL AND "
        lines = (
            f"SELECT *, coalesce(nullif(split_part(_line, '|', 1), '')::TIMESTAMP, '-infinity') AS _moment, "
            f"string_split(split_part(_line, '|', 2), ',') AS _names "
            f"FROM (SELECT *, unnest(string_split({TOLD}, {NEW_LINE})) AS _line FROM ({known}))"
        )
        boxes_of_line = "".join(
            f", CASE WHEN list_contains(k._names, {literal(name)}) THEN struct_pack(v := k.{quote(name)}) END"
            for name in content
        )
        more = (
            f" UNION ALL SELECT -2, {shown_keys}, NULL::TIMESTAMP, k._moment"
            f"{''.join(f', k.{quote(name)}' for name in derived)}{boxes_of_line} FROM ({lines}) AS k "
            f"WHERE EXISTS (SELECT 1 FROM (SELECT {keys} FROM ({good})) AS n WHERE {same_key})"
        )
    related = (
        f"FROM ({known}) AS k LEFT JOIN ({told}) AS t {same_source}{history} "
        f"WHERE EXISTS (SELECT 1 FROM (SELECT {keys} FROM ({good})) AS n WHERE {same_key})"
    )
    boxes = [
        f"CASE WHEN {unless_told}(k.{quote(name)} IS NOT NULL"
        f"{'' if table.name == 'profiles' else f' OR t.{quote(name)}'}) "
        f"THEN struct_pack(v := k.{quote(name)}) END"
        for name in content
    ]
    carried = [f"k.{quote(name)}" for name in derived]
    return f"SELECT {', '.join(['-1', shown_keys, row_date, moment, *carried, *boxes])} {related}{more}"
