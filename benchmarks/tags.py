"""Do tags keep what they say about the time after them? On Complete Journey and on the synthetic shop.

Tags are rebuilt at past moments from the rows before them (`features.profiles.governance.moments`) and compared with
what the customers then did: Complete Journey at four moments of 2017, the synthetic shop (1,000 customers, a year, seed
0) at those that `qianmian tags validate` chooses. Rows of all moments are pooled, and intervals are clustered by
customer. A wait that did not end by the end of the data is censored, not left out. Musts:

- the tags below are known for ≥ 60 % of the customers with ≥ 20 lines (of each moment);
- `days_to_next_order`: rank correlation with the wait ≥ .55, both pooled and cut at the same day; mean absolute error ≤
  that of the own mean gap; the 80 % interval contains 75 to 85 % of the next orders (Kaplan–Meier);
- `replenishment`: the share that orders within 7 days is higher for `due` than for `not_yet` and `missed`, and their
  intervals do not overlap;
- `lifecycle_stage`: no two neighbours of loyal, active, at_risk, asleep, lost in the wrong order beyond noise, in the
  shares that order within 28 and 84 days and in the churn probability of a model that was trained before the moment;
  the intervals of the first and the last at least .2 apart;
- favourite category and brand, hour, weekday and channel: the lower end of the interval of the lift is above 1.

`tags_price.py` has the musts of the price tags. Neither data set records a channel, and the synthetic shop draws
weekdays at random; these are not measured there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Check, Must

MOMENTS = (datetime(2017, 12, 5), datetime(2017, 10, 3), datetime(2017, 9, 5), datetime(2017, 7, 4))
SHOP = ("--customers", "1000", "--days", "365", "--seed", "0")
HORIZON, LONG_HORIZON = 28, 84
MIN_LINES, FAR_APART = 20, 0.2
STAGES = ("loyal", "active", "at_risk", "asleep", "lost")
KNOWN_TAGS = (
    "days_to_next_order",
    "replenishment",
    "lifecycle_stage",
    "price_band",
    "trading",
    "favourite_category",
    "category_affinity",
    "favourite_brand",
    "brand_affinity",
    "active_hours",
    "favourite_weekday",
)
PREFERENCES = ("favourite_category", "favourite_brand", "active_hours", "favourite_weekday", "preferred_channel")
NOT_IN_SHOP = ("favourite_weekday",)  # drawn at random
KNOWN, LIFT, ORDER, APART = (
    "share of customers with 20 lines who have the tag",
    "low end of the lift",
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
    KNOWN: Must("metric", least=0.6),
    RANKS: Must("metric", least=0.55),
    ERROR: Must("ratio", most=1.0),
    COVERED_LEAST: Must("metric", least=0.75),
    COVERED_MOST: Must("metric", most=0.85),
    DUE: Must("metric", least=0.0),
    ORDER: Must("metric", least=0.0),
    APART: Must("metric", least=FAR_APART),
    LIFT: Must("metric", least=1.0),
}


def measure(workspace: Path, moments: Sequence[datetime] | None, skip: Sequence[str]) -> tuple[dict[str, Any], list[Check]]:
    """Figures and checks of one workspace; moments None for those that the command chooses."""
    from features.data.lake import Lake
    from features.definitions.pack_features import make_builder
    from features.profiles.governance.moments import choose_moments, tags_at
    from features.profiles.governance.validate import number_customers
    from features.profiles.tags.tagging import declared_tags
    from qianmian.config import load_settings
    from qianmian.workspace import Workspace

    located = Workspace(workspace)
    settings = load_settings(located.config_file)
    lake = Lake(located)
    builder, end = make_builder(lake, settings), lake.default_as_of
    start = lake.states()["transactions"].first
    moments = moments or choose_moments(start, end, HORIZON, len(MOMENTS))
    declared = [tag for tag in declared_tags(settings) if tag.claim is not None or tag.name in KNOWN_TAGS]
    bounds = [tag for tag in declared_tags(settings) if tag.name in interval_names(declared)]
    tags = list({tag.name: tag for tag in [*declared, *bounds]}.values())
    rebuilt = [tags_at(builder, moment, end, tags, settings) for moment in moments]
    clusters = number_customers(rebuilt)
    having = list(zip(rebuilt, clusters, strict=True))
    print(f"moments: {', '.join(f'{moment:%Y-%m-%d}' for moment in moments)}; data up to {end:%Y-%m-%d}")
    results: dict[str, Any] = {}
    checks: list[Check] = []
    for part in (
        known_shares(builder, rebuilt),
        next_order(builder, declared, having),
        replenishment(declared, rebuilt, clusters),
        lifecycle(declared, rebuilt, clusters, churn_probabilities(located, settings, rebuilt)),
        preferences(declared, having, skip),
    ):
        results |= part[0]
        checks += part[1]
    return results, checks


def interval_names(tags: Sequence[Any]) -> list[str]:
    """Names of the tags that other claims read."""
    from features.profiles.tags.claims import needed_tags

    return [name for tag in tags if tag.claim is not None for name in needed_tags(tag.claim)]


def columns_at(builder: Any, moment: Any, names: Sequence[str]) -> dict[str, Any]:
    """Features of the customers of a moment."""
    table = builder.build(moment.as_of, [feature for feature in builder.declared if feature.name in names]).table
    assert table["one_id"].combine_chunks().equals(moment.one_ids)
    return {name: table[name].to_numpy() for name in names}


def known_shares(builder: Any, rebuilt: Sequence[Any]) -> tuple[dict[str, Any], list[Check]]:
    """Share of the customers with 20 lines for whom each tag is known, the lowest of the moments."""
    many = [columns_at(builder, moment, ["lines_total"])["lines_total"] >= MIN_LINES for moment in rebuilt]
    found: dict[str, Any] = {}
    checks = []
    for name in KNOWN_TAGS:
        if not any(name in moment.tags for moment in rebuilt) and name == "trading":
            print("trading: not declared or absent")  # it may be dropped
            continue
        shares = [
            float(np.not_equal(moment.tags[name][rows], None).mean()) if name in moment.tags else 0.0
            for moment, rows in zip(rebuilt, many, strict=True)
        ]
        found[name] = {"known": common.value(min(shares), n=int(sum(rows.sum() for rows in many)))}
        print(f"{name}: known for {', '.join(f'{share:.1%}' for share in shares)}")
        checks += common.check(MUSTS, {KNOWN: min(shares)}, name)
    return found, checks


# ---- the next order --------------------------------------------------------------------------------------------------


def next_order(builder: Any, tags: Sequence[Any], having: Sequence[Any]) -> tuple[dict[str, Any], list[Check]]:
    """Rank correlation, error and coverage of `days_to_next_order`, beside the own mean gap."""
    from features.profiles.governance.verdicts import pooled_waits
    from features.profiles.governance.waits import concordance, coverage, mean_absolute_error, rank_correlation

    name = "days_to_next_order"
    claim = next(tag.claim for tag in tags if tag.name == name)
    rivals = []
    for moment, cluster in having:
        gaps = columns_at(builder, moment, ["gap_days_mean"])["gap_days_mean"].astype(object)
        unknown = np.equal(moment.tags[name], None)
        gaps[unknown] = None
        rivals.append((replace(moment, tags={**moment.tags, name: gaps}), cluster))
    figures: dict[str, dict[str, Any]] = {"qianmian": {}, "own mean gap": {}}
    for horizon in (HORIZON, LONG_HORIZON):
        both = {}
        for model, pairs in (("qianmian", having), ("own mean gap", rivals)):
            seen = [(moment, cluster) for moment, cluster in pairs if moment.seen_days >= horizon]
            if not seen:
                continue
            predicted, low, high, waits = pooled_waits(name, claim, seen)
            cut = waits.within(horizon)
            both[model] = (
                rank_correlation(predicted, cut.days, cut.cluster),
                mean_absolute_error(predicted, waits, horizon),
            )
            ranks, error = both[model]
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
        ERROR: figures["qianmian"][f"mae_{HORIZON}d"]["value"] / figures["own mean gap"][f"mae_{HORIZON}d"]["value"],
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
    return {name: {f"{model} {metric}": number for model, found in figures.items() for metric, number in found.items()}}, common.check(MUSTS, values, name)


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


def replenishment(tags: Sequence[Any], rebuilt: Sequence[Any], clusters: Sequence[Any]) -> tuple[dict[str, Any], list[Check]]:
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
        neighbours = [one for one in found.contrasts if one.days == days and STAGES.index(one.lower) - STAGES.index(one.upper) == 1]
        by_value = {one.value: one for one in found.values if one.days == days and one.compared}
        checks += stage_checks(neighbours, [by_value[stage] for stage in STAGES if stage in by_value], f"{name}, {days} days")
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
            metrics[f"{stage} churn probability"] = common.value(1 - means.means[place], 1 - means.high[place], 1 - means.low[place], int(means.rows[place]))
    highs = [difference + 1.96 * error for difference, error in (means.difference(a, b) for a, b in zip(enough, enough[1:], strict=False))]
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

    The model is that of `train churn`, with labels that were known at the moment.
    """
    from models.classify.churn import ChurnClassifier
    from training.jobs.base import TrainingContext, snapshot_dates
    from training.jobs.churn import MAX_SNAPSHOTS, active_customer_rows, labelled_examples

    active = settings.churn.active_days or 2 * HORIZON
    found = []
    for moment in rebuilt:
        context = TrainingContext(workspace, moment.as_of, settings, lambda line: None, _builder=moment.builder)
        first = context.history_start("transactions") + timedelta(days=active)
        dates = snapshot_dates(first, moment.as_of - timedelta(days=HORIZON), HORIZON, MAX_SNAPSHOTS)
        spec = context.stationary_spec(dates[-1])
        parts = [labelled_examples(context, date, HORIZON, active, spec) for date in dates]
        ids, X, y = (np.concatenate(column) for column in zip(*parts, strict=True))
        model = ChurnClassifier(seed=settings.seed).fit(X, y, groups=ids)
        rows = active_customer_rows(context, moment.as_of, active)
        profile = context.profile(moment.as_of, spec).take(rows)
        p = np.full(len(moment.one_ids), np.nan)
        p[rows] = model.predict_proba(profile.values)[:, 1]
        found.append(p)
    return found


