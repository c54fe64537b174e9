"""SQL that casts raw values to the canonical dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.data.lake import SQL_TYPES, literal
from features.data.sources.casting_times import (
    date_of_text,
    date_of_utc,
    has_offset,
    skipped,
    skipped_reason,
    text_faults,
    utc_of_naive,
    utc_of_text,
)
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
    `decimal` is the decimal separator of text.

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
    if dtype in ("float64", "int64"):
        as_number = number(text, literal(decimal)) if family == "text" else f"TRY_CAST({raw} AS DOUBLE)"
        return (_float if dtype == "float64" else _int)(family, text, raw, as_number)
    builder = {"string": _string, "bool": _bool, "json": _json}.get(dtype)
    if builder is not None:
        return builder(family, text, raw)
    return _time(dtype, family, text, raw, sql_type, timezone)


def _string(family: str, text: str, raw: str) -> ColumnCast:
    if family == "text":  # the text is kept unchanged with its blanks, but text of blanks only is null
        return ColumnCast(f"CASE WHEN {text} IS NOT NULL THEN {raw} END", None)
    if family == "real":  # integer ids become floats when their column has missing values
        whole = f"isfinite({raw}::DOUBLE) AND {raw} = floor({raw}) AND abs({raw}) < 9007199254740992"
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
    exact = (
        f"CASE WHEN abs({as_number}) < 9007199254740992 THEN {as_number}::BIGINT ELSE TRY_CAST({text} AS BIGINT) END"
    )
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
        utc = f"{raw} AT TIME ZONE 'UTC'"
        value = date_of_utc(utc, timezone) if dtype == "date" else utc
        return ColumnCast(f"CASE WHEN isfinite({value}) THEN {value} END", failed)
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
