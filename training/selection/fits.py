"""Fits that several tasks share, each of which is freed after the last task that needs it."""

from __future__ import annotations

import threading
from collections import Counter

from features.interactions import TrainingSet
from models.recommend.base import fit_key
from models.recommend.ranking.two_stage import SHARED_BY_RANKERS
from training.selection.budget import Candidates


class SharedFits:
    """The fits of the candidates of all tasks on one training set (`fit_cached`).

    Otherwise every model would stay in memory until the last task is evaluated, and of a large shop, each holds the
    interactions of all customers in some form. What rankers read (`SHARED_BY_RANKERS`) stays.

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

    def free(self, task: str) -> None:
        """Free the fits of a task that is evaluated, except those that another task needs."""
        with self._lock:
            self._uses.subtract(self._keys[task])
            unused = [key for key in self._keys[task] if not self._uses[key]]
        for key in unused:
            self._train.release(key)
