"""Profile history: from when each attribute of a profile had its value, so that a past moment sees what was known then.

A row of the input holds from its `valid_from`, else from the moment of its first ingest. What is known of a record is
put in order of these moments, and a row of the history begins where the values change. The time at which a file was
modified is never used, because a copy of the file has another one.

Only records whose rows say something else than the lake are put in order (`REMADE`). A new record with one row, and a
record whose row repeats what the history says last, need no order; nearly all records are of these two kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb

from features.data.ingest.columns import cast_columns, column_list, common_columns, content_columns
from features.data.ingest.compared_rows import CONSENT_PREFIX, OTHER, REPEATED, rows_table
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge_dimensions import box, moment_of_rows, told_columns, with_files
from features.data.lake import Lake, quote
from features.data.tables import FIXED_BY_NATURE, PROFILE_HISTORY
from qianmian.schema import TABLES

KEY = "source, source_user_id"
MADE, REMADE = "made_profile_history", "remade_records"


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
    state = lake.states().get(PROFILE_HISTORY.name)
    filled = set(state.filled) if state else _filled(connection, [name for name in attributes if name in in_lake])
    # the other columns have no value in any row
    changing = [name for name in attributes if name not in fixed and (name in staged.mapped or name in filled)]
    known = f"SELECT {cast_columns(columns, in_lake)} FROM lake_profile_history"
    names = column_list(columns)
    remade = _store_remade(connection, columns, fixed, changing, staged, known, state is not None, now)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {MADE} AS {_new_records(columns, fixed, changing, merged, now)}")
    if remade:
        profiles = (
            f"SELECT * FROM (SELECT * EXCLUDE (_row, _known, _same, _written) FROM final_profiles UNION ALL BY NAME "
            f"SELECT * FROM lake_profiles ANTI JOIN final_profiles USING ({KEY})) SEMI JOIN {REMADE} USING ({KEY})"
        )
        always = _fixed_rows(columns, attributes, fixed, staged, known, merged, profiles)
        dated = _dated_rows(columns, attributes, changing, staged, known, now)
        connection.execute(f"INSERT INTO {MADE} BY NAME {always} UNION ALL BY NAME {dated}")
    before = f"SELECT {names} FROM ({known}) SEMI JOIN {REMADE} USING ({KEY})"
    if state is not None and _content(connection, MADE, names) == _content(connection, f"({before})", names):
        return None
    order = "source, source_user_id, valid_from NULLS FIRST"
    others = f"SELECT {names} FROM ({known})" + (f" ANTI JOIN {REMADE} USING ({KEY})" if remade else "")
    return f"{others} UNION ALL (SELECT {names} FROM {MADE} ORDER BY {order})"


def _store_remade(
    connection: duckdb.DuckDBPyConnection,
    columns: Mapping[str, str],
    fixed: set[str],
    changing: list[str],
    staged: StagedTable,
    known: str,
    has_history: bool,
    now: datetime | None,
) -> int:
    """Store the records whose history may change, new records with one row left out, and return their number."""
    rows, kinds = f"SELECT _row, {KEY}, valid_from FROM {staged.typed}", rows_table(staged.table)
    if "valid_from" not in staged.columns:
        rows = rows.replace(", valid_from", ", NULL::TIMESTAMP AS valid_from")

    def of_kind(kind: str) -> str:
        return f"SELECT * FROM ({rows}) SEMI JOIN (SELECT _row FROM {kinds} WHERE kind = '{kind}') USING (_row)"

    # the history may hold a record that the profiles lack
    query = (
        f"SELECT DISTINCT {KEY} FROM ({of_kind(OTHER)}) UNION "
        f"SELECT {KEY} FROM final_profiles SEMI JOIN lake_profile_history USING ({KEY})"
    )
    repeated = of_kind(REPEATED)
    if has_history:
        repeated = _not_as_known(columns, fixed, changing, staged, known, repeated, now)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {REMADE} AS {query} UNION SELECT {KEY} FROM ({repeated})")
    return int((connection.execute(f"SELECT count(*) FROM {REMADE}").fetchone() or (0,))[0])


def _not_as_known(
    columns: Mapping[str, str],
    fixed: set[str],
    changing: list[str],
    staged: StagedTable,
    known: str,
    repeated: str,
    now: datetime | None,
) -> str:
    """SELECT of the repeated rows that say more than the history.

    A row that repeats the profile says no more if the profile is what the history says last, and the row does not come
    before that, nor extends the time in which it was seen. Records are compared by hashes of their values.
    """
    attributes = [name for name in columns if name not in ("source", "source_user_id", "valid_from", "last_seen")]
    always = [name for name in attributes if name in fixed]
    # such a value stood in a row of the other kind, before the attribute was declared fixed, or no longer was
    moved = [
        f"{quote(name)} IS NOT NULL AND valid_from IS {'NOT ' if name in fixed else ''}NULL"
        for name in attributes
        if name not in changing and (name in fixed or name in staged.mapped)
    ]
    moved += [f"{quote(name)} IS NOT NULL AND valid_from IS NULL" for name in changing if name in staged.mapped]
    key = f"hash({KEY}) AS _key"

    def content(names: list[str]) -> str:
        return f"hash({column_list(names) or '0'})"

    def some(names: list[str]) -> str:
        return " OR ".join(f"{quote(name)} IS NOT NULL" for name in names) or "false"

    profiles = (
        f"SELECT {key}, {content(changing)} AS _state, {some(changing)} AS _any, {content(always)} AS _fixed, "
        f"{some(always)} AS _any_fixed FROM ({_profiles_as(columns, attributes)})"
    )
    history = (
        f"SELECT {key}, max(valid_from) AS _from, max(last_seen) AS _seen, "
        f"arg_max({content(changing)}, valid_from) FILTER (valid_from IS NOT NULL) AS _state, "
        f"any_value({content(always)}) FILTER (valid_from IS NULL) AS _fixed, "
        f"bool_or({' OR '.join(f'({case})' for case in moved) or 'false'}) AS _moved FROM ({known}) GROUP BY _key"
    )
    given = f"SELECT {KEY}, {key}, valid_from, {moment_of_rows('valid_from', now)} AS _moment FROM ({repeated})"
    in_place = (
        "CASE WHEN r.valid_from IS NULL THEN r._moment >= greatest(h._from, h._seen) "
        "ELSE r._moment BETWEEN h._from AND coalesce(h._seen, h._from) END"
    )
    same_state = (
        "NOT isfinite(r._moment) OR CASE WHEN h._from IS NULL THEN NOT p._any "
        f"ELSE h._state = p._state AND {in_place} END"
    )
    same_fixed = "CASE WHEN h._fixed IS NULL THEN NOT p._any_fixed ELSE h._fixed = p._fixed END"
    return (
        f"SELECT {KEY} FROM ({given}) AS r JOIN ({profiles}) AS p USING (_key) LEFT JOIN ({history}) AS h USING (_key) "
        f"WHERE (({same_state}) AND {same_fixed} AND NOT coalesce(h._moved, false)) IS NOT true"
    )


def _profiles_as(columns: Mapping[str, str], attributes: list[str]) -> str:
    """SELECT of the lake's profiles with the columns and types of the history."""
    picked = ", ".join(f"{quote(name)}::{columns[name]} AS {quote(name)}" for name in attributes)
    empty = ", ".join(f"NULL::{columns[name]} AS {quote(name)}" for name in attributes)
    # by name, because the lake may lack an attribute
    rows = f"SELECT * FROM lake_profiles UNION ALL BY NAME (SELECT {empty} WHERE false)"
    return f"SELECT {KEY}, {picked} FROM ({rows})"


