"""Fits that several tasks share, each of which is freed after the last task that needs it."""

from __future__ import annotations

import threading
from collections import Counter

from features.interactions import TrainingSet
from models.recommend.base import Recommender, fit_cached, fit_key
from models.recommend.blend import BlendRecommender
from models.recommend.ranking.two_stage import SHARED_BY_RANKERS, TwoStageRecommender
from training.selection.budget import Candidates

EXAMPLES = frozenset({"earlier cutoff", "ranking examples"})  # what rankers of a later cutoff read of an earlier one


class SharedFits:
    """The fits of the candidates of all tasks on one training set (`fit_cached`).

    Otherwise every model would stay in memory until the last task is evaluated, and of a large shop, each holds the
    interactions of all customers in some form. The models of the rankers' stages stay, because rankers of a later
    cutoff read them. The data at earlier cutoffs, with the models that proposed the rankers' examples, are freed when
    the last ranker is fitted; the examples stay.

    Parameters
    ----------
    train : TrainingSet
        The training set that tasks share.
    candidates : mapping of str to mapping of str to Recommender
        Task → candidate → unfitted model.
    is_last : bool
        No ranker of a later cutoff follows, so that the data of earlier training sets are freed as well.
    """

    def __init__(self, train: TrainingSet, candidates: Candidates, *, is_last: bool = False) -> None:
        self._train, self._lock, self._is_last = train, threading.Lock(), is_last
        self._keys = {
            task: {fit_key(model) for model in models.values() if model.name not in SHARED_BY_RANKERS}
            for task, models in candidates.items()
        }
        self._uses = Counter(key for keys in self._keys.values() for key in keys)
        self._rankers = {
            task: {fit_key(model) for model in models.values() if _has_ranker(model)}
            for task, models in candidates.items()
        }

    def fit(self, model: Recommender, train: TrainingSet, task: str) -> Recommender:
        """Return the fit of a candidate of a task (`fit_cached`)."""
        fitted = fit_cached(model, train)
        self._fitted(task, {fit_key(model)})
        return fitted

    def free(self, task: str) -> None:
        """Free the fits of a task that is evaluated, except those that another task needs."""
        with self._lock:
            self._uses.subtract(self._keys[task])
            unused = [key for key in self._keys[task] if not self._uses[key]]
        for key in unused:
            self._train.release(key)
        self._fitted(task, self._rankers[task])

    def _fitted(self, task: str, keys: set[tuple[str, str, str]]) -> None:
        with self._lock:
            left = len(self._rankers[task])
            self._rankers[task] = self._rankers[task] - keys
            was_last = left > len(self._rankers[task]) and not any(self._rankers.values())
        if was_last:
            self._train.forget_earlier_cutoffs()
            if self._is_last:
                self._train.release("earlier cutoff")
            elif self._train.earlier is not None:
                self._train.earlier.train.forget(EXAMPLES)


def _has_ranker(model: Recommender) -> bool:
    """Whether an unfitted model is a ranker, or a blend that contains one."""
    parts = [name for name, _, _ in model.components] if isinstance(model, BlendRecommender) else [model.name]
    return TwoStageRecommender.name in parts
