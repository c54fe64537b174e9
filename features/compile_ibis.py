"""First execution of a declaration: features → one Ibis expression (DuckDB today; nothing here is DuckDB's own)."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import reduce
from typing import Any

import ibis
import ibis.expr.types as ir

from features.algebra import Condition, Feature
from features.views import Views

SECONDS_PER_DAY = 86_400.0
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "in": lambda column, values: column.isin(list(values)),
}  # fmt: skip
BY_VALUE = ("top", "top_share", "entropy")


def passes(t: ir.Table, conditions: Sequence[Condition]) -> ir.BooleanValue | None:
    """All conditions together; a null column passes none."""
    tests = [COMPARE[condition.operator](t[condition.column], condition.value).fill_null(False) for condition in conditions]
    return reduce(operator.and_, tests) if tests else None


def _window(t: ir.Table, views: Views, days: int | None, back: int = 0) -> ir.BooleanValue | None:
    if days is None:
        return None
    low = ibis.timestamp((views.as_of - timedelta(days=days * (back + 1))).isoformat(sep=" "))
    inside = t.ts >= low
    return inside & (t.ts < ibis.timestamp((views.as_of - timedelta(days=days * back)).isoformat(sep=" "))) if back else inside


def _both(*tests: ir.BooleanValue | None) -> ir.BooleanValue | None:
    present = [test for test in tests if test is not None]
    return reduce(operator.and_, present) if present else None


def _days_before(views: Views, ts: ir.TimestampValue) -> ir.FloatingValue:
    # integer seconds divided turn decimal on some engines: cast first
    return (views.cut.epoch_seconds().cast("float64") - ts.epoch_seconds().cast("float64")) / SECONDS_PER_DAY


def _divide(a: ir.NumericValue, b: ir.NumericValue) -> ir.FloatingValue:
    return a.cast("float64") / b.cast("float64").nullif(0.0)


def _total(t: ir.Table, column: str, where: ir.BooleanValue | None) -> ir.NumericValue:
    return t[column].sum(where=where).fill_null(0) if column else t.count(where=where)


def _simple(t: ir.Table, feature: Feature, views: Views) -> ir.Scalar:
    """One aggregate of one pass over the view."""
    window, condition = _window(t, views, feature.window_days), passes(t, feature.where)
    where = _both(window, condition)
    name = feature.aggregate
    if name == "count":
        return t.count(where=where)
    if name in ("sum", "mean", "min", "max"):
        return getattr(t[feature.column], name)(where=where)
    if name == "std":
        return t[feature.column].std(where=where, how="sample")
    if name == "distinct":
        return t[feature.column].nunique(where=where)
    if name == "share":
        return _divide(_total(t, feature.column, where), _total(t, feature.column, window))
    if name == "ratio":
        return _divide(_total(t, feature.column, where), _total(t, feature.over, where))
    if name == "recency":
        return _days_before(views, t.ts.max(where=where))
    if name == "age":
        return _days_before(views, t.ts.min(where=where))
    if name == "trend":
        before = _both(_window(t, views, feature.window_days, back=1), condition)
        now, then = _total(t, feature.column, where), _total(t, feature.column, before)
        return _divide(now - then, now + then)
    if name == "attribute":
        return t[feature.column].min(where=where)
    raise AssertionError(name)


def _by_value(t: ir.Table, column: str, where: ir.BooleanValue | None, features: Sequence[Feature]) -> ir.Table:
    """`top`, `top_share` and `entropy` of one column share one count by value."""
    kept = t.filter(_both(where, t[column].notnull()))
    counts = kept.group_by(["one_id", kept[column].cast("string").name("value")]).aggregate(n=kept.count())
    best = ibis.row_number().over(ibis.window(group_by="one_id", order_by=[ibis.desc("n"), ibis.asc("value")]))
    counts = counts.mutate(place=best, total=counts.n.sum().over(ibis.window(group_by="one_id")))
    p = _divide(counts.n, counts.total)
    counts = counts.mutate(p=p, plogp=p * p.ln())
    made = {
        "top": counts.value.max(where=counts.place == 0),
        "top_share": counts.p.max(where=counts.place == 0),
        "entropy": ibis.greatest(-counts.plogp.sum(), 0.0),
    }
    return counts.group_by("one_id").aggregate(**{feature.name: made[feature.aggregate] for feature in features})


def compile_features(features: Sequence[Feature], views: Views) -> ir.Table:
    """One expression with `one_id` and a column a feature: float64, or text where the feature is categorical.

    Parameters
    ----------
    features : sequence of Feature
        A quotient comes after its parts.
    views : Views
        Where the rows come from and the moment they are cut at.
    """
    passes_over: dict[str, list[Feature]] = defaultdict(list)
    counted: dict[tuple[str, str, int | None, tuple[Condition, ...]], list[Feature]] = defaultdict(list)
    for feature in features:
        if feature.aggregate in BY_VALUE:
            counted[feature.view, feature.column, feature.window_days, feature.where].append(feature)
        elif feature.aggregate != "quotient":
            passes_over[feature.view].append(feature)
    parts = []
    for view, group in passes_over.items():
        t = views[view]
        parts.append(t.group_by("one_id").aggregate(**{feature.name: _simple(t, feature, views) for feature in group}))
    for (view, column, days, where), group in counted.items():
        t = views[view]
        parts.append(_by_value(t, column, _both(_window(t, views, days), passes(t, where)), group))
    result = views.customers.select("one_id").distinct()
    for part in parts:
        result = result.left_join(part, "one_id").drop("one_id_right")
    result = result.mutate(**{
        feature.name: result[feature.name].cast("string" if feature.categorical else "float64").fill_null(feature.default)
        for feature in features
        if feature.aggregate != "quotient"
    })  # fmt: skip
    quotients = {f.name: _divide(result[f.column], result[f.over]).fill_null(f.default) for f in features if f.aggregate == "quotient"}
    return result.mutate(**quotients).select("one_id", *(feature.name for feature in features)).order_by("one_id")
