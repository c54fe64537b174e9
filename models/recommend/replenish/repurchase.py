"""How long a purchase lasts: gaps between purchase days, pooled by empirical Bayes, with habits that end (`replenish`)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy.special import logit, ndtr, ndtri

from models.persist import Arrays
from models.recommend.replenish.history import Floats, Habits, Ints, Seen, totals

OFTEN = 12  # purchases from which on a habit ends as seldom as any
LARGEST_LATENESS = 8.0  # standard deviations: beyond, the tail of a normal is no number any more


@dataclass(frozen=True)
class Clocks:
    """When each pair's next purchase is due; each (p,).

    Attributes
    ----------
    cycle : mean of the logarithm of the days to the next purchase.
    spread : its standard deviation.
    own : share of the cycle that is the customer's own, 0..1.
    gone : probability, when the last purchase was made, that it was the last for good.
    """

    cycle: Floats
    spread: Floats
    own: Floats
    gone: Floats

    def lateness(self, days: Floats) -> Floats:
        """So many days after the last purchase, in standard deviations."""
        found: Floats = np.clip((np.log(days) - self.cycle) / self.spread, -LARGEST_LATENESS, LARGEST_LATENESS)
        return found

    def chance(self, quiet_days: Floats, horizon_days: float) -> Floats:
        """Probability of a purchase in the next days, given the silence so far, 0..1."""
        now, then = ndtr(-self.lateness(quiet_days)), ndtr(-self.lateness(quiet_days + horizon_days))
        found: Floats = (1.0 - self.gone) * (now - then) / ((1.0 - self.gone) * now + self.gone)
        return found

    def expected_days(self, quiet_days: Floats, within_days: float | None = None) -> Floats:
        """Median of the days until the next purchase, given the silence so far and that there will be one (in so many days)."""
        left = ndtr(-self.lateness(quiet_days))
        then = ndtr(-self.lateness(quiet_days + within_days)) if within_days is not None else 0.0
        found: Floats = np.maximum(np.exp(self.cycle - self.spread * ndtri((left + then) / 2.0)) - quiet_days, 0.5)
        return found if within_days is None else np.minimum(found, within_days)


@dataclass(frozen=True)
class Cycles:
    """What is known of cycles at large: what a pair's own gaps are seen against.

    Attributes
    ----------
    prior : ndarray, (n_groups,)
        Mean log gap of each item (or group), shrunk towards its parent's.
    lasts : ndarray, (n_groups,)
        By how much the log gap grows with the logarithm of the units bought, ≥ 0.
    gone : ndarray, (OFTEN,)
        Probability that the first, second, … purchase is the last for good.
    within, between : ndarray, ()
        Variance of log gaps within a pair, and of pairs around their item.
    """

    prior: Floats
    lasts: Floats
    gone: Floats
    within: Floats
    between: Floats

    @classmethod
    def of(cls, habits: Habits, parent: Ints, start: float) -> Cycles:
        """Estimate from the habits at a moment.

        Parameters
        ----------
        parent : ndarray of int64, (n_groups,)
        start : float
            Log gap to begin with where nobody bought anything twice.
        """
        groups, parents = len(parent), int(parent.max(initial=0)) + 1
        item, gaps = habits.items, habits.gaps
        several = gaps >= 2
        spare = (habits.squares - habits.log_gaps**2 / np.maximum(gaps, 1.0))[several].sum()
        within = float(np.clip(spare / max((gaps[several] - 1.0).sum(), 1.0), 0.01, None)) if several.any() else 1.0
        middle = habits.log_gaps.sum() / gaps.sum() if gaps.any() else start
        number, total = totals(item, gaps, groups), totals(item, habits.log_gaps, groups)
        of_parents = shrunk(
            totals(parent, total, parents), totals(parent, number, parents), np.full(parents, middle), within
        )
        prior = shrunk(total, number, of_parents[parent], within)
        between = variance_between(habits.log_gaps, gaps, prior[item], within)
        squares, products = (
            totals(parent[item], sums, parents) for sums in (habits.units_squares, habits.units_log_gaps)
        )
        overall = max(products.sum() / squares.sum(), 0.0) if squares.sum() > 0 else 0.0
        lasts = np.clip(shrunk(products, squares, np.full(parents, overall), within), 0.0, 1.0)[parent]
        known = cls(prior, lasts, np.full(OFTEN, 0.3), np.array(within), np.array(between))
        return cls(prior, lasts, known._ends(habits), known.within, known.between)

    def _ends(self, habits: Habits) -> Floats:
        """EM for the share of purchases that were the last (mixture cure model, Farewell 1982): a silence may be either."""
        order = np.minimum(habits.times, OFTEN).astype(np.int64) - 1
        waiting = ndtr(-self.clocks(habits).lateness(habits.quiet_days))
        open_ = np.bincount(order, minlength=OFTEN)
        followed = np.append(open_[::-1].cumsum()[::-1][1:], np.maximum(habits.times - OFTEN, 0.0).sum())
        gone = self.gone
        for _ in range(8):
            ended = gone[order] / (gone[order] + (1.0 - gone[order]) * waiting)
            gone = np.clip(totals(order, ended, OFTEN) / np.maximum(open_ + followed, 1.0), 1e-3, 0.999)
        return gone

    def clocks(self, habits: Habits) -> Clocks:
        """Each pair's own clock (posterior of a normal mean with a normal prior; the predictive spread)."""
        prior, weights = self.prior[habits.items], habits.weights
        own_gaps = np.divide(weights**2, habits.weights_squared, out=np.zeros(len(weights)), where=weights > 0)
        mean = np.divide(habits.weighted, weights, out=np.zeros(len(weights)), where=weights > 0)
        share = own_gaps * self.between / (own_gaps * self.between + self.within)
        cycle = share * mean + (1.0 - share) * prior + self.lasts[habits.items] * habits.excess
        gone = self.gone[np.minimum(habits.times, OFTEN).astype(np.int64) - 1]
        return Clocks(cycle, np.sqrt(self.within + (1.0 - share) * self.between), share, gone)


