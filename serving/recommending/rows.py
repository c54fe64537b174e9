"""`RecommendedRows`: the items of n lists as columns, which JSON and Arrow are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rerank import ExplorationResult, Slate
from qianmian.times import SECONDS_PER_DAY
from serving.recommending.catalogue import expected_days
from serving.recommending.plan import RecommendationPlan

PROMOTION = "promotion"  # the source of promoted items
DIGITS = 6  # of a score


@dataclass(frozen=True)
class RecommendedRows:
    """The items of n lists, list by list in the order shown; every array is (m,).

    Attributes
    ----------
    lists : ndarray of int64
        Number of the list.
    positions : ndarray of int64
        Place in it, from 0.
    columns : ndarray of int32
        The item, as column of the model.
    scores : ndarray of float64
        Rounded.
    sources : ndarray of int64
        Index into `source_names`; the last is that of promotions.
    promotions : ndarray of int64
        Which promotion put the item there, −1 for none.
    exploration : ExplorationResult or None
        As in `Slate`, (n, k).
    expected_on : ndarray of datetime64[D] or None
        The day on which the customer is expected to want the item again, NaT unknown; only in scenes that show it.
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

    def of_entries(self, values: NDArray[Any]) -> NDArray[Any]:
        """The entries of an array by list and place, (n, k), that belong to these rows."""
        return values[self.lists, self.positions]


def make_rows(plan: RecommendationPlan, slate: Slate, first: int = 0) -> RecommendedRows:
    """The rows of a slate, whose first list is the plan's number `first`."""
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
        expected_on(plan, first + lists, columns) if plan.scene.shows_expected_on else None,
    )


def expected_on(
    plan: RecommendationPlan, lists: NDArray[np.int64], columns: NDArray[np.int32]
) -> NDArray[np.datetime64]:
    """The day on which the customer of each list is expected to want an item again, NaT where it is unknown or the item was bought since the fit, (m,)."""
    users, n_items = plan.query.users[lists], np.int64(len(plan.catalogue.item_ids))
    days = np.full(len(lists), np.nan)
    known = users >= 0
    if (recent := plan.query.recent_interactions) is not None:
        known &= ~np.isin(lists * n_items + columns, recent.users * n_items + recent.items)
    if known.any() and (found := expected_days(plan.model, users[known], columns[known])) is not None:
        days[known] = found
    seconds = np.where(np.isnan(days), 0.0, days * SECONDS_PER_DAY).astype("timedelta64[s]")
    moments = (np.datetime64(plan.champion.bundle.as_of, "s") + seconds).astype("datetime64[D]")
    return np.where(np.isnan(days), np.datetime64("NaT", "D"), moments)
