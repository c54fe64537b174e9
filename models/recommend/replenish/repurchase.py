"""Repurchase model of `replenish`: log-normal purchase intervals, pooled by empirical Bayes, with customer dropout."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy.special import logit, ndtr, ndtri

from models.persist import Arrays
from models.recommend.replenish.history import Floats, Ints, PurchaseHistory, PurchaseIntervals, group_sums

DROPOUT_LEVELS = 12  # number of purchases from which on the dropout probability is constant
MAX_OVERDUE_ZSCORE = 8.0  # limit in standard deviations; the tail of a normal distribution underflows beyond


@dataclass(frozen=True)
class RepurchaseModel:
    """Distribution of the days to the next purchase of each pair; all attributes are (p,).

    Attributes
    ----------
    cycle : ndarray of float64
        Mean of the logarithm of the days to the next purchase.
    spread : ndarray of float64
        Standard deviation of that logarithm.
    own : ndarray of float64
        Weight of the customer's own gaps in the cycle, 0 … 1.
    dropout_probability : ndarray of float64
        Probability, at the time of the last purchase, that no other purchase follows.
    """

    cycle: Floats
    spread: Floats
    own: Floats
    dropout_probability: Floats

    def overdue_zscore(self, days: Floats) -> Floats:
        """Standardise the logarithm of days since the last purchase by the cycle and its spread."""
        found: Floats = np.clip((np.log(days) - self.cycle) / self.spread, -MAX_OVERDUE_ZSCORE, MAX_OVERDUE_ZSCORE)
        return found

    def purchase_probability(self, recency_days: Floats, horizon_days: float) -> Floats:
        """Return the probability of a purchase in the horizon, given none in `recency_days`, 0 … 1."""
        now, then = ndtr(-self.overdue_zscore(recency_days)), ndtr(-self.overdue_zscore(recency_days + horizon_days))
        alive = 1.0 - self.dropout_probability
        probability: Floats = alive * (now - then) / (alive * now + self.dropout_probability)
        return probability

    def expected_days(self, recency_days: Floats, within_days: float | None = None) -> Floats:
        """Return the median of the days until the next purchase, if there is one (within `within_days`)."""
        left = ndtr(-self.overdue_zscore(recency_days))
        then = ndtr(-self.overdue_zscore(recency_days + within_days)) if within_days is not None else 0.0
        found: Floats = np.maximum(np.exp(self.cycle - self.spread * ndtri((left + then) / 2.0)) - recency_days, 0.5)
        return found if within_days is None else np.minimum(found, within_days)


SAVED_NAMES = {"dropout_probability": "gone", "units_slope": "lasts"}  # attribute → saved name


@dataclass(frozen=True)
class CyclePriors:
    """Priors of the purchase cycles, estimated over all customers.

    Attributes
    ----------
    prior : ndarray of float64, (n_groups,)
        Mean log gap of each item (or group), shrunk towards that of its parent.
    units_slope : ndarray of float64, (n_groups,)
        Slope of the log gap in the logarithm of the units bought, ≥ 0.
    dropout_probability : ndarray of float64, (DROPOUT_LEVELS,)
        Probability that no purchase follows the first, second, … purchase.
    within, between : ndarray of float64, ()
        Variance of log gaps within a pair, and of the pairs around their item.
    """

    prior: Floats
    units_slope: Floats
    dropout_probability: Floats
    within: Floats
    between: Floats

    @classmethod
    def of(cls, intervals: PurchaseIntervals, parent: Ints, start: float) -> CyclePriors:
        """Estimate the priors from purchase intervals.

        Parameters
        ----------
        intervals : PurchaseIntervals
            Statistics of all pairs.
        parent : ndarray of int64, (n_groups,)
            Parent of each item (or group).
        start : float
            Log gap that is used if there are no repurchases.
        """
        groups, parents = len(parent), int(parent.max(initial=0)) + 1
        item, gaps = intervals.items, intervals.gaps
        several = gaps >= 2
        spare = (intervals.squares - intervals.log_gaps**2 / np.maximum(gaps, 1.0))[several].sum()
        within = float(np.clip(spare / max((gaps[several] - 1.0).sum(), 1.0), 0.01, None)) if several.any() else 1.0
        middle = intervals.log_gaps.sum() / gaps.sum() if gaps.any() else start
        number, total = group_sums(item, gaps, groups), group_sums(item, intervals.log_gaps, groups)
        of_parents = shrink_means(
            group_sums(parent, total, parents), group_sums(parent, number, parents), np.full(parents, middle), within
        )
        prior = shrink_means(total, number, of_parents[parent], within)
        between = variance_between(intervals.log_gaps, gaps, prior[item], within)
        squares, products = (
            group_sums(parent[item], sums, parents) for sums in (intervals.units_squares, intervals.units_log_gaps)
        )
        overall = max(products.sum() / squares.sum(), 0.0) if squares.sum() > 0 else 0.0
        units_slope = np.clip(shrink_means(products, squares, np.full(parents, overall), within), 0.0, 1.0)[parent]
        known = cls(prior, units_slope, np.full(DROPOUT_LEVELS, 0.3), np.array(within), np.array(between))
        return cls(prior, units_slope, known._fit_dropout(intervals), known.within, known.between)

    def _fit_dropout(self, intervals: PurchaseIntervals) -> Floats:
        """Estimate the dropout probabilities by EM (mixture cure model, Farewell 1982)."""
        order = np.minimum(intervals.times, DROPOUT_LEVELS).astype(np.int64) - 1
        waiting = ndtr(-self.repurchase_model(intervals).overdue_zscore(intervals.recency_days))
        open_ = np.bincount(order, minlength=DROPOUT_LEVELS)
        followed = np.append(open_[::-1].cumsum()[::-1][1:], np.maximum(intervals.times - DROPOUT_LEVELS, 0.0).sum())
        dropout = self.dropout_probability
        for _ in range(8):
            ended = dropout[order] / (dropout[order] + (1.0 - dropout[order]) * waiting)
            dropout = group_sums(order, ended, DROPOUT_LEVELS) / np.maximum(open_ + followed, 1.0)
            dropout = np.clip(dropout, 1e-3, 0.999)
        return dropout

    def repurchase_model(self, intervals: PurchaseIntervals) -> RepurchaseModel:
        """Return the model of each pair: posterior mean of a normal with a normal prior, and predictive spread."""
        prior, weights = self.prior[intervals.items], intervals.weights
        own_gaps = np.divide(weights**2, intervals.weights_squared, out=np.zeros(len(weights)), where=weights > 0)
        mean = np.divide(intervals.weighted, weights, out=np.zeros(len(weights)), where=weights > 0)
        share = own_gaps * self.between / (own_gaps * self.between + self.within)
        cycle = share * mean + (1.0 - share) * prior + self.units_slope[intervals.items] * intervals.excess
        dropout_probability = self.dropout_probability[np.minimum(intervals.times, DROPOUT_LEVELS).astype(np.int64) - 1]
        return RepurchaseModel(cycle, np.sqrt(self.within + (1.0 - share) * self.between), share, dropout_probability)


@dataclass(frozen=True)
class PopulationPriors:
    """Statistics over all customers at a cutoff, by item and by item group.

    Attributes
    ----------
    items, groups : CyclePriors
        Priors of the cycles of items and of item groups.
    repurchase_log_odds : ndarray of float64, (n_items,)
        Log-odds that a customer of the item has bought it more than once.
    trend : ndarray of float64, (n_items,)
        Logarithm of the recent sales of the item over the expected ones.
    """

    items: CyclePriors
    groups: CyclePriors
    repurchase_log_odds: Floats
    trend: Floats

    @classmethod
    def of(cls, history: PurchaseHistory, group: Ints, start: float) -> PopulationPriors:
        """Estimate the statistics from a purchase history; `start` is as in `CyclePriors.of`."""
        n_items, intervals = len(group), history.intervals
        purchased = np.bincount(intervals.items, minlength=n_items)
        twice = group_sums(intervals.items, intervals.times > 1, n_items)
        overall = (twice.sum() + 1.0) / (purchased.sum() + 2.0)
        short, long = (
            group_sums(history.days.items, history.decay_weights(history.days, half_life), n_items)
            for half_life in (14.0, 120.0)
        )
        expected = long * short.sum() / max(long.sum(), 1e-9)
        return cls(
            CyclePriors.of(intervals, group, start),
            CyclePriors.of(history.group_intervals, np.zeros(int(group.max(initial=0)) + 1, np.int64), start),
            logit((twice + 10.0 * overall) / (purchased + 10.0)),
            np.log((short + 1.0) / (expected + 1.0)),
        )

    def calibration_inputs(
        self, history: PurchaseHistory, group: Ints, horizon_days: float
    ) -> tuple[RepurchaseModel, list[Floats]]:
        """Return the repurchase model and the inputs of the calibration, each (p,), the log-odds first."""
        intervals, of_group = history.intervals, history.group_intervals
        repurchase_model, group_model = self.items.repurchase_model(intervals), self.groups.repurchase_model(of_group)
        groups = np.int64(len(self.groups.prior))
        place = np.searchsorted(
            of_group.users * groups + of_group.items, intervals.users * groups + group[intervals.items]
        )
        times, quiet, recent = np.log(intervals.times), np.log(intervals.recency_days), np.log(intervals.recent + 0.01)
        core = [times, quiet, repurchase_model.cycle, recent, self.repurchase_log_odds[intervals.items]]
        group_odds = _log_odds(group_model.purchase_probability(of_group.recency_days, horizon_days))
        busy = np.log(np.bincount(history.group_days.users, history.decay_weights(history.group_days, 28.0)) + 0.1)
        return repurchase_model, [
            _log_odds(repurchase_model.purchase_probability(intervals.recency_days, horizon_days)),
            *core,
            *(first * second for i, first in enumerate(core) for second in core[i:]),
            np.log(intervals.purchases_120d + 0.01),
            repurchase_model.overdue_zscore(intervals.recency_days) ** 2,
            self.trend[intervals.items],
            group_odds[place],
            (np.log(of_group.recency_days) - group_model.cycle)[place],
            np.log((intervals.purchases_120d + 1e-9) / (of_group.purchases_120d[place] + 1e-9) + 1e-3),
            busy[intervals.users],
        ]

    def state(self) -> Arrays:
        """Return the statistics as arrays, for saving."""
        levels = {"items": self.items, "groups": self.groups}
        cycles = {
            f"{level}_{SAVED_NAMES.get(part.name, part.name)}": getattr(found, part.name)
            for level, found in levels.items()
            for part in fields(CyclePriors)
        }
        return {**cycles, "again": self.repurchase_log_odds, "trend": self.trend}

    @classmethod
    def restored(cls, state: Arrays) -> Self:
        """Build the statistics from the arrays of `state`."""
        items, groups = (
            CyclePriors(
                **{part.name: state[f"{level}_{SAVED_NAMES.get(part.name, part.name)}"] for part in fields(CyclePriors)}
            )
            for level in ("items", "groups")
        )
        return cls(items, groups, state["again"], state["trend"])


def shrink_means(sums: Floats, weights: Floats, towards: Floats, variance: float) -> Floats:
    """Shrink the means of groups towards prior means (Efron & Morris 1975).

    For normal observations with known variance and a normal prior, the mean is ``(sum + κ prior) / (weight + κ)`` with
    ``κ = variance / variance_between``.

    Examples
    --------
    >>> shrink_means(np.array([30.0, 0.0]), np.array([10.0, 0.0]), np.array([1.0, 1.0]), 1.0).round(2).tolist()
    [2.95, 1.0]
    """
    strength = variance / max(variance_between(sums, weights, towards, variance), 1e-9)
    found: Floats = (sums + strength * towards) / (weights + strength)
    return found


def variance_between(sums: Floats, weights: Floats, towards: Floats, variance: float) -> float:
    """Estimate the variance of the true group means around their priors by moments (DerSimonian & Laird 1986); ≥ 0."""
    some = weights > 0
    if not some.any():
        return 0.0
    distance = (weights[some] * (sums[some] / weights[some] - towards[some]) ** 2).sum()
    return float(max(distance - some.sum() * variance, 0.0) / weights.sum())


def _log_odds(purchase_probability: Floats) -> Floats:
    found: Floats = logit(np.clip(purchase_probability, 1e-6, 1.0 - 1e-6))
    return found
