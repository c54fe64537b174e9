"""Compilation of features into one Ibis expression, for DuckDB and Spark.

There are four kinds of passes over a view, and features share passes where possible: plain aggregates (one pass per
view), counts of each value (one pass per column, for all windows and filters), aggregates of rows ordered by time (one
pass per window and filter), and the times of each value (one pass per feature).
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import ibis
import ibis.expr.types as ir

from features.compute.algebra import (
    COMPARISONS,
    EXPECTED_DAYS,
    OVERDUE_RATE,
    PATH_SEPARATOR,
    SORT_KEYS,
    USUAL_GAP_DAYS,
    USUAL_GAP_WEIGHT,
    VALUE_COUNT_AGGREGATES,
    WEIGHT_DIGITS,
    Condition,
    Feature,
)
from features.compute.views import Views, days_before, epoch_seconds, first_part, view_with
from qianmian.times import SECONDS_PER_DAY

COLUMN_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **COMPARISONS,
    "in": lambda column, values: column.isin(list(values)),
    "under": lambda column, name: (column == name) | column.startswith(f"{name}{PATH_SEPARATOR}"),
    "known": lambda column, known: column.notnull() == bool(known),
}
ORDERED_AGGREGATES = ("first", "last", "gap_std")
SEPARATOR = "\x1f"
ValueCountKey = tuple[int | None, tuple[Condition, ...], str]  # window, filter, weight


def row_filter(t: ir.Table, conditions: Sequence[Condition]) -> ir.BooleanValue | None:
    """The conjunction of all conditions; a row with a null column does not pass."""
    return all_of(
        *(
            COLUMN_OPERATORS[condition.operator](t[condition.column], condition.value).fill_null(False)
            for condition in conditions
        )
    )


def all_of(*tests: ir.BooleanValue | None) -> ir.BooleanValue | None:
    """The conjunction of the tests that are not None; None if there are none."""
    present = [test for test in tests if test is not None]
    return reduce(operator.and_, present) if present else None


def _window(t: ir.Table, views: Views, days: int | None, windows_back: int = 0) -> ir.BooleanValue | None:
    if days is None:
        return None
    inside = t.ts >= views.before(days * (windows_back + 1))
    return inside & (t.ts < views.before(days * windows_back)) if windows_back else inside


def _divide(a: ir.NumericValue, b: ir.NumericValue) -> ir.FloatingValue:
    return a.cast("float64") / b.cast("float64").nullif(0.0)


def _total(t: ir.Table, column: str, where: ir.BooleanValue | None) -> ir.NumericValue:
    return t[column].sum(where=where).fill_null(0) if column else t.count(where=where)


def _simple_aggregate(t: ir.Table, feature: Feature, views: Views) -> ir.Scalar:
    """One aggregate in the shared pass over the view."""
    window, condition = _window(t, views, feature.window_days), row_filter(t, feature.where)
    where = all_of(window, condition)
    name = feature.aggregate
    if name == "count":
        return t.count(where=where)
    if name in ("sum", "mean", "min", "max"):
        return getattr(t[feature.column], name)(where=where)
    if name == "std":
        return t[feature.column].std(where=where, how="sample")
    if name == "share":
        whole = all_of(window, row_filter(t, feature.divisor))
        return _divide(_total(t, feature.column, where), _total(t, feature.column, whole))
    if name == "ratio":
        return _divide(_total(t, feature.column, where), _total(t, feature.over, where))
    if name == "recency":
        return days_before(views.cutoff, t.ts.max(where=where))
    if name == "age":
        return days_before(views.cutoff, t.ts.min(where=where))
    if name == "gap_mean":
        span = epoch_seconds(t.ts.max(where=where)) - epoch_seconds(t.ts.min(where=where))
        return _divide(span / SECONDS_PER_DAY, t.count(where=where) - 1)
    if name in ("trend", "slope"):
        before = all_of(_window(t, views, feature.window_days, windows_back=1), condition)
        now, then = _total(t, feature.column, where), _total(t, feature.column, before)
        if name == "trend":
            return _divide(now - then, now + then)
        return (now - then).cast("float64") / float(feature.window_days or 1)
    if name == "attribute":
        return t[feature.column].min(where=where)
    if name == "missing":
        assert condition is not None  # `check` refuses it without `where`
        return condition.cast("int8").min()
    if name == "days_since":
        return days_before(views.cutoff, t[feature.column].min(where=where))
    raise AssertionError(name)


def _value_count_aggregates(t: ir.Table, column: str, views: Views, features: Sequence[Feature]) -> ir.Table:
    """Aggregates of the counts of values of one column: count each value, then aggregate the counts of a customer."""
    count_columns: dict[ValueCountKey, str] = {}
    for feature in features:
        count_columns.setdefault((feature.window_days, feature.where, feature.over), f"n{len(count_columns)}")
    t = t.filter(t[column].notnull())
    # rows outside the widest window need not be counted
    widest = [feature.window_days for feature in features]
    if None not in widest:
        t = t.filter(_window(t, views, max(days for days in widest if days is not None)))
    made = {}
    for (days, conditions, over), name in count_columns.items():
        where = all_of(_window(t, views, days), row_filter(t, conditions))
        made[name] = t[over].sum(where=where).fill_null(0.0).round(WEIGHT_DIGITS) if over else t.count(where=where)
    counts = t.group_by(one_id=t.one_id, value=t[column]).aggregate(**made)
    of = {feature.name: count_columns[feature.window_days, feature.where, feature.over] for feature in features}
    most = {of[f.name]: counts[of[f.name]].max().over(group_by="one_id") for f in features if f.aggregate == "top"}
    counts = counts.mutate(**{f"most_{name}": expression for name, expression in most.items()})
    result = {}
    for feature in features:
        n = counts[of[feature.name]]
        if feature.aggregate == "distinct":
            result[feature.name] = counts.count(where=n > 0)
        elif feature.aggregate == "top":
            result[feature.name] = counts.value.cast("string").min(
                where=(n > 0) & (n == counts[f"most_{of[feature.name]}"])
            )
        elif feature.aggregate == "top_share":
            result[feature.name] = _divide(n.max(), n.sum())
        else:  # −Σ p ln p with p = n ÷ N is ln N − Σ n ln n ÷ N
            x = n.cast("float64")
            total = x.sum(where=x > 0)
            entropy = total.ln() - (x * x.nullif(0.0).ln()).sum() / total
            # `greatest` would turn null into 0 on some engines
            result[feature.name] = ibis.ifelse(entropy < 0.0, 0.0, entropy)
    return counts.group_by("one_id").aggregate(**result)


def _ordered_aggregate(t: ir.Table, feature: Feature, views: Views) -> ir.Table:
    """`first`, `last` and `gap_std`: the aggregates that need rows ordered by time."""
    kept = all_of(_window(t, views, feature.window_days), row_filter(t, feature.where))
    if feature.aggregate == "gap_std":
        t = t.filter(kept) if kept is not None else t
        gap = (epoch_seconds(t.ts) - epoch_seconds(t.ts).lag().over(group_by="one_id", order_by=t.ts)) / SECONDS_PER_DAY
        gaps = t.select("one_id", gap=gap)
        return gaps.group_by("one_id").aggregate(**{feature.name: gaps.gap.std(how="sample")})
    last = feature.aggregate == "last"
    t = t.filter(all_of(kept, t[feature.column].notnull()))
    # the rows at the first or last moment are found by hashing, so that only these few rows are sorted
    edges = t.group_by("one_id").aggregate(edge=t.ts.max() if last else t.ts.min())
    t = t.inner_join(edges, ["one_id", t.ts == edges.edge])
    # ties are broken by order_id, line_no …; null sorts as an empty string
    keys = [t[name].fill_null("") if t[name].type().is_string() else t[name] for name in SORT_KEYS[feature.view]]
    order = [ibis.desc(key) if last else ibis.asc(key) for key in keys]
    t = t.mutate(place=ibis.row_number().over(group_by="one_id", order_by=order))
    return t.filter(t.place == 0).select("one_id", **{feature.name: t[feature.column]})


def _expected_aggregate(t: ir.Table, feature: Feature, views: Views) -> ir.Table:
    """`expected`: the gap and the age of each value of a customer, then the sum over the values."""
    known = t[feature.column].notnull() & t[feature.over].notnull()
    t = t.filter(all_of(_window(t, views, feature.window_days), row_filter(t, feature.where), known))
    values = t.group_by(one_id=t.one_id, value=t[feature.column]).aggregate(
        first=t.ts.min(), last=t.ts.max(), n=t[feature.over].nunique()
    )
    span = (epoch_seconds(values.last) - epoch_seconds(values.first)) / SECONDS_PER_DAY
    gap = (span + USUAL_GAP_WEIGHT * USUAL_GAP_DAYS) / (values.n.cast("float64") - 1.0 + USUAL_GAP_WEIGHT)
    overdue = days_before(views.cutoff, values.last) / gap - 1.0
    left = ibis.ifelse(overdue > 0.0, (-OVERDUE_RATE * overdue).exp(), 1.0)
    values = values.mutate(expected=EXPECTED_DAYS / gap * left)
    return values.group_by("one_id").aggregate(**{feature.name: values.expected.sum()})


def compile_features(features: Sequence[Feature], views: Views) -> ir.Table:
    """Compile features into one expression: `one_id` and one column per feature, unordered.

    Parameters
    ----------
    features : sequence of Feature
        Declarations; a quotient must come after its parts.
    views : Views
        Rows before the cutoff.

    Returns
    -------
    ibis.expr.types.Table
        Feature columns are float64, or text for categorical features.
    """
    result = views.customers.select("one_id").distinct()
    # one flat chain of joins, because nested joins overflow the stack of the compiler
    for number, part in enumerate(_subqueries(features, views)):
        result = result.left_join(part, "one_id", rname=f"{{name}}_right_{number}")
    result = result.select(
        "one_id",
        **{
            feature.name: result[feature.name]
            .cast("string" if feature.categorical else "float64")
            .fill_null(feature.default)
            for feature in features
            if feature.aggregate != "quotient"
        },
    )
    quotients = {
        f.name: _divide(result[f.column], result[f.over]).fill_null(f.default)
        for f in features
        if f.aggregate == "quotient"
    }
    return result.mutate(**quotients).select("one_id", *(feature.name for feature in features))


def compile_profiles(features: Sequence[Feature], views: Views, ordered: bool = True) -> ir.Table:
    """`compile_features` with `user_id` and `user_source`, the first record of each customer, after `one_id`.

    The rows are sorted by `one_id` if `ordered` is true.
    """
    table, people = compile_features(features, views), views.customers
    key = (people.source + SEPARATOR + people.source_user_id).min()
    first = people.group_by("one_id").aggregate(key=key)
    source = first_part(first.key, SEPARATOR)
    first = first.select("one_id", user_id=first.key.substr(source.length() + 1), user_source=source)
    joined = table.inner_join(first, "one_id")
    profiles = joined.select("one_id", "user_id", "user_source", *(feature.name for feature in features))
    return profiles.order_by("one_id") if ordered else profiles


def _subqueries(features: Sequence[Feature], views: Views) -> Iterable[ir.Table]:
    plain: dict[str, list[Feature]] = defaultdict(list)
    by_value: dict[tuple[str, str], list[Feature]] = defaultdict(list)
    for feature in features:
        if feature.aggregate in VALUE_COUNT_AGGREGATES:
            by_value[feature.view, feature.column].append(feature)
        elif feature.aggregate in ORDERED_AGGREGATES:
            yield _ordered_aggregate(_rows(views, feature.view, [feature]), feature, views)
        elif feature.aggregate == "expected":
            yield _expected_aggregate(_rows(views, feature.view, [feature]), feature, views)
        elif feature.aggregate != "quotient":
            plain[feature.view].append(feature)
    for view, group in plain.items():
        t = _rows(views, view, group)
        yield t.group_by("one_id").aggregate(
            **{feature.name: _simple_aggregate(t, feature, views) for feature in group}
        )
    for (view, column), group in by_value.items():
        yield _value_count_aggregates(_rows(views, view, group), column, views, group)


def _rows(views: Views, view: str, features: Sequence[Feature]) -> ir.Table:
    """The rows of a view with the columns that these features read."""
    return views[view_with(view, frozenset().union(*(feature.columns for feature in features)))]
