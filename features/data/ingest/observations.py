"""What was told of each record: the cells of each row and their moments, as the profile history keeps them.

A row of the history has the values of a record from a moment on. Some of them are carried: the row of the input at that
moment did not tell them, an earlier one did. `_told` names the cells that were told, so that a row which comes in late
meets the same observations as if it had come in time. It has one line per observation with these values::

    2024-03-01 00:00:00|city,member_tier|         the row of 1 March told both
    2024-06-01 12:00:00|member_tier|ingest        a row without a date told the tier; its moment is that of its ingest

The row with the fixed attributes has a line for each moment at which a dated row told some of them last. A fixed
attribute of a row without a date has no line: it holds whatever the clock of the ingest says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import groupby

import duckdb

from features.data.ingest.columns import column_list
from features.data.ingest.compared_rows import CONSENT_PREFIX
from features.data.ingest.contract import StagedTable
from features.data.lake import literal, quote
from features.data.tables import FIXED_BY_NATURE, TOLD

KEY = "source, source_user_id"
KNOWN_HISTORY = "known_profile_history"
NOT_ATTRIBUTES = ("source", "source_user_id", "valid_from", TOLD)
NEW_LINE = "chr(10)"
LAST_SEEN = "last_seen"  # of a history of an earlier version: the last row that gave the same values


def box(name: str, told: str) -> str:
    """SQL of a value in a struct, null where the row does not tell the column: it tells a null from no value."""
    return f"CASE WHEN {told} THEN struct_pack(v := {quote(name)}) END"


def told_columns(staged: StagedTable, content: Iterable[str]) -> list[tuple[str, str]]:
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


def moment_of_rows(date: str, now: datetime | None) -> str:
    """SQL of the moment of an input row: its own date, else that of the ingest, after all others if unknown."""
    ingest = f"TIMESTAMP {literal(now.isoformat(sep=' '))}" if now else "'infinity'::TIMESTAMP"
    return f"coalesce({date}, {ingest})"


def fixed_attributes(staged: StagedTable) -> set[str]:
    """The attributes that never change: by nature, and those that the source declares."""
    return {*FIXED_BY_NATURE, *(staged.mapped if staged.fixed == "all" else staged.fixed)}


def told_names(conditions: Iterable[tuple[str, str]]) -> str:
    """SQL of the names of the columns that a row tells, in the order of `_told`; '' if it tells none."""
    ordered = sorted(conditions, key=lambda pair: (pair[0].startswith(CONSENT_PREFIX), pair[0]))
    # names that every row tells are one text: concatenating them again for each row takes long
    parts = [
        literal(",".join(name for name, _ in group)) if always else f"CASE WHEN {condition} THEN {literal(name)} END"
        for always, found in groupby(ordered, key=lambda pair: pair[1] == "true")
        for group in [list(found)]
        for name, condition in (group[:1] if always else group)
    ]
    return f"concat_ws(',', {', '.join(parts)})" if parts else "''"


def told_line(moment: str, names: str, undated: str) -> str:
    """SQL of the line of `_told` of one observation."""
    return f"{moment}::VARCHAR || '|' || {names} || CASE WHEN {undated} THEN '|ingest' ELSE '|' END"


def store_known_history(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `known_profile_history`, the history of the lake with `_told` also in rows of an earlier version.

    Such a row says when its values were seen first and last. It told what it has, and that it has no value if its
    source has the column at all. A consent that did not change may have been carried. It was told when it changed; a
    withdrawal also when the row was seen last, so that no older row gives the consent back. The fixed attributes were
    told by the newest row.
    """
    types = {row[0]: str(row[1]) for row in connection.execute("DESCRIBE lake_profile_history").fetchall()}
    row = connection.execute(f"SELECT count(*) FROM lake_profile_history WHERE {TOLD} IS NULL").fetchone()
    if not row or not row[0]:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {KNOWN_HISTORY} AS SELECT * FROM lake_profile_history")
        return
    seen = LAST_SEEN if LAST_SEEN in types else "valid_from"
    attributes = [name for name in types if name not in (*NOT_ATTRIBUTES, LAST_SEEN)]
    consents = [name for name in attributes if name.startswith(CONSENT_PREFIX)]
    before = "".join(f", lag({quote(name)}) OVER in_order AS {quote('_' + name)}" for name in consents)
    has = "".join(
        f", count({quote(name)}) FILTER (valid_from IS NOT NULL) > 0 AS {quote('_has_' + name)}" for name in attributes
    )
    filled = {name: f"{quote(name)} IS NOT NULL" for name in attributes}
    told = {name: f"({condition} OR {quote('_has_' + name)})" for name, condition in filled.items()}
    first = {name: f"{filled[name]} AND {quote(name)} IS DISTINCT FROM {quote('_' + name)}" for name in consents}
    again = {name: f"coalesce(NOT {quote(name)}, false)" for name in consents}
    of_first = told_line("valid_from", told_names({**told, **first}.items()), "_date IS NULL")
    of_last = told_line(seen, told_names({**told, **again}.items()), "_date IS NULL")
    of_fixed = told_line("greatest(_date, _newest)", told_names(filled.items()), "false")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {KNOWN_HISTORY} AS SELECT {KEY}, valid_from, CASE "
        f"WHEN valid_from IS NULL THEN CASE WHEN _date IS NULL THEN '' ELSE {of_fixed} END "
        f"ELSE concat_ws({NEW_LINE}, {of_first}, CASE WHEN {seen} > valid_from THEN {of_last} END) END AS {TOLD}"
        f"{''.join(f', {quote(name)}' for name in attributes)} "
        f"FROM (SELECT *{before}, max({seen}) OVER (PARTITION BY {KEY}) AS _newest FROM lake_profile_history "
        f"WINDOW in_order AS (PARTITION BY {KEY}, valid_from IS NULL ORDER BY valid_from)) "
        f"LEFT JOIN (SELECT source{has} FROM lake_profile_history GROUP BY source) USING (source) "
        f"LEFT JOIN (SELECT {KEY}, valid_from AS _date FROM lake_profiles) USING ({KEY})"
    )


