"""The customers of past moments, with whether they came back within a window of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.classify.own_window import OwnWindow
from models.classify.rhythm import Design, day_number
from training.churn.history import OrderHistory
from training.churn.snapshots import ChurnRows, Snapshots, moments, stacked


@dataclass(frozen=True)
class WindowRows:
    """Customers of one or more moments.

    Attributes
    ----------
    rows : ChurnRows
        Rhythm features, and 1 where the customer left, of those whose window is over.
    windows : ndarray of float64, shape (n,)
        Days of their windows.
    not_over : int
        Rows that were dropped, whatever happened in them, because their window was not over.
    too_long : int
        Rows that were dropped because their window is longer than the longest.
    """

    rows: ChurnRows
    windows: NDArray[np.float64]
    not_over: int
    too_long: int


@dataclass(frozen=True)
class Windows:
    """Rows with the outcomes that were known at one date.

    Attributes
    ----------
    snapshots : Snapshots
        Orders of the customers.
    known_at : datetime
        No order at or after it is read; the process of the windows is fitted on those before it.
    window : OwnWindow
    longest : float
        Longer windows are left out.
    """

    snapshots: Snapshots
    known_at: datetime
    window: OwnWindow
    longest: float

    @property
    def design(self) -> Design:
        """The columns of a model that is fitted at the date."""
        process = self.snapshots.process(self.known_at)
        return Design(tuple(self.snapshots.features), self.window.min_days, process, self.window)

    def dates(self) -> list[datetime]:
        """Moments to learn from, oldest first: at the last one, the shortest window has just ended."""
        return moments(self.snapshots.first, self.known_at - timedelta(days=self.window.min_days))

    def at(self, as_of: datetime, known_at: datetime | None = None) -> WindowRows:
        """The customers with an order before a moment, without shared accounts.

        Parameters
        ----------
        known_at : datetime, optional
            Read the outcomes that were known at this date, by default at that of the windows.
        """
        known_at = known_at or self.known_at
        history = self.snapshots.history(as_of)
        places = np.flatnonzero(history.ends(day_number(as_of)) > history.starts[:-1])
        places = places[~np.isin(history.one_ids[places], list(self.snapshots.left_out))]
        X = history.features(as_of, self.snapshots.features)[places]
        windows, one_ids = self.design.window_days(X), history.one_ids[places]
        fits = windows <= self.longest
        over = day_number(as_of) + windows <= day_number(known_at)
        waits = _days_to_next_order(self.snapshots.history(known_at), as_of, one_ids)
        kept = np.flatnonzero(fits & over)
        rows = ChurnRows(X, (waits >= windows).astype(np.int64), one_ids, np.full(len(places), day_number(as_of)))
        return WindowRows(rows.take(kept), windows[kept], int((fits & ~over).sum()), int((~fits).sum()))

    def learnt(self) -> WindowRows:
        """The rows of all moments to learn from."""
        parts = [self.at(as_of) for as_of in self.dates()]
        return WindowRows(
            stacked(part.rows for part in parts),
            np.concatenate([part.windows for part in parts]),
            sum(part.not_over for part in parts),
            sum(part.too_long for part in parts),
        )


def _days_to_next_order(history: OrderHistory, as_of: datetime, one_ids: NDArray[np.str_]) -> NDArray[np.float64]:
    """Days from a moment to the first order at or after it, shape (n,); infinite without one.

    A customer whose records went to another one since then has none.
    """
    now = day_number(as_of)
    following = history.ends(now)
    has_one = following < history.starts[1:]
    waits = np.full(len(history.one_ids) + 1, np.inf)  # the last one is for customers who are no longer there
    waits[:-1][has_one] = history.days[following[has_one]] - now
    places = np.searchsorted(history.one_ids, one_ids)
    found = np.append(history.one_ids, "")[places] == one_ids
    return np.asarray(waits[np.where(found, places, len(history.one_ids))])


def windows_of_sizes(windows: NDArray[np.float64], shortest: float) -> dict[str, NDArray[np.bool_]]:
    """The customers with the shortest window, and those with a longer one, as slices of a report."""
    groups = {f"window of {shortest:g} days": windows <= shortest, "longer window": windows > shortest}
    return {name: rows for name, rows in groups.items() if rows.any()}
