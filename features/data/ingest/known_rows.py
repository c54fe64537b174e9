"""Rows of the input that the profile history has already: nearly all rows of a file that is ingested again.

Rows are compared with the observations in the history (`features.data.ingest.observations`) by hashes of the key, of
what was told and when, and of the values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import duckdb

from features.data.ingest.contract import StagedTable
from features.data.ingest.observations import KEY, KNOWN_HISTORY, NEW_LINE, told_columns, told_names
from features.data.lake import literal, quote
from features.data.tables import TOLD

Conditions = list[tuple[str, str]]
TELLING = "rows_that_tell_more"


def store_rows_that_tell_more(
    connection: duckdb.DuckDBPyConnection,
    staged: StagedTable,
    good: str,
    columns: Mapping[str, str],
    fixed: Collection[str],
    changing: Collection[str],
) -> str:
    """Store the rows that tell more than the history has, and return a SELECT of their records.

    A row with a date is known if the history has an observation of its moment with its values; for the fixed attributes
    a later one with these values does as well. A row without a date is known if the last such row of the record told
    the same, and its fixed attributes have their values.

    Parameters
    ----------
    good : str
        SELECT of input rows with the types of the history and, if some files lack a column, `_file`.
    """
    told = [
        told_columns(staged, sorted(name for name in names if name in staged.mapped and name in columns))
        for names in (changing, fixed)
    ]
    any_dated, any_undated = connection.execute(
        f"SELECT bool_or(valid_from IS NOT NULL), bool_or(valid_from IS NULL) FROM ({good})"
    ).fetchone() or (False, False)
    known = []
    for always, conditions in zip((False, True), told, strict=True):
        names = told_names(conditions)
        dated = undated = "true"
        if conditions and any_dated:
            of_row = f"hash({KEY}, valid_from::VARCHAR || '|' || {names} || '|'{_of_row(conditions)})"
            seen = f"SELECT hash({KEY}, _line{_of_line(conditions)}) FROM ({_lines(always)})"
            dated = f"{of_row} IN ({seen})"
        if conditions and any_undated and always:
            some = " OR ".join(f"{quote(name)} IS NOT NULL" for name, _ in conditions)
            values = f"hash({KEY}{''.join(f', {quote(name)}' for name, _ in conditions)})"
            records = f"FROM {KNOWN_HISTORY} WHERE valid_from IS NULL"
            undated = (
                f"({values} IN (SELECT {values} {records}) "
                f"OR NOT ({some}) AND hash({KEY}) NOT IN (SELECT hash({KEY}) {records}))"
            )
        elif conditions and any_undated:
            of_row = f"hash({KEY}, {names}{_of_row(conditions)})"
            lines = (
                f"SELECT hash({KEY}) AS _key, split_part(_line, '|', 1) AS _moment, "
                f"hash({KEY}, split_part(_line, '|', 2){_of_line(conditions)}) AS _told_last "
                f"FROM ({_lines(always)}) WHERE suffix(_line, '|ingest')"
            )
            undated = f"{of_row} IN (SELECT arg_max(_told_last, _moment) FROM ({lines}) GROUP BY _key)"
        by_date = f"CASE WHEN valid_from IS NULL THEN {undated} ELSE {dated} END"
        one = by_date if any_dated and any_undated else undated if any_undated else dated
        known.append(f"({names} = '' OR {one})" if conditions else "true")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {TELLING} AS "
        f"SELECT * FROM (SELECT *, {known[0]} AS _changing_known, {known[1]} AS _fixed_known FROM ({good})) "
        "WHERE NOT (_changing_known AND _fixed_known)"
    )
    row = connection.execute(f"SELECT count(*) FROM {TELLING} WHERE _changing_known").fetchone()
    if any_dated and told[1] and row and row[0]:
        names, lines = told_names(told[1]), _lines(True)
        later = (
            f"SELECT hash({KEY}, split_part(_line, '|', 2){_of_line(told[1])}) AS _content, "
            f"max(split_part(_line, '|', 1)::TIMESTAMP) AS _moment FROM ({lines}) GROUP BY _content"
        )
        connection.execute(
            f"DELETE FROM {TELLING} USING ({later}) AS l WHERE _changing_known "
            f"AND hash({KEY}, {names}{_of_row(told[1])}) = l._content AND valid_from <= l._moment"
        )
    return f"SELECT DISTINCT {KEY} FROM {TELLING}"


def _lines(always: bool) -> str:
    """SELECT of the rows of the history, once for each line of `_told`, which is in `_line`."""
    rows = f"FROM {KNOWN_HISTORY} WHERE valid_from IS {'' if always else 'NOT '}NULL AND {TOLD} <> ''"
    return (  # splitting a text takes long, and most have one line
        f"SELECT *, {TOLD} AS _line {rows} AND NOT contains({TOLD}, {NEW_LINE}) UNION ALL "
        f"SELECT *, unnest(string_split({TOLD}, {NEW_LINE})) AS _line {rows} AND contains({TOLD}, {NEW_LINE})"
    )


def _of_row(conditions: Conditions) -> str:
    return "".join(
        f", {quote(name)}" if condition == "true" else f", CASE WHEN {condition} THEN {quote(name)} END"
        for name, condition in conditions
    )


def _of_line(conditions: Conditions) -> str:
    names = "',' || split_part(_line, '|', 2) || ','"
    return "".join(
        f", {quote(name)}"
        if condition == "true"
        else f", CASE WHEN contains({names}, {literal(f',{name},')}) THEN {quote(name)} END"
        for name, condition in conditions
    )
