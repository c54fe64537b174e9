"""Online feature values of one customer, from summaries of old rows, rows of the tail, and rows after the build.

This module uses only Python and NumPy. The cost is the number of NumPy calls, not the number of rows (measured by
`benchmarks/features.py`). Therefore sums are differences of running totals, and the values of a column are factorized
once for all windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from features.compute.algebra import EXPECTED_DAYS, OVERDUE_RATE, USUAL_GAP_DAYS, USUAL_GAP_WEIGHT, Feature
from features.compute.online.recent import current_rows
from features.compute.online.state import CustomerState, OnlineState
from features.compute.online.summaries import (
    ReadContext,
    Summary,
    elapsed_days,
    gap_sample,
    squared_deviations,
    summaries,
)
from qianmian.times import MICROSECONDS_PER_SECOND, SECONDS_PER_DAY, microseconds

Value = float | str | None
FeatureReader = Callable[[Feature, Sequence[Summary | None], ReadContext], Value]


def values(
    customer: CustomerState, now: datetime, new_rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> dict[str, float | str]:
    """Values of all features of the plan for one customer, equal to those of a build at `now`.

    Parameters
    ----------
    customer : CustomerState
        State of the customer, from `OnlineState.customer`.
    now : datetime
        Current time, naive UTC, not before the `as_of` of the state. Rows at or after it are not read.
    new_rows : mapping of str to sequence of mapping, optional
        Canonical table (`transactions`, `events`, `touches`) → rows that are not in the build, in any order, with the
        columns of `qianmian.schema.TABLES`. Rows before the tail (`OnlineState.tail_start`) are ignored until the next
        build.

    Returns
    -------
    dict of str to float or str
        Feature → value, in the order of the plan.
    """
    state = customer.state
    rows = current_rows(customer, microseconds(now), new_rows or {})
    context = ReadContext(state, microseconds(now))
    partials = summaries(customer, rows, context)
    result: dict[str, float | str] = {}
    for feature, partial_indexes in zip(state.plan.features, state.plan.partial_indexes, strict=True):
        value: Value
        if feature.aggregate == "quotient":
            value = _divide(float(result[feature.column]), float(result[feature.over]))
        elif feature.view == "profiles":
            value = _attribute(customer, feature, now)
        else:
            inputs = [partials[index] for index in partial_indexes]
            value = FEATURE_READERS[feature.aggregate](feature, inputs, context)
        result[feature.name] = feature.default if value is None else value
    return result


def _divide(a: float, b: float) -> float | None:
    return a / b if b else None


def _amount(summary: Summary | None) -> float:
    """The total of a summary, or its count if it has no total."""
    return 0.0 if summary is None else float(summary.get("total", summary["n"]))


def _number(name: str) -> FeatureReader:
    return lambda _f, partials, _a: None if partials[0] is None else partials[0][name]


def _mean(_f: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    return None if partials[0] is None else _divide(partials[0]["total"], partials[0]["n"])


def _std(_f: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    summary = partials[0]
    return None if summary is None or summary["n"] < 2 else math.sqrt(squared_deviations(summary) / (summary["n"] - 1))


def _days_since(name: str) -> FeatureReader:
    return lambda _f, partials, context: None if partials[0] is None else elapsed_days(partials[0][name], context.now)


def _gap_mean(_f: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    summary = partials[0]
    if summary is None or summary["n"] < 2:
        return None
    return float(elapsed_days(summary["age"], summary["recency"]) / (summary["n"] - 1))


def _gap_std(_f: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    n, _mean_gap, squares = gap_sample(partials[0]) if partials[0] is not None else (0.0, 0.0, 0.0)
    return math.sqrt(squares / (n - 1)) if n > 1 else None


def _trend(_f: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    now, then = _amount(partials[0]), _amount(partials[1])
    return _divide(now - then, now + then)


def _slope(feature: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    return (_amount(partials[0]) - _amount(partials[1])) / float(feature.window_days or 1)


def _top(feature: Feature, partials: Sequence[Summary | None], context: ReadContext) -> Value:
    summary = partials[0]
    if summary is None:
        return None
    best = summary["values"][summary["weights"] == summary["weights"].max()]
    return min(_as_text(feature.column, value, context.state) for value in best)


def _as_text(column: str, value: Any, state: OnlineState) -> str:
    if isinstance(value, np.int32):
        return state.text(column, int(value))
    if column in ("day", "week"):
        return str(date(1970, 1, 1) + timedelta(days=int(value)))
    return str(int(value)) if column in ("hour", "weekday") else str(float(value))


def _entropy(_f: Feature, partials: Sequence[Summary | None], _a: ReadContext) -> Value:
    if partials[0] is None:
        return None
    p = partials[0]["weights"] / partials[0]["weights"].sum()
    return max(float(-(p * np.log(p)).sum()), 0.0)


def _expected(_f: Feature, partials: Sequence[Summary | None], context: ReadContext) -> Value:
    found = partials[0]
    if found is None:
        return None
    span = (found["recency"] - found["age"]) / SECONDS_PER_DAY
    gap = (span + USUAL_GAP_WEIGHT * USUAL_GAP_DAYS) / (found["n"] - 1.0 + USUAL_GAP_WEIGHT)
    overdue = (context.now // MICROSECONDS_PER_SECOND - found["recency"]) / SECONDS_PER_DAY / gap - 1.0
    return float((EXPECTED_DAYS / gap * np.exp(-OVERDUE_RATE * np.maximum(overdue, 0.0))).sum())


def _attribute(customer: CustomerState, feature: Feature, now: datetime) -> Value:
    value = customer.attributes[feature.name]
    if isinstance(value, str) or feature.aggregate != "days_since" or value == feature.default or customer.row < 0:
        return value
    days = value + elapsed_days(microseconds(customer.state.as_of), microseconds(now))
    # a registration is not known before it happens
    return feature.default if feature.column == "registered_at" and days <= 0 else days


FEATURE_READERS: dict[str, FeatureReader] = {
    "count": lambda _f, partials, _a: _amount(partials[0]),
    "sum": _number("total"),
    "mean": _mean,
    "std": _std,
    "min": _number("value"),
    "max": _number("value"),
    "first": _number("value"),
    "last": _number("value"),
    "share": lambda _f, partials, _a: _divide(_amount(partials[0]), _amount(partials[1])),
    "ratio": lambda _f, partials, _a: _divide(_amount(partials[0]), _amount(partials[1])),
    "recency": _days_since("recency"),
    "age": _days_since("age"),
    "gap_mean": _gap_mean,
    "gap_std": _gap_std,
    "trend": _trend,
    "slope": _slope,
    "distinct": lambda _f, partials, _a: None if partials[0] is None else float(len(partials[0]["values"])),
    "top": _top,
    "top_share": lambda _f, partials, _a: (
        None if partials[0] is None else float(partials[0]["weights"].max() / partials[0]["weights"].sum())
    ),
    "entropy": _entropy,
    "expected": _expected,
}
