"""Fits that several tasks share, each of which is freed after the last task that needs it."""

from __future__ import annotations

import threading
from collections import Counter

from features.interactions import TrainingSet
from models.recommend.base import fit_key
from models.recommend.blend import BlendRecommender
from models.recommend.ranking.two_stage import SHARED_BY_RANKERS, TwoStageRecommender
from training.selection.budget import Candidates

RANKERS = (TwoStageRecommender.name, BlendRecommender.name)  # a blend may contain a ranker
EXAMPLES = frozenset({"earlier cutoff", "ranking examples"})  # what rankers of a later cutoff read of an earlier one


class SharedFits:
    """The fits of the candidates of all tasks on one training set (`fit_cached`).

    Otherwise every model would stay in memory until the last task is evaluated, and of a large shop, each holds the
    interactions of all customers in some form. The models of the rankers' stages stay, because rankers of a later
    cutoff read them. The data at earlier cutoffs, with the models that proposed the rankers' examples, are freed after
    the last task with a ranker; the examples stay.

    Parameters
    ----------
    train : TrainingSet
        The training set that tasks share.
    candidates : mapping of str to mapping of str to Recommender
        Task → candidate → unfitted model.
    """

    def __init__(self, train: TrainingSet, candidates: Candidates) -> None:
        self._train, self._lock = train, threading.Lock()
        self._keys = {
            task: {fit_key(model) for model in models.values() if model.name not in SHARED_BY_RANKERS}
            for task, models in candidates.items()
        }
        self._uses = Counter(key for keys in self._keys.values() for key in keys)
        self._with_ranker = {
            task for task, models in candidates.items() if any(model.name in RANKERS for model in models.values())
        }

    def free(self, task: str) -> None:
        """Free the fits of a task that is evaluated, except those that another task needs."""
        with self._lock:
            self._uses.subtract(self._keys[task])
            unused = [key for key in self._keys[task] if not self._uses[key]]
            was_last_ranker = self._with_ranker == {task}
            self._with_ranker.discard(task)
        for key in unused:
            self._train.release(key)
        if was_last_ranker:
            self._train.forget_earlier_cutoffs()
            if self._train.earlier is not None:
                self._train.earlier.train.forget(EXAMPLES)
