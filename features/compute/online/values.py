"""The value of every feature of one customer now: summaries of old rows, rows of the tail, and rows since the build.

Python and NumPy only. Measured (`benchmarks/features.py`): what costs is the number of NumPy calls, not the rows, so sums come
from running totals and the values of a column are numbered once for all windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import COMPARISONS, TIME_COLUMNS, WEIGHT_DIGITS, Condition, Feature
from features.compute.online.plan import Cell
from features.compute.online.recent import Rows, rows_now
from features.compute.online.state import MISSING, Array, Customer, OnlineState, microseconds
from qianmian.times import MICROSECONDS_PER_DAY, MICROSECONDS_PER_SECOND, SECONDS_PER_DAY

SMALL = 4_096
Summary = Mapping[str, Any]
COMPARE: dict[str, Callable[[Array, Any], NDArray[np.bool_]]] = {
    **COMPARISONS,
    "in": lambda a, b: np.isin(a, b),
}


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
    context = _Context(state, microseconds(now))
    summaries = _summaries(customer, rows, context)
    result: dict[str, float | str] = {}
    for feature, reads in zip(state.plan.features, state.plan.reads, strict=True):
        value: Value
        if feature.aggregate == "quotient":
            value = _divide(float(result[feature.column]), float(result[feature.over]))
        elif feature.view == "profiles":
            value = _attribute(customer, feature, now)
        else:
            value = READ[feature.aggregate](feature, [summaries[cell] for cell in reads], context)
        result[feature.name] = feature.default if value is None else value
    return result


class _Selection:
    """The rows of one view that pass one filter."""

    def __init__(self, rows: Rows, where: tuple[Condition, ...], state: OnlineState) -> None:
        self._rows = rows
        mask: NDArray[np.bool_] | None = None
        for condition in where:
            test = _passes(rows, condition, state)
            mask = test if mask is None else mask & test
        self._at = None if mask is None else mask.nonzero()[0]
        self.ts: NDArray[np.int64] = rows.ts if self._at is None else rows.ts[self._at]
        self._columns: dict[str, Array] = {}
        self._running: dict[str, tuple[Array, Array]] = {}
        self._numbered: dict[str, tuple[Array, Array]] = {}

    def column(self, name: str) -> Array:
        if name not in self._columns:
            whole = self._rows.column(name)
            self._columns[name] = whole if self._at is None else whole[self._at]
        return self._columns[name]

    def running(self, name: str) -> tuple[Array, Array]:
        """Rows known and total of a column up to each row, (rows + 1,) each."""
        if name not in self._running:
            column = self.column(name)
            known = column == column
            counts, totals = np.zeros(len(column) + 1, np.int64), np.zeros(len(column) + 1)
            np.cumsum(known, out=counts[1:])
            np.cumsum(np.where(known, column, 0.0), out=totals[1:])
            self._running[name] = counts, totals
        return self._running[name]

    def numbered(self, name: str) -> tuple[Array, Array]:
        """The different values of a column, and for each row the number of its value, −1 where it has none."""
        if name not in self._numbered:
            self._numbered[name] = _numbered(self.column(name))
        return self._numbered[name]

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        return (self.ts // MICROSECONDS_PER_SECOND).astype(np.float64)


def _numbered(column: Array) -> tuple[Array, Array]:
    """Sorting is what costs: small whole numbers (codes of a short vocabulary, days, hours) are their own numbers."""
    text = column.dtype == np.int32
    if not len(column):
        return column, np.zeros(0, dtype=np.int64)
    if text and int(column.max()) < SMALL:
        return np.arange(int(column.max()) + 1, dtype=np.int32), column
    if not text:
        low, high = column.min(), column.max()
        if low == low and high - low < SMALL and low % 1 == 0:
            numbers = column.astype(np.int64)
            if (numbers == column).all():
                return np.arange(low, high + 1.0), numbers - int(low)
    different, numbers = np.unique(column, return_inverse=True)
    absent = different == MISSING if text else different != different
    return different, np.where(absent[numbers], -1, numbers) if absent.any() else numbers


class _Context:
    """What reading a summary may need to know."""

    def __init__(self, state: OnlineState, now: int) -> None:
        self.state, self.now = state, now


def _summaries(customer: Customer, rows: Mapping[str, Rows], context: _Context) -> list[Summary | None]:
    """The summary of every cell of the plan: old rows and recent ones together; None where there are none."""
    state, now = context.state, context.now
    plan = state.plan
    selections = [_Selection(rows[view], where, state) for view, where in plan.selections]
    bounds = []
    for at, days, back in plan.slices:
        ts = selections[at].ts
        low = 0 if days is None else int(ts.searchsorted(now - days * (back + 1) * MICROSECONDS_PER_DAY))
        bounds.append(
            (
                selections[at],
                low,
                int(ts.searchsorted(now - days * back * MICROSECONDS_PER_DAY))
                if days is not None and back
                else len(ts),
            )
        )
    found: list[Summary | None] = []
    for number, (cell, at) in enumerate(zip(plan.cells, plan.slice_of, strict=True)):
        selection, low, high = bounds[at]
        recent = SUMMARISE[cell.kind](selection, low, high, cell, context) if high > low else None
        base = (customer.counts if cell.kind == "values" else customer.base).get(number) if cell.days is None else None
        found.append(recent if base is None else base if recent is None else MERGE[cell.kind](base, recent))
    return found


def _passes(rows: Rows, condition: Condition, state: OnlineState) -> NDArray[np.bool_]:
    column, value = rows.column(condition.column), condition.value
    known: NDArray[np.bool_] = column != MISSING if column.dtype == np.int32 else column == column
    if condition.operator == "known":
        return known if value else ~known
    wanted: Any = value
    if column.dtype == np.int32:
        if condition.operator not in ("==", "!=", "in"):  # texts in their order: compare as texts
            texts = [state.text(condition.column, code) if code != MISSING else "" for code in column]
            return COMPARE[condition.operator](np.asarray(texts, dtype=object), value) & known
        wanted = [state.code(condition.column, str(v)) for v in (value if isinstance(value, tuple) else (value,))]
        wanted = wanted if condition.operator == "in" else wanted[0]
    elif isinstance(value, tuple):
        wanted = [float(v) for v in value]
    return COMPARE[condition.operator](column, wanted) & known


# ---- summaries of the recent rows ----------------------------------------------------------------------------------------


def _rows(_s: _Selection, low: int, high: int, _c: Cell, _a: _Context) -> Summary:
    return {"n": high - low}


def _total(s: _Selection, low: int, high: int, cell: Cell, _a: _Context) -> Summary | None:
    counts, totals = s.running(cell.column)
    n = int(counts[high] - counts[low])
    return {"n": n, "total": float(totals[high] - totals[low])} if n else None


def _known(s: _Selection, low: int, high: int, cell: Cell) -> Array:
    column: Array = s.column(cell.column)[low:high]
    known: Array = column[column == column]
    return known


def _moments(s: _Selection, low: int, high: int, cell: Cell, _a: _Context) -> Summary | None:
    known = _known(s, low, high, cell)
    if not len(known):
        return None
    mean = float(known.mean())
    return {"n": len(known), "mean": mean, "squares": float(((known - mean) ** 2).sum())}


def _min(s: _Selection, low: int, high: int, cell: Cell, _a: _Context) -> Summary | None:
    known = _known(s, low, high, cell)
    return {"value": float(known.min())} if len(known) else None


def _max(s: _Selection, low: int, high: int, cell: Cell, _a: _Context) -> Summary | None:
    known = _known(s, low, high, cell)
    return {"value": float(known.max())} if len(known) else None


def _edge(s: _Selection, low: int, high: int, cell: Cell, context: _Context) -> Summary | None:
    column = s.column(cell.column)
    text = column.dtype == np.int32
    for at in range(low, high) if cell.kind == "first" else range(high - 1, low - 1, -1):
        if column[at] != MISSING if text else column[at] == column[at]:
            return {"value": context.state.text(cell.column, int(column[at])) if text else float(column[at])}
    return None


def _times(s: _Selection, low: int, high: int, _c: Cell, _a: _Context) -> Summary:
    return {"n": high - low, "age": int(s.ts[low]), "recency": int(s.ts[high - 1])}


def _gaps(s: _Selection, low: int, high: int, cell: Cell, context: _Context) -> Summary:
    times = dict(_times(s, low, high, cell, context))
    gaps = np.diff(s.seconds[low:high]) / SECONDS_PER_DAY
    times["squares"] = float(((gaps - gaps.mean()) ** 2).sum()) if len(gaps) else 0.0
    return times


def _values(s: _Selection, low: int, high: int, cell: Cell, _a: _Context) -> Summary | None:
    different, numbers = s.numbered(cell.column)
    numbers = numbers[low:high]
    over = s.column(cell.over)[low:high] if cell.over else None
    if over is not None or cell.column not in TIME_COLUMNS:
        kept = numbers >= 0 if over is None else (numbers >= 0) & (over == over)
        numbers, over = numbers[kept], None if over is None else over[kept]
    weights = np.bincount(numbers, weights=over, minlength=len(different))
    if over is not None:
        weights = np.round(weights, WEIGHT_DIGITS)
    there = (weights > 0).nonzero()[0]
    return {"values": different[there], "weights": weights[there]} if len(there) else None


SUMMARISE: dict[str, Callable[[_Selection, int, int, Cell, _Context], Summary | None]] = {
    "rows": _rows,
    "total": _total,
    "moments": _moments,
    "min": _min,
    "max": _max,
    "first": _edge,
    "last": _edge,
    "times": _times,
    "gaps": _gaps,
    "values": _values,
}

# ---- old and recent together; every old row lies before every recent one --------------------------------------------------


def _squares(summary: Summary) -> float:
    """Sum of squared deviations; a base knows the sample standard deviation."""
    if "squares" in summary:
        return float(summary["squares"])
    return 0.0 if math.isnan(summary["std"]) else float(summary["std"]) ** 2 * (summary["n"] - 1)


def _pool(*parts: tuple[float, float, float]) -> tuple[float, float, float]:
    """(n, mean, squares) of several samples together (Chan, Golub, LeVeque 1979)."""
    n, mean, squares = 0.0, 0.0, 0.0
    for n2, mean2, squares2 in parts:
        if n2:
            apart = mean2 - mean
            squares += squares2 + apart * apart * n * n2 / (n + n2)
            mean += apart * n2 / (n + n2)
            n += n2
    return n, mean, squares


def _merge_moments(old: Summary, new: Summary) -> Summary:
    n, mean, squares = _pool((old["n"], old["mean"], _squares(old)), (new["n"], new["mean"], _squares(new)))
    return {"n": n, "mean": mean, "squares": squares}


def _merge_times(old: Summary, new: Summary) -> Summary:
    return {"n": old["n"] + new["n"], "age": old["age"], "recency": new["recency"]}


def _days(low: float, high: float) -> float:
    return (high // MICROSECONDS_PER_SECOND - low // MICROSECONDS_PER_SECOND) / SECONDS_PER_DAY


def _gap_sample(summary: Summary) -> tuple[float, float, float]:
    n = summary["n"] - 1
    if n < 1:
        return 0.0, 0.0, 0.0
    squares = (
        summary["squares"]
        if "squares" in summary
        else 0.0
        if math.isnan(summary["std"])
        else summary["std"] ** 2 * (n - 1)
    )
    return n, _days(summary["age"], summary["recency"]) / n, squares


def _merge_gaps(old: Summary, new: Summary) -> Summary:
    between = (1.0, _days(old["recency"], new["age"]), 0.0)
    return {**_merge_times(old, new), "squares": _pool(_gap_sample(old), between, _gap_sample(new))[2]}


def _merge_values(old: Summary, new: Summary) -> Summary:
    different, numbers = _numbered(np.concatenate([old["values"], new["values"]]))
    weights = np.round(
        np.bincount(numbers, weights=np.concatenate([old["weights"], new["weights"]]), minlength=len(different)),
        WEIGHT_DIGITS,
    )
    there = (weights > 0).nonzero()[0]
    return {"values": different[there], "weights": weights[there]}


MERGE: dict[str, Callable[[Summary, Summary], Summary]] = {
    "rows": lambda old, new: {"n": old["n"] + new["n"]},
    "total": lambda old, new: {"n": old["n"] + new["n"], "total": old["total"] + new["total"]},
    "moments": _merge_moments,
    "min": lambda old, new: {"value": min(old["value"], new["value"])},
    "max": lambda old, new: {"value": max(old["value"], new["value"])},
    "first": lambda old, new: old,
    "last": lambda old, new: new,
    "times": _merge_times,
    "gaps": _merge_gaps,
    "values": _merge_values,
}

# ---- features from summaries ----------------------------------------------------------------------------------------------

Value = float | str | None
Read = Callable[[Feature, Sequence[Summary | None], _Context], Value]


def _divide(a: float, b: float) -> float | None:
    return a / b if b else None


def _amount(summary: Summary | None) -> float:
    """A count, or a total."""
    return 0.0 if summary is None else float(summary.get("total", summary["n"]))


def _number(name: str) -> Read:
    return lambda _f, cells, _a: None if cells[0] is None else cells[0][name]


def _mean(_f: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    return None if cells[0] is None else _divide(cells[0]["total"], cells[0]["n"])


def _std(_f: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    summary = cells[0]
    return None if summary is None or summary["n"] < 2 else math.sqrt(_squares(summary) / (summary["n"] - 1))


def _since(name: str) -> Read:
    return lambda _f, cells, context: None if cells[0] is None else _days(cells[0][name], context.now)


def _gap_mean(_f: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    summary = cells[0]
    return (
        None if summary is None or summary["n"] < 2 else _days(summary["age"], summary["recency"]) / (summary["n"] - 1)
    )


def _gap_std(_f: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    n, _mean_gap, squares = _gap_sample(cells[0]) if cells[0] is not None else (0.0, 0.0, 0.0)
    return math.sqrt(squares / (n - 1)) if n > 1 else None


def _trend(_f: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    now, then = _amount(cells[0]), _amount(cells[1])
    return _divide(now - then, now + then)


def _slope(feature: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    return (_amount(cells[0]) - _amount(cells[1])) / float(feature.window_days or 1)


def _top(feature: Feature, cells: Sequence[Summary | None], context: _Context) -> Value:
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


def _entropy(_f: Feature, cells: Sequence[Summary | None], _a: _Context) -> Value:
    if cells[0] is None:
        return None
    p = cells[0]["weights"] / cells[0]["weights"].sum()
    return max(float(-(p * np.log(p)).sum()), 0.0)


def _attribute(customer: Customer, feature: Feature, now: datetime) -> Value:
    value = customer.attributes[feature.name]
    if isinstance(value, str) or feature.aggregate == "attribute" or value == feature.default or customer.row < 0:
        return value
    return value + _days(microseconds(customer.state.as_of), microseconds(now))


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
