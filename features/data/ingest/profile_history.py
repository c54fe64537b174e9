"""Profile history: from when each attribute of a profile had its value, so that a past moment sees what was known then.

A row of the input holds from its `valid_from`, else from the moment of its first ingest. What was told of a record is
put in order of these moments, and a row of the history begins where the values change. The time at which a file was
modified is never used, because a copy of the file has another one.

The rows of the history are made of the observations in it and those of the input (`features.data.ingest.observations`),
so that they do not depend on the order of ingests. Only records of which a row tells more than the history has are made
again (`REMADE`). A new record with one row needs no order; nearly all records are new or stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb

from features.data.ingest.columns import cast_columns, column_list, common_columns, content_columns
from features.data.ingest.compared_rows import CONSENT_PREFIX, NEW, rows_table
from features.data.ingest.contract import StagedTable
from features.data.ingest.known_rows import store_rows_that_tell_more
from features.data.ingest.merge_dimensions import with_files
from features.data.ingest.observations import (
    KEY,
    KNOWN_HISTORY,
    NEW_LINE,
    box,
    fixed_attributes,
    forget_unaware_consents,
    last_told,
    moment_of_rows,
    observations_of_lake,
    repeated_undated,
    told_columns,
    told_line,
    told_names,
)
from features.data.lake import Lake, literal, quote
from features.data.tables import PROFILE_HISTORY, TOLD
from qianmian.schema import TABLES

MADE, REMADE, OBSERVED = "made_profile_history", "remade_records", "observed_records"


@dataclass(frozen=True)
class _Attributes:
    """The columns of the new history.

    Attributes
    ----------
    columns : mapping of str to str
        All columns with their SQL types.
    names : list of str
        The attributes.
    fixed : set of str
        Those that never change.
    changing : list of str
        Those that have a value in any row and are not fixed.
    filled : set of str
        Columns with a value in any row of the history of the lake.
    known : str
        SELECT of the history of the lake with these columns.
    in_lake : mapping of str to str
        Columns of the history of the lake, with their types.
    """

    columns: Mapping[str, str]
    names: list[str]
    fixed: set[str]
    changing: list[str]
    filled: set[str]
    known: str
    in_lake: Mapping[str, str]


def history_query(
    connection: duckdb.DuckDBPyConnection, lake: Lake, staged: StagedTable, now: datetime | None
) -> str | None:
    """SELECT of the new content of `profile_history` after `merge` of the profiles; None if it stays as it is.

    Parameters
    ----------
    now : datetime or None
        Moment of the ingest, naive UTC. Without it, rows without a date have no place in the history.
    """
    in_lake, merged = _types(connection, KNOWN_HISTORY), _types(connection, "final_profiles")
    attributes = content_columns(TABLES["profiles"], [name for name in merged if not name.startswith("_")])
    types = common_columns(
        {name: merged[name] for name in ("source", "source_user_id", *attributes)},
        {name: kind for name, kind in in_lake.items() if name not in ("valid_from", TOLD)},
    )
    key = {name: types.pop(name) for name in ("source", "source_user_id")}
    columns = {**key, "valid_from": "TIMESTAMP", TOLD: "VARCHAR", **types}
    names, fixed = list(types), fixed_attributes(staged)
    state = lake.states().get(PROFILE_HISTORY.name)
    filled = set(state.filled) if state else _filled(connection, [name for name in names if name in in_lake])
    # nothing is to be carried of the other columns
    changing = [name for name in names if name not in fixed and (name in staged.mapped or name in filled)]
    known = f"SELECT {cast_columns(columns, in_lake)} FROM {KNOWN_HISTORY}"
    made = _Attributes(columns, names, fixed, changing, filled, known, in_lake)
    remade = _store_remade(connection, made, staged, state is not None)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {MADE} AS {_new_records(made, staged, merged, now, remade)}")
    if remade:
        made = _with_all_told(connection, made, staged)
        _store_observations(connection, made, staged, now)
        always = _fixed_rows(made, staged, merged)
        connection.execute(f"INSERT INTO {MADE} BY NAME {always} UNION ALL BY NAME {_dated_rows(made)}")
    shown = column_list(columns)
    before = f"SELECT {shown} FROM ({known}) SEMI JOIN {REMADE} USING ({KEY})"
    if state is not None and _content(connection, MADE, shown) == _content(connection, f"({before})", shown):
        return None
    order = "source, source_user_id, valid_from NULLS FIRST"
    others = f"SELECT {shown} FROM ({known})" + (f" ANTI JOIN {REMADE} USING ({KEY})" if remade else "")
    return f"{others} UNION ALL (SELECT {shown} FROM {MADE} ORDER BY {order})"


def _with_all_told(connection: duckdb.DuckDBPyConnection, made: _Attributes, staged: StagedTable) -> _Attributes:
    """With those attributes of which rows told that there is no value, and no row told one."""
    empty = [name for name in made.names if name not in made.filled and name not in staged.mapped]
    told = ", ".join(f"bool_or(contains({TOLD}, {literal(name)}))" for name in empty) or "true"
    row = connection.execute(f"SELECT {told} FROM {KNOWN_HISTORY}").fetchone() or ()
    more = {name for name, any_row in zip(empty, row, strict=False) if any_row}
    changing = [name for name in made.names if name in made.changing or name in more - made.fixed]
    return replace(made, changing=changing, filled=made.filled | more)


def _rows(made: _Attributes, staged: StagedTable, condition: str) -> str:
    """SELECT of the valid rows of the input that meet a condition, with the types of the history."""
    types = {"_row": "BIGINT", **{name: kind for name, kind in made.columns.items() if name != TOLD}}
    present = {"_row": "BIGINT", **staged.columns}
    present |= {"valid_from": "TIMESTAMP"} if "valid_from" in staged.columns else {}
    good = f"SELECT {cast_columns(types, present)} FROM {staged.typed} WHERE _reason IS NULL AND {condition}"
    return with_files(staged, good)


def _store_remade(
    connection: duckdb.DuckDBPyConnection, made: _Attributes, staged: StagedTable, has_history: bool
) -> int:
    """Store the records whose history may change, new records with one row left out, and return their number."""
    kinds = rows_table(staged.table)
    new = _count(connection, f"SELECT 1 FROM {kinds} WHERE kind = '{NEW}'")
    rows = _rows(made, staged, f"_row IN (SELECT _row FROM {kinds} WHERE kind <> '{NEW}')" if new else "true")
    if has_history:
        rows = store_rows_that_tell_more(connection, staged, rows, made.columns, made.fixed, made.changing)
    # the history may hold a record that the profiles lack
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {REMADE} AS SELECT DISTINCT {KEY} FROM ({rows}) UNION "
        f"SELECT {KEY} FROM final_profiles SEMI JOIN {KNOWN_HISTORY} USING ({KEY}) WHERE NOT _known"
    )
    return _count(connection, f"SELECT * FROM {REMADE}")


def _new_records(
    made: _Attributes, staged: StagedTable, merged: Mapping[str, str], now: datetime | None, remade: int
) -> str:
    """The rows of new records, each of which has one row in the input: its fixed values, and the changing ones."""
    rows = (
        f"SELECT *, {moment_of_rows('valid_from', now)} AS _moment FROM final_profiles "
        f"{f'ANTI JOIN {REMADE} USING ({KEY}) ' if remade else ''}WHERE NOT _known"
        # where files lack columns no row is of this kind; a record that is not made again was told nothing
        f"{' AND false' if staged.absent else ''}"
    )
    parts = []
    for wanted, moment in ((made.fixed, "NULL::TIMESTAMP"), (made.changing, "_moment")):
        told = [name for name in made.names if name in wanted and name in staged.mapped and name in merged]
        values = "".join(
            f", {quote(name) if name in told else 'NULL'}::{made.columns[name]} AS {quote(name)}" for name in made.names
        )
        names = told_names(
            (name, f"{quote(name)} IS NOT NULL" if name.startswith(CONSENT_PREFIX) else "true") for name in told
        )
        line = told_line("_moment", "_names", "valid_from IS NULL")
        if wanted is made.fixed:
            some = " OR ".join(f"{quote(name)} IS NOT NULL" for name in told) or "false"
            line, condition = (
                f"CASE WHEN valid_from IS NULL THEN '' ELSE {line} END",
                f"({some} OR valid_from IS NOT NULL)",
            )
        else:
            condition = "isfinite(_moment)"
        parts.append(
            f"SELECT {KEY}, {moment} AS valid_from, {line} AS {TOLD}{values} "
            f"FROM (SELECT *, {names} AS _names FROM ({rows})) WHERE {condition} AND _names <> ''"
        )
    return " UNION ALL ".join(parts)


def _content(connection: duckdb.DuckDBPyConnection, relation: str, names: str) -> tuple[object, ...] | None:
    """Number of rows of a relation and the sum of their hashes: equal for the same rows in any order."""
    return connection.execute(f"SELECT count(*), sum(hash({names})::HUGEINT) FROM {relation}").fetchone()


def _store_observations(
    connection: duckdb.DuckDBPyConnection, made: _Attributes, staged: StagedTable, now: datetime | None
) -> None:
    """Store what was told of the records that are made again, with a box per column.

    Observations of changing attributes have one row per record and moment.
    """
    records = f"SELECT {KEY} FROM {REMADE}"
    # the declaration of an attribute may have changed; one that this input does not map stays as it was
    tells = {
        name: "true" if name in made.fixed or name in staged.mapped else "NOT _always"
        for name in made.names
        if name in made.fixed or name in made.changing
    }
    boxes = "".join(
        f", {box(name, condition)} AS {quote(name)}" for name, condition in told_columns(staged, list(tells))
    )
    given = (
        f"SELECT _row, {KEY}, {moment_of_rows('valid_from', now)} AS _moment, valid_from IS NULL AS _undated{boxes} "
        f"FROM ({_rows(made, staged, f'({KEY}) IN ({records})')})"
    )
    of_lake = observations_of_lake(made.columns, tells, made.in_lake, records)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {OBSERVED} AS SELECT * FROM ({given} UNION ALL SELECT -1 AS _row, * "
        f"FROM ({of_lake})) WHERE isfinite(_moment)"
    )
    consents = [name for name in made.changing if name.startswith(CONSENT_PREFIX) and name in staged.mapped]
    forget_unaware_consents(connection, OBSERVED, consents, "_undated", "NOT _undated")
    rows = f"SELECT * FROM {OBSERVED} WHERE _undated AND _row"
    if _count(connection, f"{rows} >= 0"):
        again = repeated_undated(f"{rows} >= 0", f"{rows} = -1", made.changing)
        connection.execute(f"DELETE FROM {OBSERVED} WHERE _undated AND _row >= 0 AND ({KEY}) IN ({again})")
    if _count(
        connection, f"SELECT 1 FROM {OBSERVED} WHERE {_some(made)} GROUP BY hash({KEY}, _moment) HAVING count(*) > 1"
    ):
        last = "".join(f", arg_max({quote(name)}, _row) AS {quote(name)}" for name in tells)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {OBSERVED} AS SELECT {KEY}, _moment, bool_and(_undated) AS _undated{last} "
            f"FROM {OBSERVED} GROUP BY {KEY}, _moment"
        )


def _some(made: _Attributes) -> str:
    """SQL condition of the observations that told any changing attribute."""
    return " OR ".join(f"{quote(name)} IS NOT NULL" for name in made.changing) or "false"


def _fixed_rows(made: _Attributes, staged: StagedTable, merged: Mapping[str, str]) -> str:
    """The fixed attributes of each record that is made again; one that this input does not map stays as it was."""
    values = []
    for name in made.names:
        of_profile = f"f.{quote(name)}::{made.columns[name]}" if name in merged else f"NULL::{made.columns[name]}"
        as_before = f"NULL::{made.columns[name]}" if name in staged.mapped else f"h.{quote(name)}"
        values.append(f"{of_profile if name in made.fixed else as_before} AS {quote(name)}")
    fixed = [name for name in made.names if name in made.fixed]
    others = [
        name for name in made.names if name in made.filled and name not in made.fixed and name not in staged.mapped
    ]
    observed = f"SELECT {', '.join([KEY, '_moment', '_undated', *map(quote, fixed)])} FROM {OBSERVED}"
    if others:
        of_lake = observations_of_lake(
            made.columns, dict.fromkeys(others, "_always"), made.in_lake, f"SELECT {KEY} FROM {REMADE}"
        )
        observed += f" UNION ALL BY NAME {of_lake}"
    profiles = (
        f"SELECT * FROM (SELECT * EXCLUDE (_row, _known, _same, _written) FROM final_profiles UNION ALL BY NAME "
        f"SELECT * FROM lake_profiles ANTI JOIN final_profiles USING ({KEY})) SEMI JOIN {REMADE} USING ({KEY})"
    )
    some = " OR ".join(f"{quote(name)} IS NOT NULL" for name in made.names)
    return (
        f"SELECT * FROM (SELECT {KEY}, NULL::TIMESTAMP AS valid_from, coalesce(t.{TOLD}, '') AS {TOLD}, "
        f"{', '.join(values)} FROM ({profiles}) AS f "
        f"LEFT JOIN (SELECT * FROM ({made.known}) WHERE valid_from IS NULL) AS h USING ({KEY}) "
        f"LEFT JOIN ({last_told(observed, [*fixed, *others])}) AS t USING ({KEY})) WHERE {TOLD} <> '' OR {some}"
    )


def _dated_rows(made: _Attributes) -> str:
    """The changing attributes of each record that is made again: a row per change, with all values from then on."""
    if not made.changing:
        return f"SELECT * FROM ({made.known}) WHERE false"
    record = f"PARTITION BY {KEY} ORDER BY _moment"
    carried = ", ".join(
        f"(last_value({quote(name)} IGNORE NULLS) OVER so_far).v AS {quote(name)}" for name in made.changing
    )
    line = told_line("_moment", told_names((name, f"{quote(name)} IS NOT NULL") for name in made.changing), "_undated")
    states = (
        f"SELECT {KEY}, _moment, {line} AS _line, {carried} FROM {OBSERVED} WHERE {_some(made)} "
        f"WINDOW so_far AS ({record} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    hashed = f"SELECT *, hash({column_list(made.changing)}) AS _hash FROM ({states})"
    starts = f"SELECT *, lag(_hash) OVER ({record}) IS DISTINCT FROM _hash AS _starts FROM ({hashed})"
    runs = f"SELECT *, sum(_starts::BIGINT) OVER ({record}) AS _run FROM ({starts})"
    values = ", ".join(
        f"{f'any_value({quote(name)})' if name in made.changing else 'NULL'}::{made.columns[name]} AS {quote(name)}"
        for name in made.names
    )
    return (
        f"SELECT {KEY}, min(_moment) AS valid_from, array_to_string(list_sort(list(_line)), {NEW_LINE}) AS {TOLD}, "
        f"{values} FROM ({runs}) GROUP BY {KEY}, _run"
    )


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int((connection.execute(f"SELECT count(*) FROM ({query})").fetchone() or (0,))[0])


def _filled(connection: duckdb.DuckDBPyConnection, names: list[str]) -> set[str]:
    """The columns of the history with a value in any row."""
    counts = ", ".join(f"count({quote(name)})" for name in names)
    found = connection.execute(f"SELECT {counts} FROM {KNOWN_HISTORY}").fetchone() or ()
    return {name for name, count in zip(names, found, strict=True) if count}


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {relation}").fetchall()}
