"""How the values of a table are read: decimal separator, currency, and the attributes that are personal data."""

from __future__ import annotations

from collections.abc import Mapping

from features.data.sources.base import ValueRules
from features.data.sources.currencies import CurrencyRule, code_of
from features.data.sources.expressions import Expression, ExpressionChecker
from features.data.sources.files.settings import CurrencySettings, TableSettings
from qianmian.schema import Table


def value_rules(
    table: Table, settings: TableSettings, expressions: Mapping[str, Expression], currency: CurrencyRule | None
) -> ValueRules:
    """How the values of a table are read: the keys of its entry, and the columns that its expressions cast or edit."""
    numbers = {name for expression in expressions.values() for name in expression.number_columns}
    edited = {}
    for name, expression in expressions.items():
        column = table.column(name)
        if column is not None and column.dtype in ("float64", "int64") and expression.edited_columns:
            edited[name] = expression.edited_columns
    return ValueRules(
        settings.decimal, tuple(sorted(numbers)), edited, currency, tuple(settings.private), tuple(settings.readable)
    )


def currency_rule(
    given: str | CurrencySettings | None, checker: ExpressionChecker
) -> tuple[CurrencyRule | None, list[str]]:
    """The rule of the key `currency`, and the problems with it."""
    if given is None:
        return None, []
    if isinstance(given, str):
        return CurrencyRule(to=code_of(given)), []
    column = None
    if given.column is not None:
        try:
            column = checker.check(given.column).value
        except ValueError as error:
            return None, [f"currency.column: {given.column!r}: {error}"]
    return CurrencyRule(column, code_of(given.to), given.rates), []
