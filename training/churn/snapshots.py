"""The moments at which churn models learn, and the rows of the customers who were active then."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.profiles.purchase_process.fitting import fit_process
from features.profiles.purchase_process.process import PurchaseProcess
from models.classify.rhythm import EXPECTED_CATEGORIES, day_number
from qianmian.model_settings import LifecycleSettings
from training.churn.history import OrderHistory
from training.churn.records import Records

STEP_DAYS = 7  # a moment a week: more rows, and a season is met whatever its week
# days before the last moment, and the step from there on: older moments say less, and cost as much
THINNED = ((0, 7), (182, 14), (364, 28))
MAX_CUSTOMERS = 20_000  # of a sample whose orders are read: 20,000 customers give more rows than a fit uses
MAX_ROWS = 150_000  # of a fit, 2 CPU s of 150 trees; of more rows, those of a sample of the customers
MAX_MOVED_DATES = 12  # if records changed their customers, each moment reads the orders anew
MAX_PROCESS_CUSTOMERS = 5_000


@dataclass(frozen=True)
class ChurnRows:
    """Features and labels of n customers at one or more moments.

    Attributes
    ----------
    X : ndarray of float32, shape (n, f)
    y : ndarray of int64, shape (n,)
        1 where the customer churned.
    owners : ndarray, shape (n,)
        Customer of each row.
    days : ndarray of float64, shape (n,)
        Moment of each row in days since 1970.
    weeks : ndarray of int64, shape (n,), or None
        In how many weeks of the horizon the customer has an order; None if it was not counted. Models that learn it
        (`models.classify.churn.ChurnClassifier`) read it in the rows of the past only, like `y`.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    owners: NDArray[Any]
    days: NDArray[np.float64]
    weeks: NDArray[np.int64] | None = None

    def capped(self, max_rows: int = MAX_ROWS) -> ChurnRows:
        """These rows, or those of a sample of the customers if there are more than `max_rows`."""
        if len(self.y) <= max_rows:
            return self
        customers, place = np.unique(self.owners, return_inverse=True)
        kept = np.random.default_rng(0).random(len(customers)) < max_rows / len(self.y)
        return self.take(np.flatnonzero(kept[place]))

    def take(self, rows: NDArray[np.int64]) -> ChurnRows:
        """Some of the rows."""
        weeks = self.weeks[rows] if self.weeks is not None else None
        return ChurnRows(self.X[rows], self.y[rows], self.owners[rows], self.days[rows], weeks)

    def both_outcomes(self, least: int) -> bool:
        """Whether at least `least` rows churned, and as many did not."""
        return min(int(self.y.sum()), int((1 - self.y).sum())) >= least


def stacked(parts: Iterable[ChurnRows]) -> ChurnRows:
    """The rows of several moments, one below the other."""
    found = list(parts)
    weeks = [part.weeks for part in found if part.weeks is not None]
    return ChurnRows(
        np.concatenate([part.X for part in found]),
        np.concatenate([part.y for part in found]),
        np.concatenate([part.owners for part in found]),
        np.concatenate([part.days for part in found]),
        np.concatenate(weeks) if len(weeks) == len(found) else None,
    )


def moments(first: datetime, last: datetime) -> list[datetime]:
    """Moments from `last` back to `first`: weekly, and further apart the longer ago (`THINNED`); oldest first.

    One year before `last` is one of them, so that the season of `last` is known as it was then.

    Examples
    --------
    >>> [f"{moment:%m-%d}" for moment in moments(datetime(2017, 1, 1), datetime(2017, 1, 20))]
    ['01-06', '01-13', '01-20']
    >>> datetime(2016, 1, 22) in moments(datetime(2015, 1, 1), datetime(2017, 1, 20))
    True
    """
    found, back = [], 0
    while (moment := last - timedelta(days=back)) >= first:
        found.append(moment)
        back += max(step for days, step in THINNED if back >= days)
    return found[::-1]


