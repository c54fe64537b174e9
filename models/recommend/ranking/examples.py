"""Training examples of the ranker: candidates of the stages at earlier cutoffs, labelled by the purchases after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.parallel import return_freed_memory
from models.recommend import base
from models.recommend.base import ItemFilter, Query, Recommender
from models.recommend.ranking.candidates import merge_candidates, stage_features, stage_lists
from models.recommend.ranking.features import FEATURES, features
from models.recommend.ranking.histories import Histories, lines_of
from models.recommend.ranking.item_statistics import item_groups, item_statistics
from models.recommend.ranking.promotions import PlannedPromotions, promotion_columns, promotion_feature_names
from models.recommend.ranking.spool import SpooledRows
from models.recommend.ranking.type_features import TypedInteractions, type_columns, type_width
from qianmian.errors import DataError

MIN_ITEM_CUSTOMERS = 5  # the default of `training_set`
MIN_POSITIVES = 20  # smallest number of positive examples to train on
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RankingExamples:
    """Labelled candidates of customers. The features are on disk, everything else in memory.

    Attributes
    ----------
    parts : list of SpooledRows, (m, f) together
        The columns of `FEATURES`, then two columns per stage.
    labels : ndarray of float32, (m,)
        1 where the customer bought the item within the horizon, else 0.
    groups : ndarray of int64, (m,)
        Index of the candidate list, ascending from 0; each list belongs to one customer and cutoff.
    weights : ndarray of float32, (m,)
        Number of candidates that each sampled candidate represents.
    """

    parts: list[SpooledRows]
    labels: Floats
    groups: Ints
    weights: Floats

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def features(self) -> Floats:
        """All features in memory, (m, f)."""
        return np.concatenate([part.array() for part in self.parts])

    @property
    def has_both_labels(self) -> bool:
        """Whether there are at least `MIN_POSITIVES` positives, and negatives."""
        return MIN_POSITIVES <= int(np.count_nonzero(self.labels)) < len(self)

    def first(self, rows: int) -> tuple[Floats, Ints]:
        """Return the features, (n, f), and the lists, (n,), of the first blocks that together have `rows` rows."""
        blocks, n = [np.empty((0, self.parts[0].width), np.float32)], 0
        for block in (block for part in self.parts for block in part.blocks()):
            blocks.append(block)
            n += len(block)
            if n >= rows:
                break
        return np.concatenate(blocks), self.groups[:n]

    @classmethod
    def none(cls, width: int) -> RankingExamples:
        """Return no examples, of `width` features."""
        nothing = np.empty(0, dtype=np.float32)
        return cls([SpooledRows(width)], nothing, np.empty(0, dtype=np.int64), nothing)

    @classmethod
    def concatenate(cls, parts: Sequence[RankingExamples]) -> RankingExamples:
        """Concatenate examples; groups of different parts stay different."""
        offsets = np.cumsum([0, *(int(part.groups.max(initial=-1)) + 1 for part in parts)])
        return cls(
            [rows for part in parts for rows in part.parts],
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
    types : tuple of int
        The types of interaction that have features (`type_features`); empty if there is only one.
    stages : str
        Names and parameters of the stages; examples of the same stages are made once for a cutoff.
    promotion_kinds : tuple of str or None
        The kinds of promotion that have features (`promotions`); None without promotions.
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
    types: tuple[int, ...] = ()
    stages: str = ""
    promotion_kinds: tuple[str, ...] | None = None

    def samples(self, train: TrainingSet, latest_alone: bool) -> list[RankingExamples]:
        """Return the examples of all cutoffs and, if `latest_alone`, those of the latest cutoff as a second sample.

        There is no second sample if it would be the same as the first, or has too few positives or no negatives.

        Raises
        ------
        DataError
            The history is shorter than two horizons, or too few candidates are positive, or none is negative.
        """
        by_cutoff = [self.at_cut(train, days) for days in self.cut_days(train)]
        examples = RankingExamples.concatenate(by_cutoff)
        if not examples.has_both_labels:
            raise DataError(
                "too few candidates were bought after the cutoffs to train the ranker",
                where="two_stage",
                got=f"{np.count_nonzero(examples.labels)} of {len(examples)} candidates",
                allowed=f"at least {MIN_POSITIVES}",
                hint="use a longer history or a longer horizon_days, or the models of the first stage alone",
            )
        latest = by_cutoff[0]
        is_other = len(latest) < len(examples) and latest.has_both_labels
        return [examples, latest] if latest_alone and is_other else [examples]

    def cut_days(self, train: TrainingSet) -> list[float]:
        """Return the days from each cutoff to the end of the history."""
        span = train.history_days
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
        """Return the labelled candidates at the cutoff `days` before the end of the history, as sampled.

        They are made once for a cutoff (`TrainingSet.memoize`): the rankers of a validation period, of the test period
        after it and of all data share cutoffs. They stay when the data and models they were made of are freed.
        """
        earlier = train.earlier
        if earlier is not None and earlier.days == self.horizon_days and days >= earlier.days:
            if days > earlier.days:
                return self.at_cut(earlier.train, days - earlier.days)
            past = earlier.train
            known = past.item_customers_of_any_type > 0
            return past.memoize(self._key(0.0), lambda: self._examples(past, earlier.later, known))
        return train.memoize(self._key(days), lambda: self._at_earlier_cutoff(train, days))

    def _key(self, days: float) -> tuple[Any, ...]:
        """Return the key of the examples at the cutoff `days` before the end of a training set."""
        given = (self.target, self.users_per_cut, self.negatives_per_positive, self.seed, self.types, self.stages)
        return ("ranking examples", days, self.horizon_days, *given, self.promotion_kinds, tuple(self.widths))

    def _at_earlier_cutoff(self, train: TrainingSet, days: float) -> RankingExamples:
        ages, past = train.interactions.age_days, train.with_earlier_cutoff(days)
        later = train.interactions.where((ages <= days) & (ages > days - self.horizon_days))
        # an item with too few customers before the cutoff would not have been in the catalogue
        customers = train.item_customers_of_any_type
        least = min(MIN_ITEM_CUSTOMERS, int(customers[customers > 0].min()))
        return self._examples(past, later, past.item_customers_of_any_type >= least)

    def _examples(self, past: TrainingSet, later: Interactions, known: NDArray[np.bool_]) -> RankingExamples:
        """Return the examples at a cutoff, given the data before it, the interactions after it and the catalogue.

        The catalogue, the items that may be ranked, is a bool array of shape (n_items,).
        Candidates and labels of all sampled customers come first, because the number of negatives depends on that of
        positives; then the features of the candidates that are kept.
        """
        n_items = past.n_items
        wanted = np.unique(later.users.astype(np.int64) * n_items + later.items)
        wanted = wanted[known[wanted % n_items]]
        sampled = self._asked(past, wanted)
        is_sampled = np.zeros(past.n_users, dtype=bool)
        is_sampled[sampled] = True
        wanted = wanted[is_sampled[wanted // n_items]]
        starts = np.searchsorted(past.interactions.users, np.arange(past.n_users + 1))
        lines, users, own = lines_of(past.interactions, starts, sampled), sampled, None
        if self.target == "new":
            own = lines.matrix()
            owned = np.repeat(sampled, np.diff(own.indptr)) * n_items + own.indices
            wanted = np.setdiff1d(wanted, owned, assume_unique=True)
            users = np.intersect1d(sampled, wanted // n_items)
        of_promotions = promotion_feature_names(self.promotion_kinds)
        width = len(FEATURES) + type_width(self.types) + len(of_promotions) + 2 * len(self.widths)
        if not len(users):
            return RankingExamples.none(width)
        models, labels, groups = self.fit_stages(past), list[Floats](), list[Ints]()
        proposed = list[tuple[Ints, Ints, Floats]]()  # of each block: row among the sampled customers, item, scores
        block = max(1, base.BLOCK_CELLS // n_items)
        for start in range(0, len(users), block):
            query = Query(users[start : start + block])
            item_filter = ItemFilter(known, None if own is None else own[np.searchsorted(sampled, query.users)])
            lists = stage_lists(models, self.widths, query, item_filter)
            ids = merge_candidates(lists, self.from_history).ids
            rows, places = np.nonzero(ids >= 0)
            columns = stage_features(models, self.widths, query, ids, lists)[rows, places]
            owners, ids = query.users[rows], ids[rows, places]
            proposed.append((np.searchsorted(sampled, owners), ids, columns))
            labels.append(np.isin(owners * n_items + ids, wanted).astype(np.float32))
            groups.append(rows + start)
        kept, weights = sampled_negatives(np.concatenate(labels), self.negatives_per_positive, self.seed)
        # both targets ask the same customers, so that they share the histories
        codes, key = item_groups(past.item_attributes), ("histories", self.users_per_cut, self.seed, self.horizon_days)
        histories = past.memoize(key, lambda: Histories.of(lines, codes))
        statistics, spooled, start = item_statistics(past), SpooledRows(width), 0
        typed = TypedInteractions.of(past, self.types) if self.types else None
        planned = None
        if self.promotion_kinds is not None:
            kinds = self.promotion_kinds
            planned = past.memoize(
                ("planned promotions", kinds, *key[1:]), lambda: PlannedPromotions.of(past.promotions, kinds, lines)
            )
        for rows, ids, columns in proposed:
            chosen = np.flatnonzero(kept[start : start + len(rows)])
            start += len(rows)
            rows, ids = rows[chosen], ids[chosen]
            of_block, place = np.unique(rows, return_inverse=True)
            by_type = type_columns(typed, Query(sampled[of_block]), past.target, codes, place, ids)
            described = features(histories, statistics, rows, ids)
            promoted = promotion_columns(planned, rows, ids)
            spooled.append(np.concatenate([described, by_type, promoted, columns[chosen]], axis=1))
        return_freed_memory()
        return RankingExamples([spooled], np.concatenate(labels)[kept], np.concatenate(groups)[kept], weights)

    def _asked(self, past: TrainingSet, wanted: Ints) -> Ints:
        """Sample customers with a history before a cutoff and a purchase after it."""
        users = np.unique(wanted // past.n_items)
        users = users[past.has_interactions[users]]
        if len(users) > self.users_per_cut:
            users = np.sort(np.random.default_rng(self.seed).choice(users, self.users_per_cut, replace=False))
        return users


def sampled_negatives(labels: Floats, per_positive: float, seed: int) -> tuple[NDArray[np.bool_], Floats]:
    """Sample at most `per_positive` negatives per positive.

    Returns
    -------
    kept : ndarray of bool, (m,)
    weights : ndarray of float32, (kept,)
        Number of examples that each kept one represents; that of a positive is 1.

    Examples
    --------
    >>> kept, weights = sampled_negatives(np.array([1, 0, 0, 0, 0], np.float32), 2.0, 0)
    >>> bool(kept[0]), float(weights[0]), set(weights[1:].tolist())
    (True, 1.0, {2.0})
    """
    positive = labels > 0
    positives = int(positive.sum())
    share = min(1.0, per_positive * positives / max(len(labels) - positives, 1))
    if share == 1.0 or not positives:
        return np.ones(len(labels), dtype=bool), np.ones(len(labels), dtype=np.float32)
    kept = positive | (np.random.default_rng(seed).random(len(labels)) < share)
    return kept, np.where(positive[kept], 1.0, 1.0 / share).astype(np.float32)
