"""Training examples of the ranker: candidates of the stages at earlier cutoffs, labelled by the purchases after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.recommend import base
from models.recommend.base import ItemFilter, Query, Recommender
from models.recommend.ranking.candidates import merge_candidates, stage_features, stage_lists
from models.recommend.ranking.features import FEATURES, features
from models.recommend.ranking.histories import Histories
from models.recommend.ranking.item_statistics import ItemStatistics, item_groups, item_prices
from qianmian.errors import DataError

MIN_ITEM_CUSTOMERS = 5  # the default of `training_set`


@dataclass(frozen=True)
class RankingExamples:
    """Labelled candidates of customers.

    Attributes
    ----------
    features : ndarray of float32, (m, f)
        The columns of `FEATURES`, then two columns per stage.
    labels : ndarray of float32, (m,)
        1 where the customer bought the item within the horizon, else 0.
    groups : ndarray of int64, (m,)
        Index of the candidate list, ascending from 0; each list belongs to one customer and cutoff.
    weights : ndarray of float32, (m,)
        Number of candidates that each sampled candidate represents.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32]
    groups: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def concatenate(cls, parts: Sequence[RankingExamples]) -> RankingExamples:
        """Concatenate examples; groups of different parts stay different."""
        offsets = np.cumsum([0, *(int(part.groups.max(initial=-1)) + 1 for part in parts)])
        return cls(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.groups + offset for part, offset in zip(parts, offsets[:-1], strict=True)]),
            np.concatenate([part.weights for part in parts]),
        )


@dataclass(frozen=True)
class ExampleSampler:
    """Samples examples from earlier cutoffs, with the parameters of `TwoStageRecommender`.

    Attributes
    ----------
    fit_stages : callable
        Fits the stages on a training set.
    widths : sequence of int
        Number of candidates of each stage.
    from_history : sequence of bool
        Whether each stage ranks only items that the customer has bought.
    """

    target: str
    horizon_days: float
    cuts: int
    users_per_cut: int
    negatives_per_positive: float
    seed: int
    fit_stages: Callable[[TrainingSet], Sequence[Recommender]]
    widths: Sequence[int]
    from_history: Sequence[bool]

    def sample(self, train: TrainingSet) -> RankingExamples:
        """Return the examples of all cutoffs.

        Raises
        ------
        DataError
            The history is shorter than two horizons.
        """
        cuts = self.cut_days(train)
        return RankingExamples.concatenate([self.without_excess_negatives(self.at_cut(train, days)) for days in cuts])

    def cut_days(self, train: TrainingSet) -> list[float]:
        """Return the days from each cutoff to the end of the history."""
        span = float(train.interactions.age_days.max(initial=0.0))
        # the history before a cutoff must be at least as long as the horizon after it
        days = [step * self.horizon_days for step in range(1, self.cuts + 1) if (step + 1) * self.horizon_days <= span]
        if not days:
            too_short = "the history is too short to train the ranker"
            no_times = "the data have no times, so the ranker has no earlier cutoffs to learn from"
            raise DataError(
                too_short if span else no_times,
                where="two_stage",
                got=f"{span:.0f} days",
                allowed=f"at least {2 * self.horizon_days:.0f} days",
                hint="ingest a longer history, lower horizon_days, or use the models of the first stage alone",
            )
        return days

    def at_cut(self, train: TrainingSet, days: float) -> RankingExamples:
        """Return the labelled candidates at the cutoff `days` before the end of the history."""
        past, n_items = train.with_earlier_cutoff(days), train.n_items
        ages = train.interactions.age_days
        future = train.interactions.where((ages <= days) & (ages > days - self.horizon_days))
        # an item with too few customers before the cutoff would not have been in the catalogue
        customers = past.item_customers
        known = customers >= min(MIN_ITEM_CUSTOMERS, int(train.item_customers[train.item_customers > 0].min()))
        wanted = np.unique(future.users.astype(np.int64) * n_items + future.items)
        wanted = wanted[known[wanted % n_items]]
        interacted = past.interactions.matrix()
        if self.target == "new":
            owners = np.repeat(np.arange(train.n_users), np.diff(interacted.indptr))
            wanted = np.setdiff1d(wanted, owners * n_items + interacted.indices)
        users = np.intersect1d(wanted // n_items, np.flatnonzero(np.diff(interacted.indptr)))
        if len(users) > self.users_per_cut:
            users = np.sort(np.random.default_rng(self.seed).choice(users, self.users_per_cut, replace=False))
        if not len(users):
            nothing = np.empty(0, np.float32)
            width = len(FEATURES) + 2 * len(self.widths)
            return RankingExamples(np.empty((0, width), np.float32), nothing, np.empty(0, np.int64), nothing)
        models, codes = self.fit_stages(past), item_groups(train.item_attributes)
        histories = past.memoize("histories", lambda: Histories.of(past.interactions, codes))
        statistics = ItemStatistics.of(histories, n_items, codes, item_prices(train))
        parts, block = [], max(1, base.BLOCK_CELLS // n_items)
        for start in range(0, len(users), block):
            query = Query(users[start : start + block])
            own = interacted[query.users] if self.target == "new" else None
            lists = stage_lists(models, self.widths, query, ItemFilter(known, own))
            found = merge_candidates(lists, self.from_history)
            rows, places = np.nonzero(found.ids >= 0)
            ids = found.ids[rows, places]
            columns = stage_features(models, self.widths, query, found.ids, lists)[rows, places]
            X = np.concatenate([features(histories, statistics, query.users[rows], ids), columns], axis=1)
            parts.append((X, np.isin(query.users[rows] * n_items + ids, wanted).astype(np.float32), rows + start))
        X, y, groups = (np.concatenate(column) for column in zip(*parts, strict=True))
        return RankingExamples(X, y, groups, np.ones(len(y), dtype=np.float32))

    def without_excess_negatives(self, examples: RankingExamples) -> RankingExamples:
        """Sample at most `negatives_per_positive` negatives per positive; their weights represent the dropped ones."""
        positive = examples.labels > 0
        positives = int(positive.sum())
        share = min(1.0, self.negatives_per_positive * positives / max(len(examples) - positives, 1))
        if share == 1.0 or not positives:
            return examples
        kept = positive | (np.random.default_rng(self.seed).random(len(examples)) < share)
        return RankingExamples(
            examples.features[kept],
            examples.labels[kept],
            examples.groups[kept],
            np.where(positive[kept], 1.0, 1.0 / share).astype(np.float32),
        )
