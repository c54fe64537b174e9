"""Claims compared with what followed: the evidence for one tag at several moments.

Each claim becomes two one-sided tests, one that it is right and one that it is wrong; `features.profiles.governance.
validate` adjusts them for their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.governance.moments import Moment
from features.profiles.governance.separation import Z95, GroupMeans, Shares, group_means, one_sided
from features.profiles.governance.waits import Estimate, Waits, concordance, coverage, rank_correlation
from features.profiles.tags.claims import QUARTERS, Claim, Later, NextOrder, Ordering, Preference, Rising
from features.profiles.tags.declare import Tag

MIN_CUSTOMERS = 30  # a value with fewer customers is reported and not compared
VALUES_SHOWN = 12
ALL_VALUES, OTHER_VALUES = "all values", "other values"
COVERAGE_TOLERANCE = 0.05
Cluster = NDArray[np.int64]


@dataclass(frozen=True)
class ValueOutcome:
    """What followed a value.

    Attributes
    ----------
    value : str, float or bool
        Value of the tag.
    days : float
        Length of the time after the moment.
    customers, rows : int
        Customers, and customers counted once per moment.
    mean, low, high : float
        Mean of what the claim is about, or the lift of a named value, with its 95 % interval.
    everybody : float
        The same mean among all customers with a value; for a lift, the share of the value among everybody.
    compared : bool
        Whether the value has enough customers, and the claim names it.
    """

    value: Any
    days: float
    customers: int
    rows: int
    mean: float
    low: float
    high: float
    everybody: float
    compared: bool = True


@dataclass(frozen=True)
class Contrast:
    """Difference of the means of two values, the first of which the claim puts higher, with its 95 % interval."""

    upper: Any
    lower: Any
    days: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ClaimEvidence:
    """What speaks for and against a claim.

    Attributes
    ----------
    right, wrong : float
        p values of the tests that the claim holds, and that its opposite holds.
    too_few : str
        Why there is no test; empty if there is one.
    objection : str
        Why the claim is not borne out whatever the tests say; empty for none.
    figures : dict of str to Estimate
        Figures of the whole tag.
    """

    right: float = 1.0
    wrong: float = 1.0
    too_few: str = ""
    objection: str = ""
    values: tuple[ValueOutcome, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    figures: Mapping[str, Estimate] = field(default_factory=dict)


def horizons(claim: Claim, horizon_days: int) -> tuple[int, ...]:
    """Days after the moment that a claim is about."""
    return (claim.days or (horizon_days,)) if isinstance(claim, Ordering) else (horizon_days,)


def measures(claim: Claim, horizon_days: int) -> list[tuple[Later, int]]:
    """Measures that a claim needs, with their days."""
    if isinstance(claim, Ordering | Rising):
        return [(claim.later, days) for days in horizons(claim, horizon_days)]
    return []


def evidence(tag: Tag, moments: Sequence[Moment], clusters: Sequence[Cluster], horizon_days: int) -> ClaimEvidence:
    """Compare the claim of a tag with what followed at the moments that have the tag."""
    having = [(moment, cluster) for moment, cluster in zip(moments, clusters, strict=True) if tag.name in moment.tags]
    if not having:
        reason = "no model published values before the moments" if tag.how == "model" else "the tag is absent"
        return ClaimEvidence(too_few=reason)
    if isinstance(tag.claim, Preference):
        return _preference(tag, tag.claim, having, horizon_days)
    if isinstance(tag.claim, NextOrder):
        return _next_order(tag, tag.claim, having)
    assert isinstance(tag.claim, Ordering | Rising)
    return _ordering(tag, tag.claim, having, horizon_days)


# ---- levels ----------------------------------------------------------------------------------------------------------


def _ordering(
    tag: Tag, claim: Ordering | Rising, having: Sequence[tuple[Moment, Cluster]], horizon_days: int
) -> ClaimEvidence:
    chains: tuple[tuple[Any, ...], ...] = (claim.chain,) if isinstance(claim, Rising) else claim.chains
    outcomes: list[ValueOutcome] = []
    contrasts: list[Contrast] = []
    right, wrong, tests, missing = 0.0, 1.0, 0, list[str]()
    for days in horizons(claim, horizon_days):
        seen = [(moment, cluster) for moment, cluster in having if moment.seen_days >= days]
        if not seen:
            missing.append(f"no moment is followed by {days} days of data")
            continue
        values, means, everybody = _means(tag, claim, seen, days)
        enough = {value: group for group, value in enumerate(values) if means.customers[group] >= MIN_CUSTOMERS}
        named = {value for chain in chains for value in chain}
        outcomes += [
            ValueOutcome(
                value,
                days,
                int(means.customers[group]),
                int(means.rows[group]),
                float(means.means[group]),
                float(means.low[group]),
                float(means.high[group]),
                everybody,
                value in enough and value in named,
            )
            for group, value in enumerate(values)
        ]
        for chain in chains:
            kept = [value for value in chain if value in enough]
            if len(kept) < 2:
                missing.append(f"fewer than two of {', '.join(map(str, chain))} have {MIN_CUSTOMERS} customers")
                continue
            pairs = list(pairwise(kept))
            pairs += [(kept[0], kept[-1])] if len(kept) > 2 else []
            for upper, lower in pairs:
                difference, error = means.difference(enough[upper], enough[lower])
                half = Z95 * error
                contrasts.append(Contrast(upper, lower, days, difference, difference - half, difference + half))
                wrong, tests = min(wrong, one_sided(-difference, error)), tests + 1
            right = max(right, one_sided(difference, error))  # of the first and the last value
    if not tests:
        return ClaimEvidence(too_few="; ".join(dict.fromkeys(missing)), values=tuple(outcomes))
    return ClaimEvidence(right, min(wrong * tests, 1.0), values=tuple(outcomes), contrasts=tuple(contrasts))


def _means(
    tag: Tag, claim: Ordering | Rising, seen: Sequence[tuple[Moment, Cluster]], days: int
) -> tuple[list[Any], GroupMeans, float]:
    """Values, their means and the mean of all rows."""
    levels, outcome, cluster = [], [], []
    for moment, ids in seen:
        level = _quarters(moment.tags[tag.name]) if isinstance(claim, Rising) else moment.tags[tag.name]
        if claim.later.aggregate == "named_share":
            assert isinstance(claim, Ordering)
            found = _named_share(moment, claim, days)
        else:
            found = moment.measure(claim.later, days)
        known = known_values(level) & ~np.isnan(found)
        levels.append(level[known])
        outcome.append(found[known])
        cluster.append(ids[known])
    level, y = np.concatenate(levels), np.concatenate(outcome)
    chains = (claim.chain[::-1],) if isinstance(claim, Rising) else claim.chains
    order: list[Any] = [*tag.values, *(value for chain in chains for value in chain)]
    present = set(level.tolist())
    values = sorted(present, key=lambda value: order.index(value) if value in order else len(order))
    codes = {value: code for code, value in enumerate(values)}
    group = np.array([codes[value] for value in level.tolist()], dtype=np.int64)
    found_means = group_means(group, np.concatenate(cluster), y, len(values), share=claim.later.aggregate == "any")
    return values, found_means, float(y.mean()) if len(y) else float("nan")


def _quarters(numbers: NDArray[np.object_]) -> NDArray[np.object_]:
    """Quarter of each number among the known ones, None if unknown."""
    known = known_values(numbers)
    result = np.full(len(numbers), None, dtype=object)
    if known.any():
        x = numbers[known].astype(np.float64)
        place = np.searchsorted(np.quantile(x, [0.25, 0.5, 0.75]), x, side="left")
        result[known] = np.asarray(QUARTERS[::-1], dtype=object)[place]
    return result


def _named_share(moment: Moment, claim: Ordering, days: int) -> NDArray[np.float64]:
    """Share of the later rows that have the value of the tag `claim.named`; NaN without a value or later rows."""
    rows, codes, names, counts = moment.value_counts(claim.later.view, claim.later.column, days)
    n = len(moment.one_ids)
    if claim.named not in moment.tags:
        return np.full(n, np.nan)
    named = value_numbers(moment.tags[claim.named], names)
    totals = np.bincount(rows, counts, minlength=n)
    own = np.bincount(rows, counts * (codes == named[rows]), minlength=n)
    known = known_values(moment.tags[claim.named]) & (totals > 0)
    return np.where(known, own / np.maximum(totals, 1), np.nan)


def known_values(values: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Whether each value is known."""
    return np.array([value is not None for value in values.tolist()], dtype=bool)


