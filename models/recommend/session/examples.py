"""Examples that a session model learns its weights from: what users did, and what they did then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.session.trails import Trails

MOST_EXAMPLES = 6_000  # of a model; more move the weights little
CUTOFFS, STEP = 10, 0.25  # cutoffs at most, and the horizons between two of them
VISIT_PERIODS = (1.0, 2.0, 7.0, 14.0, 28.0, 56.0)  # days whose visits are examples: the shortest with enough of them
ENOUGH_VISITS = 500


@dataclass(frozen=True)
class SessionExamples:
    """Examples at one cutoff.

    Attributes
    ----------
    days : float
        How long before the end of the data the cutoff is; statistics are learnt from what is older.
    trails : Trails
        What the users of the examples did until the moment of the example; a row per example.
    truth : csr_matrix, (n, n_items)
        1 for the items that they met then.
    users : ndarray of int64, (n,)
        User of each example.
    elapsed : ndarray of float64, (n,)
        Days from the cutoff to the moment of each example.
    current : ndarray of int64, (n,), or None
        Item of the last entry of each trail where this is the item that the user looks at.
    """

    days: float
    trails: Trails
    truth: sparse.csr_matrix
    users: NDArray[np.int64]
    elapsed: NDArray[np.float64]
    current: NDArray[np.int64] | None = None

    def since_cutoff(self) -> Trails:
        """The entries of the trails that are newer than the cutoff."""
        return self.trails.where(self.trails.ages < self.elapsed[self.trails.rows])


def period_examples(
    trails: Trails, horizon_days: float, target: NDArray[np.int8] | None, rng: np.random.Generator
) -> Iterator[SessionExamples]:
    """Examples of what users do in the `horizon_days` after a cutoff, at cutoffs in the second half of the data.

    Parameters
    ----------
    target : ndarray of int8 or None
        Types of the entries that count as done; None: all.
    """
    span = float(trails.ages.max(initial=0.0))
    for number in range(CUTOFFS):
        days = horizon_days * (1.0 + STEP * number)
        if number and days > span / 2:
            return
        past = trails.before(days)
        then = trails.where((trails.ages <= days) & (trails.ages > days - horizon_days))
        if target is not None:
            then = then.where(np.isin(then.kinds, target))
        users = np.intersect1d(past.rows, then.rows)
        users = np.sort(rng.permutation(users)[: MOST_EXAMPLES // 3])
        if len(users):
            yield SessionExamples(
                days, _renumbered(past, users), _truth(_renumbered(then, users)), users, np.zeros(len(users))
            )


def visit_examples(trails: Trails, rng: np.random.Generator) -> Iterator[SessionExamples]:
    """Examples of how visits continue: of each user a visit of the end of the data, divided at a random entry."""
    for days in VISIT_PERIODS:
        found = divided_visits(trails, days, rng)
        if found is not None and (len(found.users) >= ENOUGH_VISITS or days == VISIT_PERIODS[-1]):
            yield found
            return
        if days > trails.ages.max(initial=0.0) / 2:
            if found is not None:
                yield found
            return


def divided_visits(
    trails: Trails, days: float, rng: np.random.Generator, most: int = MOST_EXAMPLES
) -> SessionExamples | None:
    """The last visit with two items of each user in the newest `days`, divided at a random entry; None without any.

    What the user did until then, also before this visit, is the trail of the example; what they met in the rest of the
    visit is relevant, without the item of the last entry before it.
    """
    if not len(trails):
        return None
    visits = trails.visits()
    first = np.flatnonzero(np.append(True, visits[1:] != visits[:-1]))
    ends = np.append(first[1:], len(trails))
    changes = np.append(False, (trails.items[1:] != trails.items[:-1]) & (visits[1:] == visits[:-1]))
    changed = np.cumsum(changes)
    varied = changed[ends - 1] > changed[first]
    inside = np.flatnonzero(varied & (trails.ages[first] < days))
    if not len(inside):
        return None
    owners = trails.rows[first[inside]]
    last = inside[np.append(owners[1:] != owners[:-1], True)]
    last = np.sort(rng.permutation(last)[:most])
    # an entry with another item than the entry before it; what comes from there on is predicted
    starts = np.concatenate([[0], np.flatnonzero(changes)])
    low, high = np.searchsorted(starts, first[last], side="right"), np.searchsorted(starts, ends[last])
    at = starts[low + (rng.random(len(last)) * (high - low)).astype(np.int64)]
    users, moments = trails.rows[at], trails.ages[at]
    row = np.full(trails.shape[0], -1, dtype=np.int64)
    row[users] = np.arange(len(users))
    mine = row[trails.rows]
    place = np.arange(len(trails))
    known = mine >= 0
    before, after = known & (place < at[mine]), known & (place >= at[mine]) & (place < ends[last][mine])
    given, then = trails.where(before), trails.where(after)
    shape = (len(users), trails.shape[1])
    given = Trails(mine[before], given.items, np.maximum(given.ages - moments[mine[before]], 0.0), given.kinds, shape)
    truth = Trails(mine[after], then.items, then.ages, then.kinds, shape)
    # being shown what is looked at is no recommendation
    current = trails.items[at - 1]
    truth = truth.where(truth.items != current[truth.rows])
    return SessionExamples(days, given, _truth(truth), users, days - moments, current)


def _renumbered(trails: Trails, users: NDArray[np.int64]) -> Trails:
    """The entries of these users, which are ascending, with a row for each."""
    place = np.minimum(np.searchsorted(users, trails.rows), len(users) - 1)
    kept = users[place] == trails.rows
    return Trails(place[kept], trails.items[kept], trails.ages[kept], trails.kinds[kept], (len(users), trails.shape[1]))


def _truth(trails: Trails) -> sparse.csr_matrix:
    truth = sparse.csr_matrix((np.ones(len(trails), np.float32), (trails.rows, trails.items)), shape=trails.shape)
    truth.sum_duplicates()
    truth.data[:] = 1.0
    truth.sort_indices()
    return truth
