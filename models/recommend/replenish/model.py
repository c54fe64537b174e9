"""What is about to be used up: each customer's own cycle with each item, pooled with those of others where the history is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import (
    Barred,
    Choice,
    Evidence,
    Indices,
    Query,
    Recommender,
    Span,
    at_pairs,
    best_of_rows,
    values_at,
)
from models.recommend.replenish.calibration import corrected, taught
from models.recommend.replenish.history import Days, Floats, Habits, Seen
from models.recommend.replenish.repurchase import Clocks, Population
from qianmian.errors import DataError

TAUGHT_BY = 60_000  # pairs without a purchase that the correction learns from, a snapshot
PLAIN = ("group", "correction", "times", "quiet_days", "cycle", "spread", "own", "last_days")  # of the state
LEAST_PURCHASES = 50  # in a rewound horizon, for it to teach anything


class ReplenishRecommender(Recommender):
    """Scores what a customer had before by the probability of buying it again in the next `horizon_days`.

    The days between two purchases of an item by a customer are log-normal. With g the customer's log gaps (later ones count more) the cycle is

        μ = κ ḡ + (1 − κ) μ_item + β (log units last − usual),   κ = n τ² / (n τ² + σ²),

    the James–Stein kind of shrinkage of Efron & Morris (1975), one level at a time: pair towards item, item towards its category, category towards all; τ²
    by moments (DerSimonian & Laird 1986), σ² within pairs. Who bought once has the item's cycle, and an item nobody had twice its category's. After each purchase
    the habit may end with probability p (falling with the number of purchases, as in BG/NBD; Fader, Hardie & Lee 2005), so after t silent days

        P(next h days | silent) = (1 − p) (S(t) − S(t + h)) / ((1 − p) S(t) + p),

    which rises as the day comes and falls once it is long past. What the clock does not know (whether the item is bought again by anybody, whether it sells these
    weeks, whether something else of its category was bought since, how often the customer comes) corrects its log-odds by a ridge regression that
    learns from rewound data, `snapshots` horizons before `as_of`, and is 0 where there is nothing to learn from.

    Only what the customer had is a candidate. A purchase since the fit resets the clock, and time alone moves it.

    Parameters
    ----------
    gap_decay : float
        Weight of a gap against the one after it, 0 < gap_decay ≤ 1.
    snapshots : int
        0: no correction.
    shrinkage : float
        Ridge of the correction.

    Examples
    --------
    >>> weekly = TrainingSet.of_pairs(np.zeros(5), np.array([0, 0, 0, 0, 1]), n_users=1, n_items=2, age_days=np.array([5.2, 12.2, 19.2, 26.2, 1.2]))
    >>> model = ReplenishRecommender(horizon_days=7).fit(weekly)
    >>> facts = model.evidence(0, 0)
    >>> facts["times"], round(facts["cycle_days"]), round(facts["expected_in_days"])
    (4, 7, 2)
    """

    name: ClassVar[str] = "replenish"
    supports_fold_in: ClassVar[bool] = True
    may_be_short: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    supports_expected_days: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "gap_decay": Span(0.5, 1.0),
        "snapshots": Span(0, 4),
        "shrinkage": Span(1.0, 1000.0, log=True),
    }

    def __init__(
        self, horizon_days: int = 14, gap_decay: float = 0.8, snapshots: int = 2, shrinkage: float = 10.0
    ) -> None:
        self.horizon_days, self.gap_decay, self.snapshots, self.shrinkage = (
            horizon_days,
            gap_decay,
            snapshots,
            shrinkage,
        )

    def _fit(self, train: TrainingSet) -> None:
        data = train.interactions
        if len(data.users) and not data.age_days.any():
            raise DataError("without times nothing is ever due", where=train.source, hint="map `ts` in sources.yaml")
        self.days_ = Days.of(data)
        self.bounds_ = np.searchsorted(self.days_.users, np.arange(train.n_users + 1))
        _, group = np.unique(train.item_attributes["category"], return_inverse=True)
        self.group_ = group.astype(np.int64)
        by_group = self.days_.of_groups(self.group_)
        seen = Seen.at(0.0, self.days_, by_group, self.gap_decay)
        self.population_ = self._population(seen)
        self.correction_ = self._taught(by_group)
        clocks, chances = self._asked(seen)
        habits = seen.habits
        self.chances_ = _rows_of(habits, chances, (train.n_users, train.n_items))
        self.times_, self.quiet_days_ = habits.times.astype(np.int32), habits.quiet_days.astype(np.float32)
        self.cycle_, self.spread_, self.own_ = (
            part.astype(np.float32) for part in (clocks.cycle, clocks.spread, clocks.own)
        )
        pairs = np.searchsorted(
            habits.users * train.n_items + habits.items, data.users.astype(np.int64) * train.n_items + data.items
        )
        self.last_days_ = np.full(len(habits.users), np.inf, dtype=np.float32)
        np.minimum.at(self.last_days_, pairs, data.age_days)

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """What is known of a customer's purchases of an item before the fit; None for never.

        Returns
        -------
        Evidence
            ``times`` (days it was bought on), ``cycle_days`` and whether at least half of it is the customer's ``own_cycle``, ``last_days``, and
            ``expected_in_days``: the cycle less the days since, negative when overdue.
        """
        place = self._place(int(query.users[0]), item)
        if place is None:
            return None
        cycle, last = float(np.exp(self.cycle_[place])), float(self.last_days_[place]) + query.later_days
        return {
            "times": int(self.times_[place]),
            "cycle_days": cycle,
            "own_cycle": bool(self.own_[place] >= 0.5),
            "last_days": last,
            "expected_in_days": cycle - last,
        }

    def expected_days(self, users: Indices, items: Indices, within_days: float | None = None) -> Floats:
        """Days from `as_of` until each pair's next purchase, given the silence so far and that it comes: the median, (m,).

        Parameters
        ----------
        users, items : int arrays, (m,)
        within_days : float, optional
            Given that it comes in so many days.

        Returns
        -------
        ndarray
            > 0; NaN where the user never had the item.
        """
        if not len(self.times_):
            return np.full(len(items), np.nan)
        pairs = sparse.csr_matrix(
            (np.arange(len(self.times_)), self.chances_.indices, self.chances_.indptr), shape=self.chances_.shape
        )[users]
        place = at_pairs(pairs, np.asarray(items)[:, None])[:, 0]
        at = pairs.data[place] if pairs.nnz else np.zeros(len(place), dtype=np.int64)
        cycle, spread, own, quiet_days = (
            part[at].astype(np.float64) for part in (self.cycle_, self.spread_, self.own_, self.quiet_days_)
        )
        clocks = Clocks(cycle, spread, own, np.zeros(len(at)))  # given that it comes, the habit has not ended
        return np.where(place >= 0, clocks.expected_days(quiet_days, within_days), np.nan)

    def _place(self, user: int, item: int) -> int | None:
        if user < 0:
            return None
        start, stop = self.chances_.indptr[user : user + 2]
        place = start + int(np.searchsorted(self.chances_.indices[start:stop], item))
        return None if place == stop or self.chances_.indices[place] != item else int(place)

    def _population(self, seen: Seen) -> Population:
        return Population.of(seen, self.group_, float(np.log(self.horizon_days)))

    def _asked(self, seen: Seen) -> tuple[Clocks, Floats]:
        """Clocks and corrected chances, 0..1."""
        clocks, columns = self.population_.asked(seen, self.group_, self.horizon_days)
        return clocks, corrected(columns, self.correction_)

    def _taught(self, by_group: Days) -> Floats:
        """The correction, learnt from what happened in the last horizons; see `taught`."""
        columns, bought, weights = [], [], []
        width = np.int64(len(self.group_))
        for back in range(1, self.snapshots + 1):
            moment = -back * self.horizon_days
            past = self.days_.where(self.days_.days < moment)
            if not len(past.users) or moment - past.days.min() < self.horizon_days:
                break
            next_ = self.days_.where((self.days_.days >= moment) & (self.days_.days < moment + self.horizon_days))
            seen = Seen.at(moment, past, by_group.where(by_group.days < moment), self.gap_decay)
            _, found = self._population(seen).asked(seen, self.group_, self.horizon_days)
            habits = seen.habits
            again = np.isin(habits.users * width + habits.items, next_.users * width + next_.items)
            if again.sum() < LEAST_PURCHASES:
                continue
            every = max(1, -(-int((~again).sum()) // TAUGHT_BY))  # one in so many without a purchase stands for them
            kept = np.sort(np.concatenate([np.flatnonzero(again), np.flatnonzero(~again)[::every]]))
            columns.append(np.column_stack([column[kept] for column in found]))
            bought.append(again[kept])
            weights.append(np.where(again[kept], 1.0, float(every)))
        if not columns:
            return np.array([[0.0, 0.0, 1.0]])
        return taught(np.concatenate(columns), np.concatenate(bought), np.concatenate(weights), self.shrinkage)

    def _chances(self, query: Query) -> sparse.csr_matrix:
        """Chances of what each user had, (n, n_items)."""
        known = query.users >= 0
        since = query.since
        if query.later_days == 0.0 and (since is None or not len(since.users)):
            now = (
                self.chances_[np.maximum(query.users, 0)]
                if self.n_users_
                else sparse.csr_matrix((len(query), self.n_items_), dtype=np.float32)
            )
            if known.all():
                return now
            now = sparse.diags(known.astype(np.float32)).dot(now).tocsr()
            now.eliminate_zeros()
            return now
        users = query.users[known]
        lengths = self.bounds_[users + 1] - self.bounds_[users]
        places = np.repeat(self.bounds_[users] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        days = self.days_.where(places)
        days = Days(np.repeat(np.flatnonzero(known), lengths), days.items, days.days, days.units)
        if since is not None:
            days = days.joined(Days.of(since, query.later_days))
        seen = Seen.at(query.later_days, days, days.of_groups(self.group_), self.gap_decay)
        return _rows_of(seen.habits, self._asked(seen)[1], (len(query), self.n_items_))

    def _scores(self, query: Query) -> NDArray[np.float32]:
        scores = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        found = self._chances(query).tocoo()
        scores[found.row, found.col] = found.data
        return scores

    def _best(self, query: Query, k: int, barred: Barred) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        return best_of_rows(self._chances(query), k, barred)

    def _scores_at(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        return values_at(self._chances(query), ids)

    def _state(self) -> Arrays:
        days = self.days_
        return {
            **pack_csr("chances", self.chances_),
            **self.population_.state(),
            **{name: getattr(self, f"{name}_") for name in PLAIN},
            "day_users": days.users.astype(np.int32),
            "day_items": days.items.astype(np.int32),
            "days": days.days.astype(np.int32),
            "units": days.units,
        }

    def _restore(self, state: Arrays) -> None:
        self.chances_, self.population_ = unpack_csr("chances", state), Population.restored(state)
        users, items, days = (state[name].astype(np.int64) for name in ("day_users", "day_items", "days"))
        self.days_ = Days(users, items, days, state["units"])
        self.bounds_ = np.searchsorted(users, np.arange(self.n_users_ + 1))
        for name in PLAIN:
            setattr(self, f"{name}_", state[name])


def _rows_of(habits: Habits, values: Floats, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Values of pairs, which are sorted by user and item, as a matrix."""
    bounds = np.searchsorted(habits.users, np.arange(shape[0] + 1))
    return sparse.csr_matrix((values.astype(np.float32), habits.items.astype(np.int32), bounds), shape=shape)
