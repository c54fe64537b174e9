"""The lifecycle part of `tags.py`: the next order, `replenishment`, and `lifecycle_stage` with churn probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import common
import numpy as np
from common import Check, Must

HORIZON, LONG_HORIZON = 28, 84
SNAPSHOTS = 9  # dates on which the churn model of a moment learns
FAR_APART = 0.2
STAGES = ("loyal", "active", "at_risk", "asleep", "lost")
ORDER, APART = (
    "high end of the smallest difference of neighbours",
    "intervals of the first and the last apart by",
)
RANKS, ERROR, COVERED_LEAST, COVERED_MOST, DUE = (
    "rank correlation with the wait",
    "mean absolute error relative to the own mean gap",
    "share of next orders in the 80 % interval",
    "share of next orders in the 80 % interval, at most",
    "low end of due less the high ends of not_yet and missed",
)
MUSTS = {
    RANKS: Must("metric", least=0.55),
    ERROR: Must("ratio", most=1.0),
    COVERED_LEAST: Must("metric", least=0.75),
    COVERED_MOST: Must("metric", most=0.85),
    DUE: Must("metric", least=0.0),
    ORDER: Must("metric", least=0.0),
    APART: Must("metric", least=FAR_APART),
}


def columns_at(builder: Any, moment: Any, names: Sequence[str]) -> dict[str, Any]:
    """Features of the customers of a moment."""
    table = builder.build(moment.as_of, [feature for feature in builder.declared if feature.name in names]).table
    assert table["one_id"].combine_chunks().equals(moment.one_ids)
    return {name: table[name].to_numpy() for name in names}


def estimate(found: Any, n: int) -> dict[str, Any]:
    """An estimate as a metric of the JSON output."""
    return common.value(found.value, found.low, found.high, n)


def text(found: Any) -> str:
    """An estimate with its interval."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


# ---- the next order --------------------------------------------------------------------------------------------------


def next_order(builder: Any, tags: Sequence[Any], having: Sequence[Any]) -> tuple[dict[str, Any], list[Check]]:
    """Rank correlation, error and coverage of `days_to_next_order`, beside the own mean gap."""
    from features.profiles.governance.verdicts import known_values, pooled_waits
    from features.profiles.governance.waits import concordance, coverage, mean_absolute_error, rank_correlation

    name = "days_to_next_order"
    claim = next(tag.claim for tag in tags if tag.name == name)
    rivals, same = [], []
    for moment, cluster in having:
        columns = columns_at(builder, moment, ["gap_days_mean", "orders_total"])
        comparable = known_values(moment.tags[name]) & (columns["orders_total"] > 1)
        for pairs, values in ((rivals, columns["gap_days_mean"].astype(object)), (same, moment.tags[name].copy())):
            values[~comparable] = None
            pairs.append((replace(moment, tags={**moment.tags, name: values}), cluster))
    models = {"qianmian": having, "qianmian from two orders on": same, "own mean gap": rivals}
    figures: dict[str, dict[str, Any]] = {model: {} for model in models}
    for horizon in (HORIZON, LONG_HORIZON):
        for model, pairs in models.items():
            seen = [(moment, cluster) for moment, cluster in pairs if moment.seen_days >= horizon]
            if not seen:
                continue
            predicted, low, high, waits = pooled_waits(name, claim, seen)
            cut = waits.within(horizon)
            ranks = rank_correlation(predicted, cut.days, cut.cluster)
            error = mean_absolute_error(predicted, waits, horizon)
            c = concordance(predicted, waits)
            figures[model] |= {
                f"spearman_{horizon}d": estimate(ranks, len(cut.days)),
                f"mae_{horizon}d": estimate(error, len(cut.days)),
                f"concordance_{horizon}d": common.value(c, n=len(cut.days)),
            }
            print(
                f"{name}, waits cut at {horizon} days, {model}: rank correlation {text(ranks)}, mean absolute error "
                f"{text(error)} days, concordance {c:.3f}; {len(cut.days):,} rows, "
                f"{np.mean(~cut.ended):.1%} without an order in that time"
            )
            for moment, cluster in seen:
                alone = pooled_waits(name, claim, [(moment, cluster)])
                part = alone[3].within(horizon)
                r = rank_correlation(alone[0], part.days, part.cluster)
                print(f"  {moment.as_of:%Y-%m-%d}: rank correlation {text(r)}")
    values: dict[str, float] = {
        RANKS: figures["qianmian"][f"spearman_{HORIZON}d"]["value"],
        ERROR: figures["qianmian from two orders on"][f"mae_{HORIZON}d"]["value"]
        / figures["own mean gap"][f"mae_{HORIZON}d"]["value"],
    }
    predicted, low, high, waits = pooled_waits(name, claim, having)
    known = np.isfinite(low) & np.isfinite(high)
    if claim.low and known.any():
        inside, before, after = coverage(waits.take(known), low[known], high[known])
        values |= {COVERED_LEAST: inside.value, COVERED_MOST: inside.value}
        figures["qianmian"] |= {"coverage": estimate(inside, int(known.sum()))}
        print(f"{name}: 80 % interval contains {text(inside)}, order before it {text(before)}, after it {text(after)}")
        for moment, cluster in having:
            _, one_low, one_high, one = pooled_waits(name, claim, [(moment, cluster)])
            rows = np.isfinite(one_low) & np.isfinite(one_high)
            print(f"  {moment.as_of:%Y-%m-%d}: {text(coverage(one.take(rows), one_low[rows], one_high[rows])[0])}")
    else:
        values |= {COVERED_LEAST: float("nan")}
        print(f"{name}: no interval")
    return {
        name: {f"{model} {metric}": number for model, found in figures.items() for metric, number in found.items()}
    }, common.check(MUSTS, values, name)


