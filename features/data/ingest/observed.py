"""What the raw cells of one table show before they are cast: placeholders, wrapped ids, words for missing values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb

from features.data.ingest.ids import ID_COLUMNS, id_text
from features.data.ingest.number_columns import DecimalSeparator
from features.data.ingest.unused_columns import UnusedStatus
from features.data.lake import quote
from features.data.placeholders import is_empty_identifier, is_placeholder
from features.data.sources.base import RawTable
from features.data.sources.cells import is_null_word, may_be_wrapped
from qianmian.schema import TABLES, DType, Table

# Tables whose rows describe something. In the other ones text stays as it is: other text would make another event.
DESCRIBING = ("profiles", "items", "contents", "campaigns")
_NATIONAL_PHONES = (
    "SELECT count(*) FROM ({rows}) WHERE lower(trim(id_type::VARCHAR)) IN ('phone', 'phone_verified') "
    "AND regexp_full_match(id_value::VARCHAR, '[0-9 ().-]{{7,20}}') AND NOT regexp_matches(id_value::VARCHAR, '^ *00')"
)


@dataclass(frozen=True)
class CellFindings:
    """Findings in the raw cells of one table; counts are rows.

    Attributes
    ----------
    placeholders : mapping of str to mapping of str to int
        Id column → word for "no value" → rows.
    wrapped : mapping of str to int
        Id column → ids in one of Excel's wrappings.
    null_words : mapping of str to int
        Column of numbers, times, truth values or attributes → cells with a word such as NULL.
    decimals : mapping of str to DecimalSeparator
        Number column → its decimal separator.
    decimal_declared : bool
        Whether the source declares the decimal separator.
    national_phones : int
        Telephone numbers without a calling code.
    currencies : (str, tuple of str) or None
        A column of the file that names several currencies and is not used, and its values.
    unused : tuple of str
        Columns of the file that the mapping does not use.
    status : UnusedStatus or None
        One of them that says which orders were refunded or cancelled, although every row counts as paid.
    """

    placeholders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    wrapped: Mapping[str, int] = field(default_factory=dict)
    null_words: Mapping[str, int] = field(default_factory=dict)
    decimals: Mapping[str, DecimalSeparator] = field(default_factory=dict)
    decimal_declared: bool = False
    national_phones: int = 0
    currencies: tuple[str, tuple[str, ...]] | None = None
    unused: tuple[str, ...] = ()
    status: UnusedStatus | None = None


def has_null_words(table: Table, name: str, sql_type: str, dtype: DType) -> bool:
    """Whether cells such as NULL are missing values in this column: numbers, times, truth values, text attributes."""
    if sql_type != "VARCHAR" or dtype == "json" or name in ID_COLUMNS:
        return False
    column = table.column(name)
    return dtype != "string" or (table.name in DESCRIBING and not (column and (column.required or column.allowed)))


def observe(
    connection: duckdb.DuckDBPyConnection,
    raw_table: RawTable,
    rows: str,
    typed: str,
    types: Mapping[str, str],
    dtypes: Mapping[str, DType],
) -> CellFindings:
    """Compare the raw cells with the cast rows and count what was changed or left out.

    Parameters
    ----------
    rows : str
        SELECT of the raw values by canonical column.
    typed : str
        Name of the temp table with the cast rows.
    types, dtypes : mapping
        Canonical column → SQL type of its raw values, and dtype to which they are cast.
    """
    # only a column with null values can have placeholders, which few columns have
    counts = ", ".join(f"count({quote(name)}) < count(*)" for name in types)
    has_nulls = connection.execute(f"SELECT {counts} FROM {typed}").fetchone() or ()
    conditions: dict[tuple[str, str], str] = {}
    for name, nulls in zip(types, has_nulls, strict=True):
        text = types[name] == "VARCHAR"
        if name in ID_COLUMNS:
            if nulls:
                conditions["placeholder", name] = _placeholder(name, types)
            if text:
                changed = f"{id_text(name)} IS DISTINCT FROM {quote(name)}"
                conditions["wrapped", name] = f"CASE WHEN {may_be_wrapped(quote(name))} THEN {changed} END"
        elif nulls and has_null_words(TABLES[raw_table.table], name, types[name], dtypes[name]):
            conditions["null word", name] = is_null_word(quote(name))
    counted: dict[tuple[str, str], int] = {}
    if conditions:
        counts = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions.values())
        found = connection.execute(f"SELECT {counts} FROM ({rows})").fetchone() or (0,) * len(conditions)
        counted = {key: int(count) for key, count in zip(conditions, found, strict=True) if count}
    placeholders = {}
    for kind, name in counted:
        if kind == "placeholder":
            words = connection.execute(
                f"SELECT trim({quote(name)}::VARCHAR) AS word, count(*) FROM ({rows}) WHERE {conditions[kind, name]} "
                "GROUP BY 1 ORDER BY 2 DESC, 1"
            ).fetchall()
            placeholders[name] = {str(word): int(count) for word, count in words}
    wrapped, null_words = (
        {name: count for (kind, name), count in counted.items() if kind == wanted}
        for wanted in ("wrapped", "null word")
    )
    phones = 0
    if raw_table.table == "identities" and not raw_table.hashed:
        row = connection.execute(_NATIONAL_PHONES.format(rows=rows)).fetchone()
        phones = int(row[0]) if row else 0
    return CellFindings(placeholders, wrapped, null_words, national_phones=phones)


def _placeholder(name: str, types: Mapping[str, str]) -> str:
    text = id_text(name) if types[name] == "VARCHAR" else f"{quote(name)}::VARCHAR"
    if name == "id_value":
        return is_empty_identifier("lower(trim(id_type::VARCHAR))", text)
    return is_placeholder(name, text)
