"""The short search: parameters that depend on the data, chosen on a sample of customers of the validation period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from models.recommend.base import Recommender
from qianmian.errors import DataError
from qianmian.settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.holdout import HoldoutSplit
from training.jobs.base import Progress
from training.selection.choice import is_ahead
from training.selection.evaluation import sampled
from training.tasks import TASKS
from training.tasks.base import Task, make_recommender, with_parameters

CUSTOMERS = 1_000  # on which a model is fitted and measured
K = 10
# Model → parameter → the values that are compared with the default, in the order of the search. A half-life cannot be
# guessed from another trade: films are rated once, groceries are bought weekly. The strength of the regularisation and
# of the confidence depends on how many interactions a customer has.
SHORT_SEARCH: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "popular": {"window_days": (7.0, 28.0, 112.0, None)},
    "ials": {"half_life_days": (None, 30.0, 365.0), "alpha": (10.0, 40.0)},
    "item_knn": {"neighbours": (50,)},  # its default ignores how often and when, so a half-life changes nothing
    "ease": {"regularization": (20.0, 500.0)},
    "affinity": {"half_life_days": (None, 30.0)},
}


def short_search(
    settings: RecommendSettings, seed: int, validation: HoldoutSplit, budget_cpu_seconds: float, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Parameters that are better than the default beyond noise, for each model of `SHORT_SEARCH`.

    One parameter is searched after the other. A model is fitted on a sample of customers and measured on the same
    customers in the validation period, on the task `home`. Parameters of the settings stay, and so do the defaults of a
    model whose search is estimated to cost more than that.

    Parameters
    ----------
    settings : RecommendSettings
    seed : int
    validation : HoldoutSplit
    budget_cpu_seconds : float
        For each model.
    progress : callable

    Returns
    -------
    dict of str to dict
        Model → parameter → value.
    """
    examples = sampled(TASKS["home"].examples(validation.train, validation.holdout, seed), seed, CUSTOMERS)
    if not len(examples):
        return {}
    examples = _without_other_customers(examples)
    is_dated = bool(examples.train.interactions.age_days.any())
    found: dict[str, dict[str, Any]] = {}
    for name, parameters in SHORT_SEARCH.items():
        given = settings.models.get(name, {})
        wanted = {
            key: values
            for key, values in parameters.items()
            if key not in given and (is_dated or not key.endswith("_days"))
        }
        fits = 1 + sum(len(values) for values in wanted.values())
        model = make_recommender(name, settings, seed)
        if not wanted or fits * model.estimated_cpu_seconds(examples.train) > budget_cpu_seconds:
            continue
        better = _search(name, model, wanted, settings, seed, examples)
        if better:
            found[name] = better
    if found:
        said = ", ".join(f"{name}.{key} {value}" for name, given in found.items() for key, value in given.items())
        progress(f"recommend: better than the defaults on the validation period: {said}")
    return found


def _search(
    name: str,
    default: Recommender,
    wanted: Mapping[str, Sequence[Any]],
    settings: RecommendSettings,
    seed: int,
    examples: EvaluationSplit,
) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    best = _values(default, examples)
    if best is None:
        return {}
    for key, values in wanted.items():
        current = default.get_params()[key]
        values_of = {
            value: _values(make_recommender(name, settings, seed, **{**chosen, key: value}), examples)
            for value in values
            if value != current
        }
        able = {value: found for value, found in values_of.items() if found is not None}
        if not able:
            continue
        value = max(able, key=lambda one: float(able[one].mean()))
        if is_ahead(able[value], best, seed).low > 0:
            chosen[key], best = value, able[value]
    return chosen


def _values(model: Recommender, examples: EvaluationSplit) -> NDArray[np.float64] | None:
    """NDCG of each example, or None if the model cannot be fitted."""
    try:
        model.fit(examples.train)
    except DataError:
        return None
    return ranking_metrics(examples.recommend_with(model, K).ids, examples.truth, K, ("ndcg",))["ndcg"]


def _without_other_customers(examples: EvaluationSplit) -> EvaluationSplit:
    """The examples with the training data of their own customers only."""
    train = examples.train
    kept = np.zeros(train.n_users, dtype=bool)
    kept[examples.users] = True

    def of_sampled(data: Interactions) -> Interactions:
        mask: NDArray[np.bool_] = kept[data.users]
        return data.where(mask)

    auxiliary = None if train.auxiliary is None else of_sampled(train.auxiliary)
    sample = replace(train, interactions=of_sampled(train.interactions), returned=None, auxiliary=auxiliary)
    return replace(examples, train=sample)


def best_half_life(
    settings: RecommendSettings, seed: int, validation: HoldoutSplit
) -> tuple[RecommendSettings, dict[int | None, float]]:
    """Settings with the half-life of own purchases that is best on `home`, and the NDCG of each half-life."""
    task: Task = TASKS["home"]
    examples = sampled(task.examples(validation.train, validation.holdout, seed), seed)
    ndcg: dict[int | None, float] = {}
    for half_life in (*settings.half_life_days, None):
        model = make_recommender("repeat", settings, seed, half_life_days=half_life)
        values = _values(model, examples)
        ndcg[half_life] = float(values.mean()) if values is not None else 0.0
    best = max(ndcg, key=lambda key: ndcg[key])
    return with_parameters(settings, {"repeat": {"half_life_days": best}}), ndcg
