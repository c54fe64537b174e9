"""The decimal separator of each text column that is read as a number: declared, told by its values, or refused.

Values that can only be read in one way decide for their column: ``12,50`` and ``1.250,00`` have a decimal comma,
``12.50`` and ``1,250.00`` a decimal point. Where both occur, or only values such as ``1.250``, nothing is guessed.
Files of one glob may have different separators, if the values of each file tell its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import duckdb

from features.data.lake import literal, quote
from features.data.sources.base import RawTable
from features.data.sources.casting import ColumnCast, cast
from features.data.sources.cells import value_text
from features.data.sources.currencies import COMMA_GROUPS, NO_DECIMALS
from features.data.sources.numbers import COMMA_ONLY, EITHER, POINT_ONLY, decimal_variable, number, plain_number
from qianmian.errors import DataError
from qianmian.schema import DType

COMMA, POINT = ",", "."
MAX_STRAY = 0.01  # so few values of a file with the other separator are mistakes, and only their rows are rejected


@dataclass(frozen=True)
class _Forms:
    """How many values of a column in one file, or in all, have a decimal comma, a decimal point, or could have either.

    `examples` has one value of each kind.
    """

    comma: int
    point: int
    either: int
    examples: tuple[str | None, ...]

    @classmethod
    def of_all(cls, of_file: Mapping[str, _Forms]) -> _Forms:
        """The values of all files."""
        found = list(of_file.values())
        return cls(
            sum(forms.comma for forms in found),
            sum(forms.point for forms in found),
            sum(forms.either for forms in found),
            tuple(next((e for forms in found if (e := forms.examples[kind]) is not None), None) for kind in range(3)),
        )

    @property
    def told(self) -> str | None:
        """The separator that the values tell; None if they tell none, or both."""
        stray = MAX_STRAY * (self.comma + self.point)
        if self.comma > stray and self.point > stray:
            return None
        return COMMA if self.comma > self.point else POINT if self.point else None


@dataclass(frozen=True)
class DecimalSeparator:
    """The decimal separator of a column, ``.`` or ``,``.

    Attributes
    ----------
    decimal : str
        The separator.
    comma_files : tuple of str
        Files with a decimal comma, while `decimal` is that of the others.
    """

    decimal: str
    comma_files: tuple[str, ...] = ()

    def cast(self, dtype: DType, sql_type: str, raw: str, timezone: str) -> ColumnCast:
        """Cast of the expression `raw` to a number, over rows with the hash `_file` of their file."""
        planned = cast(dtype, sql_type, raw, timezone, self.decimal)
        if not self.comma_files:
            return planned
        files = ", ".join(f"hash({literal(file)})" for file in self.comma_files)
        with_comma = cast(dtype, sql_type, raw, timezone, COMMA)
        value = f"CASE WHEN _file IN ({files}) THEN {with_comma.value} ELSE {planned.value} END"
        return replace(planned, value=value)


def decimal_separators(
    connection: duckdb.DuckDBPyConnection, raw_table: RawTable, raw: str, texts: Mapping[str, str], where: str
) -> dict[str, DecimalSeparator]:
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
    dict of str to DecimalSeparator
        Column of `texts` → its decimal separator.

    Raises
    ------
    DataError
        If the values of a column do not tell the separator, or an expression removes the decimal separator.
    """
    rules = raw_table.values
    edited = {column for columns in rules.edited_columns.values() for column in columns}
    columns = {name: quote(name) for name in {*rules.number_columns, *edited}}
    file = quote(raw_table.file_column) if raw_table.file_column and len(raw_table.files) > 1 else "''"
    forms = _count_forms(connection, raw, file, {**texts, **{f"column {name}": sql for name, sql in columns.items()}})
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
        if told.comma_files:  # one variable holds for all rows
            _refuse_both(_Forms.of_all(forms[f"column {name}"]), told.comma_files, raw_table.table, name, where)
        connection.execute(f"SET VARIABLE {quote(decimal_variable(name))} = {literal(told.decimal)}")
    return separators


