"""Summaries of windows of rows: computed from the recent rows and merged with the stored summary of the old rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from features.compute.algebra import CLOCK_COLUMNS, TIME_COLUMNS, WEIGHT_DIGITS
from features.compute.online.plan import PartialAggregate
from features.compute.online.recent import ViewRows
from features.compute.online.selection import Selection, factorized
from features.compute.online.state import MISSING, Array, CustomerState, OnlineState
from qianmian.times import MICROSECONDS_PER_DAY, MICROSECONDS_PER_SECOND, SECONDS_PER_DAY

Summary = Mapping[str, Any]
NEVER_NULL = frozenset(TIME_COLUMNS) - frozenset(CLOCK_COLUMNS)


class ReadContext:
    """The online state and the current time (microseconds since 1970), for functions that read summaries."""

    def __init__(self, state: OnlineState, now: int) -> None:
        self.state, self.now = state, now


def summaries(customer: CustomerState, rows: Mapping[str, ViewRows], context: ReadContext) -> list[Summary | None]:
    """Summary of each partial aggregate of the plan, over old and recent rows; None if no row contributes."""
    state, now = context.state, context.now
    plan = state.plan
    selections = [Selection(rows[view], where, state) for view, where in plan.selections]
    bounds = []
    for at, days, windows_back in plan.slices:
        ts = selections[at].ts
        low, high = 0, len(ts)
        if days is not None:
            low = int(ts.searchsorted(now - days * (windows_back + 1) * MICROSECONDS_PER_DAY))
            if windows_back:
                high = int(ts.searchsorted(now - days * windows_back * MICROSECONDS_PER_DAY))
        bounds.append((selections[at], low, high))
    found: list[Summary | None] = []
    for number, (partial, at) in enumerate(zip(plan.partials, plan.slice_of, strict=True)):
        selection, low, high = bounds[at]
        recent = SUMMARISE[partial.kind](selection, low, high, partial, context) if high > low else None
        stored = customer.counts if partial.kind == "values" else customer.base
        base = stored.get(number) if partial.covers_old_rows else None
        found.append(recent if base is None else base if recent is None else MERGE[partial.kind](base, recent))
    return found


# ---- summaries of recent rows ----------------------------------------------------------------------------------------


def _rows(_s: Selection, low: int, high: int, _c: PartialAggregate, _a: ReadContext) -> Summary:
    return {"n": high - low}


def _total(s: Selection, low: int, high: int, partial: PartialAggregate, _a: ReadContext) -> Summary | None:
    counts, totals = s.running_totals(partial.column)
    n = int(counts[high] - counts[low])
    return {"n": n, "total": float(totals[high] - totals[low])} if n else None


def _known(s: Selection, low: int, high: int, partial: PartialAggregate) -> Array:
    column: Array = s.column(partial.column)[low:high]
    known: Array = column[column == column]
    return known


def _moments(s: Selection, low: int, high: int, partial: PartialAggregate, _a: ReadContext) -> Summary | None:
    known = _known(s, low, high, partial)
    if not len(known):
        return None
    mean = float(known.mean())
    return {"n": len(known), "mean": mean, "squares": float(((known - mean) ** 2).sum())}


def _min(s: Selection, low: int, high: int, partial: PartialAggregate, _a: ReadContext) -> Summary | None:
    known = _known(s, low, high, partial)
    return {"value": float(known.min())} if len(known) else None


def _max(s: Selection, low: int, high: int, partial: PartialAggregate, _a: ReadContext) -> Summary | None:
    known = _known(s, low, high, partial)
    return {"value": float(known.max())} if len(known) else None


def _first_or_last(
    s: Selection, low: int, high: int, partial: PartialAggregate, context: ReadContext
) -> Summary | None:
    column = s.column(partial.column)
    text = column.dtype == np.int32
    for at in range(low, high) if partial.kind == "first" else range(high - 1, low - 1, -1):
        if column[at] != MISSING if text else column[at] == column[at]:
            return {"value": context.state.text(partial.column, int(column[at])) if text else float(column[at])}
    return None


def _times(s: Selection, low: int, high: int, _c: PartialAggregate, _a: ReadContext) -> Summary:
    return {"n": high - low, "age": int(s.ts[low]), "recency": int(s.ts[high - 1])}


def _gaps(s: Selection, low: int, high: int, partial: PartialAggregate, context: ReadContext) -> Summary:
    times = dict(_times(s, low, high, partial, context))
    gaps = np.diff(s.seconds[low:high]) / SECONDS_PER_DAY
    times["squares"] = float(((gaps - gaps.mean()) ** 2).sum()) if len(gaps) else 0.0
    return times


def _values(s: Selection, low: int, high: int, partial: PartialAggregate, _a: ReadContext) -> Summary | None:
    distinct, numbers = s.factorized(partial.column)
    numbers = numbers[low:high]
    over = s.column(partial.over)[low:high] if partial.over else None
    if over is not None or partial.column not in NEVER_NULL:
        kept = numbers >= 0 if over is None else (numbers >= 0) & (over == over)
        numbers, over = numbers[kept], None if over is None else over[kept]
    weights = np.bincount(numbers, weights=over, minlength=len(distinct))
    if over is not None:
        weights = np.round(weights, WEIGHT_DIGITS)
    present = (weights > 0).nonzero()[0]
    return {"values": distinct[present], "weights": weights[present]} if len(present) else None


def _repeats(s: Selection, low: int, high: int, partial: PartialAggregate, _a: ReadContext) -> Summary | None:
    numbers, (occasions, of_rows) = s.factorized(partial.column)[1][low:high], s.factorized(partial.over)
    of_rows = of_rows[low:high]
    known = ((numbers >= 0) & (of_rows >= 0)).nonzero()[0]
    if not len(known):
        return None
    # each value has one run, in which its rows stay ordered by time
    order = known[numbers[known].argsort(kind="stable")]
    numbers, seconds = numbers[order], s.seconds[low:high][order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    pairs = np.unique(numbers * np.int64(len(occasions)) + of_rows[order])
    counts = np.bincount(pairs // len(occasions))[numbers[starts]]
    return {"n": counts, "age": seconds[starts], "recency": seconds[np.append(starts[1:], len(order)) - 1]}


SUMMARISE: dict[str, Callable[[Selection, int, int, PartialAggregate, ReadContext], Summary | None]] = {
    "rows": _rows,
    "total": _total,
    "moments": _moments,
    "min": _min,
    "max": _max,
    "first": _first_or_last,
    "last": _first_or_last,
    "times": _times,
    "gaps": _gaps,
    "values": _values,
    "repeats": _repeats,
}

# ---- merged summaries of old and recent rows; every old row is earlier than every recent row -------------------------


def squared_deviations(summary: Summary) -> float:
    """Sum of squared deviations; the base of old rows stores the sample standard deviation instead."""
    if "squares" in summary:
        return float(summary["squares"])
    return 0.0 if math.isnan(summary["std"]) else float(summary["std"]) ** 2 * (summary["n"] - 1)


def _pool(*parts: tuple[float, float, float]) -> tuple[float, float, float]:
    """Pooled (n, mean, squares) of several samples (Chan, Golub, LeVeque 1979)."""
    n, mean, squares = 0.0, 0.0, 0.0
    for n2, mean2, squares2 in parts:
        if n2:
            delta = mean2 - mean
            squares += squares2 + delta * delta * n * n2 / (n + n2)
            mean += delta * n2 / (n + n2)
            n += n2
    return n, mean, squares


def _merge_moments(old: Summary, new: Summary) -> Summary:
    n, mean, squares = _pool(
        (old["n"], old["mean"], squared_deviations(old)), (new["n"], new["mean"], squared_deviations(new))
    )
    return {"n": n, "mean": mean, "squares": squares}


def _merge_times(old: Summary, new: Summary) -> Summary:
    return {"n": old["n"] + new["n"], "age": old["age"], "recency": new["recency"]}


def elapsed_days(low: float, high: float) -> float:
    """Days between two moments in microseconds, each rounded down to whole seconds."""
    return (high // MICROSECONDS_PER_SECOND - low // MICROSECONDS_PER_SECOND) / SECONDS_PER_DAY


def gap_sample(summary: Summary) -> tuple[float, float, float]:
    """Count, mean and squared deviations of the gaps between the rows of a summary, in days."""
    n = summary["n"] - 1
    if n < 1:
        return 0.0, 0.0, 0.0
    if "squares" in summary:
        squares = summary["squares"]
    else:
        squares = 0.0 if math.isnan(summary["std"]) else summary["std"] ** 2 * (n - 1)
    return n, elapsed_days(summary["age"], summary["recency"]) / n, squares


def _merge_gaps(old: Summary, new: Summary) -> Summary:
    between = (1.0, elapsed_days(old["recency"], new["age"]), 0.0)
    return {**_merge_times(old, new), "squares": _pool(gap_sample(old), between, gap_sample(new))[2]}


def _merge_values(old: Summary, new: Summary) -> Summary:
    distinct, numbers = factorized(np.concatenate([old["values"], new["values"]]))
    parts = np.concatenate([old["weights"], new["weights"]])
    weights = np.round(np.bincount(numbers, weights=parts, minlength=len(distinct)), WEIGHT_DIGITS)
    present = (weights > 0).nonzero()[0]
    return {"values": distinct[present], "weights": weights[present]}


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
