"""The currency of the amounts of one table: one for all, several with a rate each, or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

import duckdb

from features.data.lake import quote
from features.data.personal_names import spelled
from features.data.sources.base import RawTable
from features.data.sources.casting import ColumnCast
from features.data.sources.currencies import (
    CURRENCY_COLUMNS,
    MONEY_COLUMNS,
    CurrencyRule,
    currency_code,
    currency_in_amount,
    is_currency,
    listed,
)
from qianmian.errors import DataError

MAX_CURRENCIES = 200  # a column with more values holds something else
MIN_SHARE = 0.9  # of the values of a column whose name does not say that it holds currencies
SAMPLE_ROWS = 20_000
HINT = (
    "give a rate for each, beside `path`: `currency: {column: YOUR_COLUMN, to: EUR, rates: {USD: 0.92, JPY: 0.0061}}` "
    "(what one unit is worth in `to`), or read each currency as a source of its own; the lake is unchanged"
)


def row_currencies(
    connection: duckdb.DuckDBPyConnection, raw_table: RawTable, raw: str, texts: Mapping[str, str], where: str
) -> dict[str, str]:
    """SQL of the currency of each amount that is to be converted.

    Parameters
    ----------
    raw : str
        Name of the temp table with the raw rows.
    texts : mapping of str to str
        Canonical number columns that the source maps to text → SQL over `raw`.

    Returns
    -------
    dict of str to str
        Money column → SQL over `raw` of its currency code; empty if no amount is converted.

    Raises
    ------
    DataError
        If the amounts have several currencies and no rates, or another currency than the declared one.
    """
    money = [name for name in MONEY_COLUMNS.get(raw_table.table, ()) if name in raw_table.columns]
    if not money:
        return {}
    rule = raw_table.values.currency
    if rule is not None and rule.column is not None:
        of_row = currency_code(f"({rule.column})::VARCHAR")
        found = _distinct(connection, raw, [of_row])
        currencies = dict.fromkeys(money, of_row)
    else:
        currencies = {name: currency_in_amount(f"({texts[name]})") for name in money if name in texts}
        found = _distinct(connection, raw, list(currencies.values()))
    if rule is not None and rule.rates:
        return currencies
    if len(found & {"CNY", "JPY"}) == 1:
        found.discard("¥")  # beside one of them, it is its sign
    if len(found) > 1:
        raise DataError(
            f"the amounts of {raw_table.table} are in several currencies", where=where, got=listed(found), hint=HINT
        )
    if rule is not None and rule.to and found - {rule.to}:
        raise DataError(
            f"the amounts of {raw_table.table} are not in the declared currency",
            where=where,
            got=listed(found),
            allowed=rule.to,
            hint=HINT,
        )
    return {}


def converted(amount: ColumnCast, rule: CurrencyRule, name: str) -> ColumnCast:
    """The cast of an amount in the currency of the column ``$name``, times its rate."""
    currency = quote("$" + name)
    return ColumnCast(
        f"({amount.value}) * {rule.rate(currency)}",
        f"({amount.failed or quote(name) + ' IS NOT NULL'})",
        failed_reason=f"{name} is not a finite number, or its currency is not in currency.rates",
    )


def unused_currency_column(
    connection: duckdb.DuckDBPyConnection, raw_table: RawTable, raw: str
) -> tuple[str, tuple[str, ...]] | None:
    """A column of the file that names several currencies although the mapping does not use it, and its values."""
    if raw_table.table not in MONEY_COLUMNS or raw_table.values.currency is not None:
        return None
    if not set(MONEY_COLUMNS[raw_table.table]) & set(raw_table.columns):
        return None
    mapped = " ".join(raw_table.columns.values())
    described = connection.execute(f"DESCRIBE {raw}").fetchall()
    texts = [str(row[0]) for row in described if row[1] == "VARCHAR" and str(row[0]) != raw_table.file_column]
    unused = [name for name in texts if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", mapped)]
    if not unused:
        return None
    counts = ", ".join(
        f"count(*) FILTER ({is_currency(quote(name))}) >= {MIN_SHARE} * count(nullif(trim({quote(name)}), ''))"
        for name in unused
    )
    sample = f"SELECT * FROM {raw} LIMIT {SAMPLE_ROWS}"
    by_value = connection.execute(f"SELECT {counts} FROM ({sample})").fetchone() or ()
    for column, holds in zip(unused, by_value, strict=True):
        if holds or spelled(column) in CURRENCY_COLUMNS:
            values = _distinct(connection, raw, [currency_code(quote(column))])
            if 1 < len(values) <= MAX_CURRENCIES:
                return column, tuple(sorted(values))
    return None


def _distinct(connection: duckdb.DuckDBPyConnection, raw: str, expressions: list[str]) -> set[str]:
    if not expressions:
        return set()
    values = " UNION ".join(f"SELECT {expression} AS v FROM {raw}" for expression in expressions)
    rows = connection.execute(f"SELECT v FROM ({values}) WHERE v IS NOT NULL LIMIT {MAX_CURRENCIES + 1}").fetchall()
    return {str(row[0]) for row in rows}