def _count_forms(
    connection: duckdb.DuckDBPyConnection, raw: str, file: str, texts: Mapping[str, str]
) -> dict[str, dict[str, _Forms]]:
    """Column of `texts` → file → its values; `file` is the SQL of the file of a row."""
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
    grouped = "GROUP BY f ORDER BY f" if file != "''" else ""
    found = connection.execute(
        f"SELECT {file if not grouped else 'f'}, {counts} FROM "
        f"(SELECT f, {picked} FROM (SELECT {file} AS f, {source} FROM {raw})) {grouped}"
    ).fetchall()
    forms: dict[str, dict[str, _Forms]] = {name: {} for name in texts}
    for of_file, *numbers in found:
        for at, name in enumerate(texts):
            comma, shown_comma, point, shown_point, either, shown_either = numbers[6 * at : 6 * at + 6]
            forms[name][of_file] = _Forms(comma, point, either, (shown_comma, shown_point, shown_either))
    return forms


def _decide(
    of_file: Mapping[str, _Forms], declared: str | None, default: str | None, table: str, column: str, where: str
) -> DecimalSeparator:
    if declared is not None:
        return DecimalSeparator(declared)
    forms = _Forms.of_all(of_file)
    told = {file: found.told for file, found in of_file.items() if found.comma or found.point}
    separators = set(told.values())
    if None in separators:
        _refuse_both(forms, [file for file, separator in told.items() if separator is None], table, column, where)
    if len(separators) > 1:
        comma_files = tuple(file for file, separator in told.items() if separator == COMMA)
        if any(found.either for file, found in of_file.items() if file not in told):
            _refuse_both(forms, comma_files, table, column, where)
        return DecimalSeparator(POINT, comma_files)
    if told:
        return DecimalSeparator(COMMA if COMMA in separators else POINT)
    if default is not None or not forms.either:  # no value has a separator, or an expression wrote SQL's decimal point
        return DecimalSeparator(default or POINT)
    raise DataError(
        f"{table}.{column} has numbers that can be read in two ways",
        where=where,
        got=f"{forms.either:,} such as {_shown(forms.examples[2])}, and none that shows which separator is the decimal "
        "one",
        hint='add `decimal: ","` beside `path` if the comma separates the decimals, or `decimal: "."` if the point '
        "does; the lake is unchanged",
    )


def _refuse_both(forms: _Forms, files: Sequence[str], table: str, column: str, where: str) -> NoReturn:
    """Refuse a column with both separators; `files` have a decimal comma, or both."""
    named = ", ".join(Path(file).name for file in files[:3]) + (" …" if len(files) > 3 else "")
    comma, point, _ = (_shown(example) for example in forms.examples)
    raise DataError(
        f"{table}.{column} has numbers with a decimal comma and numbers with a decimal point",
        where=where,
        got=f"{forms.comma:,} such as {comma} and {forms.point:,} such as {point}"
        + (f"; the comma is in {named}" if named else ""),
        allowed="one decimal separator in a column",
        hint='export the file with one number format, or add `decimal: ","` (or `decimal: "."`) beside `path`: '
        "rows with the other separator are then rejected; the lake is unchanged",
    )


def _refuse_removed_separators(
    connection: duckdb.DuckDBPyConnection,
    raw_table: RawTable,
    raw: str,
    name: str,
    column: str,
    of_file: Mapping[str, _Forms],
    where: str,
) -> None:
    """Refuse an expression whose value is 10, 100 … times the number in the file (``replace(Amount, ',', '')``)."""
    separators = {found.told for found in of_file.values()} - {None}
    if raw_table.values.decimal is None and len(separators) != 1:
        if separators:  # what is right for one file is wrong for the other
            comma_files = [file for file, found in of_file.items() if found.told == COMMA]
            _refuse_both(_Forms.of_all(of_file), comma_files, raw_table.table, column, where)
        return
    told = raw_table.values.decimal or (COMMA if COMMA in separators else POINT)
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
