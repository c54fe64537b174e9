"""The decimal separator of each text column that is read as a number: declared, told by its values, or refused.

Values that can only be read in one way decide for their column: ``12,50`` and ``1.250,00`` have a decimal comma,
``12.50`` and ``1,250.00`` a decimal point. Where both occur, or only values such as ``1.250``, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from features.data.lake import literal, quote
from features.data.sources.base import RawTable
from features.data.sources.cells import value_text
from features.data.sources.currencies import COMMA_GROUPS, NO_DECIMALS
from features.data.sources.numbers import COMMA_ONLY, EITHER, POINT_ONLY, decimal_variable, number, plain_number
from qianmian.errors import DataError

COMMA, POINT = ",", "."
MAX_STRAY = 0.01  # so few values with the other separator are mistakes, and only their rows are rejected


@dataclass(frozen=True)
class _Forms:
    """How many values of a column have a decimal comma, a decimal point, or could have either; with an example each."""

    comma: int
    point: int
    either: int
    examples: tuple[str | None, ...]

    @property
    def told(self) -> str | None:
        """The separator that the values tell; None if they tell none, or both."""
        stray = MAX_STRAY * (self.comma + self.point)
        if self.comma > stray and self.point > stray:
            return None
        return COMMA if self.comma > self.point else POINT if self.point else None


def decimal_separators(
    connection: duckdb.DuckDBPyConnection, raw_table: RawTable, raw: str, texts: Mapping[str, str], where: str
) -> dict[str, str]:
    """Decide the decimal separator of each number column, and set the variables that expressions read.

    Parameters
    ----------
    raw_table : RawTable
        Its `values` declare the separator and name the columns that expressions cast.
    raw : str
        Name of the temp table with the raw rows.
    texts : mapping of str to str
        Canonical number columns that the source maps to text → SQL over `raw`.

    Returns
    -------
    dict of str to str
        Column of `texts` → ``.`` or ``,``.

    Raises
    ------
    DataError
        If the values of a column do not tell the separator, or an expression removes the decimal separator.
    """
    rules = raw_table.values
    edited = {column for columns in rules.edited_columns.values() for column in columns}
    columns = {name: quote(name) for name in {*rules.number_columns, *edited}}
    forms = _count_forms(connection, raw, {**texts, **{f"column {name}": sql for name, sql in columns.items()}})
    for name, used in rules.edited_columns.items():
        for column in used:
            _refuse_removed_separators(connection, raw_table, raw, name, column, forms[f"column {column}"], where)
    separators = {}
    for name in texts:
        converted = name in rules.edited_columns  # an expression that replaces characters writes SQL's decimal point
        declared = None if converted else rules.decimal
        separators[name] = _decide(forms[name], declared, POINT if converted else None, raw_table.table, name, where)
    for name in rules.number_columns:
        told = _decide(forms[f"column {name}"], rules.decimal, None, raw_table.table, name, where)
        connection.execute(f"SET VARIABLE {quote(decimal_variable(name))} = {literal(told)}")
    return separators


def _count_forms(connection: duckdb.DuckDBPyConnection, raw: str, texts: Mapping[str, str]) -> dict[str, _Forms]:
    if not texts:
        return {}
    grouped = f"regexp_matches(t, '{NO_DECIMALS}') OR (regexp_matches(t, '{COMMA_GROUPS}') AND contains(n, ','))"
    shape = (
        f"CASE WHEN regexp_full_match(n, {literal(COMMA_ONLY)}) THEN 'comma' "
        f"WHEN regexp_full_match(n, {literal(POINT_ONLY)}) THEN 'point' "
        f"WHEN regexp_full_match(n, {literal(EITHER)}) THEN CASE WHEN NOT ({grouped}) THEN 'either' "
        "WHEN contains(n, ',') THEN 'point' ELSE 'comma' END END"
    )
    # whole numbers and usual fractions first: they are cheap to tell, and nearly all there is
    picked = ", ".join(
        f"CASE WHEN regexp_matches(t{at}, '^-?[0-9]*$') THEN NULL "
        rf"WHEN regexp_matches(t{at}, '^-?[0-9]+\.([0-9]{{1,2}}|[0-9]{{4,}})$') THEN 'point' "
        f"ELSE list_transform([{plain_number(value_text(f't{at}'))}], lambda n: "
        f"list_transform([t{at}], lambda t: {shape})[1])[1] END AS f{at}, t{at}"
        for at in range(len(texts))
    )
    source = ", ".join(f"({sql})::VARCHAR AS t{at}" for at, sql in enumerate(texts.values()))
    counts = ", ".join(
        f"count(*) FILTER (f{at} = '{form}'), min(t{at}) FILTER (f{at} = '{form}')"
        for at in range(len(texts))
        for form in ("comma", "point", "either")
    )
    row = connection.execute(f"SELECT {counts} FROM (SELECT {picked} FROM (SELECT {source} FROM {raw}))").fetchone()
    found: tuple[Any, ...] = row or (0, None) * 3 * len(texts)
    forms = {}
    for at, name in enumerate(texts):
        comma, shown_comma, point, shown_point, either, shown_either = found[6 * at : 6 * at + 6]
        forms[name] = _Forms(comma, point, either, (shown_comma, shown_point, shown_either))
    return forms


def _decide(forms: _Forms, declared: str | None, default: str | None, table: str, column: str, where: str) -> str:
    if declared is not None:
        return declared
    if forms.told is not None:
        return forms.told
    if not (forms.comma or forms.point or forms.either):
        return default or POINT
    if default is not None and not forms.comma:  # only numbers that can be read in two ways
        return default
    comma, point, either = (_shown(example) for example in forms.examples)
    if forms.comma:
        raise DataError(
            f"{table}.{column} has numbers with a decimal comma and numbers with a decimal point",
            where=where,
            got=f"{forms.comma:,} such as {comma} and {forms.point:,} such as {point}",
            allowed="one decimal separator in a column",
            hint='export the file with one number format, or add `decimal: ","` (or `decimal: "."`) beside `path`: '
            "rows with the other separator are then rejected; the lake is unchanged",
        )
    raise DataError(
        f"{table}.{column} has numbers that can be read in two ways",
        where=where,
        got=f"{forms.either:,} such as {either}, and none that shows which separator is the decimal one",
        hint='add `decimal: ","` beside `path` if the comma separates the decimals, or `decimal: "."` if the point '
        "does; the lake is unchanged",
    )


def _refuse_removed_separators(
    connection: duckdb.DuckDBPyConnection,
    raw_table: RawTable,
    raw: str,
    name: str,
    column: str,
    forms: _Forms,
    where: str,
) -> None:
    """Refuse an expression whose value is 10, 100 … times the number in the file (``replace(Amount, ',', '')``)."""
    told = raw_table.values.decimal or forms.told
    if told is None:
        return
    value = number(f"trim(({raw_table.columns[name]})::VARCHAR)", literal(POINT))
    written = number("w", literal(told))
    row = connection.execute(
        "SELECT count(*), min(w), arg_min(v, w) FROM ("
        f"SELECT {value} AS v, {written} AS n, w FROM (SELECT *, {value_text(quote(column))} AS w FROM {raw})) "
        "WHERE v <> 0 AND n <> 0 AND abs(log10(abs(v / n)) - round(log10(abs(v / n)))) < 1e-9 "
        "AND round(log10(abs(v / n))) <> 0"
    ).fetchone()
    if row and row[0]:
        raise DataError(
            f"the expression of {raw_table.table}.{name} removes the decimal separator of {column}",
            where=where,
            got=f"{row[0]:,} values that are wrong by a power of ten, such as {row[2]:.10g} from {_shown(row[1])}",
            hint=f"map the column itself: `{name}: {column}`, with `decimal: {literal(told)}` beside `path`; thousands "
            "separators and currency signs are understood; the lake is unchanged",
        )


def _shown(example: str | None) -> str:
    """An example of a number for a message; a longer text may be more than a number."""
    return f"`{example}`" if example and len(example) <= 16 else "`…`"
