"""What a scene is asked on customers and days nobody has learnt from, and who answers: its model beside its baselines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.recommend import RECOMMENDERS
from models.recommend.base import Recommender
from qianmian.errors import ConfigError
from qianmian.settings import RecommendSettings
from training.evaluation.split import EvaluationSplit

MIN_EXAMPLES = 30


ExtraMetrics = Callable[[Recommender, EvaluationSplit, Interactions], Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Task:
    """The held-out task of a scene (`Scene.task` names it), or of a cold case, whose model answers where a scene's `fallbacks` names it.

    Attributes
    ----------
    name : str
        That of its scene, or ``cold customers``, ``cold items``.
    description : str
        The question in words, with what counts as right.
    candidates : callable
        (settings, seed) → unfitted models by name: first the one the scene is for, then its baselines, the simplest last. The better of them ships.
    examples : callable
        (train, after, seed) → its `EvaluationSplit`. `train` ends where the test window begins; `holdout` is what happened in the window: the same users and
        items, ages counted from the window's end. Few or none may be found; fewer than `MIN_EXAMPLES` decide nothing.
    metric : str
        Of the ranking metrics at `k`, the one that decides.
    fallbacks : sequence of str
        What fills the places of this scene's lists that its model leaves open: other tasks (the model that won there) or models, by name.
    tuned_models : sequence of str
        Models whose parameters `--tune` searches on this task.
    extra_metrics : callable, optional
        (fitted model, examples, after) → further values an example, for models that promise more than an order (an expected day).
    """

    name: str
    description: str
    candidates: Callable[[RecommendSettings, int], Mapping[str, Recommender]]
    examples: Callable[[TrainingSet, Interactions, int], EvaluationSplit]
    metric: str = "ndcg"
    k: int = 10
    fallbacks: Sequence[str] = ()
    tuned_models: Sequence[str] = ()
    extra_metrics: ExtraMetrics | None = None


PARAMETER_OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "popular": {"window_days": 28.0}
}  # where the class has a baseline's default


def make_recommender(name: str, settings: RecommendSettings, seed: int, **fixed: Any) -> Recommender:
    """An unfitted model: its defaults, over them the settings', over these what is fixed; it gets the seed if it draws."""
    kind = RECOMMENDERS[name]
    seed_parameter = {"seed": seed} if "seed" in parameters_of(kind) else {}
    return kind(**{**PARAMETER_OVERRIDES.get(name, {}), **seed_parameter, **settings.models.get(name, {}), **fixed})


def parameters_of(kind: type[Recommender]) -> list[str]:
    """What a model's constructor takes."""
    return list(inspect.signature(kind).parameters)


def with_parameters(settings: RecommendSettings, chosen: Mapping[str, Mapping[str, Any]]) -> RecommendSettings:
    """The settings with chosen parameters under those they name themselves."""
    names = dict.fromkeys((*chosen, *settings.models))
    merged = {name: {**chosen.get(name, {}), **settings.models.get(name, {})} for name in names}
    return settings.model_copy(update={"models": merged})


def check_models(settings: RecommendSettings) -> None:
    """The settings name models and parameters there are.

    Raises
    ------
    ConfigError
        With every one there is not.
    """
    problems = []
    for name, given in settings.models.items():
        if name not in RECOMMENDERS:
            problems.append(f"recommend.models.{name}: there is no such model; there are {', '.join(RECOMMENDERS)}")
            continue
        known = parameters_of(RECOMMENDERS[name])
        problems += [
            f"recommend.models.{name}.{key}: not a parameter; there are {', '.join(known)}"
            for key in given
            if key not in known
        ]
    if problems:
        raise ConfigError(problems, where="the settings")
