"""The contract of the canonical tables as SQL: cast the values, and give a reason for each row that is rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

import duckdb

from features.data.ingest.columns import content_columns, derived, needs_value
from features.data.ingest.currency_columns import converted, row_currencies, unused_currency_column
from features.data.ingest.ids import ID_COLUMNS, id_cast, id_reasons, id_text
from features.data.ingest.number_columns import DecimalSeparator, decimal_separators
from features.data.ingest.observed import CellFindings, has_null_words, observe
from features.data.ingest.own_items import ITEM_COLUMNS, prefixed
from features.data.ingest.personal_columns import identity_cases, personal_columns, personal_id_cases
from features.data.ingest.ranges import order_cases, promotion_cases, range_cases
from features.data.ingest.row_times import RowTimes, row_times, session_timezone
from features.data.ingest.unread_times import UnreadTimes, unread_times
from features.data.ingest.unread_values import UnreadValues, unread_values
from features.data.ingest.unused_columns import unused_columns, unused_status
from features.data.lake import SQL_TYPES, literal, quote
from features.data.placeholders import is_empty_identifier
from features.data.privacy import PersonalDataHasher
from features.data.sources.base import InputWarning, RawTable
from features.data.sources.casting import DTYPE_NOUNS, ColumnCast, attribute_dtype, cast, missing_columns
from features.data.sources.cells import is_null_word
from features.data.tables import LOGGED
from qianmian.errors import DataError
from qianmian.schema import TABLES, DType, Table

DEFAULTS = {("transactions", "status"): "paid"}


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
    personal : mapping of str to str
        Column that is stored as hashes → type of personal data.
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
    unread_values : tuple of UnreadValues
        Truth values and discounts that could not be read.
    findings : CellFindings
        What the raw cells show.
    """

    table: Table
    raw: str
    typed: str
    columns: Mapping[str, str]
    expressions: Mapping[str, str]
    read: int
    files: tuple[str, ...]
    personal: Mapping[str, str] = field(default_factory=dict)
    fixed: frozenset[str] | Literal["all"] = frozenset()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    file_column: str | None = None
    warnings: tuple[InputWarning, ...] = ()
    times: RowTimes | None = None
    unread_times: tuple[UnreadTimes, ...] = ()
    unread_values: tuple[UnreadValues, ...] = ()
    findings: CellFindings = field(default_factory=CellFindings)

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
    rows = f"SELECT {picked} FROM {raw}"
    types = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {rows}").fetchall()}
    secret = personal_columns(connection, table, raw_table, rows, types, personal.attribute_types)
    dtypes = _dtypes(table, types, secret, where)
    numbers = {
        name: raw_table.columns[name]
        for name, dtype in dtypes.items()
        if dtype in ("float64", "int64") and types[name] == "VARCHAR"
    }
    decimals = decimal_separators(connection, raw_table, raw, numbers, where)
    currencies = row_currencies(connection, raw_table, raw, numbers, where)
    casts, columns = _plan_casts(table, raw_table, types, dtypes, decimals, currencies, timezone, where)
    columns |= {LOGGED: "BOOLEAN"} if raw_table.logged else {}
    several = raw_table.file_column and len(raw_table.files) > 1
    file = f"hash({quote(raw_table.file_column)})" if raw_table.file_column and several else "0::UTINYINT"
    extra = "".join(f", {currency} AS {quote('$' + name)}" for name, currency in currencies.items())
    loose = _loose_rows(raw_table, raw, file, extra)
    ids = "".join(
        f", {id_text(name)} AS {quote(name)}" for name in types if name in ID_COLUMNS and types[name] == "VARCHAR"
    )
    cleaned = f"SELECT * REPLACE ({ids.removeprefix(', ')}) FROM ({loose})" if ids else loose
    # Each step is a query of its own, because DuckDB computes what occurs twice in one query twice.
    results = "".join(f", {column_cast.value} AS {quote('=' + name)}" for name, column_cast in casts.items())
    date_only = casts["ts"].date_only if "ts" in casts else None
    values = ", ".join(
        f"{quote('=' + name) if name in casts else derived(name, kind, date_only)} AS {quote(name)}"
        for name, kind in columns.items()
    )
    failed = "".join(
        f", CASE WHEN {quote('=' + name)} IS NULL THEN CASE WHEN {column_cast.failed} "
        f"THEN {_fault(table, name, column_cast)} END END AS {quote('!' + name)}"
        for name, column_cast in casts.items()
        if column_cast.failed
    )
    cast_rows = f"SELECT _row, _file, _fault, {values}{failed} FROM (SELECT *{results} FROM ({cleaned}))"
    id_cases = personal_id_cases(connection, raw_table, rows, types)
    reason = _rejection_reason(table, casts, columns, id_cases, personal, raw_table.hashed, now)
    checked = f"SELECT *, {reason} AS _reason FROM ({cast_rows})"
    changed = {name: _hashed(name, kind, personal, raw_table.hashed) for name, kind in secret.items()}
    changed |= {
        name: prefixed(name, f"c.{quote(name)}", raw_table.item_prefix) for name in casts if name in ITEM_COLUMNS
    }
    query = _canonical_query(table, columns, casts, checked, source, changed)
    with session_timezone(connection, timezone):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {typed} AS {query}")
        times = row_times(connection, raw_table, raw, typed, table, casts, timezone)
        unread = unread_times(connection, table.name, raw, typed, raw_table.columns)
    read = int((connection.execute(f"SELECT count(*) FROM {raw}").fetchone() or (0,))[0])
    findings = replace(
        observe(connection, raw_table, rows, typed, types, dtypes),
        decimals=decimals,
        decimal_declared=raw_table.values.decimal is not None,
        currencies=unused_currency_column(connection, raw_table, raw),
        unused=unused_columns(connection, raw_table, raw),
        status=unused_status(connection, raw_table, raw, typed),
    )
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
        unread_values(connection, raw, typed, raw_table.columns, dtypes),
        findings,
    )


