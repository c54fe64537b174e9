"""The declaration algebra: what a feature is, in data. How it is computed lives with each execution (`features.compile_ibis`).

A feature is a table, a filter, an aggregate, a window, a default and who answers for it. Nothing here imports an engine,
so the same declaration can become a query, a segment predicate or an online value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qianmian.errors import ConfigError

Scalar = str | int | float | bool
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in"]
Aggregate = Literal[
    "count", "sum", "mean", "min", "max", "std", "distinct", "share", "ratio", "recency", "age", "trend",
    "top", "top_share", "entropy", "quotient", "attribute",
]  # fmt: skip
CATEGORICAL_AGGREGATES = ("top",)
NEEDS_COLUMN = ("sum", "mean", "min", "max", "std", "distinct", "ratio", "top", "top_share", "entropy", "attribute")
VIEWS = ("lines", "orders", "refunds", "events", "touches", "profiles")


@dataclass(frozen=True)
class Condition:
    """One comparison a row must pass; a row whose column is null never passes.

    Examples
    --------
    >>> Condition("event_type", "in", ("view", "cart"))
    Condition(column='event_type', operator='in', value=('view', 'cart'))
    """

    column: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Feature:
    """One declared number or category about a customer.

    Attributes
    ----------
    name : str
        Unique; the window is part of it (`orders_28d`).
    view : str
        Which rows: `lines` (paid order lines), `orders` (paid orders, with the gap to the order before), `refunds`,
        `events`, `touches`, `profiles`; empty for `quotient`.
    aggregate : Aggregate
        ``count sum mean min max std distinct`` as usual · ``share``: rows passing `where` ÷ all rows of the window ·
        ``ratio``: sum(`column`) ÷ sum(`over`) · ``recency``/``age``: days since the last/first row · ``trend``: (a − b) ÷ (a + b)
        of this window's count (or sum of `column`) and the equally long one before · ``top``: most frequent value (count
        descending, value ascending), ``top_share`` its share, ``entropy`` the Shannon entropy in nats of the values ·
        ``quotient``: feature `column` ÷ feature `over` · ``attribute``: a column of the profile.
    window_days : int or None
        Rows of ``[as_of - window_days, as_of)``; None means everything before `as_of`.
    default : float or str
        The value of a customer without such rows.
    ttl_days : int
        An online value older than this is stale.
    """

    name: str
    view: str
    aggregate: Aggregate
    column: str = ""
    where: tuple[Condition, ...] = ()
    window_days: int | None = None
    over: str = ""
    default: float | str = 0.0
    unit: str = ""
    description: str = ""
    owner: str = "profile"
    ttl_days: int = 35

    @property
    def categorical(self) -> bool:
        """The value is text, encoded as an int32 code with its vocabulary in the spec."""
        return isinstance(self.default, str)


def check(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The features themselves, when every declaration makes sense.

    Raises
    ------
    ConfigError
        All mistakes together: doubled names, unknown views, missing columns, quotients of features that do not exist.
    """
    problems, seen = [], set[str]()
    for feature in features:
        if feature.name in seen:
            problems.append(f"{feature.name}: declared twice")
        if feature.aggregate == "quotient":
            problems += [
                f"{feature.name}: no feature called '{part}' before it" for part in (feature.column, feature.over) if part not in seen
            ]
        elif feature.view not in VIEWS:
            problems.append(f"{feature.name}: unknown view '{feature.view}'; allowed: {', '.join(VIEWS)}")
        if feature.aggregate in NEEDS_COLUMN and not feature.column:
            problems.append(f"{feature.name}: aggregate '{feature.aggregate}' needs a column")
        if feature.aggregate == "ratio" and not feature.over:
            problems.append(f"{feature.name}: aggregate 'ratio' needs `over`")
        if feature.aggregate == "trend" and feature.window_days is None:
            problems.append(f"{feature.name}: aggregate 'trend' needs a window")
        if (feature.aggregate in CATEGORICAL_AGGREGATES) != feature.categorical and feature.aggregate != "attribute":
            problems.append(f"{feature.name}: the default must be {'text' if feature.aggregate in CATEGORICAL_AGGREGATES else 'a number'}")
        if not feature.description or not feature.owner:
            problems.append(f"{feature.name}: needs a description and an owner")
        seen.add(feature.name)
    if problems:
        raise ConfigError(problems, where="the feature declarations")
    return features
