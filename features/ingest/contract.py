"""The contract of the canonical tables as SQL: cast what can be cast, name what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from features.lake import SQL_TYPES, literal, quote
from features.sources.base import RawTable
from features.sources.casting import NOUNS, Cast, attribute_dtype, cast, missing_columns
from qianmian.errors import DataError
from qianmian.schema import TABLES, Column, Table

NOT_NEGATIVE = {
    ("transactions", "discount"), ("transactions", "coupon_discount"), ("items", "price"), ("events", "duration_seconds"),
}  # fmt: skip
FIRST_TIME, LAST_TIME = "1900-01-01", "2262-01-01"  # beyond these a time is a placeholder, and does not fit nanoseconds either
DEFAULTS = {("transactions", "status"): "paid"}

_PAID = "coalesce(lower(trim(status)), 'paid') = 'paid'"


@dataclass(frozen=True)
class Staged:
    """A raw table cast and checked: temp table `typed` has `_row`, `_reason`, `_signed` and `columns`, in file order or not."""

    table: Table
    raw: str
    typed: str
    columns: Mapping[str, str]  # name → SQL type, canonical columns first, then attributes
    mapped: frozenset[str]
    read: int
    files: tuple[str, ...]


def stage(connection: duckdb.DuckDBPyConnection, raw_table: RawTable, source: str, timezone: str) -> Staged:
    """Read one raw table and type it. Makes the temp tables ``raw_<table>`` and ``typed_<table>``.

    Raises
    ------
    DataError
        When a required column is not mapped, or a column can never become what it is mapped to.
    """
    table = TABLES[raw_table.table]
    where = ", ".join(raw_table.files[:3]) + (" …" if len(raw_table.files) > 3 else "")
    missing = missing_columns(table, raw_table.columns)
    if missing:
        raise DataError(
            f"{table.name} lacks required columns", where=where, got=", ".join(raw_table.columns), allowed=", ".join(missing),
            hint="map each of them to a column or an expression",
        )  # fmt: skip
    raw, typed = f"raw_{table.name}", f"typed_{table.name}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {raw} AS {raw_table.relation}")
    # rowid of a temp table filled by one statement is the order of its rows
    picked = ", ".join(f"({expression}) AS {quote(name)}" for name, expression in raw_table.columns.items())
    fault = _first_of([(condition, reason) for condition, reason in raw_table.faults])
    loose = f"SELECT rowid AS _row, {fault} AS _fault, {picked} FROM {raw}"
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {loose}").fetchall()}
    casts, columns = _plan(table, raw_table.columns, types, timezone, where)
    values = ", ".join(f"{casts[name].value if name in casts else f'NULL::{kind}'} AS {quote(name)}" for name, kind in columns.items())
    failed = "".join(f", ({made.failed}) AND ({made.value}) IS NULL AS {quote('!' + name)}" for name, made in casts.items() if made.failed)
    cast_rows = f"SELECT _row, _fault, {values}{failed} FROM ({loose})"
    checked = f"SELECT *, {_reason(table, casts)} AS _reason FROM ({cast_rows})"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {typed} AS {_finish(table, columns, casts, checked, source)}")
    read = int((connection.execute(f"SELECT count(*) FROM {raw}").fetchone() or (0,))[0])
    return Staged(table, raw, typed, columns, frozenset(raw_table.columns), read, raw_table.files)


def _plan(
    table: Table, mapped: Mapping[str, str], types: Mapping[str, str], timezone: str, where: str
) -> tuple[dict[str, Cast], dict[str, str]]:
    columns = {column.name: SQL_TYPES[column.dtype] for column in table.columns}
    casts: dict[str, Cast] = {}
    for name in mapped:
        column = table.column(name)
        if column is None and not table.open_ended:
            raise DataError(f"{table.name} has no column of that name", where=where, got=name, allowed=", ".join(table.names))
        dtype = column.dtype if column else attribute_dtype(types[name])
        casts[name] = cast(dtype, types[name], quote(name), timezone)
        if casts[name].impossible:
            raise DataError(
                f"{table.name}.{name} cannot be {NOUNS[dtype]}", where=where, got=f"{mapped[name]} of type {types[name]}",
                hint=casts[name].impossible,
            )  # fmt: skip
        columns.setdefault(name, SQL_TYPES[dtype])
    return casts, columns


def _first_of(cases: list[tuple[str, str]]) -> str:
    if not cases:
        return "NULL::VARCHAR"
    return "CASE " + " ".join(f"WHEN {condition} THEN {literal(reason)}" for condition, reason in cases) + " END"


def _reason(table: Table, casts: Mapping[str, Cast]) -> str:
    """The first thing wrong with a row, most basic first."""
    cases = [("_fault IS NOT NULL", "")]  # replaced below: a fault brings its own text
    for name, made in casts.items():
        column = table.column(name)
        noun = NOUNS.get(column.dtype if column else "string", "a value")
        if made.failed:
            cases.append((quote("!" + name), f"{name} is not {noun}"))
    for name in casts:
        column = table.column(name)
        # a whole source may come without times, but a source that has them may not lack one; the same for keys
        if column and (column.required or name == "ts" or name in table.key):
            cases.append((f"{quote(name)} IS NULL", f"{name} is missing"))
        if column and column.allowed:
            allowed = ", ".join(literal(value) for value in column.allowed)
            cases.append((f"lower(trim({quote(name)})) NOT IN ({allowed})", f"{name} is not one of {', '.join(column.allowed)}"))
        cases.extend(_range(table, column) if column else [])
    if table.name == "transactions":
        cases.append((f"{_PAID} AND quantity * amount < 0", "quantity and amount have opposite signs, and status is not refunded"))
    return _first_of(cases).replace("THEN ''", "THEN _fault", 1)


def _range(table: Table, column: Column) -> list[tuple[str, str]]:
    name = quote(column.name)
    if (table.name, column.name) in NOT_NEGATIVE:
        condition = f"{name} < 0"
        if table.name == "transactions":  # a refund turns every sign of its line
            condition += f" AND coalesce(quantity, 0) >= 0 AND coalesce(amount, 0) >= 0 AND {_PAID}"
        return [(condition, f"{column.name} is negative")]
    if column.unit == "0..1":
        return [(f"NOT {name} BETWEEN 0 AND 1", f"{column.name} is not between 0 and 1")]
    if column.name == "ts":
        return [
            (f"{name} < TIMESTAMP '{FIRST_TIME}' OR {name} >= TIMESTAMP '{LAST_TIME}'", f"ts is not between {FIRST_TIME} and {LAST_TIME}")
        ]
    return []


def _finish(table: Table, columns: Mapping[str, str], casts: Mapping[str, Cast], checked: str, source: str) -> str:
    """Fill what a source may leave out: the source's name, defaults, signs, line numbers, event ids."""
    final = {name: f"c.{quote(name)}" for name in columns}  # qualified: a new value never reads another new value
    if "source" in final and "source" not in casts:
        final["source"] = literal(source)
    for column in table.columns:
        if column.allowed:
            default = DEFAULTS.get((table.name, column.name))
            word = f"lower(trim({final[column.name]}))"
            final[column.name] = f"coalesce({word}, {literal(default)})" if default else word
    signed = "false"
    if table.name == "transactions":
        signed = f"{final['status']} = 'paid' AND (coalesce({final['quantity']}, 0) < 0 OR coalesce({final['amount']}, 0) < 0)"
        final["status"] = f"CASE WHEN {signed} THEN 'refunded' ELSE {final['status']} END"
        for name in ("quantity", "amount", "discount", "coupon_discount"):
            final[name] = f"abs({final[name]})"
        if "line_no" not in casts:
            final["line_no"] = f"row_number() OVER (PARTITION BY {final['source']}, c.order_id ORDER BY c._row)"
    chosen = ", ".join(f"{expression} AS {quote(name)}" for name, expression in final.items())
    query = f"SELECT _row, _reason, {signed} AS _signed, {chosen} FROM ({checked}) AS c"
    if table.name == "events" and "event_id" not in casts:
        parts = ", ".join(f"'{name}=' || {quote(name)}::VARCHAR" for name in columns if name != "event_id")
        digest = f"SELECT *, left(md5(concat_ws(chr(31), {parts})), 20) AS _content FROM ({query})"
        nth = "row_number() OVER (PARTITION BY _content ORDER BY _row)"
        named = ", ".join(
            f"_content || CASE WHEN {nth} > 1 THEN '-' || {nth} ELSE '' END AS event_id" if name == "event_id" else quote(name)
            for name in columns
        )
        query = f"SELECT _row, _reason, _signed, {named} FROM ({digest})"
    return query