@dataclass(frozen=True)
class Population:
    """All that is learnt of everybody at a moment; per item, per group of items, and how to correct the chances.

    Attributes
    ----------
    items, groups : Cycles
    again : ndarray, (n_items,)
        Log-odds that who had it once has it again.
    trend : ndarray, (n_items,)
        Logarithm of its sales of the last weeks over what was usual.
    """

    items: Cycles
    groups: Cycles
    again: Floats
    trend: Floats

    @classmethod
    def of(cls, seen: Seen, group: Ints, start: float) -> Population:
        """Of what was bought before a moment."""
        n_items, habits = len(group), seen.habits
        had, twice = np.bincount(habits.items, minlength=n_items), totals(habits.items, habits.times > 1, n_items)
        usual = (twice.sum() + 1.0) / (had.sum() + 2.0)
        short, long = (
            totals(seen.days.items, seen.fading(seen.days, half_life), n_items) for half_life in (14.0, 120.0)
        )
        expected = long * short.sum() / max(long.sum(), 1e-9)
        return cls(
            Cycles.of(habits, group, start),
            Cycles.of(seen.group_habits, np.zeros(int(group.max(initial=0)) + 1, np.int64), start),
            logit((twice + 10.0 * usual) / (had + 10.0)),
            np.log((short + 1.0) / (expected + 1.0)),
        )

    def asked(self, seen: Seen, group: Ints, horizon_days: float) -> tuple[Clocks, list[Floats]]:
        """The clocks of the pairs seen, and what the correction looks at: first the log-odds by the clock, each (p,)."""
        habits, of_group = seen.habits, seen.group_habits
        clocks, group_clocks = self.items.clocks(habits), self.groups.clocks(of_group)
        groups = np.int64(len(self.groups.prior))
        place = np.searchsorted(of_group.users * groups + of_group.items, habits.users * groups + group[habits.items])
        times, quiet, recent = np.log(habits.times), np.log(habits.quiet_days), np.log(habits.recent + 0.01)
        core = [times, quiet, clocks.cycle, recent, self.again[habits.items]]
        group_odds = _log_odds(group_clocks.chance(of_group.quiet_days, horizon_days))
        busy = np.log(np.bincount(seen.group_days.users, seen.fading(seen.group_days, 28.0)) + 0.1)
        return clocks, [
            _log_odds(clocks.chance(habits.quiet_days, horizon_days)),
            *core,
            *(one * other for i, one in enumerate(core) for other in core[i:]),
            np.log(habits.lately + 0.01),
            clocks.lateness(habits.quiet_days) ** 2,
            self.trend[habits.items],
            group_odds[place],
            (np.log(of_group.quiet_days) - group_clocks.cycle)[place],
            np.log((habits.lately + 1e-9) / (of_group.lately[place] + 1e-9) + 1e-3),
            busy[habits.users],
        ]

    def state(self) -> Arrays:
        """As plain arrays."""
        levels = {"items": self.items, "groups": self.groups}
        cycles = {
            f"{level}_{part.name}": getattr(found, part.name)
            for level, found in levels.items()
            for part in fields(Cycles)
        }
        return {**cycles, "again": self.again, "trend": self.trend}

    @classmethod
    def restored(cls, state: Arrays) -> Self:
        """The inverse of `state`."""
        items, groups = (
            Cycles(**{part.name: state[f"{level}_{part.name}"] for part in fields(Cycles)})
            for level in ("items", "groups")
        )
        return cls(items, groups, state["again"], state["trend"])


def shrunk(sums: Floats, weights: Floats, towards: Floats, variance: float) -> Floats:
    """Means of groups, each pulled towards a prior mean: ``(sum + κ prior) / (weight + κ)`` with ``κ = variance / variance_between``.

    Normal observations with a known variance under a normal prior: Efron & Morris 1975.

    Examples
    --------
    >>> shrunk(np.array([30.0, 0.0]), np.array([10.0, 0.0]), np.array([1.0, 1.0]), 1.0).round(2).tolist()
    [2.95, 1.0]
    """
    strength = variance / max(variance_between(sums, weights, towards, variance), 1e-9)
    found: Floats = (sums + strength * towards) / (weights + strength)
    return found


def variance_between(sums: Floats, weights: Floats, towards: Floats, variance: float) -> float:
    """By how much the true means of groups vary around their priors, by moments (DerSimonian & Laird 1986); ≥ 0."""
    some = weights > 0
    if not some.any():
        return 0.0
    distance = (weights[some] * (sums[some] / weights[some] - towards[some]) ** 2).sum()
    return float(max(distance - some.sum() * variance, 0.0) / weights.sum())


def _log_odds(chance: Floats) -> Floats:
    found: Floats = logit(np.clip(chance, 1e-6, 1.0 - 1e-6))
    return found
