"""Casting loosely typed values to the canonical dtypes, as SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.data.lake import SQL_TYPES, literal
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
# "2017-12-01T10:00:00+01:00", "… 10:00Z": a zone counts only after a clock time, or every date would end in one ("-01")
_ZONED = r"\d{1,2}:\d{2}.*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"


@dataclass(frozen=True)
class ColumnCast:
    """How one loosely typed expression becomes a canonical value, and when it could not."""

    value: str
    failed: str | None  # condition: something is there but it is not a value of the dtype
    unsupported_reason: str | None = None  # no row of this SQL type can ever be one


def missing_columns(table: Table, mapped: Mapping[str, str]) -> list[str]:
    """The required columns of `table` that a source does not map."""
    return [column.name for column in table.columns if column.required and column.name not in mapped]


def attribute_dtype(sql_type: str) -> DType:
    """What an attribute (a column the schema does not name) is kept as."""
    family = _family(sql_type)
    found: dict[str, DType] = {
        "whole": "float64",
        "real": "float64",
        "bool": "bool",
        "naive": "timestamp",
        "zoned": "timestamp",
    }
    return found.get(family, "string")


def cast(dtype: DType, sql_type: str, raw: str, timezone: str) -> ColumnCast:
    """The cast of expression `raw` of SQL type `sql_type` to `dtype`; naive times are read in `timezone`, results are UTC.

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
    builder = {"string": _string, "float64": _float, "int64": _int, "bool": _bool, "json": _json}.get(dtype)
    if builder is not None:
        return builder(family, text, raw)
    return _time(dtype, family, text, raw, timezone)


def _string(family: str, text: str, raw: str) -> ColumnCast:
    if family == "text":  # the text exactly, blanks included, unless blank is all there is
        return ColumnCast(f"CASE WHEN {text} IS NOT NULL THEN {raw} END", None)
    if family == "real":  # a float id is an integer that once shared its column with a missing value
        whole = f"isfinite({raw}::DOUBLE) AND {raw} = floor({raw}) AND abs({raw}) < 9007199254740992"
        return ColumnCast(
            f"CASE WHEN {whole} THEN {raw}::BIGINT::VARCHAR WHEN NOT isnan({raw}::DOUBLE) THEN {raw}::VARCHAR END", None
        )
    return ColumnCast(f"{raw}::VARCHAR", None)


def _float(family: str, text: str, raw: str) -> ColumnCast:
    if family in ("whole", "bool"):
        return ColumnCast(f"{raw}::DOUBLE", None)
    if family not in ("text", "real"):
        return ColumnCast("NULL::DOUBLE", f"{raw} IS NOT NULL", "a number cannot come from this type")
    number = f"TRY_CAST({text} AS DOUBLE)"
    return ColumnCast(f"CASE WHEN isfinite({number}) THEN {number} END", f"{text} IS NOT NULL")


def _int(family: str, text: str, raw: str) -> ColumnCast:
    if family in ("whole", "bool"):
        return ColumnCast(f"TRY_CAST({raw} AS BIGINT)", f"{raw} IS NOT NULL")
    if family not in ("text", "real"):
        return ColumnCast("NULL::BIGINT", f"{raw} IS NOT NULL", "a whole number cannot come from this type")
    number = f"TRY_CAST({text} AS DOUBLE)"
    # DuckDB rounds '1.5' to 2; half a line number is a mistake
    return ColumnCast(
        f"CASE WHEN isfinite({number}) AND {number} = floor({number}) THEN TRY_CAST({text} AS BIGINT) END",
        f"{text} IS NOT NULL",
    )


def _bool(family: str, text: str, raw: str) -> ColumnCast:
    if family in ("whole", "real"):
        return ColumnCast(f"CASE {raw} WHEN 1 THEN true WHEN 0 THEN false END", f"{raw} IS NOT NULL")
    if family == "text":
        words = f"lower({text})"
        value = (
            f"CASE WHEN {words} IN ('true', 't', 'yes', 'y', '1', '1.0') THEN true "
            f"WHEN {words} IN ('false', 'f', 'no', 'n', '0', '0.0') THEN false END"
        )
        return ColumnCast(value, f"{text} IS NOT NULL")
    return (
        ColumnCast(f"{raw}::BOOLEAN", None)
        if family == "bool"
        else ColumnCast("NULL::BOOLEAN", f"{raw} IS NOT NULL", "true or false cannot come from this type")
    )


def _json(family: str, text: str, raw: str) -> ColumnCast:
    if family == "text":
        return ColumnCast(f"CASE WHEN json_valid({text}) THEN {text} END", f"{text} IS NOT NULL")
    return ColumnCast(f"to_json({raw})::VARCHAR", None)


def _time(dtype: DType, family: str, text: str, raw: str, timezone: str) -> ColumnCast:
    target = SQL_TYPES[dtype]
    if family not in ("text", "naive", "zoned"):
        return ColumnCast(
            f"NULL::{target}",
            f"{raw} IS NOT NULL",
            "a number is not a time by itself: write to_timestamp(column) for epoch seconds",
        )

    def to_utc(naive: str) -> str:
        return naive if timezone == "UTC" else f"(({naive}) AT TIME ZONE {literal(timezone)}) AT TIME ZONE 'UTC'"

    if dtype == "date":
        value = f"TRY_CAST({text} AS DATE)" if family == "text" else f"{raw}::DATE"
    elif family == "text":
        # DuckDB wants seconds before a zone ("10:00Z"), ISO 8601 does not
        full = rf"regexp_replace({text}, '([ T]\d{{1,2}}:\d{{2}}) ?(Z|z|UTC|GMT|[+-])', '\1:00\2')"
        zoned = f"TRY_CAST({full} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
        value = f"CASE WHEN regexp_matches({text}, {literal(_ZONED)}) THEN {zoned} ELSE {to_utc(f'TRY_CAST({text} AS TIMESTAMP)')} END"
    elif family == "zoned":
        value = f"{raw} AT TIME ZONE 'UTC'"
    else:
        value = to_utc(f"TRY_CAST({raw} AS TIMESTAMP)")
    return ColumnCast(f"CASE WHEN isfinite({value}) THEN {value} END", f"{text} IS NOT NULL")


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
