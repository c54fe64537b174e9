"""Store the models that a model is composed of, each in a folder of its position and name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from models.recommend.base import Recommender


def save_submodels(models: Iterable[Recommender], folder: Path) -> None:
    """Write fitted models into subfolders of `folder`."""
    for level, model in enumerate(models):
        model.save(folder / f"{level}_{model.name}")


def load_submodels(
    names: Iterable[str], kinds: Mapping[str, type[Recommender]], folder: Path
) -> tuple[Recommender, ...]:
    """Read the models of these names that `save_submodels` wrote."""
    return tuple(kinds[name].load(folder / f"{level}_{name}") for level, name in enumerate(names))
