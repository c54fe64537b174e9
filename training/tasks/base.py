"""Evaluation tasks: the examples of the held-out period that a scene is evaluated on, and the candidate models."""

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
from models.recommend.ranking.two_stage import DEFAULT_STAGES, TYPED_STAGES
from qianmian.errors import ConfigError
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit

MIN_EXAMPLES = 30
MAX_EXAMPLES = 5_000  # of a task; the half-width of the interval of NDCG@10 is then about .006


ExtraMetrics = Callable[[Recommender, EvaluationSplit, Interactions], Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Task:
    """The evaluation task of one scene (`Scene.task` names it), or of cold-start customers or items.

    Attributes
    ----------
    name : str
        Name of the scene, or ``cold customers``, ``cold items``.
    description : str
        What is predicted, and which items are relevant.
    candidates : callable
        (settings, seed) → unfitted models by name, from the most complex to the simplest. The simplest that is not
        behind the best beyond noise ships (`training.selection`).
    examples : callable
        (train, holdout, seed) → `EvaluationSplit`. `train` ends where the test period begins; `holdout` has the
        interactions of the period, with the same users and items, and ages counted from its end. With fewer than
        `MIN_EXAMPLES` examples the task is not evaluated.
    metric : str
        Ranking metric at `k` by which the best candidate is chosen.
    k : int
        Length of the evaluated lists.
    baselines : sequence of str
        Candidates that are measured beside the winner in the test period, besides the simplest and the runner-up.
    draws : int
        Draws of the examples on which candidates are compared, each with a seed of its own; more than one where few
        drawn items decide, so that an interval over customers is too narrow.
    reads_profiles : bool
        Whether the examples or their only candidates need profile features.
    fallbacks : sequence of str
        Tasks (whose winner is used) or models, by name, that fill the slots the scene's model leaves empty.
    tuned_models : sequence of str
        Models whose parameters `--tune` searches on this task.
    extra_metrics : callable, optional
        (fitted model, examples, holdout) → further metrics per example, for models that predict more than a ranking
        (such as the expected day).
    """

    name: str
    description: str
    candidates: Callable[[RecommendSettings, int], Mapping[str, Recommender]]
    examples: Callable[[TrainingSet, Interactions, int], EvaluationSplit]
    metric: str = "ndcg"
    k: int = 10
    baselines: Sequence[str] = ()
    draws: int = 1
    reads_profiles: bool = False
    fallbacks: Sequence[str] = ()
    tuned_models: Sequence[str] = ()
    extra_metrics: ExtraMetrics | None = None


def of_sampled_customers(
    before: Interactions, later: Interactions, seed: int, most: int = MAX_EXAMPLES
) -> tuple[Interactions, Interactions]:
    """The interactions of at most `most` of the customers with later ones, so that examples need bounded memory.

    Parameters
    ----------
    before, later : Interactions
        Interactions before the test period, and those of the test period that count.
    seed : int
        Seed of the sample.

    Returns
    -------
    tuple of Interactions
        Those of the sampled customers before and in the test period; customers and items keep their indices.

    Examples
    --------
    >>> one = TrainingSet.from_arrays(np.array([0, 1, 2]), np.array([0, 0, 0]), n_users=3, n_items=1).interactions
    >>> before, later = of_sampled_customers(one, one.where(one.users > 0), seed=0, most=1)
    >>> before.users.tolist() == later.users.tolist(), len(later)
    (True, 1)
    """
    customers = np.unique(later.users)
    sampled = np.zeros(before.shape[0], dtype=bool)
    if len(customers) > most:
        customers = np.random.default_rng(seed).choice(customers, most, replace=False)
    sampled[customers] = True
    return before.where(sampled[before.users]), later.where(sampled[later.users])


# the default of the class is that of a baseline
PARAMETER_OVERRIDES: Mapping[str, Mapping[str, Any]] = {"popular": {"window_days": 28.0}}


def make_recommender(name: str, settings: RecommendSettings, seed: int, **fixed: Any) -> Recommender:
    """An unfitted model. `fixed` parameters override those of the settings, which override the defaults.

    Parameters
    ----------
    name : str
        Name in `RECOMMENDERS`.
    settings : RecommendSettings
    seed : int
        Passed to models with a parameter `seed`.
    **fixed
        Parameters of the model.
    """
    kind = RECOMMENDERS[name]
    seed_parameter = {"seed": seed} if "seed" in parameters_of(kind) else {}
    return kind(**{**PARAMETER_OVERRIDES.get(name, {}), **seed_parameter, **settings.models.get(name, {}), **fixed})


# from the most complex to the simplest; each is a candidate of `home` and `discover` where the budget can carry it
BASE_MODELS = ("hybrid", "bpr", "next_basket", "spectral", "ease", "ials", "item_knn", "affinity", "trending")


def base_models(settings: RecommendSettings, seed: int) -> dict[str, Recommender]:
    """The models of `BASE_MODELS` with the parameters of the settings, unfitted."""
    return {name: make_recommender(name, settings, seed) for name in BASE_MODELS}


def make_ranker(settings: RecommendSettings, seed: int, target: str) -> Recommender:
    """The two-stage ranker for all (``any``) or first (``new``) interactions.

    The models of its first stage have the parameters of the settings, so that what was found for a model also serves
    the ranker.
    """
    names = {name for name, _, _ in (*DEFAULT_STAGES[target], *TYPED_STAGES)}
    given = {name: dict(parameters) for name, parameters in settings.models.items() if name in names}
    return make_recommender(
        "two_stage", settings, seed, target=target, **({"stage_parameters": given} if given else {})
    )


def parameters_of(kind: type[Recommender]) -> list[str]:
    """Names of the constructor parameters of a model class."""
    return list(inspect.signature(kind).parameters)


def with_parameters(settings: RecommendSettings, chosen: Mapping[str, Mapping[str, Any]]) -> RecommendSettings:
    """The settings with chosen model parameters, which do not override those set by the user."""
    names = dict.fromkeys((*chosen, *settings.models))
    merged = {name: {**chosen.get(name, {}), **settings.models.get(name, {})} for name in names}
    return settings.model_copy(update={"models": merged})


def check_models(settings: RecommendSettings) -> None:
    """Check that the models and parameters named in the settings exist.

    Raises
    ------
    ConfigError
        With all unknown names.
    """
    problems = []
    for name, given in settings.models.items():
        if name not in RECOMMENDERS:
            problems.append(f"recommend.models.{name}: unknown model; known models: {', '.join(RECOMMENDERS)}")
            continue
        known = parameters_of(RECOMMENDERS[name])
        problems += [
            f"recommend.models.{name}.{key}: unknown parameter; known parameters: {', '.join(known)}"
            for key in given
            if key not in known
        ]
    if problems:
        raise ConfigError(problems, where="the settings")