def value_numbers(values: NDArray[np.object_], names: Sequence[Any]) -> NDArray[np.int64]:
    """Position of each value in `names`; −1 if it is not there."""
    place = {name: number for number, name in enumerate(names)}
    return np.array([place.get(value, -1) for value in values.tolist()], dtype=np.int64)


# ---- named values ----------------------------------------------------------------------------------------------------


def _preference(
    tag: Tag, claim: Preference, having: Sequence[tuple[Moment, Cluster]], horizon_days: int
) -> ClaimEvidence:
    shares = preference_shares(tag.name, claim, having, horizon_days)
    together = shares.lift()
    named = shares.named.tolist()
    different = (
        sorted(set(named), key=lambda value: (-named.count(value), str(value))) if len(set(named)) < 50 else None
    )
    if different is None:
        found, sizes = np.unique(np.asarray(named, dtype=str), return_counts=True)
        different = [str(found[place]) for place in np.argsort(-sizes, kind="stable")]
    outcomes = []
    for value in [None, *different[:VALUES_SHOWN]] if len(different) > 1 else [None]:
        lift = together if value is None else shares.lift(value)
        outcomes.append(
            ValueOutcome(
                ALL_VALUES if value is None else value,
                horizon_days,
                lift.customers,
                lift.rows,
                lift.lift,
                lift.low,
                lift.high,
                lift.everybody,
                lift.customers >= MIN_CUSTOMERS,
            )
        )
    if together.customers < MIN_CUSTOMERS:
        reason = f"{together.customers} customers have the tag and later {claim.view} with {claim.column}"
        return ClaimEvidence(too_few=reason, values=tuple(outcomes))
    if len(different) < 2:
        return ClaimEvidence(too_few="all customers have the same value", values=tuple(outcomes))
    right = one_sided(together.log_lift, together.error)
    return ClaimEvidence(right, one_sided(-together.log_lift, together.error), values=tuple(outcomes))


