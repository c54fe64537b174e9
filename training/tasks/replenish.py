"""`replenish`: which of the items a customer buys repeatedly are due in the next two weeks, and on which day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender, entry_positions
from models.recommend.replenish.history import PurchaseDays, PurchaseIntervals, group_sums
from models.recommend.sampling import learning_sample
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.tasks.base import Task, make_recommender, of_sampled_customers

HORIZON_DAYS = 14
MIN_PURCHASE_DAYS = 2  # purchase days of an item; one day gives no interval
MAX_LIST_LENGTH = 300  # limit of the evaluated slots; a household repeats fewer purchases in a month
GAP_LINES = 500_000  # interactions that the mean gaps of items, a baseline, are counted in
Values = NDArray[np.float64]


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the repurchase model; own purchases with time decay; last purchases; own purchase counts."""
    return {
        "replenish": make_recommender("replenish", settings, seed),
        "repeat": make_recommender("repeat", settings, seed),
        "recency": make_recommender("repeat", settings, seed, half_life_days=3.0),
        "own purchase counts": make_recommender("repeat", settings, seed, half_life_days=None),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """Customers who buy an item again in the first `HORIZON_DAYS` of the test period.

    Only items bought on at least `MIN_PURCHASE_DAYS` days count. The horizon is two weeks: within four weeks nearly all
    items are due, so that purchase counts alone would predict them; within two weeks items bought recently are not due.
    """
    soon = holdout.where(holdout.age_days > _window_days(holdout) - HORIZON_DAYS)
    before, soon = of_sampled_customers(train.interactions, soon, seed)
    intervals = PurchaseIntervals.at(0.0, PurchaseDays.of(before), 1.0)
    repeated = intervals.times >= MIN_PURCHASE_DAYS
    eligible = interaction_matrix(intervals.users[repeated], intervals.items[repeated], holdout.shape)
    truth = interaction_matrix(soon.users, soon.items, holdout.shape).multiply(eligible).tocsr()
    truth.sort_indices()
    users = np.flatnonzero(np.diff(truth.indptr) > 0)
    seldom = interaction_matrix(intervals.users[~repeated], intervals.items[~repeated], holdout.shape)[users]
    return EvaluationSplit(
        train, users, truth[users], exclude=np.split(seldom.indices, seldom.indptr[1:-1]) if len(users) else []
    )


def extra_metrics(model: Recommender, examples: EvaluationSplit, holdout: Interactions) -> Mapping[str, Values]:
    """Order of the repeat purchases in time, and the error of the expected day for models that predict it.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        NaN for a customer without repeat purchases in the test period.

        - ``sooner_first``: concordance index, the share of pairs of repeat purchases in which the item bought first is
          ranked higher (½ for a tie).
        - ``day_error``: mean absolute error in days of the expected day of each repeat purchase.
        - ``day_error_own_gap``, ``day_error_item_gap``: the same for the geometric mean gap between purchases of the
          item, of the customer and of all customers.
        - ``day_error_middle``: the same for the middle of the test period.

        All four predictions are limited to the test period.
    """
    n = len(examples)
    intervals = _intervals(examples.train.interactions, examples.users)
    most = min(int(np.bincount(intervals.users[intervals.times >= MIN_PURCHASE_DAYS]).max(initial=1)), MAX_LIST_LENGTH)
    ranked = examples.recommend_with(model, most)
    row, place = np.nonzero(ranked.ids >= 0)
    item = ranked.ids[row, place].astype(np.int64)
    window = _window_days(holdout)
    day = _days_to_first_purchase(holdout, window)[examples.users]
    at = entry_positions(day, np.where(ranked.ids >= 0, ranked.ids, -1))[row, place]
    came = at >= 0
    days = day.data[at[came]] if came.any() else np.empty(0)
    found: dict[str, Values] = {"sooner_first": concordance_index(row[came], place[came], days, n)}
    if model.supports_expected_days:
        users, items = examples.users[row[came]], item[came]
        pair = np.searchsorted(intervals.users * holdout.shape[1] + intervals.items, users * holdout.shape[1] + items)
        quiet = intervals.recency_days[pair]
        own = np.exp(intervals.log_gaps / np.maximum(intervals.gaps, 1.0))[pair]
        of_item = _item_gaps(learning_sample(examples.train, GAP_LINES))[items]
        estimates = {
            "day_error": model.expected_days(users, items, window),
            "day_error_own_gap": np.clip(own - quiet, 0.5, window),
            "day_error_item_gap": np.clip(of_item - quiet, 0.5, window),
            "day_error_middle": np.full(len(days), window / 2.0),
        }
        found |= {name: _mean_per_user(row[came], np.abs(guess - days), n) for name, guess in estimates.items()}
    return found


def _intervals(data: Interactions, users: NDArray[np.integer[Any]]) -> PurchaseIntervals:
    """Statistics of the purchase days of some users."""
    mask = np.zeros(data.shape[0], dtype=bool)
    mask[users] = True
    return PurchaseIntervals.at(0.0, PurchaseDays.of(data.where(mask[data.users])), 1.0)


def _item_gaps(train: TrainingSet) -> Values:
    """Geometric mean gap of each item in days over all customers, shape (n_items,)."""
    intervals = PurchaseIntervals.at(0.0, PurchaseDays.of(train.interactions), 1.0)
    sums, gaps = (group_sums(intervals.items, values, train.n_items) for values in (intervals.log_gaps, intervals.gaps))
    found: Values = np.exp(sums / np.maximum(gaps, 1.0))
    return found


def concordance_index(rows: NDArray[Any], positions: NDArray[Any], days: NDArray[Any], n: int) -> Values:
    """Share of a customer's pairs of items that are ranked in the order of their days (Harrell's concordance index).

    Parameters
    ----------
    rows, positions, days : ndarray, shape (m,)
        Customer, rank and day of each item; `rows` is sorted.
    n : int
        Number of customers.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN for a customer without two different days.

    Examples
    --------
    >>> concordance_index(np.array([0, 0, 0]), np.array([0, 1, 2]), np.array([1.0, 5.0, 3.0]), 1).round(3).tolist()
    [0.667]
    """
    right, pairs = np.zeros(n), np.zeros(n)
    for apart in range(1, int(np.bincount(rows).max(initial=1))):
        both = rows[apart:] == rows[:-apart]
        later = (days[apart:] - days[:-apart])[both]
        lower = (positions[apart:] - positions[:-apart])[both]
        row = rows[apart:][both]
        differ = later != 0
        pairs += group_sums(row[differ], differ[differ], n)
        right += group_sums(row[differ], (np.sign(later) == np.sign(lower))[differ] + 0.5 * (lower == 0)[differ], n)
    return _safe_divide(right, pairs)


def _window_days(holdout: Interactions) -> float:
    """Length of the test period in days, assuming that there are purchases on its first day."""
    return float(np.ceil(holdout.age_days.max(initial=0.0)))


def _days_to_first_purchase(holdout: Interactions, window: float) -> sparse.csr_matrix:
    """Days from the start of the test period to the first purchase of each (user, item) pair, > 0."""
    order = np.lexsort((-holdout.age_days, holdout.items, holdout.users))
    users, items, ages = holdout.users[order], holdout.items[order], holdout.age_days[order]
    first = np.ones(len(users), dtype=bool)
    first[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    return sparse.csr_matrix(
        (np.maximum(window - ages[first], 1e-3), (users[first], items[first])), shape=holdout.shape
    )


def _mean_per_user(rows: NDArray[Any], values: NDArray[Any], n: int) -> Values:
    return _safe_divide(group_sums(rows, values, n), group_sums(rows, np.ones(len(rows)), n))


def _safe_divide(sums: Values, number: Values) -> Values:
    found = np.full(len(sums), np.nan)
    np.divide(sums, number, out=found, where=number > 0)
    return found


TASK = Task(
    "replenish",
    f"which items bought on {MIN_PURCHASE_DAYS} days or more a customer will buy again in {HORIZON_DAYS} days; "
    "relevant are those bought",
    candidates,
    examples,
    tuned_models=("replenish",),
    extra_metrics=extra_metrics,
)
