"""Trials of the parameters of one model on the same examples; a change is kept if it is better beyond noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.parallel import run_parallel
from models.recommend.base import Recommender
from qianmian.errors import DataError
from qianmian.model_settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.selection.choice import is_ahead
from training.tasks.base import make_recommender

K = 10
Values = NDArray[np.float64]


class ParameterTrials:
    """The parameters of one model that were better than its defaults so far.

    Parameters
    ----------
    name : str
        Name in `RECOMMENDERS`.
    settings : RecommendSettings
    seed : int
    examples : EvaluationSplit
        Examples of the validation period; models are fitted on their training data.

    Attributes
    ----------
    chosen : dict
        Parameter → value, for those that changed.
    """

    def __init__(self, name: str, settings: RecommendSettings, seed: int, examples: EvaluationSplit) -> None:
        self.name, self.settings, self.seed, self.examples = name, settings, seed, examples
        self.chosen: dict[str, Any] = {}
        self._reference: Values | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All parameters of the model with those chosen so far."""
        return self._model({}).get_params()

    def measure_on(self, examples: EvaluationSplit) -> None:
        """Measure what follows on other examples."""
        self.examples, self._reference = examples, None

    def keep_best_value(self, key: str, values: Sequence[Any]) -> bool:
        """`keep_best` of the values of one parameter."""
        current = self.parameters[key]
        return self.keep_best([{key: value} for value in values if value != current])

    def keep_best(self, changes: Sequence[Mapping[str, Any]]) -> bool:
        """Keep the best of some changes if it is ahead of the parameters chosen so far beyond noise.

        Returns
        -------
        bool
            Whether one was kept. A model that cannot be fitted keeps its parameters.
        """
        if not len(self.examples):
            return False
        if self._reference is None:
            self._reference = ndcg(self._model({}), self.examples)
        if self._reference is None:
            return False
        # in parallel, because iALS takes twice the CPU time with two threads
        values = run_parallel([partial(ndcg, self._model(change), self.examples) for change in changes])
        able = [(change, found) for change, found in zip(changes, values, strict=True) if found is not None]
        if not able:
            return False
        change, found = max(able, key=lambda one: float(one[1].mean()))
        if is_ahead(found, self._reference, self.seed).low <= 0:
            return False
        self.chosen, self._reference = {**self.chosen, **change}, found
        return True

    def _model(self, change: Mapping[str, Any]) -> Recommender:
        return make_recommender(self.name, self.settings, self.seed, **{**self.chosen, **change})


def ndcg(model: Recommender, examples: EvaluationSplit) -> Values | None:
    """NDCG@10 of each example, or None if the model cannot be fitted."""
    try:
        model.fit(examples.train)
    except DataError:
        return None
    return ranking_metrics(examples.recommend_with(model, K).ids, examples.truth, K, ("ndcg",))["ndcg"]