def preference_shares(
    name: str, claim: Preference, having: Sequence[tuple[Moment, Cluster]], horizon_days: int
) -> Shares:
    """Shares of the values in the later rows at each moment."""
    shares = Shares()
    for moment, cluster in having:
        if moment.seen_days < horizon_days:
            continue
        rows, codes, names, counts = moment.value_counts(claim.view, claim.column, horizon_days)
        if claim.names:
            of_column = {value: number for number, (_, values) in enumerate(claim.names) for value in values}
            codes = np.array([of_column.get(value, len(claim.names)) for value in names], dtype=np.int64)[codes]
            names = [*(name for name, _ in claim.names), OTHER_VALUES]
        known = moment.tags[name]
        # a value that no later row has is a value with a share of 0
        extra = sorted({value for value in known.tolist() if value is not None}.difference(names), key=str)
        names = [*names, *extra]
        shares.add(cluster, value_numbers(known, names), names, rows, codes, counts)
    return shares


# ---- the next order --------------------------------------------------------------------------------------------------


def _next_order(tag: Tag, claim: NextOrder, having: Sequence[tuple[Moment, Cluster]]) -> ClaimEvidence:
    predicted, low, high, waits = pooled_waits(tag.name, claim, having)
    customers = len(np.unique(waits.cluster))
    if customers < MIN_CUSTOMERS:
        return ClaimEvidence(too_few=f"{customers} customers have the tag")
    horizon = min(moment.seen_days for moment, _ in having)
    cut = waits.within(horizon)
    ranks = rank_correlation(predicted, cut.days, cut.cluster)
    c = concordance(predicted, waits)
    figures = {
        f"rank correlation, waits cut at {horizon:g} days": ranks,
        "concordance": Estimate(c, np.nan, np.nan, np.nan),
    }
    objection = ""
    known = np.isfinite(low) & np.isfinite(high)
    if claim.low and len(np.unique(waits.cluster[known])) >= MIN_CUSTOMERS:
        inside, before, after = coverage(waits.take(known), low[known], high[known])
        figures |= {
            f"share of the next orders in the interval for {100 * claim.coverage:.0f} %": inside,
            "before it": before,
            "after it": after,
        }
        off = max(claim.coverage - COVERAGE_TOLERANCE - inside.high, inside.low - claim.coverage - COVERAGE_TOLERANCE)
        if off > 0:
            objection = (
                f"the interval for {100 * claim.coverage:.0f} % contains {100 * inside.value:.0f} % of the next orders"
            )
    return ClaimEvidence(
        one_sided(ranks.value, ranks.error), one_sided(-ranks.value, ranks.error), objection=objection, figures=figures
    )


def pooled_waits(
    name: str, claim: NextOrder, having: Sequence[tuple[Moment, Cluster]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Waits]:
    """Predicted days, bounds of the interval (NaN without one) and waits of the customers with a prediction."""
    parts: list[tuple[Any, ...]] = []
    for moment, cluster in having:
        numbers = [
            days_from(moment.local_as_of, moment.tags[one]) if one in moment.tags else np.full(len(cluster), np.nan)
            for one in (name, claim.low, claim.high)
        ]
        known = np.isfinite(numbers[0])
        seen = np.full(len(cluster), moment.seen_days)
        parts.append((*(number[known] for number in numbers), moment.days_to_order[known], seen[known], cluster[known]))
    predicted, low, high, days, seen, cluster = (np.concatenate(column) for column in zip(*parts, strict=True))
    return predicted, low, high, Waits.of(days, seen, cluster)


def days_from(as_of: datetime, values: NDArray[np.object_]) -> NDArray[np.float64]:
    """Numbers as they are, and dates as days from `as_of` to their midnight; NaN if unknown.

    Examples
    --------
    >>> days_from(datetime(2024, 3, 1, 12), np.array(["2024-03-03", None, 4.0], dtype=object)).tolist()
    [1.5, nan, 4.0]
    """
    found = [
        (datetime.fromisoformat(one) - as_of) / timedelta(days=1) if isinstance(one, str) else one for one in values
    ]
    return np.array(found, dtype=np.float64)
