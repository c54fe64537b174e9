"""`RecommendedRows`: the items of n lists as columns, from which JSON responses and Arrow tables are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rerank import ExplorationResult, Slate
from qianmian.times import SECONDS_PER_DAY
from serving.recommending.pipeline import FIRST_LIST
from serving.recommending.plan import RecommendationPlan

PROMOTION = "promotion"  # the source of promoted items
DIGITS = 6  # decimal places of a score


@dataclass(frozen=True)
class RecommendedRows:
    """The items of n lists as rows, list by list in the order shown.

    Attributes
    ----------
    lists : ndarray of int64, shape (m,)
        Number of the list.
    positions : ndarray of int64, shape (m,)
        Slot in the list, from 0.
    columns : ndarray of int32, shape (m,)
        Column of the item in the model.
    scores : ndarray of float64, shape (m,)
        Score of the item, rounded.
    sources : ndarray of int64, shape (m,)
        Index into `source_names`.
    source_names : tuple of str
        Names of the models that rank items; the last name is ``promotion``.
    promotions : ndarray of int64, shape (m,)
        Index of the promotion that placed the item, −1 for none.
    exploration : ExplorationResult or None
        Exploration of the slate; its arrays have the shape (n, k).
    expected_on : ndarray of datetime64[D], shape (m,), or None
        Day of the expected next purchase, NaT if unknown; None in scenes that do not show it.
    """

    lists: NDArray[np.int64]
    positions: NDArray[np.int64]
    columns: NDArray[np.int32]
    scores: NDArray[np.float64]
    sources: NDArray[np.int64]
    source_names: tuple[str, ...]
    promotions: NDArray[np.int64]
    exploration: ExplorationResult | None
    expected_on: NDArray[np.datetime64] | None

    def __len__(self) -> int:
        return len(self.lists)

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of these rows, shape (m,), from an array of all slots, shape (n, k)."""
        return values[self.lists, self.positions]


def make_rows(plan: RecommendationPlan, slate: Slate, numbers: NDArray[np.int64] = FIRST_LIST) -> RecommendedRows:
    """Make the rows of a slate.

    Parameters
    ----------
    plan : RecommendationPlan
        Plan of the lists.
    slate : Slate
        Lists of the plan, shape (n, k).
    numbers : ndarray of int64, shape (n,)
        Numbers of the slate's lists within the plan; default: the first list.
    """
    ranked = slate.ranked
    lists, positions = np.nonzero(ranked.ids >= 0)
    scores = ranked.scores[lists, positions].astype(np.float64)
    columns, promotions = ranked.ids[lists, positions], slate.promotion[lists, positions]
    return RecommendedRows(
        lists,
        positions,
        columns,
        scores.round(DIGITS),
        np.where(promotions >= 0, len(ranked.sources), ranked.source[lists, positions]),
        (*ranked.sources, PROMOTION),
        promotions,
        slate.exploration_result,
        expected_on(plan, numbers[lists], columns) if plan.scene.shows_expected_on else None,
    )


def expected_on(
    plan: RecommendationPlan, lists: NDArray[np.int64], columns: NDArray[np.int32]
) -> NDArray[np.datetime64]:
    """Day of the expected next purchase of m items, each by the customer of its list.

    Parameters
    ----------
    lists : ndarray of int64, shape (m,)
        Number of the list within the plan.
    columns : ndarray of int32, shape (m,)
        Column of the item.

    Returns
    -------
    ndarray of datetime64[D], shape (m,)
        NaT if the day is unknown. Purchases after the cutoff, and the time that has passed, are taken into account.
    """
    supporting = next((model for model in plan.model.with_submodels() if model.supports_expected_days), None)
    query, days = plan.query, np.full(len(lists), np.nan)
    known = query.users[lists] >= 0
    if supporting is not None and (query.elapsed_days or query.recent_interactions is not None):
        days = supporting.expected_days_now(query, lists, columns)
    elif supporting is not None and known.any():
        days[known] = supporting.expected_days(query.users[lists[known]], columns[known])
    seconds = np.where(np.isnan(days), 0.0, days * SECONDS_PER_DAY).astype("timedelta64[s]")
    moments = (np.datetime64(plan.champion.bundle.as_of, "s") + seconds).astype("datetime64[D]")
    return np.where(np.isnan(days), np.datetime64("NaT", "D"), moments)
