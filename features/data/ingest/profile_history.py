"""Profile history: from when each attribute of a profile had its value, so that a past moment sees what was known then.

A row of the input holds from its `valid_from`, else from the moment of its first ingest. What is known of a record is
put in order of these moments, and a row of the history begins where the values change. The time at which a file was
modified is never used, because a copy of the file has another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb

from features.data.ingest.columns import cast_columns, column_list, common_columns, content_columns
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge_dimensions import CONSENT_PREFIX, box, moment_of_rows, told_columns, with_files
from features.data.lake import Lake, quote
from features.data.tables import FIXED_BY_NATURE, PROFILE_HISTORY
from qianmian.schema import TABLES

KEY = "source, source_user_id"
MADE = "made_profile_history"


def history_query(
    connection: duckdb.DuckDBPyConnection, lake: Lake, staged: StagedTable, now: datetime | None
) -> str | None:
    """SELECT of the new content of `profile_history` after `merge` of the profiles; None if it stays as it is.

    Parameters
    ----------
    now : datetime or None
        Moment of the ingest, naive UTC. Without it, rows without a date have no place in the history.
    """
    in_lake = _types(connection, "lake_profile_history")
    merged = _types(connection, "final_profiles")
    attributes = content_columns(TABLES["profiles"], [name for name in merged if not name.startswith("_")])
    attributes = [name for name in attributes if name not in ("source", "source_user_id")]
    types = common_columns(
        {name: merged[name] for name in ("source", "source_user_id", *attributes)},
        {name: kind for name, kind in in_lake.items() if name not in ("valid_from", "last_seen")},
    )
    columns = {
        "source": types.pop("source"),
        "source_user_id": types.pop("source_user_id"),
        "valid_from": "TIMESTAMP",
        "last_seen": "TIMESTAMP",
        **types,
    }
    attributes = list(types)
    fixed = {*FIXED_BY_NATURE, *(staged.mapped if staged.fixed == "all" else staged.fixed)}
    filled = _filled(connection, "lake_profile_history", [name for name in attributes if name in in_lake])
    # the other columns have no value in any row
    changing = [name for name in attributes if name not in fixed and (name in staged.mapped or name in filled)]
    known = f"SELECT {cast_columns(columns, in_lake)} FROM lake_profile_history"
    of_input = "(source, source_user_id) IN (SELECT (source, source_user_id) FROM final_profiles)"
    always = _fixed_rows(columns, attributes, fixed, staged, known, merged)
    dated = _dated_rows(columns, attributes, changing, staged, known, of_input, now)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {MADE} AS {always} UNION ALL BY NAME {dated}")
    names = column_list(columns)
    made, before = f"SELECT {names} FROM {MADE}", f"SELECT {names} FROM ({known}) WHERE {of_input}"
    differs = f"({made} EXCEPT ALL {before}) UNION ALL ({before} EXCEPT ALL {made})"
    changed = connection.execute(f"SELECT count(*) FROM ({differs})").fetchone()
    if PROFILE_HISTORY.name in lake.states() and changed == (0,):
        return None
    order = "source, source_user_id, valid_from NULLS FIRST"
    return (
        f"SELECT {names} FROM ({known}) WHERE NOT ({of_input}) UNION ALL (SELECT {names} FROM {MADE} ORDER BY {order})"
    )


def _fixed_rows(
    columns: Mapping[str, str],
    attributes: list[str],
    fixed: set[str],
    staged: StagedTable,
    known: str,
    merged: Mapping[str, str],
) -> str:
    """The fixed attributes of each record of the input; one that this input does not map stays as it was."""
    values = []
    for name in attributes:
        of_profile = f"f.{quote(name)}::{columns[name]}" if name in merged else f"NULL::{columns[name]}"
        as_before = f"NULL::{columns[name]}" if name in staged.mapped else f"h.{quote(name)}"
        values.append(f"{of_profile if name in fixed else as_before} AS {quote(name)}")
    some = " OR ".join(f"{quote(name)} IS NOT NULL" for name in attributes)
    key = "f.source, f.source_user_id, NULL::TIMESTAMP AS valid_from, NULL::TIMESTAMP AS last_seen"
    before = f"SELECT * FROM ({known}) WHERE valid_from IS NULL"
    return (
        f"SELECT * FROM (SELECT {key}, {', '.join(values)} FROM final_profiles AS f LEFT JOIN ({before}) AS h "
        f"ON f.source = h.source AND f.source_user_id = h.source_user_id) WHERE {some}"
    )


def _dated_rows(
    columns: Mapping[str, str],
    attributes: list[str],
    changing: list[str],
    staged: StagedTable,
    known: str,
    of_input: str,
    now: datetime | None,
) -> str:
    """One row of the history per change: all values of the changing attributes from that moment on."""
    if not changing:
        return f"SELECT * FROM ({known}) WHERE false"
    good = f"SELECT _row, {cast_columns(columns, {**staged.columns, 'valid_from': 'TIMESTAMP'})}"
    good = f"{good} FROM {staged.typed} WHERE _reason IS NULL"
    told = ", ".join(f"{box(name, condition)} AS {quote(name)}" for name, condition in told_columns(staged, changing))
    rows = (
        f"SELECT {KEY}, {moment_of_rows('valid_from', now)} AS _moment, _row AS _order, "
        f"valid_from IS NULL AS _undated, {told} FROM ({with_files(staged, good)})"
    )
    # a null of the history tells that there is no value only if the lake has the column at all for that source
    has = ", ".join(f"count({quote(name)}) > 0 AS {quote(name)}" for name in changing)
    consents = [name for name in changing if name.startswith(CONSENT_PREFIX)]
    tells = {name: f"h.{quote(name)} IS NOT NULL OR t.{quote(name)}" for name in changing}
    # that a consent did not change may be silence: a row of the input in between, which tells it, goes on to hold
    tells |= {name: f"h.{quote(name)} IS DISTINCT FROM h.{quote('_' + name)} AND h._first" for name in consents}
    boxes = ", ".join(
        f"CASE WHEN {tells[name]} THEN struct_pack(v := h.{quote(name)}) END AS {quote(name)}" for name in changing
    )
    before = "".join(f", lag({quote(name)}) OVER in_order AS {quote('_' + name)}" for name in consents)
    # the same values may have been told again later: a row of the input in between ends them, and they come back
    seen = "unnest(CASE WHEN last_seen > valid_from THEN [valid_from, last_seen] ELSE [valid_from] END)"
    rows_of_lake = (
        f"SELECT *, _moment = valid_from AS _first FROM (SELECT *, {seen} AS _moment{before} FROM ({known}) "
        f"WHERE valid_from IS NOT NULL AND {of_input} "
        "WINDOW in_order AS (PARTITION BY source, source_user_id ORDER BY valid_from))"
    )
    of_lake = (
        f"SELECT h.source, h.source_user_id, h._moment, -1 AS _order, false AS _undated, {boxes} "
        f"FROM ({rows_of_lake}) AS h "
        f"LEFT JOIN (SELECT source, {has} FROM ({known}) GROUP BY source) AS t USING (source)"
    )
    record = "PARTITION BY source, source_user_id"
    carried = ", ".join(f"(last_value({quote(name)} IGNORE NULLS) OVER so_far).v AS {quote(name)}" for name in changing)
    states = (
        f"SELECT {KEY}, _moment, _undated, lead(_moment) OVER in_order AS _next, {carried} "
        f"FROM ({rows} UNION ALL {of_lake}) WHERE isfinite(_moment) "
        f"WINDOW in_order AS ({record} ORDER BY _moment, _order), "
        f"so_far AS ({record} ORDER BY _moment, _order ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    last_of_moment = (
        f"SELECT *, hash({column_list(changing)}) AS _hash FROM ({states}) WHERE _next IS DISTINCT FROM _moment"
    )
    differs = f"lag(_hash) OVER ({record} ORDER BY _moment) IS DISTINCT FROM _hash"
    starts = f"SELECT *, {differs} AS _starts FROM ({last_of_moment})"
    runs = f"SELECT *, sum(_starts::BIGINT) OVER ({record} ORDER BY _moment) AS _run FROM ({starts})"
    some = " OR ".join(f"{quote(name)} IS NOT NULL" for name in changing)
    values = ", ".join(
        f"any_value({quote(name)}) AS {quote(name)}" if name in changing else f"NULL::{columns[name]} AS {quote(name)}"
        for name in attributes
    )
    return (
        f"SELECT {KEY}, min(_moment) AS valid_from, "
        f"max(_moment) FILTER (_starts OR NOT _undated) AS last_seen, {values} "
        f"FROM ({runs}) WHERE _run > 1 OR {some} GROUP BY source, source_user_id, _run"
    )


def _filled(connection: duckdb.DuckDBPyConnection, relation: str, names: list[str]) -> set[str]:
    """The columns with a value in any row."""
    counts = ", ".join(f"count({quote(name)})" for name in names)
    found = connection.execute(f"SELECT {counts} FROM {relation}").fetchone() or ()
    return {name for name, count in zip(names, found, strict=True) if count}


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {relation}").fetchall()}
