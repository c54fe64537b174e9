"""The level of the churn rate at a date: what a shift of all log-odds corrects for the season and for a recent drift.

A model of the customers' rhythm does not know that it is November. Four levels are compared on past dates, each with
the model and the rates that were known then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

from features.profiles.analytics.rates import Z_95
from models.classify.rhythm import log_odds, probability
from training.churn.snapshots import STEP_DAYS, Snapshots

OWN, RECENT, SEASON, SEASON_DRIFT = "own", "recent", "season", "season_drift"
# the simplest first
LEVELS = {
    OWN: "the model alone",
    RECENT: "moved by the difference of its predictions and the outcomes at the last known dates, which it learnt from",
    SEASON: "moved to the churn rate of the same weeks a year earlier",
    SEASON_DRIFT: "moved to the churn rate of the same weeks a year earlier and its drift since",
}
SEASONAL = (SEASON, SEASON_DRIFT)
YEAR_DAYS = 364  # 52 weeks: the same day of the week
SEASON_WEIGHTS = {-STEP_DAYS: 1.0, 0: 2.0, STEP_DAYS: 1.0}  # of the moments around one year earlier
MIN_CUSTOMERS = 30  # active at a moment whose rate is used
MIN_DATES = 4  # past dates on which a level is compared with the others
LARGEST_SHIFT = 12.0
Floats = NDArray[np.float64]


def shift_to_rate(margins: Floats, rate: float) -> float:
    """The shift of log-odds with which the mean probability is `rate`, at most `LARGEST_SHIFT` up or down.

    Examples
    --------
    >>> round(shift_to_rate(np.zeros(4), 0.2), 3)
    -1.386
    """

    def error(shift: float) -> float:
        return float(probability(margins + shift).mean()) - rate

    if error(-LARGEST_SHIFT) > 0:
        return -LARGEST_SHIFT
    if error(LARGEST_SHIFT) < 0:
        return LARGEST_SHIFT
    return float(brentq(error, -LARGEST_SHIFT, LARGEST_SHIFT, xtol=1e-6))


@dataclass
class Rates:
    """Log-odds of the churn rates whose outcomes were known at one date.

    Attributes
    ----------
    snapshots : Snapshots
    known_at : datetime
        Outcomes that were known later are not read.
    """

    snapshots: Snapshots
    known_at: datetime
    _found: dict[datetime, float | None] = field(default_factory=dict)

    def rate(self, moment: datetime) -> float | None:
        """Log-odds of the churn rate of a moment; None if it is not known, or of too few customers."""
        if moment not in self._found:
            known = self.snapshots.first <= moment and moment + self.snapshots.known_after <= self.known_at
            y = self.snapshots.rows(moment).y if known else np.empty(0)
            # half a customer of each outcome, so that the log-odds are finite
            known = len(y) >= MIN_CUSTOMERS
            self._found[moment] = float(log_odds((y.sum() + 0.5) / (len(y) + 1.0))) if known else None
        return self._found[moment]

    def a_year_before(self, moment: datetime) -> float | None:
        """Log-odds of the churn rate in the same weeks a year before a moment; None if it is not known."""
        then = moment - timedelta(days=YEAR_DAYS)
        if self.rate(then) is None:
            return None
        found = {days: self.rate(then + timedelta(days=days)) for days in SEASON_WEIGHTS}
        known = {days: rate for days, rate in found.items() if rate is not None}
        weights = [SEASON_WEIGHTS[days] for days in known]
        return float(np.average(list(known.values()), weights=weights))

    def recent(self, moment: datetime) -> list[datetime]:
        """The last moments before one, a horizon long, whose outcomes are known at it."""
        last = moment - self.snapshots.known_after
        dates = [last - timedelta(days=back) for back in range(0, self.snapshots.horizon_days, STEP_DAYS)]
        return [date for date in dates if self.rate(date) is not None]

    def drift(self, moment: datetime) -> float | None:
        """Mean change of the log-odds of recent churn rates against a year earlier; None if it is not known."""
        changes = []
        for date in self.recent(moment):
            now, then = self.rate(date), self.a_year_before(date)
            if now is not None and then is not None:
                changes.append(now - then)
        return float(np.mean(changes)) if changes else None


def target_rate(level: str, rates: Rates, moment: datetime) -> float | None:
    """The churn rate that a seasonal level expects at a moment; None if the history does not tell it."""
    season, drift = rates.a_year_before(moment), rates.drift(moment)
    if season is None or (level == SEASON_DRIFT and drift is None):
        return None
    expected = season + (drift or 0.0 if level == SEASON_DRIFT else 0.0)
    return float(probability(np.array(expected)))


def missed(parts: Sequence[tuple[Floats, NDArray[np.int64]]]) -> float:
    """The shift that a model missed: with it, the mean prediction of these rows is their mean outcome.

    Parameters
    ----------
    parts : sequence of (float64 array of shape (n,), int64 array of shape (n,))
        Log-odds and outcomes of the customers of each of the last moments with known outcomes.
    """
    if not parts:
        return 0.0
    margins, y = (np.concatenate(values) for values in zip(*parts, strict=True))
    return shift_to_rate(margins, (y.sum() + 0.5) / (len(y) + 1.0))


def choose_level(losses: dict[datetime, dict[str, Floats]], owners: dict[datetime, NDArray[Any]]) -> tuple[str, str]:
    """The simplest level within noise of the best one, and a sentence about the choice.

    A season of the year is expected in a shop, and a few months may be flat: a level of the season must be ahead
    beyond the noise of the customers. A drift of some weeks may end at any time, and must be ahead beyond the
    differences between the dates.

    Parameters
    ----------
    losses : dict of datetime to dict of str to float64 array of shape (n,)
        Log loss of each customer at each past date, by level. Levels are compared on the dates that have all of them.
    owners : dict of datetime to array of shape (n,)
        The customers of each date.

    Examples
    --------
    >>> dates = [datetime(2017, month, 1) for month in range(1, 7)]
    >>> losses = {date: {"own": np.full(9, 0.5), "season": np.full(9, 0.4)} for date in dates}
    >>> choose_level(losses, {date: np.arange(9) for date in dates})[0]
    'season'
    """
    counts = {level: sum(level in found for found in losses.values()) for level in LEVELS}
    levels = [level for level in LEVELS if counts[level] >= MIN_DATES]
    dates = [date for date, found in losses.items() if set(levels) <= set(found)]
    if len(levels) < 2 or len(dates) < MIN_DATES:
        return OWN, "level: the model alone, because the history is too short to check whether its level drifts"
    table = np.array([[losses[date][level].mean() for level in levels] for date in dates])
    means = table.mean(axis=0)
    best = int(means.argmin())

    def within_noise(place: int) -> bool:
        behind = table[:, place] - table[:, best]
        if levels[best] in SEASONAL and levels[place] not in SEASONAL:
            rows = np.concatenate([losses[date][levels[place]] - losses[date][levels[best]] for date in dates])
            _, customer = np.unique(np.concatenate([owners[date] for date in dates]), return_inverse=True)
            sums = np.bincount(customer, weights=rows - rows.mean())
            noise = Z_95 * float(np.sqrt(np.square(sums).sum())) / len(rows)
            return bool(rows.mean() <= noise)
        noise = float(student.ppf(0.975, len(table) - 1) * behind.std(ddof=1) / np.sqrt(len(table)))
        return bool(behind.mean() <= noise)

    level = next(name for place, name in enumerate(levels) if place == best or within_noise(place))
    others = ", ".join(f"{LEVELS[name]} {mean:.4f}" for name, mean in zip(levels, means.tolist(), strict=True))
    return (
        level,
        f"level: {LEVELS[level]}, the simplest within noise of the best on {len(table)} dates; log loss {others}",
    )