@dataclass
class Snapshots:
    """Rows with rhythm features at any moment of the history; each is computed once.

    Attributes
    ----------
    builder : Builder
    horizon_days, active_days : int
    end : datetime
        Cutoff of the training; no row at or after it is read.
    first : datetime
        First moment at which a customer could have been silent for `active_days`.
    rhythm : sequence of str
        Names of the rhythm features that the lake supports.
    left_out : collection of str
        one_ids of shared accounts.
    lifecycle : LifecycleSettings
        Settings of the purchase process.
    records : Records
        Whether customers had a record: further columns.
    gap_days : int
        Days after a horizon until its outcome is known.
    """

    builder: Builder
    horizon_days: int
    active_days: int
    end: datetime
    first: datetime
    rhythm: Sequence[str]
    left_out: Collection[str]
    lifecycle: LifecycleSettings
    records: Records = field(default_factory=Records)
    gap_days: int = 0
    _rows: dict[datetime, ChurnRows] = field(default_factory=dict)
    _histories: dict[datetime, OrderHistory] = field(default_factory=dict)
    _processes: dict[datetime, PurchaseProcess] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        """Columns of the rows."""
        return (*self.rhythm, *self.records.names)

    @property
    def moved(self) -> bool:
        """Whether some record changed its customer, so that each moment has its own customers."""
        return not self.builder.rows.one_ids_static

    @property
    def horizon(self) -> timedelta:
        return timedelta(days=self.horizon_days)

    @property
    def known_after(self) -> timedelta:
        """Time after a moment at which its outcome is known."""
        return timedelta(days=self.horizon_days + self.gap_days)

    def history(self, as_of: datetime) -> OrderHistory:
        """Orders before a moment at least, of the customers as they were known then."""
        moment = as_of if self.moved else self.end
        if moment not in self._histories:
            views, categories = self.builder.views(moment), EXPECTED_CATEGORIES in self.rhythm
            if moment == self.end:
                self._histories[moment] = OrderHistory.read(views, MAX_CUSTOMERS, with_categories=categories)
            else:  # the same customers at every moment, or those who left the sample would count as churned
                below = self.history(self.end).sampled_below
                self._histories[moment] = OrderHistory.read(views, None, below, with_categories=categories)
        return self._histories[moment]

    def dates(self, last: datetime) -> list[datetime]:
        """Moments to learn from whose labels are known at `last`, oldest first."""
        found = moments(self.first, last - self.known_after)
        if self.moved:
            found = found[::-1][:: max(1, self.horizon_days // STEP_DAYS)][:MAX_MOVED_DATES][::-1]
        return found

    def rows(self, as_of: datetime) -> ChurnRows:
        """Rhythm features and labels of the customers who were active at a moment; the label is 0 if not yet known."""
        if as_of not in self._rows:
            history = self.history(as_of)
            places = history.active(as_of, self.active_days)
            places = places[~np.isin(history.one_ids[places], list(self.left_out))]
            one_ids, later = history.one_ids[places], as_of + self.horizon
            # of the customers as they are known at the end of the horizon; who is nobody any more orders nothing
            after = self.history(later) if self.moved and later <= self.end else history
            at = np.minimum(np.searchsorted(after.one_ids, one_ids), max(len(after.one_ids) - 1, 0))
            weeks = np.where(after.one_ids[at] == one_ids, after.weeks_with_order(as_of, self.horizon_days)[at], 0)
            y = (weeks == 0).astype(np.int64) if later <= self.end else np.zeros(len(places), dtype=np.int64)
            rhythm = history.features(as_of, self.rhythm)[places]
            X = np.column_stack([rhythm, self.records.values(as_of, one_ids)])
            self._rows[as_of] = ChurnRows(X, y, one_ids, np.full(len(places), day_number(as_of)), weeks)
        return self._rows[as_of]

    def came_back(self, as_of: datetime, days: int) -> NDArray[np.bool_]:
        """Who of those who churned at a moment ordered within some days of it all the same, shape (n,)."""
        rows, over = self.rows(as_of), as_of + self.horizon
        later = as_of + timedelta(days=days)
        history = self.history(later)
        return np.isin(rows.owners[rows.y == 1], history.one_ids[history.bought(over, later)])

    def active_weeks(self, as_of: datetime, owners: NDArray[np.str_], weeks: int) -> NDArray[np.int64]:
        """In how many of the last weeks customers had an order, shape (n,); −1 for those who are not in the sample."""
        history = self.history(as_of)
        places = np.minimum(np.searchsorted(history.one_ids, owners), max(len(history.one_ids) - 1, 0))
        return np.where(history.one_ids[places] == owners, history.active_weeks(as_of, weeks)[places], -1)

    def process(self, as_of: datetime) -> PurchaseProcess:
        """Purchase process of the shop, fitted on the orders before a moment."""
        if as_of not in self._processes:
            times = self.history(as_of).times_before(as_of, MAX_PROCESS_CUSTOMERS)
            self._processes[as_of] = fit_process(times, self.lifecycle)
        return self._processes[as_of]