def _new_records(
    columns: Mapping[str, str], fixed: set[str], changing: list[str], merged: Mapping[str, str], now: datetime | None
) -> str:
    """The rows of new records, each of which has one row in the input: its fixed values, and the changing ones."""
    rows = (
        f"SELECT *, {moment_of_rows('valid_from', now)} AS _moment FROM final_profiles ANTI JOIN {REMADE} USING ({KEY})"
    )
    attributes = [name for name in columns if name not in ("source", "source_user_id", "valid_from", "last_seen")]
    parts = []
    for wanted, moment, condition in ((fixed, "NULL::TIMESTAMP", "true"), (changing, "_moment", "isfinite(_moment)")):
        told = [name for name in attributes if name in wanted and name in merged]
        values = "".join(
            f", {quote(name) if name in told else 'NULL'}::{columns[name]} AS {quote(name)}" for name in attributes
        )
        some = " OR ".join(f"{quote(name)} IS NOT NULL" for name in told) or "false"
        parts.append(
            f"SELECT {KEY}, {moment} AS valid_from, {moment} AS last_seen{values} FROM ({rows}) "
            f"WHERE {condition} AND ({some})"
        )
    return " UNION ALL ".join(parts)


def _content(connection: duckdb.DuckDBPyConnection, relation: str, names: str) -> tuple[object, ...] | None:
    """Number of rows of a relation and the sum of their hashes: equal for the same rows in any order."""
    return connection.execute(f"SELECT count(*), sum(hash({names})::HUGEINT) FROM {relation}").fetchone()


