"""The contract of the canonical tables as SQL: cast the values, and give a reason for each row that is rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import duckdb

from features.data.ingest.columns import content_columns
from features.data.ingest.own_items import ITEM_COLUMNS, prefixed
from features.data.ingest.row_times import (
    RowTimes,
    row_times,
    session_timezone,
)
from features.data.ingest.unread_times import UnreadTimes, unread_times
from features.data.lake import SQL_TYPES, literal, quote
from features.data.privacy import (
    EMAIL_PATTERN,
    HASH_PATTERN,
    PHONE_PATTERN,
    SOURCE_HASH_PATTERN,
    PersonalDataHasher,
    normalized_value,
    personal_data_type,
)
from features.data.sources.base import InputWarning, RawTable
from features.data.sources.casting import DTYPE_NOUNS, ColumnCast, attribute_dtype, cast, missing_columns
from qianmian.errors import DataError
from qianmian.schema import TABLES, Column, Table

NON_NEGATIVE = {
    ("transactions", "discount"),
    ("transactions", "coupon_discount"),
    ("items", "price"),
    ("events", "duration_seconds"),
}
# times outside this range are placeholders, and do not fit into nanoseconds
FIRST_TIME, LAST_TIME = "1900-01-01", "2262-01-01"
DEFAULTS = {("transactions", "status"): "paid"}

OPTIONAL_KEYS = {("identities", "observed_at")}  # a sighting without a time is always valid
CONTACT_AS_ID_REASON = (
    "source_user_id is an e-mail address or a telephone number: map the customer number of your system, or a hash of it"
)

_PAID = "coalesce(lower(trim(status)), 'paid') = 'paid'"


@dataclass(frozen=True)
class StagedTable:
    """A raw table after casts and checks.

    Attributes
    ----------
    table : Table
        Canonical table.
    raw, typed : str
        Names of the temp tables: the raw rows, and the cast rows with `columns` and `_row`, `_reason`, `_signed` (the
        sign made it a refund), `_negative` (quantity or amount was negative) and `_file` (hash of the file, 0 if there
        is one file only). The order of the rows of `typed` is undefined.
    columns : mapping of str to str
        Column name → SQL type, canonical columns first, then attributes.
    expressions : mapping of str to str
        Column that the source maps → SQL expression over the raw columns.
    read : int
        Number of raw rows.
    files : tuple of str
        Input files.
    personal : tuple of str
        Columns that are stored as hashes.
    fixed : frozenset of str or "all"
        Attributes of `profiles` that never change.
    absent : mapping of str to frozenset of str
        File → canonical columns that it says nothing about.
    file_column : str or None
        Column of `raw` that holds the file of each row.
    warnings : tuple of InputWarning
        What the source found odd in its input.
    times : RowTimes or None
        Counts of the rows by what their `ts` is; None if the source maps no `ts`.
    unread_times : tuple of UnreadTimes
        Times that could not be read and have a known format.
    """

    table: Table
    raw: str
    typed: str
    columns: Mapping[str, str]
    expressions: Mapping[str, str]
    read: int
    files: tuple[str, ...]
    personal: tuple[str, ...] = ()
    fixed: frozenset[str] | Literal["all"] = frozenset()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    file_column: str | None = None
    warnings: tuple[InputWarning, ...] = ()
    times: RowTimes | None = None
    unread_times: tuple[UnreadTimes, ...] = ()

    @property
    def mapped(self) -> frozenset[str]:
        """Columns that the source maps."""
        return frozenset(self.expressions)


def stage(
    connection: duckdb.DuckDBPyConnection,
    raw_table: RawTable,
    source: str,
    timezone: str,
    personal: PersonalDataHasher,
    now: datetime | None = None,
    limit: int | None = None,
) -> StagedTable:
    """Read one raw table, cast and check it, and hash personal data.

    Creates the temp tables ``raw_<table>`` and ``typed_<table>``.

    Parameters
    ----------
    source, timezone : str
        Name of the source, and time zone of its timestamps without an offset.
    now : datetime, optional
        Current time, naive UTC; rows dated more than a day later are rejected.
    limit : int, optional
        Read only so many rows.

    Raises
    ------
    DataError
        If a required column is not mapped, or a mapped column has a type that cannot be cast.
    """
    table = TABLES[raw_table.table]
    where = ", ".join(raw_table.files[:3]) + (" …" if len(raw_table.files) > 3 else "")
    missing = missing_columns(table, raw_table.columns)
    if missing:
        raise DataError(
            f"required columns of {table.name} are not mapped",
            where=where,
            got=", ".join(raw_table.columns),
            allowed=", ".join(missing),
            hint="map each of them to a column or an expression",
        )
    raw, typed = f"raw_{table.name}", f"typed_{table.name}"
    limited = f" LIMIT {limit}" if limit else ""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {raw} AS {raw_table.relation}{limited}")
    # The rowid of a temp table that one statement filled is the row order.
    picked = ", ".join(f"({expression}) AS {quote(name)}" for name, expression in raw_table.columns.items())
    fault = _first_matching_case([(condition, reason) for condition, reason in raw_table.error_conditions])
    several = raw_table.file_column and len(raw_table.files) > 1
    file = f"hash({quote(raw_table.file_column)})" if raw_table.file_column and several else "0::UTINYINT"
    loose = f"SELECT rowid AS _row, {file} AS _file, {fault} AS _fault, {picked} FROM {raw}"
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {loose}").fetchall()}
    casts, columns = _plan_casts(table, raw_table.columns, types, timezone, where)
    values = ", ".join(
        f"{casts[name].value if name in casts else _derived(name, kind, casts)} AS {quote(name)}"
        for name, kind in columns.items()
    )
    failed = "".join(
        f", CASE WHEN ({column_cast.failed}) AND ({column_cast.value}) IS NULL "
        f"THEN {_fault(table, name, column_cast)} END AS {quote('!' + name)}"
        for name, column_cast in casts.items()
        if column_cast.failed
    )
    cast_rows = f"SELECT _row, _file, _fault, {values}{failed} FROM ({loose})"
    reason = _rejection_reason(table, casts, columns, personal, raw_table.hashed, now)
    checked = f"SELECT *, {reason} AS _reason FROM ({cast_rows})"
    secret = _personal_columns(table, casts, types)
    changed = {name: _hashed(name, personal, raw_table.hashed) for name in secret}
    changed |= {
        name: prefixed(name, f"c.{quote(name)}", raw_table.item_prefix) for name in casts if name in ITEM_COLUMNS
    }
    query = _canonical_query(table, columns, casts, checked, source, changed)
    with session_timezone(connection, timezone):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {typed} AS {query}")
        times = row_times(connection, raw_table, raw, typed, table, casts, timezone)
        unread = unread_times(connection, table.name, raw, typed, raw_table.columns)
    read = int((connection.execute(f"SELECT count(*) FROM {raw}").fetchone() or (0,))[0])
    return StagedTable(
        table,
        raw,
        typed,
        columns,
        raw_table.columns,
        read,
        raw_table.files,
        secret,
        raw_table.fixed,
        raw_table.absent,
        raw_table.file_column,
        raw_table.warnings,
        times,
        unread,
    )


def _derived(name: str, kind: str, casts: Mapping[str, ColumnCast]) -> str:
    """SQL of a column that the source does not map."""
    return casts["ts"].date_only if name == "date_only" and "ts" in casts else f"NULL::{kind}"


def _fault(table: Table, name: str, column_cast: ColumnCast) -> str:
    """SQL of the reason to reject a row whose value could not be cast."""
    column = table.column(name)
    noun = DTYPE_NOUNS.get(column.dtype if column else "string", "a value")
    known = [(condition, f"{name} {what}") for condition, what in column_cast.faults]
    return _first_matching_case([*known, ("true", f"{name} is not {noun}")])


def _personal_columns(table: Table, casts: Mapping[str, ColumnCast], types: Mapping[str, str]) -> tuple[str, ...]:
    """Columns stored as hashes: identifiers, and profile attributes whose names indicate personal data."""
    if table.name == "identities":
        return ("id_value",)
    return tuple(name for name in casts if _is_personal_column(table, name, types[name]))


def _is_personal_column(table: Table, name: str, sql_type: str) -> bool:
    return (
        table.name == "profiles"
        and table.column(name) is None
        and sql_type != "BOOLEAN"
        and personal_data_type(name) is not None
    )


def _hashed(name: str, personal: PersonalDataHasher, hashed: bool) -> str:
    if name == "id_value":
        return personal.identifier("lower(trim(c.id_type))", "c.id_value", hashed)
    return personal.attribute(personal_data_type(name) or name, f"c.{quote(name)}")


def _plan_casts(
    table: Table, mapped: Mapping[str, str], types: Mapping[str, str], timezone: str, where: str
) -> tuple[dict[str, ColumnCast], dict[str, str]]:
    columns = {column.name: SQL_TYPES[column.dtype] for column in table.columns}
    casts: dict[str, ColumnCast] = {}
    for name in mapped:
        column = table.column(name)
        if column is None and not table.keeps_extra_columns:
            raise DataError(f"{table.name} has no such column", where=where, got=name, allowed=", ".join(table.names))
        if column:
            dtype = column.dtype
        else:
            dtype = "string" if _is_personal_column(table, name, types[name]) else attribute_dtype(types[name])
        casts[name] = cast(dtype, types[name], quote(name), timezone)
        if casts[name].unsupported_reason:
            raise DataError(
                f"{table.name}.{name} cannot be cast to {DTYPE_NOUNS[dtype]}",
                where=where,
                got=f"{mapped[name]} of type {types[name]}",
                hint=casts[name].unsupported_reason,
            )
        columns.setdefault(name, SQL_TYPES[dtype])
    return casts, columns


def _first_matching_case(cases: list[tuple[str, str]]) -> str:
    """SQL of the reason of the first case that holds. Where a reason is empty, its condition is a text: the reason."""
    if not cases:
        return "NULL::VARCHAR"
    whens = (
        f"WHEN {condition} THEN {literal(reason)}" if reason else f"WHEN {condition} IS NOT NULL THEN {condition}"
        for condition, reason in cases
    )
    return f"CASE {' '.join(whens)} END"


def _rejection_reason(
    table: Table,
    casts: Mapping[str, ColumnCast],
    columns: Mapping[str, str],
    personal: PersonalDataHasher,
    hashed: bool,
    now: datetime | None,
) -> str:
    """SQL of the reason to reject a row, null for a valid row; the first check that fails gives the reason."""
    cases = [("_fault", "")]
    cases += [(quote("!" + name), "") for name, column_cast in casts.items() if column_cast.failed]
    for name in casts:
        column = table.column(name)
        # A source may have no timestamps or keys at all, but if it maps the column, every row needs a value.
        optional = (table.name, name) in OPTIONAL_KEYS
        if column and (column.required or name == "ts" or name in table.key) and not optional:
            cases.append((f"{quote(name)} IS NULL", f"{name} is missing"))
        if column and column.allowed:
            allowed = ", ".join(literal(value) for value in column.allowed)
            cases.append(
                (f"lower(trim({quote(name)})) NOT IN ({allowed})", f"{name} is not one of {', '.join(column.allowed)}")
            )
        if columns[name] in ("TIMESTAMP", "DATE"):
            reason = f"{name} has a year before 1000: a year of two digits is %y in strptime, not %Y"
            cases.append((f"{quote(name)} < {columns[name]} '1000-01-01'", reason))
        cases.extend(_range(table, column, now) if column else [])
    if "source_user_id" in casts:
        cases.append(
            (
                f"regexp_full_match(trim(source_user_id), {literal(f'{EMAIL_PATTERN}|{PHONE_PATTERN}')})",
                CONTACT_AS_ID_REASON,
            )
        )
    if table.name == "identities":
        cases += _identity_cases(personal, hashed)
    if table.name == "transactions":
        cases.append(
            (
                f"{_PAID} AND quantity * amount < 0",
                "quantity and amount have opposite signs, and status is not refunded",
            )
        )
    return _first_matching_case(cases)


def _identity_cases(personal: PersonalDataHasher, hashed: bool) -> list[tuple[str, str]]:
    # A reason contains neither type nor value: if the two columns were swapped, the type is a telephone number.
    id_type = "lower(trim(id_type))"
    cases = [
        (
            f"NOT ({personal.is_declared(id_type)})",
            f"id_type is not one that identity.id_types declares ({personal.declared})",
        )
    ]
    secret = f"{personal.is_personal(id_type)} AND NOT regexp_matches(id_value, {literal(HASH_PATTERN)})"
    if hashed:
        cases.append(
            (
                f"{secret} AND NOT regexp_matches(id_value, {literal(SOURCE_HASH_PATTERN)})",
                "id_value is not a hash, although the source sets hashed: true",
            )
        )
    else:
        cases.append(
            (f"{secret} AND {normalized_value(id_type, 'id_value')} = ''", "id_value is empty after normalisation")
        )
    return cases


def _range(table: Table, column: Column, now: datetime | None) -> list[tuple[str, str]]:
    name = quote(column.name)
    if (table.name, column.name) in NON_NEGATIVE:
        condition = f"{name} < 0"
        if table.name == "transactions":  # in a refund every sign may be reversed
            condition += f" AND coalesce(quantity, 0) >= 0 AND coalesce(amount, 0) >= 0 AND {_PAID}"
        return [(condition, f"{column.name} is negative")]
    if column.unit == "0..1":
        return [(f"NOT {name} BETWEEN 0 AND 1", f"{column.name} is not between 0 and 1")]
    if column.name == "birth_date":
        cases = [(f"{name} < DATE '{FIRST_TIME}'", f"birth_date is before {FIRST_TIME}")]
        if now is not None:
            latest = (now + timedelta(days=1)).date().isoformat()
            reason = "birth_date is in the future: strptime reads the years 00 to 68 of %y as 2000 to 2068"
            cases.append((f"{name} > DATE '{latest}'", reason))
        return cases
    if column.name in ("ts", "observed_at") or column.dates_row:
        outside = f"{name} < TIMESTAMP '{FIRST_TIME}' OR {name} >= TIMESTAMP '{LAST_TIME}'"
        cases = [(outside, f"{column.name} is not between {FIRST_TIME} and {LAST_TIME}")]
        if now is not None:  # one day of tolerance for a wrong time zone
            latest = (now + timedelta(days=1)).isoformat(sep=" ")
            reason = f"{column.name} is in the future: check the clock of the source"
            cases.append((f"{name} > TIMESTAMP {literal(latest)}", reason))
        return cases
    return []


def _canonical_query(
    table: Table,
    columns: Mapping[str, str],
    casts: Mapping[str, ColumnCast],
    checked: str,
    source: str,
    changed: Mapping[str, str],
) -> str:
    """SQL of the canonical rows, with the values a source may omit: source, defaults, signs, line numbers, event ids.

    `changed` maps the columns with personal data and the item ids to the SQL of what is stored.
    """
    final = {name: f"c.{quote(name)}" for name in columns}  # qualified, so that no new value reads another new value
    if "source" in final and "source" not in casts:
        final["source"] = literal(source)
    for column in table.columns:
        if column.allowed:
            default = DEFAULTS.get((table.name, column.name))
            normalised = f"lower(trim({final[column.name]}))"
            final[column.name] = f"coalesce({normalised}, {literal(default)})" if default else normalised
    final.update(changed)
    if table.name == "identities":
        final["id_type"] = "lower(trim(c.id_type))"
    signed = negative = "false"
    if table.name == "transactions":
        negative = f"coalesce({final['quantity']}, 0) < 0 OR coalesce({final['amount']}, 0) < 0"
        signed = f"{final['status']} = 'paid' AND ({negative})"
        final["status"] = f"CASE WHEN {signed} THEN 'refunded' ELSE {final['status']} END"
        for name in ("quantity", "amount", "discount", "coupon_discount"):
            final[name] = f"abs({final[name]})"
        if "line_no" not in casts:
            final["line_no"] = f"row_number() OVER (PARTITION BY {final['source']}, c.order_id ORDER BY c._row)"
    chosen = ", ".join(f"{expression} AS {quote(name)}" for name, expression in final.items())
    about = "_row, _file, _reason, _signed, _negative"
    query = f"SELECT _row, _file, _reason, {signed} AS _signed, {negative} AS _negative, {chosen} FROM ({checked}) AS c"
    if table.name == "events" and "event_id" not in casts:
        told = [name for name in content_columns(table, columns) if name != "event_id"]
        parts = ", ".join(f"'{name}=' || {quote(name)}::VARCHAR" for name in told)
        digest = f"SELECT *, left(md5(concat_ws(chr(31), {parts})), 20) AS _content FROM ({query})"
        nth = "row_number() OVER (PARTITION BY _content, _file ORDER BY _row)"
        named = ", ".join(
            f"_content || CASE WHEN {nth} > 1 THEN '-' || {nth} ELSE '' END AS event_id"
            if name == "event_id"
            else quote(name)
            for name in columns
        )
        query = f"SELECT {about}, {named} FROM ({digest})"
    return query