# ---- stages ----------------------------------------------------------------------------------------------------------


def outcome_table(tags: Sequence[Any], name: str, rebuilt: Sequence[Any], clusters: Sequence[Any]) -> Any:
    """What followed each value of a tag, printed."""
    from features.profiles.governance.verdicts import evidence

    tag = next(tag for tag in tags if tag.name == name)
    found = evidence(tag, rebuilt, clusters, HORIZON)
    for one in found.values:
        print(
            f"{name}={one.value}, {one.days:g} days: {one.mean:.3f} ({one.low:.3f} to {one.high:.3f}) of "
            f"{one.customers:,} customers, {one.rows:,} rows"
        )
    return found


def replenishment(
    tags: Sequence[Any], rebuilt: Sequence[Any], clusters: Sequence[Any]
) -> tuple[dict[str, Any], list[Check]]:
    """Share that orders within 7 days by state."""
    found = outcome_table(tags, "replenishment", rebuilt, clusters)
    by_value = {one.value: one for one in found.values}
    metrics = {one.value: common.value(one.mean, one.low, one.high, one.rows) for one in found.values}
    values = {}
    if "due" in by_value:
        others = [by_value[other].high for other in ("not_yet", "missed") if other in by_value]
        values = {DUE: by_value["due"].low - max(others, default=float("nan"))}
    return {"replenishment": metrics}, common.check(MUSTS, values or {DUE: float("nan")}, "replenishment")