def _fault(table: Table, name: str, column_cast: ColumnCast) -> str:
    """SQL of the reason to reject a row whose value could not be cast."""
    column = table.column(name)
    noun = DTYPE_NOUNS.get(column.dtype if column else "string", "a value")
    known = [(condition, f"{name} {what}") for condition, what in column_cast.faults]
    return _first_matching_case([*known, ("true", column_cast.failed_reason or f"{name} is not {noun}")])


def _loose_rows(raw_table: RawTable, raw: str, file: str, extra: str) -> str:
    """SELECT of the raw values by canonical column, with `_row`, `_file` and `_fault` (why a row cannot be computed).

    What several expressions and conditions share is computed once a row, in a query below.
    """
    rows, texts = f"SELECT *, rowid AS _row FROM {raw}", list(raw_table.common)
    picked = ", ".join(f"({expression}) AS {quote(name)}" for name, expression in raw_table.columns.items())
    query = (
        f"_row, {file} AS _file, {_first_matching_case(list(raw_table.error_conditions))} AS _fault, {picked}{extra}"
    )
    for at in range(len(texts)):
        name, text = quote(f"~{at}"), texts[at]
        rows = f"SELECT *, {text} AS {name} FROM ({rows})"
        texts = [other.replace(text, name) for other in texts]
        query = query.replace(text, name)
    return f"SELECT {query} FROM ({rows})"


def _hashed(name: str, kind: str, personal: PersonalDataHasher, hashed: bool) -> str:
    if name != "id_value":
        return personal.attribute(kind, f"c.{quote(name)}")
    id_type = "lower(trim(c.id_type))"
    value = personal.identifier(id_type, "c.id_value", hashed)
    return f"CASE WHEN {is_empty_identifier(id_type, 'c.id_value')} THEN NULL ELSE {value} END"


def _dtypes(table: Table, types: Mapping[str, str], secret: Mapping[str, str], where: str) -> dict[str, DType]:
    """Dtype of each mapped column; attributes keep the type of the file."""
    dtypes: dict[str, DType] = {}
    for name, sql_type in types.items():
        column = table.column(name)
        if column is None and not table.keeps_extra_columns:
            raise DataError(f"{table.name} has no such column", where=where, got=name, allowed=", ".join(table.names))
        if column is not None:
            dtypes[name] = column.dtype
        else:
            dtypes[name] = "string" if name in secret else attribute_dtype(sql_type)
    return dtypes


def _plan_casts(
    table: Table,
    raw_table: RawTable,
    types: Mapping[str, str],
    dtypes: Mapping[str, DType],
    decimals: Mapping[str, DecimalSeparator],
    currencies: Mapping[str, str],
    timezone: str,
    where: str,
) -> tuple[dict[str, ColumnCast], dict[str, str]]:
    columns = {column.name: SQL_TYPES[column.dtype] for column in table.columns}
    casts: dict[str, ColumnCast] = {}
    for name, dtype in dtypes.items():
        planned = (decimals[name].cast if name in decimals else cast)(dtype, types[name], quote(name), timezone)
        if planned.unsupported_reason:
            raise DataError(
                f"{table.name}.{name} cannot be cast to {DTYPE_NOUNS[dtype]}",
                where=where,
                got=f"{raw_table.columns[name]} of type {types[name]}",
                hint=planned.unsupported_reason,
            )
        if name in ID_COLUMNS:
            planned = id_cast(table, name, planned, types[name])
        elif dtype == "string" and has_null_words(table, name, types[name], dtype):
            planned = ColumnCast(f"CASE WHEN NOT {is_null_word(quote(name))} THEN {planned.value} END", planned.failed)
        if name in currencies and raw_table.values.currency is not None:
            planned = converted(planned, raw_table.values.currency, name)
        casts[name] = planned
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
    id_cases: list[tuple[str, str]],
    personal: PersonalDataHasher,
    hashed: bool,
    now: datetime | None,
) -> str:
    """SQL of the reason to reject a row, null for a valid row; the first check that fails gives the reason."""
    cases = [("_fault", "")]
    for name, column_cast in casts.items():
        if column_cast.failed:
            cases.append((quote("!" + name), ""))
        if name in ID_COLUMNS and name != "id_value":
            cases.extend(id_reasons(name))
    for name in casts:
        column = table.column(name)
        # A source may have no timestamps or keys at all, but if it maps the column, every row needs a value.
        if column and (name == "ts" or needs_value(table, column)):
            cases.append((f"{quote(name)} IS NULL", f"{name} is missing"))
        if column and column.allowed:
            allowed = ", ".join(literal(value) for value in column.allowed)
            cases.append(
                (f"lower(trim({quote(name)})) NOT IN ({allowed})", f"{name} is not one of {', '.join(column.allowed)}")
            )
        if columns[name] in ("TIMESTAMP", "DATE"):
            reason = f"{name} has a year before 1000: a year of two digits is %y in strptime, not %Y"
            cases.append((f"{quote(name)} < {columns[name]} '1000-01-01'", reason))
        cases.extend(range_cases(table, column, now) if column else [])
    cases += id_cases
    if table.name == "identities":
        cases += identity_cases(personal, hashed)
    if table.name == "transactions":
        cases += order_cases()
    if table.name == "promotions":
        cases += promotion_cases()
    return _first_matching_case(cases)


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