def observations_of_lake(
    columns: Mapping[str, str], tells: Mapping[str, str], has: Collection[str], records: str
) -> str:
    """SELECT of the observations in the history of some records: the key, `_moment`, `_undated` and a box per column.

    Parameters
    ----------
    columns : mapping of str to str
        SQL types.
    tells : mapping of str to str
        Column → SQL condition under which an observation that told it counts; `_always` is true for fixed attributes.
    has : collection of str
        Columns of the history.
    records : str
        SELECT of the keys of the records.
    """
    boxes = "".join(
        f", CASE WHEN list_contains(_names, {literal(name)}) AND ({condition}) "
        f"THEN struct_pack(v := {quote(name)}::{columns[name]}) END AS {quote(name)}"
        if name in has
        else f", NULL::STRUCT(v {columns[name]}) AS {quote(name)}"
        for name, condition in tells.items()
    )
    lines = (
        f"SELECT *, valid_from IS NULL AS _always, unnest(string_split({TOLD}, {NEW_LINE})) AS _line "
        f"FROM {KNOWN_HISTORY} SEMI JOIN ({records}) USING ({KEY}) WHERE {TOLD} <> ''"
    )
    parts = (
        "SELECT *, split_part(_line, '|', 1)::TIMESTAMP AS _moment, split_part(_line, '|', 3) <> '' AS _undated, "
        f"string_split(split_part(_line, '|', 2), ',') AS _names FROM ({lines})"
    )
    return f"SELECT {KEY}, _moment, _undated{boxes} FROM ({parts})"