def lifecycle(
    tags: Sequence[Any], rebuilt: Sequence[Any], clusters: Sequence[Any], churn: Sequence[Any]
) -> tuple[dict[str, Any], list[Check]]:
    """Shares that order within 28 and 84 days by stage, and mean churn probability by stage."""
    from features.profiles.governance.separation import group_means
    from features.profiles.governance.verdicts import MIN_CUSTOMERS

    name = "lifecycle_stage"
    found = outcome_table(tags, name, rebuilt, clusters)
    metrics = {
        f"{one.value} {one.days:g}d": common.value(one.mean, one.low, one.high, one.rows) for one in found.values
    }
    checks = []
    for days in (HORIZON, LONG_HORIZON):
        neighbours = [
            one
            for one in found.contrasts
            if one.days == days and STAGES.index(one.lower) - STAGES.index(one.upper) == 1
        ]
        by_value = {one.value: one for one in found.values if one.days == days and one.compared}
        checks += stage_checks(
            neighbours, [by_value[stage] for stage in STAGES if stage in by_value], f"{name}, {days} days"
        )
    levels = np.concatenate([moment.tags[name] for moment in rebuilt])
    ids, p = np.concatenate(list(clusters)), np.concatenate(list(churn))
    group = np.array([STAGES.index(level) if level in STAGES else len(STAGES) for level in levels.tolist()])
    rows = np.isfinite(p)
    means = group_means(group[rows], ids[rows], 1 - p[rows], len(STAGES) + 1)
    enough = [place for place in range(len(STAGES)) if means.customers[place] >= MIN_CUSTOMERS]
    for place, stage in enumerate((*STAGES, "new and prospect")):
        print(
            f"{name}={stage}: mean churn probability {1 - means.means[place]:.3f} ({1 - means.high[place]:.3f} to "
            f"{1 - means.low[place]:.3f}) of {means.customers[place]:,} active customers, {means.rows[place]:,} rows"
        )
        if means.rows[place]:
            metrics[f"{stage} churn probability"] = common.value(
                1 - means.means[place], 1 - means.high[place], 1 - means.low[place], int(means.rows[place])
            )
    highs = [difference + 1.96 * error for difference, error in (means.difference(a, b) for a, b in pairwise(enough))]
    values = {ORDER: min(highs, default=float("nan")), APART: float(means.low[enough[0]] - means.high[enough[-1]])}
    return {name: metrics}, [*checks, *common.check(MUSTS, values, f"{name}, churn probability")]


def stage_checks(neighbours: Sequence[Any], stages: Sequence[Any], where: str) -> list[Check]:
    """Order of the neighbours, and the distance of the first and the last stage."""
    values = {
        ORDER: min((one.high for one in neighbours), default=float("nan")),
        APART: stages[0].low - stages[-1].high if len(stages) > 1 else float("nan"),
    }
    if len(stages) < len(STAGES):
        print(f"{where}: too few customers for {', '.join(set(STAGES) - {one.value for one in stages})}")
    return common.check(MUSTS, values, where)


def churn_probabilities(workspace: Any, settings: Any, rebuilt: Sequence[Any]) -> list[Any]:
    """Churn probability of the active customers of each moment, NaN for others, by a model of the earlier moments.

    The model is the trees of `train churn` on the profiles, with labels that were known at the moment.
    """
    from models.classify.churn import ChurnClassifier
    from training.churn.snapshots import stacked
    from training.jobs.base import TrainingContext, snapshot_dates
    from training.jobs.churn import active_customer_rows, labelled_examples

    active = settings.churn.active_days or 2 * HORIZON
    found = []
    for moment in rebuilt:
        context = TrainingContext(workspace, moment.as_of, settings, lambda line: None, _builder=moment.builder)
        first = context.history_start("transactions") + timedelta(days=active)
        dates = snapshot_dates(first, moment.as_of - timedelta(days=HORIZON), HORIZON, SNAPSHOTS)
        spec = context.stationary_spec(dates[-1])
        rows = stacked(labelled_examples(context, date, HORIZON, active, spec) for date in dates)
        model = ChurnClassifier(seed=settings.seed).fit(rows.X, rows.y, groups=rows.owners)
        now = active_customer_rows(context, moment.as_of, active)
        profile = context.profile(moment.as_of, spec).take(now)
        p = np.full(len(moment.one_ids), np.nan)
        p[now] = model.predict_proba(profile.values)[:, 1]
        found.append(p)
    return found
