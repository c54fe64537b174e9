"""Waits for the next order that may not have ended when the data ends: rank correlation, concordance and coverage.

A wait that did not end is censored at the end of the data. It stays in every figure: as longer than what was seen in
the rank correlation and the errors (waits are cut at a common horizon), as a pair whose order is known or not in the
concordance, and by the estimator of Kaplan and Meier in the coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.profiles.governance.separation import Z95

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES = 200
MAX_PAIR_ROWS = 3_000  # rows whose pairs are compared for the concordance
SAME_INSTANT = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error and 95 % interval, from resampled customers."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Waits:
    """Days from a moment to the next order, n rows.

    Attributes
    ----------
    days : ndarray of float64, shape (n,)
        Days to the next order, or to the end of the data for a wait that did not end.
    ended : ndarray of bool, shape (n,)
        Whether the wait ended.
    seen : ndarray of float64, shape (n,)
        Days from the moment to the end of the data.
    cluster : ndarray of int64, shape (n,)
        Customer of each row.
    """

    days: Floats
    ended: NDArray[np.bool_]
    seen: Floats
    cluster: Ints

    @classmethod
    def of(cls, days_to_order: Floats, seen: Floats, cluster: Ints) -> Waits:
        """Waits from the days to the next order, NaN if there was none before the end of the data."""
        ended = np.isfinite(days_to_order)
        return cls(np.where(ended, days_to_order, seen), ended, seen, cluster)

    def take(self, rows: NDArray[np.bool_]) -> Waits:
        """The waits of these rows."""
        return Waits(self.days[rows], self.ended[rows], self.seen[rows], self.cluster[rows])

    def within(self, horizon: float) -> Waits:
        """The waits that could be seen for `horizon` days, cut there."""
        kept = self.take(self.seen >= horizon - SAME_INSTANT)
        inside = kept.ended & (kept.days < horizon)
        return Waits(np.minimum(kept.days, horizon), inside, np.full(len(kept.days), horizon), kept.cluster)


def resampled(cluster: Ints, statistic: Callable[[Floats], float], seed: int = 0) -> Estimate:
    """A statistic of weighted rows, with an interval from resampling the customers (clusters)."""
    _, codes = np.unique(cluster, return_inverse=True)
    customers = int(codes.max()) + 1 if len(codes) else 0
    value = statistic(np.ones(len(codes)))
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.bincount(rng.integers(0, customers, customers), minlength=customers)[codes].astype(np.float64))
        for _ in range(RESAMPLES if customers > 1 else 0)
    ]
    error = float(np.nanstd(draws, ddof=1)) if draws else float("nan")
    return Estimate(value, error, value - Z95 * error, value + Z95 * error)


def weighted_ranks(values: Floats) -> Callable[[Floats], Floats]:
    """Function from the weights of rows to their mean ranks among the weighted rows; ties share a rank."""
    _, place = np.unique(values, return_inverse=True)

    def ranks(weights: Floats) -> Floats:
        mass = np.bincount(place, weights)
        result: Floats = (np.cumsum(mass) - mass / 2)[place]
        return result

    return ranks


def rank_correlation(a: Floats, b: Floats, cluster: Ints) -> Estimate:
    """Spearman's correlation."""
    ranks = weighted_ranks(a), weighted_ranks(b)

    def correlation(weights: Floats) -> float:
        x, y = (rank(weights) for rank in ranks)
        x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
        spread = np.sqrt((weights * x * x).sum() * (weights * y * y).sum())
        return float((weights * x * y).sum() / spread) if spread > 0 else 0.0

    return resampled(cluster, correlation)


def concordance(predicted: Floats, waits: Waits, seed: int = 0) -> float:
    """Harrell's C: share of the pairs of known order that the prediction orders; ties of the prediction count half."""
    rows = np.arange(len(predicted))
    if len(rows) > MAX_PAIR_ROWS:
        rows = np.random.default_rng(seed).choice(rows, MAX_PAIR_ROWS, replace=False)
    p, days, ended = predicted[rows], waits.days[rows], waits.ended[rows]
    # i ended before j did, or before j was last seen without an order
    known = ended[:, None] & ((days[:, None] < days) | ((days[:, None] == days) & ~ended))
    right = (p[:, None] < p) + 0.5 * (p[:, None] == p)
    pairs = known.sum()
    return float((right * known).sum() / pairs) if pairs else float("nan")


def position(days: Floats, low: Floats, high: Floats) -> Floats:
    """Where a day lies relative to an interval: below 1 before it, from 1 to 2 in it, above 2 after it."""
    low, high = np.maximum(low, 0.0), np.maximum(high, np.maximum(low, 0.0))
    width = np.maximum(high - low, SAME_INSTANT)
    inside = 1 + np.clip((days - low) / width, 0, 1)
    return np.where(
        days < low,
        days / np.maximum(low, SAME_INSTANT),
        np.where(days <= high, inside, 1 + days / np.maximum(high, SAME_INSTANT)),
    )


def coverage(waits: Waits, low: Floats, high: Floats) -> tuple[Estimate, Estimate, Estimate]:
    """Shares of the waits that end in the interval, before it and after it, by Kaplan and Meier.

    The time scale is the position relative to the interval (`position`), so that a wait which is censored inside the
    interval counts as inside or after it in the proportion of the waits that were seen further.
    """
    z = position(waits.days, low, high)
    order = np.lexsort((~waits.ended, z))  # at the same position, ends come before censored waits
    z, ended, cluster = z[order], waits.ended[order], waits.cluster[order]
    before_interval = int(np.searchsorted(z, 1.0, side="left"))
    through_interval = int(np.searchsorted(z, 2.0, side="right"))

    def survival(weights: Floats) -> tuple[float, float]:
        at_risk = np.cumsum(weights[::-1])[::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.where(ended & (at_risk > 0), 1 - weights / at_risk, 1.0)
        return float(np.prod(factor[:before_interval])), float(np.prod(factor[:through_interval]))

    def inside(weights: Floats) -> float:
        start, stop = survival(weights)
        return start - stop

    return (
        resampled(cluster, inside),
        resampled(cluster, lambda weights: 1 - survival(weights)[0]),
        resampled(cluster, lambda weights: survival(weights)[1]),
    )


def mean_absolute_error(predicted: Floats, waits: Waits, horizon: float) -> Estimate:
    """Mean absolute error in days; prediction and wait are both cut at `horizon`, so that no wait is left out."""
    kept = waits.seen >= horizon - SAME_INSTANT
    cut = waits.within(horizon)
    errors = np.abs(np.clip(predicted[kept], 0.0, horizon) - cut.days)
    return resampled(cut.cluster, lambda weights: float(np.average(errors, weights=weights)))
