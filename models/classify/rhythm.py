"""Columns of the churn models: features of a customer's rhythm of orders, quantities made of them, and the season.

A churn model reads the features of the profiles. The rhythm features are those of them that the times and amounts of
the orders alone determine, and the habit features need the categories bought beside them: training can compute both at
many past moments (`training.churn.history`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.profiles.purchase_process.process import PROCESS_FEATURES, PurchaseProcess
from models.classify.own_window import OwnWindow

BASIC_FEATURES = (
    "days_since_last_order",
    "days_since_first_order",
    "orders_total",
    "orders_28d",
    "orders_56d",
    "orders_91d",
    "orders_365d",
    "amount_28d",
    "amount_91d",
    "gap_days_mean",
    "gap_days_std",
    "gaps_silent",
)
PATTERN_FEATURES = (
    "orders_7d",
    "orders_14d",
    "orders_182d",
    "orders_trend_14d",
    "orders_trend_28d",
    "orders_trend_91d",
    "gap_days_max",
    "gap_days_mean_91d",
    "last_gap_days",
    "order_gap_days_mean_182d",
    "order_gap_days_std_182d",
    "gaps_silent_max",
)
RHYTHM_FEATURES = (*BASIC_FEATURES, *PATTERN_FEATURES)
EXPECTED_CATEGORIES = "categories_expected_182d"
HABIT_FEATURES = ("order_weeks_91d", EXPECTED_CATEGORIES)
CHURN_FEATURES = (*RHYTHM_FEATURES, *HABIT_FEATURES)
TREND, PROCESS, SEASON = "orders_ratio_28d", "process_log_odds", ("season_sin", "season_cos")
WINDOW = "window_days"
# the derived columns, and the feature to which a reason assigns what they contribute; None for the date
OWNERS: dict[str, str | None] = {
    TREND: "orders_28d",
    PROCESS: "days_since_last_order",
    WINDOW: "orders_total",
    **dict.fromkeys(SEASON),
}
MADE_OF = {
    TREND: ("orders_28d", "orders_56d"),
    PROCESS: PROCESS_FEATURES,
    WINDOW: PROCESS_FEATURES,
}  # features that a derived column needs
COUNT_COLUMNS = (*BASIC_FEATURES[:6], TREND)  # recency and counts: seven
RHYTHM_COLUMNS = (*BASIC_FEATURES[:6], *BASIC_FEATURES[7:], TREND)  # recency, frequency and money: twelve
PATTERN_COLUMNS = (*RHYTHM_COLUMNS, PROCESS, *PATTERN_FEATURES)  # and weeks, trends and gaps: twenty-five
HABIT_COLUMNS = (*PATTERN_COLUMNS, *HABIT_FEATURES)  # and which categories are due: twenty-seven
DAYS_PER_YEAR = 365.25
EPOCH = datetime(1970, 1, 1)
SMALLEST = 1e-6  # of a probability, before its log-odds are taken


def log_odds(p: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Log-odds of probabilities, which are moved away from 0 and 1 by `SMALLEST`."""
    p = np.clip(p, SMALLEST, 1.0 - SMALLEST)
    return np.asarray(np.log(p / (1.0 - p)), dtype=np.float64)


def probability(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `log_odds`, without its bounds."""
    return np.asarray(1.0 / (1.0 + np.exp(-margin)), dtype=np.float64)


def day_number(moment: datetime) -> float:
    """Days since 1970."""
    return (moment - EPOCH).total_seconds() / 86_400


@dataclass(frozen=True)
class Design:
    """Turns profile features at a moment into the columns of a model.

    Attributes
    ----------
    features : tuple of str
        Names of the f feature columns.
    horizon_days : float
        Days of the probability of an order in the column `PROCESS`.
    process : PurchaseProcess or None
        Purchase process of the shop; without one, the columns `PROCESS` and `WINDOW` cannot be made.
    window : OwnWindow or None
        Instead of `horizon_days`, each customer's own window.

    Examples
    --------
    >>> design = Design(BASIC_FEATURES)
    >>> weekly = np.array([[3, 280, 40, 4, 8, 13, 40, 80, 260, 7, 1, 0.4]], dtype=np.float32)
    >>> design.columns(weekly, ("days_since_last_order", TREND), 0.0).tolist()
    [[3.0, 1.0]]
    """

    features: tuple[str, ...] = ()
    horizon_days: float = 28.0
    process: PurchaseProcess | None = None
    window: OwnWindow | None = None
    _places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places.update({name: place for place, name in enumerate(self.features)})

    def columns(
        self, X: NDArray[np.float32], names: Sequence[str], days: NDArray[np.float64] | float
    ) -> NDArray[np.float32]:
        """Build the columns `names` of n customers, float32 array of shape (n, len(names)).

        Parameters
        ----------
        X : ndarray of float32, shape (n, f)
            Features of the customers.
        names : sequence of str
            Names of features, or of derived columns (`OWNERS`).
        days : float, or ndarray of float64 of shape (n,)
            Moment of the features of each row, in days since 1970.
        """
        made = np.empty((len(X), len(names)), dtype=np.float32)
        for j, name in enumerate(names):
            made[:, j] = X[:, self._places[name]] if name in self._places else self._derived(X, name, days)
        return made

    def _derived(
        self, X: NDArray[np.float32], name: str, days: NDArray[np.float64] | float
    ) -> NDArray[np.float64] | float:
        if name == TREND:
            recent, both = X[:, self._places["orders_28d"]], X[:, self._places["orders_56d"]]
            return np.asarray((recent + 1.0) / (both - recent + 1.0), dtype=np.float64)
        if name == PROCESS:
            assert self.process is not None
            return -log_odds(self.process.order_probability(self._process_columns(X), self.window_days(X)))
        if name == WINDOW:
            return self.window_days(X)
        angle = 2 * np.pi * np.asarray(days) / DAYS_PER_YEAR
        return np.asarray(np.sin(angle) if name == SEASON[0] else np.cos(angle), dtype=np.float64)

    def _process_columns(self, X: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        return {name: X[:, self._places[name]].astype(np.float64) for name in PROCESS_FEATURES}

    def window_days(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Days in which an order is predicted, shape (n,): the horizon, or each customer's own window."""
        if self.window is None:
            return np.full(len(X), self.horizon_days)
        assert self.process is not None
        return self.window.days(self.process, self._process_columns(X))

    def owners(self, names: Sequence[str]) -> list[int]:
        """Feature column to which each column `names` belongs; −1 for the season, which is that of the moment."""
        owners = [OWNERS.get(name, name) for name in names]
        return [-1 if owner is None else self._places[owner] for owner in owners]
