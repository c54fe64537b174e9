"""The short search: parameters that depend on the data, chosen on a sample of customers of the validation period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interaction_types import ANY
from features.interactions import Interactions
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit
from training.holdout import HoldoutSplit
from training.jobs.base import Progress
from training.selection.evaluation import sampled
from training.selection.trials import ParameterTrials, ndcg
from training.selection.type_weights import PARAMETER, learn_type_weights, number_of_fits, usual_weights
from training.tasks import TASKS
from training.tasks.base import Task, make_recommender, with_parameters

CUSTOMERS = 1_000  # on which a model is fitted and measured
# Model → parameter → the values that are compared with the default, in the order of the search. A half-life cannot be
# guessed from another trade: films are rated once, groceries are bought weekly. The strength of the regularisation and
# of the confidence depends on how many interactions a customer has, the number of factors on how many tastes there are.
# Own events and item-kNN come early, because the other models try the weights of types that these have learnt.
SHORT_SEARCH: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "popular": {"window_days": (7.0, 28.0, 112.0, None)},
    "own_events": {"half_life_days": (1.0, 28.0)},
    "item_knn": {},  # its default ignores how often and when, so a half-life changes nothing
    "ials": {"half_life_days": (None, 30.0), "alpha": (10.0,), "factors": (32, 128)},
    "ease": {"regularization": (20.0, 500.0)},
    "affinity": {"half_life_days": (None, 30.0)},
}
# Measured on items that are new to a customer: the more factors, the more of the repeat purchases are learnt by heart,
# which rankers know anyway. Complete Journey, 128 factors instead of 64: NDCG@10 of all purchases .274 (.259), that of
# the ranker +.0003 [−.0014, .0022], that of new items −.0006 [−.0018, .0007].
OF_NEW_ITEMS = frozenset({"factors"})


def short_search(
    settings: RecommendSettings, seed: int, validation: HoldoutSplit, budget_cpu_seconds: float, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Parameters that are better than the default beyond noise, for each model of `SHORT_SEARCH`.

    One parameter is searched after the other. A model is fitted on a sample of customers and measured on the same
    customers in the validation period, on the task `home` (for `OF_NEW_ITEMS` on `discover`). Weights of the types of
    interaction are searched where there is more than one type. Parameters of the settings stay, and so do the defaults
    of a model whose search is estimated to cost more than `budget_cpu_seconds`.

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
    examples = _of_sampled_customers("home", validation, seed)
    if not len(examples):
        return {}
    is_dated = bool(examples.train.interactions.age_days.any())
    usual = usual_weights(examples.train)
    found: dict[str, dict[str, Any]] = {}
    for name, parameters in SHORT_SEARCH.items():
        default = make_recommender(name, settings, seed)
        if default.needs_several_types and not usual and examples.train.target != ANY:
            continue
        given = settings.models.get(name, {})
        wanted = {
            key: values
            for key, values in parameters.items()
            if key not in given and (is_dated or not key.endswith("_days"))
        }
        is_typed = bool(usual) and PARAMETER in default.get_params() and PARAMETER not in given
        models = [default, *(make_recommender(name, settings, seed, **{k: v}) for k in wanted for v in wanted[k])]
        models += [default] * ((number_of_fits(name, usual) if is_typed else 0) + len(OF_NEW_ITEMS & wanted.keys()))
        if len(models) == 1 or sum(one.estimated_cpu_seconds(examples.train) for one in models) > budget_cpu_seconds:
            continue
        trials = ParameterTrials(name, settings, seed, examples)
        for key in (key for key in wanted if key not in OF_NEW_ITEMS):
            trials.keep_best_value(key, wanted[key])
        if is_typed:
            learnt = [one[PARAMETER] for one in found.values() if PARAMETER in one]
            learn_type_weights(trials, usual, learnt)
        if OF_NEW_ITEMS & wanted.keys():
            trials.measure_on(_of_sampled_customers("discover", validation, seed))
            for key in OF_NEW_ITEMS & wanted.keys():
                trials.keep_best_value(key, wanted[key])
        if trials.chosen:
            found[name] = trials.chosen
    if found:
        said = ", ".join(f"{name}.{key} {_said(value)}" for name in found for key, value in found[name].items())
        progress(f"recommend: better than the defaults on the validation period: {said}")
    return found


def _said(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return " and ".join(f"{name} {weight:g}" for name, weight in value.items()) or "none"


def _of_sampled_customers(task: str, validation: HoldoutSplit, seed: int) -> EvaluationSplit:
    """Examples of a task of at most `CUSTOMERS` customers, with the training data of these customers only."""
    examples = sampled(TASKS[task].examples(validation.train, validation.holdout, seed), seed, CUSTOMERS)
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
    means: dict[int | None, float] = {}
    for half_life in (*settings.half_life_days, None):
        model = make_recommender("repeat", settings, seed, half_life_days=half_life)
        values = ndcg(model, examples)
        means[half_life] = float(values.mean()) if values is not None else 0.0
    best = max(means, key=lambda key: means[key])
    return with_parameters(settings, {"repeat": {"half_life_days": best}}), means
