"""Replenishment: the purchase cycle of each customer and item, pooled with those of others if the history is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
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
    rows_of,
    top_k_sparse,
    values_at,
)
from models.recommend.replenish.calibration import calibrate, fit_calibration
from models.recommend.replenish.history import Floats, PurchaseDays, PurchaseHistory, PurchaseIntervals
from models.recommend.replenish.repurchase import PopulationPriors, RepurchaseModel
from models.recommend.sampling import customer_blocks, learning_sample
from models.user_arrays import UserLines, UserMatrix
from qianmian.errors import DataError

MAX_CALIBRATION_NEGATIVES = 60_000  # pairs without a purchase per snapshot that the calibration is fitted on
BLOCK_LINES = 500_000  # interactions whose pairs are computed at a time: 0.3 GB
PAIRS_AT_ONCE = 10_000  # whose customers are read at a time: 0.1 GB
LEARNING_LINES = 1_000_000  # interactions that priors and calibration are estimated from: 0.5 GB
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
}
MIN_PURCHASES = 50  # smallest number of repurchases of a snapshot that the calibration uses


class ReplenishRecommender(Recommender):
    """Scores the items that a customer has bought by the probability of a repurchase in the next `horizon_days`.

    The days between two purchases of an item by a customer are log-normal. With log gaps g of the customer, where later
    gaps have more weight, the cycle is

        μ = κ ḡ + (1 − κ) μ_item + β (log units of the last purchase − their mean),   κ = n τ² / (n τ² + σ²).

    This is the James–Stein shrinkage of Efron & Morris (1975), level by level: the pair towards the item, the item
    towards its category, the category towards all items. τ² is estimated by moments (DerSimonian & Laird 1986), σ²
    within pairs. A customer with one purchase has the cycle of the item; an item without repurchases has that of its
    category. After each purchase, the customer stops buying the item with the dropout probability p, which falls with
    the number of purchases as in BG/NBD (Fader, Hardie & Lee 2005). After t days without a purchase,

        P(purchase in the next h days | none in t days) = (1 − p) (S(t) − S(t + h)) / ((1 − p) S(t) + p),

    where S is the survival function of the gap. The probability rises until the purchase is due and falls when it is
    long overdue. A ridge logistic regression calibrates its log-odds with further features: the repurchase rate and the
    sales trend of the item, other purchases in its category, and the activity of the customer. It is fitted on the data
    at `snapshots` earlier cutoffs, one horizon apart, and left out if the history is too short.

    Only items that the customer has bought are candidates. A purchase after the fit restarts the cycle, and elapsed
    days change the probabilities.

    Parameters
    ----------
    horizon_days : int
        Length of the predicted period in days.
    gap_decay : float
        Weight of a gap relative to the following one, 0 < gap_decay ≤ 1.
    snapshots : int
        Number of earlier cutoffs for the calibration; 0 for no calibration.
    shrinkage : float
        Ridge penalty of the calibration.

    Examples
    --------
    >>> ages = np.array([5.2, 12.2, 19.2, 26.2, 1.2])
    >>> items = np.array([0, 0, 0, 0, 1])
    >>> weekly = TrainingSet.from_arrays(np.zeros(5), items, n_users=1, n_items=2, age_days=ages)
    >>> model = ReplenishRecommender(horizon_days=7).fit(weekly)
    >>> facts = model.evidence(0, 0)
    >>> facts["times"], round(facts["cycle_days"]), round(facts["expected_in_days"])
    (4, 7, 2)
    """

    name: ClassVar[str] = "replenish"
    user_arrays = (
        *Recommender.user_arrays,
        UserMatrix("chances", ("times", "quiet_days", "cycle", "spread", "own", "last_days")),
        UserLines("day_users", ("day_items", "days", "units")),
    )
    cpu_seconds_per_line: ClassVar[float] = 1.1e-6
    cpu_seconds_per_learnt_line: ClassVar[float] = 1.1e-6
    bytes_per_learnt_line: ClassVar[float] = 450.0
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    supports_purchase_evidence: ClassVar[bool] = True
    supports_expected_days: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "gap_decay": Range(0.5, 1.0),
        "snapshots": Range(0, 4),
        "shrinkage": Range(1.0, 1000.0, log=True),
    }

    def __init__(
        self, horizon_days: int = 14, gap_decay: float = 0.8, snapshots: int = 2, shrinkage: float = 10.0
    ) -> None:
        self.horizon_days, self.gap_decay = horizon_days, gap_decay
        self.snapshots, self.shrinkage = snapshots, shrinkage

    def _fit(self, train: TrainingSet) -> None:
        data = train.interactions
        if len(data.users) and not data.age_days.any():
            raise DataError(
                "the replenishment model needs purchase times", where=train.source, hint="map `ts` in sources.yaml"
            )
        _, group = np.unique(train.item_attributes["category"], return_inverse=True)
        self.group_ = group.astype(np.int64)
        self._learn(learning_sample(train, LEARNING_LINES))
        blocks = [self._pairs_of(data.where(block)) for block in customer_blocks(data.users, BLOCK_LINES)]
        blocks = blocks or [self._pairs_of(data)]
        # column by column, so that the blocks are freed on the way
        columns = {name: np.concatenate([block.pop(name) for block in blocks]) for name in list(blocks[0])}
        self.days_ = PurchaseDays(*(columns[name] for name in ("day_users", "day_items", "days", "units")))
        self.bounds_ = np.searchsorted(self.days_.users, np.arange(train.n_users + 1))
        ends = np.searchsorted(columns["users"], np.arange(train.n_users + 1))
        self.purchase_probabilities_ = sparse.csr_matrix(
            (columns["probabilities"], columns["items"], ends), shape=(train.n_users, train.n_items)
        )
        self.times_, self.recency_days_ = columns["times"], columns["recency_days"]
        self.cycle_, self.spread_, self.own_ = (columns[name] for name in ("cycle", "spread", "own"))
        self.last_days_ = columns["last_days"]

    def _learn(self, sample: TrainingSet) -> None:
        """Estimate the priors and the calibration, which hold for all customers, from the `learning_sample`."""
        days = PurchaseDays.of(sample.interactions)
        by_group = days.by_item_group(self.group_)
        self.population_priors_ = self._population(PurchaseHistory.at(0.0, days, by_group, self.gap_decay))
        self.calibration_ = self._fit_calibration(days, by_group)

    def _pairs_of(self, data: Interactions) -> dict[str, NDArray[Any]]:
        """Return the purchase days of some customers and the statistics of their pairs, by name."""
        days = PurchaseDays.of(data)
        history = PurchaseHistory.at(0.0, days, days.by_item_group(self.group_), self.gap_decay)
        repurchase_model, probabilities = self._purchase_probabilities(history)
        intervals, n_items = history.intervals, data.shape[1]
        pairs = np.searchsorted(
            intervals.users * n_items + intervals.items, data.users.astype(np.int64) * n_items + data.items
        )
        last_days = np.full(len(intervals.users), np.inf, dtype=np.float32)
        np.minimum.at(last_days, pairs, data.age_days)
        return {
            "day_users": days.users.astype(np.int32),
            "day_items": days.items.astype(np.int32),
            "days": days.days.astype(np.int32),
            "units": days.units,
            "users": intervals.users.astype(np.int32),
            "items": intervals.items.astype(np.int32),
            "probabilities": probabilities.astype(np.float32),
            "times": intervals.times.astype(np.int32),
            "recency_days": intervals.recency_days.astype(np.float32),
            "cycle": repurchase_model.cycle.astype(np.float32),
            "spread": repurchase_model.spread.astype(np.float32),
            "own": repurchase_model.own.astype(np.float32),
            "last_days": last_days,
        }

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return evidence of a customer's purchases of an item before the fit, or None if there are none.

        Returns
        -------
        Evidence or None
            ``times`` (number of purchase days), ``cycle_days``, ``own_cycle`` (whether the weight of the customer's own
            gaps is at least half), ``last_days``, and ``expected_in_days`` (the cycle minus the days since the last
            purchase, negative when overdue).
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
        """Predict the median of the days until the next purchase of each pair, if there is one.

        Parameters
        ----------
        users, items : int arrays, (m,)
            Pairs of a user and an item.
        within_days : float, optional
            If given, the median is conditional on a purchase within this many days.

        Returns
        -------
        ndarray of float64, (m,)
            Days from the `as_of` of the fit, > 0; NaN if the user has not bought the item.
        """
        if not len(self.times_):
            return np.full(len(items), np.nan)
        pairs = sparse.csr_matrix(
            (np.arange(len(self.times_)), self.purchase_probabilities_.indices, self.purchase_probabilities_.indptr),
            shape=self.purchase_probabilities_.shape,
        )
        at = np.full(len(items), -1, dtype=np.int64)
        for start in range(0, len(items), PAIRS_AT_ONCE):
            block = slice(start, start + PAIRS_AT_ONCE)
            of_users = pairs[users[block]]
            place = entry_positions(of_users, np.asarray(items[block])[:, None])[:, 0]
            at[block][place >= 0] = of_users.data[place[place >= 0]]
        return _expected_days(self.cycle_, self.spread_, self.recency_days_, at, within_days)

    def expected_days_now(self, query: Query, rows: Indices, items: Indices) -> Floats:
        """Predict the median of the days until the next purchase of each pair after the moment of the query.

        Parameters
        ----------
        query : Query
            With what its users have bought after the fit, and the days that have passed.
        rows, items : int arrays, (m,)
            Rows of the query, and items.

        Returns
        -------
        ndarray of float64, (m,)
            Days from the `as_of` of the fit, > `query.elapsed_days`; NaN if the user has not bought the item.
        """
        history, repurchase_model, _ = self._now(query)
        intervals = history.intervals
        if not len(intervals.users):
            return np.full(len(items), np.nan)
        keys = intervals.users * self.n_items_ + intervals.items
        wanted = np.asarray(rows, dtype=np.int64) * self.n_items_ + items
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        at = np.where(keys[at] == wanted, at, -1)
        model = repurchase_model
        return query.elapsed_days + _expected_days(model.cycle, model.spread, intervals.recency_days, at)

    def _place(self, user: int, item: int) -> int | None:
        if user < 0:
            return None
        start, stop = self.purchase_probabilities_.indptr[user : user + 2]
        place = start + int(np.searchsorted(self.purchase_probabilities_.indices[start:stop], item))
        return None if place == stop or self.purchase_probabilities_.indices[place] != item else int(place)

    def _population(self, history: PurchaseHistory) -> PopulationPriors:
        return PopulationPriors.of(history, self.group_, float(np.log(self.horizon_days)))

    def _purchase_probabilities(self, history: PurchaseHistory) -> tuple[RepurchaseModel, Floats]:
        """Return the repurchase model and the calibrated probabilities, 0 … 1, of the pairs."""
        repurchase_model, columns = self.population_priors_.calibration_inputs(history, self.group_, self.horizon_days)
        return repurchase_model, calibrate(columns, self.calibration_)

    def _fit_calibration(self, days: PurchaseDays, by_group: PurchaseDays) -> Floats:
        """Fit the calibration on the purchases after earlier cutoffs; see `fit_calibration`."""
        columns, bought, weights = [], [], []
        width = np.int64(len(self.group_))
        for back in range(1, self.snapshots + 1):
            moment = -back * self.horizon_days
            past = days.where(days.days < moment)
            if not len(past.users) or moment - past.days.min() < self.horizon_days:
                break
            next_ = days.where((days.days >= moment) & (days.days < moment + self.horizon_days))
            history = PurchaseHistory.at(moment, past, by_group.where(by_group.days < moment), self.gap_decay)
            _, found = self._population(history).calibration_inputs(history, self.group_, self.horizon_days)
            intervals = history.intervals
            repurchased = np.isin(intervals.users * width + intervals.items, next_.users * width + next_.items)
            if repurchased.sum() < MIN_PURCHASES:
                continue
            every = max(1, -(-int((~repurchased).sum()) // MAX_CALIBRATION_NEGATIVES))  # sampling step of negatives
            kept = np.sort(np.concatenate([np.flatnonzero(repurchased), np.flatnonzero(~repurchased)[::every]]))
            columns.append(np.column_stack([column[kept] for column in found]))
            bought.append(repurchased[kept])
            weights.append(np.where(repurchased[kept], 1.0, float(every)))
        if not columns:
            return np.array([[0.0, 0.0, 1.0]])
        return fit_calibration(np.concatenate(columns), np.concatenate(bought), np.concatenate(weights), self.shrinkage)

    def _probability_matrix(self, query: Query) -> sparse.csr_matrix:
        """Return the purchase probabilities of the items that each user has bought, (n, n_items)."""
        recent_interactions = query.recent_interactions
        if query.elapsed_days == 0.0 and (recent_interactions is None or not len(recent_interactions.users)):
            return rows_of(self.purchase_probabilities_, query.users)
        history, _, probabilities = self._now(query)
        return _rows_of(history.intervals, probabilities, (len(query), self.n_items_))

    def _now(self, query: Query) -> tuple[PurchaseHistory, RepurchaseModel, Floats]:
        """Return the purchases of a query up to its moment, and the model and the probabilities of their pairs."""
        return query.memoize(self, lambda: self._computed_now(query))

    def _computed_now(self, query: Query) -> tuple[PurchaseHistory, RepurchaseModel, Floats]:
        known, recent_interactions = query.users >= 0, query.recent_interactions
        users = query.users[known]
        lengths = self.bounds_[users + 1] - self.bounds_[users]
        places = np.repeat(self.bounds_[users] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        days = self.days_.where(places)
        ids, when = days.items.astype(np.int64), days.days.astype(np.int64)
        days = PurchaseDays(np.repeat(np.flatnonzero(known), lengths), ids, when, days.units)
        if recent_interactions is not None:
            days = days.joined(PurchaseDays.of(recent_interactions, query.elapsed_days))
        history = PurchaseHistory.at(query.elapsed_days, days, days.by_item_group(self.group_), self.gap_decay)
        return history, *self._purchase_probabilities(history)

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
            "day_users": days.users,
            "day_items": days.items,
            "days": days.days,
            "units": days.units,
        }

    def _restore(self, state: Arrays) -> None:
        self.purchase_probabilities_ = unpack_csr("chances", state)
        self.population_priors_ = PopulationPriors.restored(state)
        self.days_ = PurchaseDays(*(state[name] for name in ("day_users", "day_items", "days", "units")))
        self.bounds_ = np.searchsorted(self.days_.users, np.arange(self.n_users_ + 1))
        for key, name in STATE_KEYS.items():
            setattr(self, name, state[key])


def _rows_of(intervals: PurchaseIntervals, values: Floats, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Convert values of pairs, which are sorted by user and item, to a matrix."""
    bounds = np.searchsorted(intervals.users, np.arange(shape[0] + 1))
    return sparse.csr_matrix((values.astype(np.float32), intervals.items.astype(np.int32), bounds), shape=shape)


def _expected_days(
    cycle: Floats, spread: Floats, recency_days: Floats, at: Indices, within_days: float | None = None
) -> Floats:
    """Median days to the next purchase of the pairs at some places, NaN where a place is negative."""
    cycle, spread, recency_days = (part[at].astype(np.float64) for part in (cycle, spread, recency_days))
    # the dropout probability is 0, because the expectation is conditional on a purchase
    chosen = RepurchaseModel(cycle, spread, np.zeros(len(cycle)), np.zeros(len(cycle)))
    return np.where(np.asarray(at) >= 0, chosen.expected_days(recency_days, within_days), np.nan)