def place(moment: str) -> str:
    """SQL of a number that orders observations by their moment, then by `_row`; faster than a window over them."""
    finite = f"CASE WHEN {moment} > TIMESTAMP '2000-01-01' THEN 1 ELSE -1 END * 4611686018427387904"
    return f"coalesce(epoch_us({moment}), {finite})::HUGEINT * 1099511627776 + _row"


def repeated_undated(rows: str, of_lake: str, names: list[str]) -> str:
    """SELECT of the records of which the undated rows of this input say only what undated rows said last before it.

    They are the same rows again, and their moment is that of their first ingest.

    Parameters
    ----------
    rows, of_lake : str
        SELECT of observations of the input (with `_row`, and `_undated`) and of the lake.
    names : list of str
        The changing attributes.
    """

    def last(order: str, observed: str) -> str:
        boxes = "".join(f", arg_max({quote(name)}, {order}) AS {quote(name)}" for name in names)
        return f"SELECT {KEY}{boxes} FROM ({observed}) WHERE _undated GROUP BY ALL"

    same = " AND ".join(
        f"(n.{quote(name)} IS NULL OR n.{quote(name)} IS NOT DISTINCT FROM l.{quote(name)})" for name in names
    )
    return (
        f"SELECT n.source, n.source_user_id FROM ({last('_row', rows)}) AS n JOIN ({last('_moment', of_lake)}) AS l "
        f"ON n.source = l.source AND n.source_user_id = l.source_user_id WHERE {same or 'true'}"
    )


def forget_unaware_consents(
    connection: duckdb.DuckDBPyConnection, table: str, consents: Iterable[str], undated: str, dated: str
) -> None:
    """Remove each consent that a row without a date gives straight after a dated row withdrew it.

    Such a row is of an export whose source may not know of the withdrawal yet. Once its rows have said no themselves, a
    later yes of theirs is news and counts.

    Parameters
    ----------
    table : str
        Temp table of observations: the key, `_row`, `_moment` and a box per column.
    undated, dated : str
        SQL conditions of the observations of either kind.
    """
    for consent in map(quote, consents):
        withdraws, gives = f"({dated}) AND NOT ({consent}).v", f"({undated}) AND ({consent}).v"
        other = f"CASE WHEN {consent} IS NOT NULL AND NOT ({gives}) THEN {withdraws} END"
        before = f"PARTITION BY {KEY} ORDER BY _moment, _row ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
        connection.execute(
            f"UPDATE {table} SET {consent} = NULL WHERE rowid IN (SELECT _id FROM ("
            f"SELECT rowid AS _id, {gives} AS _gives, last_value({other} IGNORE NULLS) OVER ({before}) AS _withdrawn "
            f"FROM {table} WHERE ({KEY}) IN (SELECT ({KEY}) FROM {table} WHERE {withdraws})) "
            "WHERE _gives AND _withdrawn)"
        )


def last_told(observed: str, names: list[str]) -> str:
    """SELECT (key, `_told`) of the row with the fixed attributes: when dated rows told them last."""
    if not names:
        return f"SELECT {KEY}, NULL::VARCHAR AS {TOLD} FROM ({observed}) WHERE false"
    moments = "".join(f", max(_moment) FILTER ({quote(name)} IS NOT NULL) AS {quote('_at_' + name)}" for name in names)
    each = f"SELECT {KEY}{moments} FROM ({observed}) WHERE NOT _undated GROUP BY {KEY}"
    return f"SELECT {KEY}, {lines_of_moments(names)} AS {TOLD} FROM ({each})"


def lines_of_moments(names: list[str]) -> str:
    """SQL of `_told` from the moments at which the columns were told last, in the columns `_at_<name>`."""
    at = column_list(f"_at_{name}" for name in names)
    told = told_names((name, f"{quote('_at_' + name)} = m") for name in names)
    line = f"CASE WHEN isfinite(m) THEN m::VARCHAR ELSE '' END || '|' || {told} || '|'"
    return f"array_to_string(list_transform(list_sort(list_distinct([{at}])), lambda m: {line}), {NEW_LINE})"