def _fixed_rows(
    columns: Mapping[str, str],
    attributes: list[str],
    fixed: set[str],
    staged: StagedTable,
    known: str,
    merged: Mapping[str, str],
    profiles: str,
) -> str:
    """The fixed attributes of each record that is remade; one that this input does not map stays as it was.

    Parameters
    ----------
    profiles : str
        SELECT of these records after the merge.
    """
    values = []
    for name in attributes:
        of_profile = f"f.{quote(name)}::{columns[name]}" if name in merged else f"NULL::{columns[name]}"
        as_before = f"NULL::{columns[name]}" if name in staged.mapped else f"h.{quote(name)}"
        values.append(f"{of_profile if name in fixed else as_before} AS {quote(name)}")
    some = " OR ".join(f"{quote(name)} IS NOT NULL" for name in attributes)
    key = "f.source, f.source_user_id, NULL::TIMESTAMP AS valid_from, NULL::TIMESTAMP AS last_seen"
    before = f"SELECT * FROM ({known}) WHERE valid_from IS NULL"
    return (
        f"SELECT * FROM (SELECT {key}, {', '.join(values)} FROM ({profiles}) AS f LEFT JOIN ({before}) AS h "
        f"ON f.source = h.source AND f.source_user_id = h.source_user_id) WHERE {some}"
    )


def _dated_rows(
    columns: Mapping[str, str],
    attributes: list[str],
    changing: list[str],
    staged: StagedTable,
    known: str,
    now: datetime | None,
) -> str:
    """One row per change of a record that is remade: all values of the changing attributes from that moment on."""
    if not changing:
        return f"SELECT * FROM ({known}) WHERE false"
    good = f"SELECT _row, {cast_columns(columns, {**staged.columns, 'valid_from': 'TIMESTAMP'})}"
    good = f"{good} FROM (SELECT * FROM {staged.typed} SEMI JOIN {REMADE} USING ({KEY})) WHERE _reason IS NULL"
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
        f"SELECT *, _moment = valid_from AS _first FROM (SELECT *, {seen} AS _moment{before} "
        f"FROM (SELECT * FROM ({known}) SEMI JOIN {REMADE} USING ({KEY})) WHERE valid_from IS NOT NULL "
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


def _filled(connection: duckdb.DuckDBPyConnection, names: list[str]) -> set[str]:
    """The columns of the history with a value in any row."""
    counts = ", ".join(f"count({quote(name)})" for name in names)
    found = connection.execute(f"SELECT {counts} FROM lake_profile_history").fetchone() or ()
    return {name for name, count in zip(names, found, strict=True) if count}


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {relation}").fetchall()}
