"""Fit the candidates of a task on one split and measure their lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from models.parallel import return_freed_memory
from models.ranked import Ranked
from models.recommend.base import Recommender
from models.recommend.blend import BlendRecommender
from qianmian.errors import DataError
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.jobs.base import Progress
from training.selection.fits import SharedFits
from training.tasks.base import MAX_EXAMPLES, Task

BLEND = "blend"  # the candidate that is made of the others


@dataclass(frozen=True)
class Evaluation:
    """The candidates of a task, measured on the same examples.

    It holds neither models nor their training data, which would stay in memory until the last task is evaluated.

    Attributes
    ----------
    task : Task
    customers : ndarray of str, shape (n,)
        Customer of each example.
    values : mapping of str to mapping of str to ndarray, shape (n,)
        Candidate → metric → value of each example.
    ranked : mapping of str to Ranked
        Candidate → its lists.
    blend : BlendRecommender or None
        The unfitted blend of the candidates, if one was measured; its values are those of `BLEND`.
    """

    task: Task
    customers: NDArray[np.str_]
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    ranked: Mapping[str, Ranked]
    blend: BlendRecommender | None = None

    def chosen_by(self, name: str) -> NDArray[np.float64]:
        """The values of a candidate in the metric by which the task is decided."""
        return self.values[name][self.task.metric]


def sampled(examples: EvaluationSplit, seed: int, most: int = MAX_EXAMPLES) -> EvaluationSplit:
    """At most `most` of the examples, drawn at random."""
    if len(examples) <= most:
        return examples
    return examples.take(np.sort(np.random.default_rng(seed).choice(len(examples), most, replace=False)))


def evaluate_candidates(
    task: Task,
    candidates: Mapping[str, Recommender],
    examples: EvaluationSplit,
    holdout: Interactions,
    list_length: int,
    progress: Progress,
    fits: SharedFits,
) -> Evaluation:
    """Fit the candidates on the training data of the examples and measure their lists.

    A candidate that the data do not support is left out, with its reason as progress.

    Parameters
    ----------
    task : Task
    candidates : mapping of str to Recommender
        Unfitted models.
    examples : EvaluationSplit
        At least one example.
    holdout : Interactions
        Held-out interactions, for the further metrics of the task.
    list_length : int
        Length of the lists, at least the `k` of the task.
    progress : callable
    fits : SharedFits
        Of the round, which has the task.
    """
    values, ranked = {}, {}
    for name, model in candidates.items():
        try:
            model_fit = fits.fit(model, examples.train, task.name)
        except DataError as error:
            progress(f"recommend: {task.name}: {name} cannot be fitted: {error}")
            continue
        ranked[name] = examples.recommend_with(model_fit, list_length)
        values[name] = ranking_metrics(ranked[name].ids, examples.truth, task.k)
        if task.extra_metrics is not None:
            values[name] = {**values[name], **task.extra_metrics(model_fit, examples, holdout)}
        return_freed_memory()
    return Evaluation(task, examples.train.user_ids[examples.users], values, ranked)
