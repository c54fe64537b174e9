"""What a scene is asked on customers and days nobody has learnt from, and who answers: its model beside its baselines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.ranked import Ranked
from models.recommend import RECOMMENDERS
from models.recommend.base import Attributes, Indices, Recommender
from qianmian.errors import ConfigError
from qianmian.settings import RecommendSettings

MIN_EXAMPLES = 30


@dataclass(frozen=True)
class Examples:
    """Questions with known answers.

    Attributes
    ----------
    train : TrainingSet
        What the models may learn from; a cold task has taken the histories of its users out of it.
    users : ndarray of int64, (n,)
    truth : csr_matrix, (n, n_items)
        1 where the right answer to a question has the item; every row has one.
    items, attributes, exclude, exclude_purchased, allowed
        As `Recommender.recommend` takes them.
    """

    train: TrainingSet
    users: NDArray[np.int64]
    truth: sparse.csr_matrix
    items: Sequence[Indices] | None = None
    attributes: Sequence[Attributes | None] | None = None
    exclude: Sequence[Indices] | None = None
    exclude_purchased: bool = False
    allowed: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.users)

    def ask(self, model: Recommender, k: int) -> Ranked:
        """A fitted model's answers."""
        return model.recommend(
            self.users,
            k,
            allowed=self.allowed,
            exclude=self.exclude,
            exclude_purchased=self.exclude_purchased,
            attributes=self.attributes,
            items=self.items,
        )


Extra = Callable[[Recommender, Examples, Interactions], Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Task:
    """The held-out task of a scene (`Scene.task` names it), or of a cold case, whose model answers where a scene's `filled_by` names it.

    Attributes
    ----------
    name : str
        That of its scene, or ``cold customers``, ``cold items``.
    description : str
        The question in words, with what counts as right.
    candidates : callable
        (settings, seed) → unfitted models by name: first the one the scene is for, then its baselines, the simplest last. The better of them ships.
    examples : callable
        (train, after, seed) → `Examples`. `train` ends where the test window begins; `after` is what happened in the window: the same users and
        items, ages counted from the window's end. Few or none may be found; fewer than `MIN_EXAMPLES` decide nothing.
    metric : str
        Of the ranking metrics at `k`, the one that decides.
    filled_by : sequence of str
        What fills the places of this scene's lists that its model leaves open: other tasks (the model that won there) or models, by name.
    tunes : sequence of str
        Models whose parameters `--tune` searches on this task.
    extra : callable, optional
        (fitted model, examples, after) → further values an example, for models that promise more than an order (an expected day).
    """

    name: str
    description: str
    candidates: Callable[[RecommendSettings, int], Mapping[str, Recommender]]
    examples: Callable[[TrainingSet, Interactions, int], Examples]
    metric: str = "ndcg"
    k: int = 10
    filled_by: Sequence[str] = ()
    tunes: Sequence[str] = ()
    extra: Extra | None = None


SHIPPED: Mapping[str, Mapping[str, Any]] = {
    "popular": {"window_days": 28.0}
}  # where the class has a baseline's default


def make(name: str, settings: RecommendSettings, seed: int, **fixed: Any) -> Recommender:
    """An unfitted model: its defaults, over them the settings', over these what is fixed; it gets the seed if it draws."""
    kind = RECOMMENDERS[name]
    drawn = {"seed": seed} if "seed" in parameters_of(kind) else {}
    return kind(**{**SHIPPED.get(name, {}), **drawn, **settings.models.get(name, {}), **fixed})


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


def taken(users: NDArray[Any], items: NDArray[Any], shape: tuple[int, int]) -> sparse.csr_matrix:
    """A 0/1 matrix of pairs, sorted, doubles once."""
    matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    matrix.sort_indices()
    return matrix
