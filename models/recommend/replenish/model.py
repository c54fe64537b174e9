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
    Choice,
    Evidence,
    Indices,
    ItemFilter,
    Query,
    Range,
    Recommender,
    entry_positions,
    top_k_sparse,
    values_at,
)
from models.recommend.replenish.calibration import calibrate, fit_calibration
from models.recommend.replenish.history import Floats, PurchaseDays, PurchaseHistory, PurchaseIntervals
from models.recommend.replenish.repurchase import PopulationPriors, RepurchaseModel
from qianmian.errors import DataError

MAX_CALIBRATION_NEGATIVES = 60_000  # pairs without a purchase that the correction learns from, a snapshot
# saved name → attribute
STATE_KEYS = {
    "group": "group_",
    "correction": "calibration_",
    "times": "times_",
    "quiet_days": "recency_days_",
    "cycle": "cycle_",
    "spread": "spread_",
    "own": "own_",
    "last_days": "last_days_",
}  # of the state
MIN_PURCHASES = 50  # in a rewound horizon, for it to teach anything


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
    >>> weekly = TrainingSet.from_arrays(np.zeros(5), np.array([0, 0, 0, 0, 1]), n_users=1, n_items=2, age_days=np.array([5.2, 12.2, 19.2, 26.2, 1.2]))
    >>> model = ReplenishRecommender(horizon_days=7).fit(weekly)
    >>> facts = model.evidence(0, 0)
    >>> facts["times"], round(facts["cycle_days"]), round(facts["expected_in_days"])
    (4, 7, 2)
    """

    name: ClassVar[str] = "replenish"
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    supports_expected_days: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "gap_decay": Range(0.5, 1.0),
        "snapshots": Range(0, 4),
        "shrinkage": Range(1.0, 1000.0, log=True),
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
        self.days_ = PurchaseDays.of(data)
        self.bounds_ = np.searchsorted(self.days_.users, np.arange(train.n_users + 1))
        _, group = np.unique(train.item_attributes["category"], return_inverse=True)
        self.group_ = group.astype(np.int64)
        by_group = self.days_.by_item_group(self.group_)
        history = PurchaseHistory.at(0.0, self.days_, by_group, self.gap_decay)
        self.population_priors_ = self._population(history)
        self.calibration_ = self._fit_calibration(by_group)
        repurchase_model, chances = self._purchase_probabilities(history)
        intervals = history.intervals
        self.purchase_probabilities_ = _rows_of(intervals, chances, (train.n_users, train.n_items))
        self.times_, self.recency_days_ = intervals.times.astype(np.int32), intervals.recency_days.astype(np.float32)
        self.cycle_, self.spread_, self.own_ = (
            part.astype(np.float32) for part in (repurchase_model.cycle, repurchase_model.spread, repurchase_model.own)
        )
        pairs = np.searchsorted(
            intervals.users * train.n_items + intervals.items, data.users.astype(np.int64) * train.n_items + data.items
        )
        self.last_days_ = np.full(len(intervals.users), np.inf, dtype=np.float32)
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
        cycle, last = float(np.exp(self.cycle_[place])), float(self.last_days_[place]) + query.elapsed_days
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
            (np.arange(len(self.times_)), self.purchase_probabilities_.indices, self.purchase_probabilities_.indptr),
            shape=self.purchase_probabilities_.shape,
        )[users]
        place = entry_positions(pairs, np.asarray(items)[:, None])[:, 0]
        at = pairs.data[place] if pairs.nnz else np.zeros(len(place), dtype=np.int64)
        cycle, spread, own, recency_days = (
            part[at].astype(np.float64) for part in (self.cycle_, self.spread_, self.own_, self.recency_days_)
        )
        repurchase_model = RepurchaseModel(
            cycle, spread, own, np.zeros(len(at))
        )  # given that it comes, the habit has not ended
        return np.where(place >= 0, repurchase_model.expected_days(recency_days, within_days), np.nan)

    def _place(self, user: int, item: int) -> int | None:
        if user < 0:
            return None
        start, stop = self.purchase_probabilities_.indptr[user : user + 2]
        place = start + int(np.searchsorted(self.purchase_probabilities_.indices[start:stop], item))
        return None if place == stop or self.purchase_probabilities_.indices[place] != item else int(place)

    def _population(self, history: PurchaseHistory) -> PopulationPriors:
        return PopulationPriors.of(history, self.group_, float(np.log(self.horizon_days)))

    def _purchase_probabilities(self, history: PurchaseHistory) -> tuple[RepurchaseModel, Floats]:
        """Clocks and corrected chances, 0..1."""
        repurchase_model, columns = self.population_priors_.calibration_inputs(history, self.group_, self.horizon_days)
        return repurchase_model, calibrate(columns, self.calibration_)

    def _fit_calibration(self, by_group: PurchaseDays) -> Floats:
        """The correction, learnt from what happened in the last horizons; see `fit_calibration`."""
        columns, bought, weights = [], [], []
        width = np.int64(len(self.group_))
        for back in range(1, self.snapshots + 1):
            moment = -back * self.horizon_days
            past = self.days_.where(self.days_.days < moment)
            if not len(past.users) or moment - past.days.min() < self.horizon_days:
                break
            next_ = self.days_.where((self.days_.days >= moment) & (self.days_.days < moment + self.horizon_days))
            history = PurchaseHistory.at(moment, past, by_group.where(by_group.days < moment), self.gap_decay)
            _, found = self._population(history).calibration_inputs(history, self.group_, self.horizon_days)
            intervals = history.intervals
            repurchased = np.isin(intervals.users * width + intervals.items, next_.users * width + next_.items)
            if repurchased.sum() < MIN_PURCHASES:
                continue
            every = max(
                1, -(-int((~repurchased).sum()) // MAX_CALIBRATION_NEGATIVES)
            )  # one in so many without a purchase stands for them
            kept = np.sort(np.concatenate([np.flatnonzero(repurchased), np.flatnonzero(~repurchased)[::every]]))
            columns.append(np.column_stack([column[kept] for column in found]))
            bought.append(repurchased[kept])
            weights.append(np.where(repurchased[kept], 1.0, float(every)))
        if not columns:
            return np.array([[0.0, 0.0, 1.0]])
        return fit_calibration(np.concatenate(columns), np.concatenate(bought), np.concatenate(weights), self.shrinkage)

    def _probability_matrix(self, query: Query) -> sparse.csr_matrix:
        """Chances of what each user had, (n, n_items)."""
        known = query.users >= 0
        recent_interactions = query.recent_interactions
        if query.elapsed_days == 0.0 and (recent_interactions is None or not len(recent_interactions.users)):
            now = (
                self.purchase_probabilities_[np.maximum(query.users, 0)]
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
        days = PurchaseDays(np.repeat(np.flatnonzero(known), lengths), days.items, days.days, days.units)
        if recent_interactions is not None:
            days = days.joined(PurchaseDays.of(recent_interactions, query.elapsed_days))
        history = PurchaseHistory.at(query.elapsed_days, days, days.by_item_group(self.group_), self.gap_decay)
        return _rows_of(history.intervals, self._purchase_probabilities(history)[1], (len(query), self.n_items_))

    def _scores(self, query: Query) -> NDArray[np.float32]:
        scores = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        found = self._probability_matrix(query).tocoo()
        scores[found.row, found.col] = found.data
        return scores

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        return top_k_sparse(self._probability_matrix(query), k, item_filter)

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        return values_at(self._probability_matrix(query), ids)

    def _state(self) -> Arrays:
        days = self.days_
        return {
            **pack_csr("chances", self.purchase_probabilities_),
            **self.population_priors_.state(),
            **{key: getattr(self, name) for key, name in STATE_KEYS.items()},
            "day_users": days.users.astype(np.int32),
            "day_items": days.items.astype(np.int32),
            "days": days.days.astype(np.int32),
            "units": days.units,
        }

    def _restore(self, state: Arrays) -> None:
        self.purchase_probabilities_, self.population_priors_ = (
            unpack_csr("chances", state),
            PopulationPriors.restored(state),
        )
        users, items, days = (state[name].astype(np.int64) for name in ("day_users", "day_items", "days"))
        self.days_ = PurchaseDays(users, items, days, state["units"])
        self.bounds_ = np.searchsorted(users, np.arange(self.n_users_ + 1))
        for key, name in STATE_KEYS.items():
            setattr(self, name, state[key])


def _rows_of(intervals: PurchaseIntervals, values: Floats, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Values of pairs, which are sorted by user and item, as a matrix."""
    bounds = np.searchsorted(intervals.users, np.arange(shape[0] + 1))
    return sparse.csr_matrix((values.astype(np.float32), intervals.items.astype(np.int32), bounds), shape=shape)