# ---- named values ----------------------------------------------------------------------------------------------------


def preferences(tags: Sequence[Any], having: Sequence[Any], skip: Sequence[str]) -> tuple[dict[str, Any], list[Check]]:
    """Lift of the named value in the rows of the next 28 days."""
    from features.profiles.governance.verdicts import preference_shares

    results: dict[str, Any] = {}
    checks = []
    for name in PREFERENCES:
        tag = next(tag for tag in tags if tag.name == name)
        seen = [(moment, cluster) for moment, cluster in having if name in moment.tags]
        if not seen:
            print(f"{name}: not in these data")
            continue
        lift = preference_shares(name, tag.claim, seen, HORIZON).lift()
        print(
            f"{name}: {lift.own:.3f} of the own rows in the next {HORIZON} days, {lift.everybody:.3f} of everybody's; lift "
            f"{lift.lift:.3f} ({lift.low:.3f} to {lift.high:.3f}), {lift.customers:,} customers, {lift.rows:,} rows"
        )
        results[name] = {"lift": common.value(lift.lift, lift.low, lift.high, lift.rows)}
        if name not in skip:
            checks += common.check(MUSTS, {LIFT: lift.low}, name)
    return results, checks


def estimate(found: Any, n: int) -> dict[str, Any]:
    """An estimate as a metric of the JSON output."""
    return common.value(found.value, found.low, found.high, n)


def text(found: Any) -> str:
    """An estimate with its interval."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=None, help="workspace with Complete Journey, instead of a new one")
    arguments = parser.parse_args()
    print(common.machine())
    results: dict[str, Any] = {}
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as temporary:
        shop = Path(temporary) / "shop"
        journey = arguments.workspace or Path(temporary) / "journey"
        command = [sys.executable, "-m", "cli.main", "ingest"]
        if arguments.workspace is None:
            common.timed([*command, "completejourney", "--workspace", str(journey)])
        common.timed([*command, "synthetic", *SHOP, "--workspace", str(shop)])
        for data, workspace, moments, skip in (
            ("completejourney", journey, MOMENTS, ()),
            ("synthetic", shop, None, NOT_IN_SHOP),
        ):
            print(f"\n{data}")
            results[data], found = measure(workspace, moments, skip)
            checks += [replace(one, name=f"{data}, {one.name}") for one in found]
    common.finish(results, checks, arguments.json)


if __name__ == "__main__":
    main()
