"""The declaration algebra: what a feature is, in data. How it is computed lives with each execution (`features.compute.compile_ibis`).

A feature is a table, a filter, an aggregate, a window, a default and who answers for it. Nothing here imports an engine,
so the same declaration can become a query, a segment predicate or an online value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qianmian.errors import ConfigError

Scalar = str | int | float | bool
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "known"]
Aggregate = Literal[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "std",
    "first",
    "last",
    "share",
    "ratio",
    "recency",
    "age",
    "gap_mean",
    "gap_std",
    "trend",
    "slope",
    "distinct",
    "top",
    "top_share",
    "entropy",
    "quotient",
    "attribute",
    "days_since",
]
VALUE_COUNT_AGGREGATES = (
    "distinct",
    "top",
    "top_share",
    "entropy",
)  # of how often (or how heavily) each value of a column occurs
NUMBER_OR_TEXT_AGGREGATES = ("attribute", "first", "last")  # text or a number, as the default says
TWO_WINDOW_AGGREGATES = ("trend", "slope")  # this window against the one before it
TIME_AGGREGATES = ("recency", "age", "gap_mean", "gap_std", "first", "last")
COLUMN_AGGREGATES = (
    "sum",
    "mean",
    "min",
    "max",
    "std",
    "first",
    "last",
    "ratio",
    "attribute",
    "days_since",
    *VALUE_COUNT_AGGREGATES,
)
WINDOWLESS_AGGREGATES = ("attribute", "days_since", "quotient")
ZERO_DEFAULT_AGGREGATES = ("count", "distinct")
PROFILE_PREFIX = "profile_"  # of the features made of profile attributes, whatever a source calls them
VIEWS = ("lines", "orders", "refunds", "events", "touches", "profiles")

# What every execution must do alike
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TIME_COLUMNS = ("hour", "weekday", "day", "week")  # made of `ts`, in UTC; never null where there is one
SESSION_GAP_SECONDS = 1_800  # a visit ends after half an hour without an event
SESSION_SEPARATOR = "\x1f"  # between the source, the customer's id there and the number in a `session_id`
WEIGHT_DIGITS = 6  # weights are compared rounded: equal sums of floats added in another order must stay equal
# rows of a view in time: what happened later comes later; the last columns only break ties
SORT_KEYS = {
    "lines": ("ts", "order_id", "line_no", "item_id", "source"),
    "refunds": ("ts", "order_id", "line_no", "item_id", "source"),
    "orders": ("ts", "order_id", "source"),
    "events": ("ts", "event_id", "source"),
    "touches": ("ts", "touch_id", "source"),
}


@dataclass(frozen=True)
class Condition:
    """One comparison a row must pass; a row whose column is null passes none but ``known`` False.

    Examples
    --------
    >>> Condition("event_type", "in", ("view", "cart"))
    Condition(column='event_type', operator='in', value=('view', 'cart'))
    >>> Condition("campaign_id", "known", True)  # the column holds something
    Condition(column='campaign_id', operator='known', value=True)
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
        Of the rows of the window that pass `where`:

        - ``count sum mean min max std`` as usual (``std`` of the sample); ``share``: their count ÷ that of all rows of the
          window (of totals of `column`, if given); ``ratio``: sum(`column`) ÷ sum(`over`)
        - ``first``/``last``: `column` in the earliest/latest row that has one, text or a number
        - ``recency``/``age``: days since the last/first row; ``gap_mean``/``gap_std``: mean and sample standard deviation of
          the days between successive rows
        - ``trend``: (a − b) ÷ (a + b), ``slope``: (a − b) ÷ `window_days`; a the count (or total of `column`) of this window, b
          of the equally long one before
        - ``distinct``: number of values of `column`; ``top``: the most frequent (count descending, value ascending),
          ``top_share``: its share, ``entropy``: Shannon's entropy in nats. With `over`, rows weigh as much as that column says
        - ``quotient``: feature `column` ÷ feature `over`; ``attribute``: a column of the profile; ``days_since``: days from such
          a column to `as_of`, negative when it lies ahead
    window_days : int or None
        Rows of ``[as_of - window_days, as_of)``; None means everything before `as_of`.
    default : float or str
        The value of a customer without such rows.
    ttl_days : int
        An online value older than this is stale.
    grows_with_calendar : bool
        The value is larger at a later `as_of` whatever the customer does: a total or an age since the start of the data, or of a window as
        long as most histories. A model over several moments does not learn from it.
    is_identifier : bool
        The values are ids: too many to learn from, and new ones every month.
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
    # how a feature may be used is no part of what its value means: neither compared, nor hashed, nor saved with a spec
    grows_with_calendar: bool = field(default=False, compare=False)
    is_identifier: bool = field(default=False, compare=False)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the view it names; for a `quotient` these are features."""
        return frozenset({self.column, self.over, *(condition.column for condition in self.where)} - {""})

    @property
    def categorical(self) -> bool:
        """The value is text, encoded as an int32 code with its vocabulary in the spec."""
        return isinstance(self.default, str)


def check(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The features themselves, when every declaration makes sense.

    Raises
    ------
    ConfigError
        All mistakes together: doubled names, unknown views and aggregates, missing columns, quotients of features that do not exist.
    """
    problems, seen = [], set[str]()
    for feature in features:
        problems += [f"{feature.name}: {problem}" for problem in _declaration_problems(feature, seen)]
        seen.add(feature.name)
    if problems:
        raise ConfigError(problems, where="the feature declarations")
    return features


def _declaration_problems(feature: Feature, seen: set[str]) -> Iterator[str]:
    aggregate = feature.aggregate
    if feature.name in seen:
        yield "declared twice"
    if aggregate not in get_args(Aggregate):
        yield f"unknown aggregate '{aggregate}'; allowed: {', '.join(get_args(Aggregate))}"
    if aggregate == "quotient":
        yield from (
            f"no feature called '{part}' before it" for part in (feature.column, feature.over) if part not in seen
        )
    elif feature.view not in VIEWS:
        yield f"unknown view '{feature.view}'; allowed: {', '.join(VIEWS)}"
    elif (feature.view == "profiles") != (aggregate in WINDOWLESS_AGGREGATES):
        yield f"aggregate '{aggregate}' is not for the view '{feature.view}'"
    if aggregate in COLUMN_AGGREGATES and not feature.column:
        yield f"aggregate '{aggregate}' needs a column"
    if aggregate == "ratio" and not feature.over:
        yield "aggregate 'ratio' needs `over`"
    if feature.over and aggregate not in ("ratio", "quotient", "top", "top_share", "entropy"):
        yield f"aggregate '{aggregate}' takes no `over`"
    if aggregate in TWO_WINDOW_AGGREGATES and feature.window_days is None:
        yield f"aggregate '{aggregate}' needs a window"
    if feature.window_days is not None and (aggregate in WINDOWLESS_AGGREGATES or feature.window_days < 1):
        yield f"a window of {feature.window_days} days makes no sense here"
    if aggregate not in NUMBER_OR_TEXT_AGGREGATES and (aggregate == "top") != feature.categorical:
        yield f"the default must be {'text' if aggregate == 'top' else 'a number'}"
    if aggregate in ZERO_DEFAULT_AGGREGATES and feature.default != 0:
        yield f"the default of '{aggregate}' is 0"
    if feature.is_identifier and not feature.categorical:
        yield "an identifier is text"
    if not feature.description or not feature.owner:
        yield "needs a description and an owner"
