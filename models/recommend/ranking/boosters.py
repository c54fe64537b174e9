"""The second stage: boosted trees of several objectives, trained on the same examples, whose scores are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.classify.boosting import load_booster, save_booster
from models.persist import RETRAIN
from models.recommend.ranking.examples import RankingExamples
from models.recommend.ranking.features import FEATURES
from qianmian.errors import ArtifactError

Floats = NDArray[np.float32]
OBJECTIVES = ("binary:logistic", "rank:ndcg", "rank:pairwise")
LIST_OBJECTIVE = {"lambdarank_pair_method": "topk", "lambdarank_num_pair_per_sample": 10}
SCALE_ROWS = 20_000  # examples on which the scale of a booster is measured


@dataclass(frozen=True)
class Boosters:
    """Rankers of several objectives.

    A classifier learns mostly from customers with many purchases, an objective of lists from every customer alike and
    from the order at the top. Their errors differ, so their mean is better than either.

    Attributes
    ----------
    boosters : tuple of xgboost.Booster
        One for each objective.
    scales : ndarray of float32, (boosters,)
        Standard deviation of the margins of each booster within lists of the examples. A margin is divided by it; it
        does not depend on the list that is ranked, so what a call leaves out does not change the order of the rest.
    """

    boosters: tuple[xgb.Booster, ...]
    scales: Floats

    @classmethod
    def fit(
        cls,
        examples: RankingExamples,
        names: list[str],
        objectives: Sequence[str],
        rounds: int,
        trees: Mapping[str, Any],
    ) -> Self:
        """Train the rankers on one binned matrix of the examples; `trees` are parameters of XGBoost for all of them."""
        matrix = examples.matrix(names, bins=trees["max_bin"], threads=trees["nthread"])
        sample, lists = examples.first(SCALE_ROWS)
        boosters, scales = [], []
        for objective in sorted(objectives, key=is_of_lists):  # a matrix gets groups, but does not lose them again
            by_list = is_of_lists(objective)
            # XGBoost takes the weights of a matrix with groups as those of groups
            matrix.set_info(weight=np.empty(0, np.float32) if by_list else examples.weights)
            if by_list:
                matrix.set_info(qid=examples.groups)
            more = LIST_OBJECTIVE if by_list else {}
            boosters.append(xgb.train({"objective": objective, "tree_method": "hist", **more, **trees}, matrix, rounds))
            margins = boosters[-1].inplace_predict(sample, predict_type="margin", validate_features=False)
            scales.append(_spread_within(lists, margins))
        return cls(tuple(boosters), np.array(scales, dtype=np.float32))

    def scores(self, X: Floats) -> Floats:
        """Return the mean of the scaled margins of rows, (m,)."""
        total = np.zeros(len(X), dtype=np.float32)
        for booster, scale in zip(self.boosters, self.scales, strict=True):
            margin = booster.inplace_predict(X, predict_type="margin", validate_features=False)
            total += np.asarray(margin, dtype=np.float32) / scale
        return total / np.float32(len(self.boosters))

    def check_names(self, names: list[str], folder: Path) -> None:
        """Check that the rankers were trained on these features.

        Raises
        ------
        ArtifactError
            They were trained on others.
        """
        if any(booster.feature_names != names for booster in self.boosters):
            raise _other_features(folder)

    def set_threads(self, threads: int) -> None:
        """Set the number of threads that rank."""
        for booster in self.boosters:
            booster.set_param({"nthread": threads})

    def save(self, folder: Path) -> None:
        """Write `booster.ubj`, and `booster_1.ubj`, … if there are several."""
        for place, booster in enumerate(self.boosters):
            save_booster(booster, folder / _file(place))

    @classmethod
    def load(cls, folder: Path, scales: Floats) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        ArtifactError
            A file is missing or damaged.
        """
        return cls(tuple(load_booster(folder / _file(place)) for place in range(len(scales))), scales)


def is_of_lists(objective: str) -> bool:
    """Whether an objective compares the candidates of a list."""
    return objective.startswith("rank:")


def check_features(folder: Path) -> None:
    """Check that the saved ranker reads the features that this version computes.

    Raises
    ------
    ArtifactError
        It reads others, or cannot be read.
    """
    names = load_booster(folder / _file(0)).feature_names or []
    if names[: len(FEATURES)] != list(FEATURES):
        raise _other_features(folder)


def _other_features(folder: Path) -> ArtifactError:
    return ArtifactError("the ranker reads other features than this version computes", where=str(folder), hint=RETRAIN)


def _file(place: int) -> str:
    return f"booster_{place}.ubj" if place else "booster.ubj"


def _spread_within(groups: NDArray[np.int64], margins: NDArray[np.floating[Any]]) -> float:
    """Standard deviation of the margins within their groups; 1 if they do not differ."""
    means = np.bincount(groups, margins) / np.maximum(np.bincount(groups), 1)
    spread = float(np.sqrt(np.mean((margins - means[groups]) ** 2)))
    return spread if spread > 0 else 1.0
