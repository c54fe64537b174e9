"""The declaration algebra: what a feature is, as data. Each execution computes it (`features.compute.compile_ibis`).

A feature has a view, a filter, an aggregate, a window, a default and an owner. This module imports no engine, so the
same declaration can become a query, a segment predicate or an online value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qianmian.errors import ConfigError

Scalar = str | int | float | bool
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "known"]
RowOperator = Operator | Literal["under"]  # of rows: also a category or any below it, by its path
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
    "expected",
    "quotient",
    "attribute",
    "missing",
    "days_since",
]
VALUE_COUNT_AGGREGATES = ("distinct", "top", "top_share", "entropy")  # functions of the count or weight of each value
NUMBER_OR_TEXT_AGGREGATES = ("attribute", "first", "last")  # the type of the default decides between text and number
TWO_WINDOW_AGGREGATES = ("trend", "slope")  # compare the window with the equally long one before it
TIME_AGGREGATES = ("recency", "age", "gap_mean", "gap_std", "first", "last", "expected")
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
    "expected",
    *VALUE_COUNT_AGGREGATES,
)
WINDOWLESS_AGGREGATES = ("attribute", "missing", "days_since", "quotient")
ZERO_DEFAULT_AGGREGATES = ("count", "distinct")
# Aggregates that move with the number of rows or days they read. Over all rows since the start of the data they drift
# with `as_of`: totals, ages and maxima grow, the entropy of few rows is too low and the share of their top value too
# high. A mean, share, ratio, spread or recency has the same expectation for a short history as for a long one.
CALENDAR_AGGREGATES = ("count", "sum", "distinct", "age", "min", "max", "top_share", "entropy", "days_since")
LONG_WINDOW_DAYS = 365  # of a window this long, the history before most cutoffs fills only a part
PROFILE_PREFIX = "profile_"  # prefix of the features that are profile attributes
NO_RECORD_PREFIX = "no_record_"  # prefix of the missing indicators, before the name of a source
VIEWS = ("lines", "orders", "refunds", "events", "touches", "profiles")

# Definitions that all executions share
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# derived from `ts`, in the time zone of the workspace; null if `ts` is
TIME_COLUMNS = ("hour", "weekday", "day", "week")
PATH_SEPARATOR = "/"  # of the parts of a category
PRICE_LEVEL = "price_level"  # of `lines` and `events`: how dear the item of a row is within its category
PRICED_VIEWS = {"lines": "priced_lines", "events": "priced_events"}  # view → the view with price levels
CLOCK_COLUMNS = ("hour",)  # of these: null as well if `ts` is only a date
# A date without a clock time is stored as the moment of its midnight in the zone of its source, which the lake does not
# keep. This much later it is the same date in UTC, for every zone from UTC-10 to UTC+13:45.
DATE_SHIFT_SECONDS = 50_340
SESSION_GAP_SECONDS = 1_800  # a session ends after half an hour without an event
SESSION_SEPARATOR = "\x1f"  # between the source, the customer's id there and the number in a `session_id`
# Of `expected`: how often a value comes again in the next days; with few repeats, its gap is drawn to the usual one
EXPECTED_DAYS = 28.0
USUAL_GAP_DAYS = 28.0
USUAL_GAP_WEIGHT = 2.0  # gaps that the usual one counts as
OVERDUE_RATE = 0.7  # each gap without the value, once it is overdue, leaves exp(−0.7), about half, of what is expected
WEIGHT_DIGITS = 6  # weights are rounded before comparison, because the order of summation changes floats
# sort order of the rows of each view: by time, the other columns only break ties
SORT_KEYS = {
    "lines": ("ts", "order_id", "line_no", "item_id", "source"),
    "refunds": ("ts", "order_id", "line_no", "item_id", "source"),
    "orders": ("ts", "order_id", "source"),
    "events": ("ts", "event_id", "source"),
    "touches": ("ts", "touch_id", "source"),
}


@dataclass(frozen=True)
class Condition:
    """One comparison a row must pass; a null value passes only ``known`` False.

    Examples
    --------
    >>> Condition("event_type", "in", ("view", "cart"))
    Condition(column='event_type', operator='in', value=('view', 'cart'))
    >>> Condition("campaign_id", "known", True)  # the column is not null
    Condition(column='campaign_id', operator='known', value=True)
    >>> Condition("category", "under", "GROCERY/SOUP")  # also GROCERY/SOUP/CONDENSED SOUP
    Condition(column='category', operator='under', value='GROCERY/SOUP')
    """

    column: str
    operator: RowOperator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Feature:
    """One declared number or category about a customer.

    Attributes
    ----------
    name : str
        Unique name that includes the window (`orders_28d`).
    view : str
        View that is aggregated: `lines` (paid order lines), `orders` (paid orders, with the gap to the previous order),
        `refunds`, `events`, `touches`, `profiles`; empty for `quotient`.
    aggregate : Aggregate
        Aggregate of the rows in the window that pass `where`:

        - ``count sum mean min max std`` as usual (``std`` of the sample); ``share``: count of these rows ÷ count of all
          rows in the window (of the totals of `column`, if given); of rows with a clock time only, if `where` reads
          the hour. ``ratio``: sum(`column`) ÷ sum(`over`)
        - ``first``/``last``: `column` in the earliest/latest row where it is not null, text or a number
        - ``recency``/``age``: days since the last/first row; ``gap_mean``/``gap_std``: mean and sample standard
          deviation of the days between successive rows
        - ``trend``: (a − b) ÷ (a + b), ``slope``: (a − b) ÷ `window_days`, where a is the count (or total of `column`)
          of this window and b that of the equally long window before it
        - ``distinct``: number of values of `column`; ``top``: the most frequent value (count descending, value
          ascending), ``top_share``: its share, ``entropy``: Shannon entropy in nats. With `over`, each row has that
          column as weight
        - ``expected``: how many times the values of `column` are expected in the next 28 days: Σ over its values of
          28 ÷ g · exp(−0.7 · max(a ÷ g − 1, 0)), where a is the days since the last row with the value, and g its gap,
          (days from the first to the last + 2 · 28) ÷ (n − 1 + 2), for n different values of `over`, the days or orders
        - ``quotient``: feature `column` ÷ feature `over`; ``attribute``: a column of the profile; ``missing``: 1 if all
          records of the customer pass `where`, or there is none, else 0; ``days_since``: days from a date column of
          the profile to `as_of`, negative for a later date
    window_days : int or None
        Length of the window ``[as_of - window_days, as_of)``; None for all rows before `as_of`.
    default : float or str
        Value of customers without such rows.
    ttl_days : int
        Age in days above which an online value is stale.
    grows_with_calendar : bool or None
        Whether the value drifts with `as_of` whatever the customer does, because more of the history is read: a total
        or an age since the start of the data, or of a window as long as most histories. Models trained on several
        cutoffs do not use such features. None (not said) is refused by `check` where the value could drift.
    is_identifier : bool
        Whether the values are ids: too many distinct values to learn from, and new ones every month.
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
    # flags about the use of a feature do not change its value: they are not compared, hashed or saved with a spec
    grows_with_calendar: bool | None = field(default=None, compare=False)
    is_identifier: bool = field(default=False, compare=False)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the view that the feature reads; for a `quotient`, the names of two features."""
        return frozenset({self.column, self.over, *(condition.column for condition in self.where)} - {""})

    @property
    def divisor(self) -> tuple[Condition, ...]:
        """The conditions on the rows by which a `share` divides: rows without a clock time have no hour to share."""
        return tuple(
            Condition(column, "known", True)
            for column in CLOCK_COLUMNS
            if any(condition.column == column for condition in self.where)
        )

    @property
    def categorical(self) -> bool:
        """Whether the value is text, encoded as an int32 code with its vocabulary in the spec."""
        return isinstance(self.default, str)


def check(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """Validate declarations and return them unchanged.

    Raises
    ------
    ConfigError
        All mistakes together: duplicate names, unknown views and aggregates, missing columns, quotients of features
        that are not declared, features that may grow with the calendar and do not say so.
    """
    problems = []
    seen: dict[str, Feature] = {}
    for feature in features:
        problems += [f"{feature.name}: {problem}" for problem in _declaration_problems(feature, seen)]
        seen[feature.name] = feature
    if problems:
        raise ConfigError(problems, where="the feature declarations")
    return features


def _may_grow(feature: Feature, seen: Mapping[str, Feature]) -> str:
    """Why the value of a feature may drift with `as_of` whatever the customer does; empty if it cannot."""
    if feature.aggregate == "quotient":
        growing = [name for name in (feature.column, feature.over) if name in seen and seen[name].grows_with_calendar]
        return f"its part {growing[0]} does" if growing else ""
    since_start = feature.window_days is None and feature.aggregate in CALENDAR_AGGREGATES
    if feature.aggregate == "days_since":
        return "a `days_since` grows by one every day"
    if since_start:
        return f"a `{feature.aggregate}` over all rows since the start of the data may"
    if (feature.window_days or 0) >= LONG_WINDOW_DAYS and feature.aggregate in (
        *CALENDAR_AGGREGATES,
        *TWO_WINDOW_AGGREGATES,
    ):
        return f"a `{feature.aggregate}` over a window of {LONG_WINDOW_DAYS} days or more may"
    return ""


def _declaration_problems(feature: Feature, seen: Mapping[str, Feature]) -> Iterator[str]:
    aggregate = feature.aggregate
    if feature.name in seen:
        yield "is declared twice"
    if aggregate not in get_args(Aggregate):
        yield f"unknown aggregate '{aggregate}'; allowed: {', '.join(get_args(Aggregate))}"
    if aggregate == "quotient":
        yield from (
            f"the feature '{part}' is not declared before it"
            for part in (feature.column, feature.over)
            if part not in seen
        )
    elif feature.view not in VIEWS:
        yield f"unknown view '{feature.view}'; allowed: {', '.join(VIEWS)}"
    elif (feature.view == "profiles") != (aggregate in WINDOWLESS_AGGREGATES):
        yield f"aggregate '{aggregate}' cannot be used with the view '{feature.view}'"
    if aggregate in COLUMN_AGGREGATES and not feature.column:
        yield f"aggregate '{aggregate}' needs a column"
    if aggregate == "missing" and not feature.where:
        yield "aggregate 'missing' needs `where`: the columns that are not known"
    if aggregate in ("ratio", "expected") and not feature.over:
        yield f"aggregate '{aggregate}' needs `over`"
    if feature.over and aggregate not in ("ratio", "quotient", "top", "top_share", "entropy", "expected"):
        yield f"aggregate '{aggregate}' does not accept `over`"
    if aggregate in (*TWO_WINDOW_AGGREGATES, "expected") and feature.window_days is None:
        yield f"aggregate '{aggregate}' needs a window"
    if feature.window_days is not None and (aggregate in WINDOWLESS_AGGREGATES or feature.window_days < 1):
        yield f"aggregate '{aggregate}' does not accept a window of {feature.window_days} days"
    if aggregate not in NUMBER_OR_TEXT_AGGREGATES and (aggregate == "top") != feature.categorical:
        yield f"the default must be {'text' if aggregate == 'top' else 'a number'}"
    if aggregate in ZERO_DEFAULT_AGGREGATES and feature.default != 0:
        yield f"the default of '{aggregate}' must be 0"
    if feature.is_identifier and not feature.categorical:
        yield "an identifier must be text"
    if not feature.description or not feature.owner:
        yield "description and owner are required"
    reason = _may_grow(feature, seen)
    if feature.grows_with_calendar is None and reason:
        yield (
            f"does not say whether it grows with the calendar ({reason}): set `grows_with_calendar` to true if the "
            "value drifts with the date whatever the customer does (models that learn from several dates then leave "
            "it out), to false if it does not"
        )
