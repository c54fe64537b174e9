"""SQL that casts raw values to the canonical dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.data.lake import SQL_TYPES, literal
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
# "2017-12-01T10:00:00+01:00", "… 10:00Z": an offset must follow a clock time, because a date also ends like one ("-01")
_ZONED = r"\d{1,2}:\d{2}.*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"


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
    failed_reason : str or None
        Reason to reject a row whose cast failed. None: "… is not a number", by the dtype.
    """

    value: str
    failed: str | None
    unsupported_reason: str | None = None
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

    Timestamps without an offset are read in `timezone`; results are UTC. `decimal` is the decimal separator of text.

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
    return _time(dtype, family, text, raw, timezone)


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


def _time(dtype: DType, family: str, text: str, raw: str, timezone: str) -> ColumnCast:
    target = SQL_TYPES[dtype]
    if family not in ("text", "naive", "zoned"):
        return ColumnCast(
            f"NULL::{target}",
            f"{raw} IS NOT NULL",
            "a number is not a time: use to_timestamp(column) for seconds since 1970",
        )

    def to_utc(naive: str) -> str:
        return naive if timezone == "UTC" else f"(({naive}) AT TIME ZONE {literal(timezone)}) AT TIME ZONE 'UTC'"

    if dtype == "date":
        value = f"TRY_CAST({text} AS DATE)" if family == "text" else f"{raw}::DATE"
    elif family == "text":
        # DuckDB requires seconds before an offset, ISO 8601 does not ("10:00Z")
        full = rf"regexp_replace({text}, '([ T]\d{{1,2}}:\d{{2}}) ?(Z|z|UTC|GMT|[+-])', '\1:00\2')"
        zoned = f"TRY_CAST({full} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
        naive = to_utc(f"TRY_CAST({text} AS TIMESTAMP)")
        value = f"CASE WHEN regexp_matches({text}, {literal(_ZONED)}) THEN {zoned} ELSE {naive} END"
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
