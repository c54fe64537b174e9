"""The value of every feature of one customer now: summaries of old rows, rows of the tail, and rows since the build.

Python and NumPy only. Measured (`benchmarks/features.py`): what costs is the number of NumPy calls, not the rows, so sums come
from running totals and the values of a column are numbered once for all windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from features.compute.algebra import Feature
from features.compute.online.recent import rows_now
from features.compute.online.state import Customer, OnlineState, microseconds
from features.compute.online.summaries import (
    ReadContext,
    Summary,
    elapsed_days,
    gap_sample,
    squared_deviations,
    summaries,
)

Value = float | str | None
Read = Callable[[Feature, Sequence[Summary | None], ReadContext], Value]


def values(
    customer: Customer, now: datetime, new_rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> dict[str, float | str]:
    """Every feature of the state's plan for one customer, as a build at `now` would give it.

    Parameters
    ----------
    customer : Customer
        From `OnlineState.customer`.
    now : datetime
        Naive UTC, not before the state's `as_of`. Rows at or after it are not read.
    new_rows : mapping of str to sequence of mapping, optional
        Canonical table (`transactions`, `events`, `touches`) → rows that the build did not see, in any order, with the columns of
        `qianmian.schema.TABLES`. A row older than the tail (`OnlineState.tail_start`) waits for the next build.

    Returns
    -------
    dict of str to float or str
        Feature → value, in the plan's order.
    """
    state = customer.state
    rows = rows_now(customer, microseconds(now), new_rows or {})
    context = ReadContext(state, microseconds(now))
    cells = summaries(customer, rows, context)
    result: dict[str, float | str] = {}
    for feature, reads in zip(state.plan.features, state.plan.reads, strict=True):
        value: Value
        if feature.aggregate == "quotient":
            value = _divide(float(result[feature.column]), float(result[feature.over]))
        elif feature.view == "profiles":
            value = _attribute(customer, feature, now)
        else:
            value = READ[feature.aggregate](feature, [cells[cell] for cell in reads], context)
        result[feature.name] = feature.default if value is None else value
    return result


def _divide(a: float, b: float) -> float | None:
    return a / b if b else None


def _amount(summary: Summary | None) -> float:
    """A count, or a total."""
    return 0.0 if summary is None else float(summary.get("total", summary["n"]))


def _number(name: str) -> Read:
    return lambda _f, cells, _a: None if cells[0] is None else cells[0][name]


def _mean(_f: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    return None if cells[0] is None else _divide(cells[0]["total"], cells[0]["n"])


def _std(_f: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    summary = cells[0]
    return None if summary is None or summary["n"] < 2 else math.sqrt(squared_deviations(summary) / (summary["n"] - 1))


def _since(name: str) -> Read:
    return lambda _f, cells, context: None if cells[0] is None else elapsed_days(cells[0][name], context.now)


def _gap_mean(_f: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    summary = cells[0]
    return (
        None
        if summary is None or summary["n"] < 2
        else elapsed_days(summary["age"], summary["recency"]) / (summary["n"] - 1)
    )


def _gap_std(_f: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    n, _mean_gap, squares = gap_sample(cells[0]) if cells[0] is not None else (0.0, 0.0, 0.0)
    return math.sqrt(squares / (n - 1)) if n > 1 else None


def _trend(_f: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    now, then = _amount(cells[0]), _amount(cells[1])
    return _divide(now - then, now + then)


def _slope(feature: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    return (_amount(cells[0]) - _amount(cells[1])) / float(feature.window_days or 1)


def _top(feature: Feature, cells: Sequence[Summary | None], context: ReadContext) -> Value:
    summary = cells[0]
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


def _entropy(_f: Feature, cells: Sequence[Summary | None], _a: ReadContext) -> Value:
    if cells[0] is None:
        return None
    p = cells[0]["weights"] / cells[0]["weights"].sum()
    return max(float(-(p * np.log(p)).sum()), 0.0)


def _attribute(customer: Customer, feature: Feature, now: datetime) -> Value:
    value = customer.attributes[feature.name]
    if isinstance(value, str) or feature.aggregate == "attribute" or value == feature.default or customer.row < 0:
        return value
    return value + elapsed_days(microseconds(customer.state.as_of), microseconds(now))


READ: dict[str, Read] = {
    "count": lambda _f, cells, _a: _amount(cells[0]),
    "sum": _number("total"),
    "mean": _mean,
    "std": _std,
    "min": _number("value"),
    "max": _number("value"),
    "first": _number("value"),
    "last": _number("value"),
    "share": lambda _f, cells, _a: _divide(_amount(cells[0]), _amount(cells[1])),
    "ratio": lambda _f, cells, _a: _divide(_amount(cells[0]), _amount(cells[1])),
    "recency": _since("recency"),
    "age": _since("age"),
    "gap_mean": _gap_mean,
    "gap_std": _gap_std,
    "trend": _trend,
    "slope": _slope,
    "distinct": lambda _f, cells, _a: None if cells[0] is None else float(len(cells[0]["values"])),
    "top": _top,
    "top_share": lambda _f, cells, _a: (
        None if cells[0] is None else float(cells[0]["weights"].max() / cells[0]["weights"].sum())
    ),
    "entropy": _entropy,
}
