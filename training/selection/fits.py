"""Fits that several tasks share, each of which is freed after the last task that needs it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from features.interactions import TrainingSet
from models.recommend.base import Recommender
from models.recommend.blend import COMPONENTS, BlendRecommender
from models.recommend.fit_cache import FitKey, fit_cached, fit_key
from models.recommend.ranking.two_stage import TwoStageRecommender
from training.selection.budget import Candidates

EXAMPLES = frozenset({"earlier cutoff", "ranking examples"})  # what rankers of a later cutoff read of an earlier one


class SharedFits:
    """The fits of the candidates of all tasks on one training set (`fit_cached`), with the components of blends.

    Otherwise every model would stay in memory until the last task is evaluated, and in a large shop, each holds the
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
        parts = {
            task: {fit_key(part): part for model in models.values() for part in _parts(model)}
            for task, models in candidates.items()
        }
        self._rankers = {
            task: {key for key, part in found.items() if isinstance(part, TwoStageRecommender)}
            for task, found in parts.items()
        }
        self._stages = {
            fit_key(stage)
            for found in parts.values()
            for part in found.values()
            if isinstance(part, TwoStageRecommender)
            for stage in part.unfitted_stages()
        }
        self._keys = {task: found.keys() - self._stages for task, found in parts.items()}
        self._uses = Counter(key for keys in self._keys.values() for key in keys)

    def fit(self, model: Recommender, train: TrainingSet, task: str) -> Recommender:
        """Return the fit of a candidate of a task (`fit_cached`)."""
        try:
            return fit_cached(model, train)
        finally:  # a ranker that cannot be fitted is not waited for
            self._finish(task, {fit_key(part) for part in _parts(model)})

    def free(self, task: str) -> None:
        """Free the fits of a task that is evaluated, except those that another task needs."""
        with self._lock:
            self._uses.subtract(self._keys[task])
            unused = [key for key in self._keys[task] if not self._uses[key]]
        for key in unused:
            self._train.release(key)
        self._finish(task, self._rankers[task])

    def free_on(self, train: TrainingSet, models: Mapping[str, Recommender]) -> None:
        """Free the fits of a task on a training set of its own; those on the shared one are left to `free`."""
        if train is not self._train:
            for key in {fit_key(part) for model in models.values() for part in _parts(model)} - self._stages:
                train.release(key)

    def _finish(self, task: str, keys: set[FitKey]) -> None:
        """Note that a task no longer needs fits, and free what no ranker reads after the last of them."""
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


def _parts(model: Recommender) -> list[Recommender]:
    """An unfitted model, and the components of a blend."""
    components = model.components if isinstance(model, BlendRecommender) else ()
    return [model, *(COMPONENTS[name](**parameters) for name, parameters, _ in components)]
