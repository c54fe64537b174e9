"""SQL that casts raw values to the canonical dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.data.lake import SQL_TYPES, literal
from features.data.sources.casting_times import (
    bound,
    date_of_text,
    date_of_utc,
    has_offset,
    skipped,
    skipped_reason,
    text_faults,
    utc_of_instant,
    utc_of_naive,
    utc_of_text,
)
from features.data.sources.cells import value_text
from features.data.sources.numbers import number
from qianmian.schema import DType, Table

_WHOLE = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
}
_NAIVE = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"}
_EXACT = 2**53  # all smaller whole numbers are exact as DOUBLE
DTYPE_NOUNS = {
    "float64": "a finite number",
    "int64": "a whole number",
    "bool": "true or false",
    "timestamp": "a time",
    "date": "a date",
    "json": "JSON",
}


@dataclass(frozen=True)
class ColumnCast:
    """Cast of one raw expression to a canonical dtype.

    Attributes
    ----------
    value : str
        SQL of the cast value; null where the cast fails.
    failed : str or None
        SQL condition of a row that has a raw value; if `value` is null there, the cast failed. None: it cannot fail.
    unsupported_reason : str or None
        Why no value of this SQL type can be cast to the dtype.
    faults : tuple of (str, str)
        (SQL condition, what is wrong) of failed rows, where more is known than that the value is none of the dtype.
    naive : str
        Times only. SQL condition: the value has no offset, and is read in the time zone of the source.
    date_only : str
        Times only. SQL condition: the value is a date without a clock time.
    failed_reason : str or None
        Reason to reject a row whose cast failed. None: "… is not a number", by the dtype.
    """

    value: str
    failed: str | None
    unsupported_reason: str | None = None
    faults: tuple[tuple[str, str], ...] = ()
    naive: str = "false"
    date_only: str = "false"
    failed_reason: str | None = None


def missing_columns(table: Table, mapped: Mapping[str, str]) -> list[str]:
    """Required columns of `table` that a source does not map."""
    return [column.name for column in table.columns if column.required and column.name not in mapped]


def attribute_dtype(sql_type: str) -> DType:
    """Dtype in which an attribute (a column that is not in the schema) is stored."""
    family = _family(sql_type)
    dtypes: dict[str, DType] = {
        "whole": "float64",
        "real": "float64",
        "bool": "bool",
        "naive": "timestamp",
        "zoned": "timestamp",
    }
    return dtypes.get(family, "string")


def cast(dtype: DType, sql_type: str, raw: str, timezone: str, decimal: str = ".") -> ColumnCast:
    """Cast the expression `raw` of SQL type `sql_type` to `dtype`.

    Timestamps without an offset are read in `timezone`; results are UTC. A date is the local date of `timezone`.
    `decimal` is the decimal separator of text. A cell (VARCHAR) is cleaned by `value_text` first, unless the result is
    text. Nearly all cells need no cleaning, which costs more than the cast: the usual forms are read as they are, and
    only the other cells are cleaned.

    Examples
    --------
    >>> import duckdb
    >>> duckdb.sql("SELECT " + cast("timestamp", "VARCHAR", "'2017-07-01 12:00'", "Europe/London").value).fetchone()
    (datetime.datetime(2017, 7, 1, 11, 0),)
    """
    family = _family(sql_type)
    if family == "null":
        return ColumnCast(f"NULL::{SQL_TYPES[dtype]}", None)
    if family == "other":
        raw, family = f"to_json({raw})::VARCHAR", "text"
    elif family == "text" and sql_type != "VARCHAR":
        raw = f"{raw}::VARCHAR"
    text = f"nullif(trim({raw}), '')" if family == "text" else raw
    if sql_type == "VARCHAR" and dtype not in ("string", "json"):
        return _cell(dtype, raw, timezone, decimal)
    if dtype in ("float64", "int64"):
        as_number = number(text, literal(decimal)) if family == "text" else f"TRY_CAST({raw} AS DOUBLE)"
        return (_float if dtype == "float64" else _int)(family, text, raw, as_number)
    builder = {"string": _string, "bool": _bool, "json": _json}.get(dtype)
    if builder is not None:
        return builder(family, text, raw)
    return _time(dtype, family, text, raw, sql_type, timezone)


def _cell(dtype: DType, raw: str, timezone: str, decimal: str) -> ColumnCast:
    """Cast of a number, time or truth value in a cell: the usual forms as they are, else the cleaned text."""
    text, as_double = value_text(raw), f"TRY_CAST({raw} AS DOUBLE)"
    failed, naive, date_only = f"{text} IS NOT NULL", "false", "false"
    faults: tuple[tuple[str, str], ...] = ()
    if dtype in ("float64", "int64"):
        usual = f"isfinite({as_double})" + (f" AND NOT contains({raw}, '.')" if decimal == "," else "")
        slow = (_float if dtype == "float64" else _int)("text", "_cell", "_cell", "_number")
        other = bound(text, "_cell", bound(number("_cell", literal(decimal)), "_number", slow.value))
        if dtype == "float64":
            value = f"CASE WHEN {usual} THEN {as_double} ELSE {other} END"
        else:
            usual += f" AND {as_double} = floor({as_double}) AND abs({as_double}) < {_EXACT}"
            value = f"CASE WHEN {usual} THEN {as_double}::BIGINT ELSE {other} END"
    elif dtype == "bool":
        other = bound(text, "_cell", _bool("text", "_cell", "_cell").value)
        value = f"CASE WHEN {raw} IN ('true', '1') THEN true WHEN {raw} IN ('false', '0') THEN false ELSE {other} END"
    else:
        read = date_of_text if dtype == "date" else utc_of_text
        value = read(raw, timezone, bound(text, "_cell", read("_cell", timezone)))
        faults = tuple((bound(text, "_cell", fault), what) for fault, what in text_faults("_cell", timezone))
        naive = f"NOT {has_offset(raw)}"
        date_only = f"CASE WHEN contains({raw}, ':') THEN false ELSE NOT contains({text}, ':') END"
    return ColumnCast(f"CASE WHEN {raw} IS NOT NULL THEN {value} END", failed, None, faults, naive, date_only)


def _string(family: str, text: str, raw: str) -> ColumnCast:
    if family == "text":  # the text is kept unchanged with its blanks, but text of blanks only is null
        # trimming is slow; a text that begins with a visible character of ASCII needs none
        visible = f"{raw} >= '!' AND {raw} < '~'"
        return ColumnCast(f"CASE WHEN {visible} THEN {raw} WHEN {text} IS NOT NULL THEN {raw} END", None)
    if family == "real":  # integer ids become floats when their column has missing values
        whole = f"isfinite({raw}::DOUBLE) AND {raw} = floor({raw}) AND abs({raw}) < {_EXACT}"
        return ColumnCast(
            f"CASE WHEN {whole} THEN {raw}::BIGINT::VARCHAR WHEN NOT isnan({raw}::DOUBLE) THEN {raw}::VARCHAR END", None
        )
    return ColumnCast(f"{raw}::VARCHAR", None)


def _float(family: str, text: str, raw: str, as_number: str) -> ColumnCast:
    if family in ("whole", "bool"):
        return ColumnCast(f"{raw}::DOUBLE", None)
    if family not in ("text", "real"):
        return ColumnCast("NULL::DOUBLE", f"{raw} IS NOT NULL", "values of this type cannot be cast to a number")
    return ColumnCast(f"CASE WHEN isfinite({as_number}) THEN {as_number} END", f"{text} IS NOT NULL")


def _int(family: str, text: str, raw: str, as_number: str) -> ColumnCast:
    if family in ("whole", "bool"):
        return ColumnCast(f"TRY_CAST({raw} AS BIGINT)", f"{raw} IS NOT NULL")
    if family not in ("text", "real"):
        reason = "values of this type cannot be cast to a whole number"
        return ColumnCast("NULL::BIGINT", f"{raw} IS NOT NULL", reason)
    # DuckDB rounds '1.5' to 2, but a fractional line number is an error
    exact = f"CASE WHEN abs({as_number}) < {_EXACT} THEN {as_number}::BIGINT ELSE TRY_CAST({text} AS BIGINT) END"
    return ColumnCast(
        f"CASE WHEN isfinite({as_number}) AND {as_number} = floor({as_number}) THEN {exact} END",
        f"{text} IS NOT NULL",
    )


def _bool(family: str, text: str, raw: str) -> ColumnCast:
    if family in ("whole", "real"):
        return ColumnCast(f"CASE {raw} WHEN 1 THEN true WHEN 0 THEN false END", f"{raw} IS NOT NULL")
    if family == "text":
        lower = f"lower({text})"
        value = (
            f"CASE WHEN {lower} IN ('true', 't', 'yes', 'y', '1', '1.0') THEN true "
            f"WHEN {lower} IN ('false', 'f', 'no', 'n', '0', '0.0') THEN false END"
        )
        return ColumnCast(value, f"{text} IS NOT NULL")
    if family == "bool":
        return ColumnCast(f"{raw}::BOOLEAN", None)
    return ColumnCast("NULL::BOOLEAN", f"{raw} IS NOT NULL", "values of this type cannot be cast to true or false")


def _json(family: str, text: str, raw: str) -> ColumnCast:
    if family == "text":
        return ColumnCast(f"CASE WHEN json_valid({text}) THEN {text} END", f"{text} IS NOT NULL")
    return ColumnCast(f"to_json({raw})::VARCHAR", None)


def _time(dtype: DType, family: str, text: str, raw: str, sql_type: str, timezone: str) -> ColumnCast:
    target = SQL_TYPES[dtype]
    if family not in ("text", "naive", "zoned"):
        return ColumnCast(
            f"NULL::{target}",
            f"{raw} IS NOT NULL",
            "a number is not a time: use to_timestamp(column) for seconds since 1970, "
            "to_timestamp(column / 1000) for milliseconds",
        )
    failed = f"{text} IS NOT NULL"
    if family == "text":
        read = date_of_text if dtype == "date" else utc_of_text
        naive = f"NOT {has_offset(text)}"
        return ColumnCast(
            read(text, timezone), failed, None, text_faults(text, timezone), naive, f"NOT contains({text}, ':')"
        )
    if family == "zoned":
        utc = utc_of_instant(raw)
        return ColumnCast(date_of_utc(utc, timezone) if dtype == "date" else utc, failed)
    is_date = "true" if sql_type == "DATE" else "false"
    if dtype == "date":
        return ColumnCast(f"CASE WHEN isfinite({raw}) THEN {raw}::DATE END", failed, naive="true", date_only=is_date)
    local = f"TRY_CAST({raw} AS TIMESTAMP)"
    skips = skipped(local, timezone)
    return ColumnCast(
        f"CASE WHEN isfinite({raw}) THEN {utc_of_naive(local, timezone)} END",
        failed,
        faults=((skips, skipped_reason(timezone)),),
        naive="true",
        date_only=is_date,
    )


def _family(sql_type: str) -> str:
    if sql_type in _WHOLE:
        return "whole"
    if sql_type in ("DOUBLE", "FLOAT") or sql_type.startswith("DECIMAL"):
        return "real"
    if sql_type in _NAIVE:
        return "naive"
    if sql_type.startswith("TIMESTAMP WITH TIME ZONE"):
        return "zoned"
    if sql_type == "BOOLEAN":
        return "bool"
    if sql_type in ('"NULL"', "NULL"):
        return "null"
    if sql_type in ("VARCHAR", "UUID", "JSON", "BIGNUM") or sql_type.startswith("ENUM"):
        return "text"
    return "other"
