"""The candidates that a training can pay for."""

from __future__ import annotations

from collections.abc import Mapping

from features.interaction_types import ANY
from features.interactions import TrainingSet
from models.recommend.base import Recommender
from models.recommend.fit_cache import FitKey, fit_key

MAIN_LIMIT = 2.0  # budgets; a scene loses more with its main model than a training saves
Candidates = Mapping[str, Mapping[str, Recommender]]


def within_budget(
    candidates: Candidates, train: TrainingSet, budget_cpu_seconds: float
) -> tuple[dict[str, dict[str, Recommender]], dict[str, float]]:
    """Leave out the most expensive base models until the estimated cost of one fit of each model is within the budget.

    Models that are made for interactions of several types are left out where there is only one, without a word.

    A model that several tasks share is fitted once and counts once. The simplest candidate of a task, which is its
    last, always stays; the main model of a scene, which is its first, is left out only if it alone is estimated to cost
    more than `MAIN_LIMIT` budgets. The estimate depends on the data and not on the clock, so that the same data give
    the same models.

    Parameters
    ----------
    candidates : mapping of str to mapping of str to Recommender
        Task → candidate → unfitted model.
    train : TrainingSet
        The data of the fits.
    budget_cpu_seconds : float

    Returns
    -------
    dict of str to dict of str to Recommender
        The candidates that stay.
    dict of str to float
        Model that is left out → its estimated CPU seconds.
    """
    if train.auxiliary is None and train.target != ANY:
        candidates = {
            task: {name: model for name, model in models.items() if not model.needs_several_types}
            for task, models in candidates.items()
        }
    costs: dict[FitKey, float] = {}
    names: dict[FitKey, str] = {}
    for models in candidates.values():
        for model in models.values():
            costs[fit_key(model)] = model.estimated_cpu_seconds(train)
            names[fit_key(model)] = model.name
    simplest = {fit_key(list(models.values())[-1]) for models in candidates.values() if models}
    main = {fit_key(next(iter(models.values()))) for models in candidates.values() if models} - simplest
    dropped = {key for key in main if costs[key] > MAIN_LIMIT * budget_cpu_seconds}
    total = sum(cost for key, cost in costs.items() if key not in dropped)
    others = [key for key in costs if key not in main | simplest]  # not a set, whose order changes between processes
    for key in sorted(others, key=lambda key: -costs[key]):
        if total <= budget_cpu_seconds:
            break
        dropped.add(key)
        total -= costs[key]
    kept = {
        task: {name: model for name, model in models.items() if fit_key(model) not in dropped}
        for task, models in candidates.items()
    }
    return kept, {
        names[key]: round(costs[key], 1) for key in sorted(costs, key=lambda key: costs[key]) if key in dropped
    }
