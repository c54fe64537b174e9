"""The second stage: boosted trees of several objectives and samples of examples, whose scores are averaged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.classify.boosting import load_booster, save_booster
from models.persist import RETRAIN
from models.recommend.ranking.compiled import COMPILED
from models.recommend.ranking.examples import RankingExamples
from models.recommend.ranking.features import FEATURES
from models.recommend.ranking.flat_trees import FlatTrees
from models.recommend.ranking.spool import MISSING, without_gaps
from qianmian.errors import ArtifactError

Floats = NDArray[np.float32]
OBJECTIVES = ("binary:logistic", "rank:ndcg", "rank:pairwise")
LIST_OBJECTIVE = {"lambdarank_pair_method": "topk", "lambdarank_num_pair_per_sample": 10}
FEW_ROWS = 4_096  # up to this number of rows, one thread is faster than XGBoost's threads, which share out more
SCALE_ROWS = 20_000  # examples on which the scale of a booster is measured


@dataclass(frozen=True)
class Boosters:
    """Rankers of several objectives and samples of examples.

    A classifier learns mostly from customers with many purchases, an objective of lists from every customer alike and
    from the order at the top. Their errors differ, so their mean is better than either.

    Attributes
    ----------
    boosters : tuple of xgboost.Booster
        One for each objective and sample of examples.
    scales : ndarray of float32, (boosters,)
        Standard deviation of the margins of each booster within lists of its examples. A margin is divided by it; it
        does not depend on the list that is ranked, so what a call leaves out does not change the order of the rest.
    reads_gaps : bool
        Whether the boosters were trained on missing values as NaN, as in earlier versions; else `spool.MISSING` stands
        for them.
    """

    boosters: tuple[xgb.Booster, ...]
    scales: Floats
    reads_gaps: bool = False

    @classmethod
    def fit(
        cls,
        samples: Sequence[RankingExamples],
        names: list[str],
        objectives: Sequence[str],
        rounds: int,
        trees: Mapping[str, Any],
    ) -> Self:
        """Train a ranker of each objective on each of some samples of examples.

        Parameters
        ----------
        samples : sequence of RankingExamples
            The bins of the features are those of the first.
        names : list of str
            Names of the features.
        objectives : sequence of str
            Some of `OBJECTIVES`.
        rounds : int
            Number of trees of each ranker.
        trees : mapping of str to object
            Parameters of XGBoost for all rankers.
        """
        boosters, scales, bins = [], [], None
        for examples in samples:
            matrix = examples.matrix(names, bins=trees["max_bin"], threads=trees["nthread"], like=bins)
            bins = bins or matrix
            first, lists = examples.first(SCALE_ROWS)
            first = without_gaps(first)
            for objective in sorted(objectives, key=is_of_lists):  # a matrix gets groups, but does not lose them again
                by_list = is_of_lists(objective)
                # XGBoost takes the weights of a matrix with groups as those of groups
                matrix.set_info(weight=np.empty(0, np.float32) if by_list else examples.weights)
                if by_list:
                    matrix.set_info(qid=examples.groups)
                given = {"objective": objective, "tree_method": "hist", **(LIST_OBJECTIVE if by_list else {}), **trees}
                boosters.append(xgb.train(given, matrix, rounds))
                margins = boosters[-1].inplace_predict(first, predict_type="margin", validate_features=False)
                scales.append(_spread_within(lists, margins))
        return cls(tuple(boosters), np.array(scales, dtype=np.float32))

    def scores(self, X: Floats) -> Floats:
        """Return the mean of the scaled margins of rows, (m,)."""
        margins = self._margins(X)
        total: Floats = margins[:, 0] / self.scales[0]
        for place in range(1, len(self.boosters)):
            total += margins[:, place] / self.scales[place]
        total /= np.float32(len(self.boosters))
        return total

    def _margins(self, X: Floats) -> Floats:
        """Margins of rows by each booster, (m, boosters)."""
        if COMPILED and len(X) <= FEW_ROWS and self._flat is not None:
            return self._flat.margins(X, float(np.nan if self.reads_gaps else MISSING))
        given = X if self.reads_gaps else without_gaps(X)
        margins = self._joined.inplace_predict(given, predict_type="margin", validate_features=False)
        return np.asarray(margins, dtype=np.float32).reshape(len(X), len(self.boosters))

    @cached_property
    def _flat(self) -> FlatTrees | None:
        """The trees for the few rows of a request, None if they are too deep."""
        parts, starts = _saved(self.boosters)
        trees = [part["learner"]["gradient_booster"]["model"]["trees"] for part in parts]
        return FlatTrees.of(trees, starts, self.boosters[0].num_features())

    @cached_property
    def _joined(self) -> xgb.Booster:
        """One booster with an output per ranker: a call costs as much as the trees of a request."""
        return joined(self.boosters)

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
        for booster in (*self.boosters, self._joined):
            booster.set_param({"nthread": threads})

    def save(self, folder: Path) -> None:
        """Write `booster.ubj`, and `booster_1.ubj`, … if there are several."""
        for place, booster in enumerate(self.boosters):
            save_booster(booster, folder / _file(place))

    @classmethod
    def load(cls, folder: Path, scales: Floats, *, reads_gaps: bool) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        ArtifactError
            A file is missing or damaged.
        """
        return cls(tuple(load_booster(folder / _file(place)) for place in range(len(scales))), scales, reads_gaps)


def joined(boosters: Sequence[xgb.Booster]) -> xgb.Booster:
    """Join boosters of the same features and number of rounds to one whose margins, (m, boosters), are theirs.

    XGBoost grows one tree per class and round; here each booster takes the place of a class. Every margin is added up
    from the same start and in the same order as by the booster alone, so it is equal to the last bit.
    """
    if len(boosters) == 1:
        return boosters[0]
    parts, starts = _saved(boosters)
    whole = parts[0]
    learner = whole["learner"]
    rounds = zip(*(part["learner"]["gradient_booster"]["model"]["trees"] for part in parts), strict=True)
    trees = [tree for of_round in rounds for tree in of_round]
    for number, tree in enumerate(trees):
        tree["id"] = number
    model, n = learner["gradient_booster"]["model"], len(boosters)
    model["trees"], model["tree_info"] = trees, [number % n for number in range(len(trees))]
    model["iteration_indptr"] = list(range(0, len(trees) + 1, n))
    model["gbtree_model_param"]["num_trees"] = str(len(trees))
    base_score = ",".join(f"{start:.9g}" for start in starts)  # the digits that tell float32 numbers apart
    learner["learner_model_param"] |= {"num_class": str(n), "base_score": f"[{base_score}]"}
    learner["objective"] = {"name": "multi:softprob", "softmax_multiclass_param": {"num_class": str(n)}}
    return _read(whole, boosters[0])


def _saved(boosters: Sequence[xgb.Booster]) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the JSON of boosters, and their margins before the first tree."""
    parts = [json.loads(booster.save_raw("json")) for booster in boosters]
    return parts, [_start(booster, part) for booster, part in zip(boosters, parts, strict=True)]


def _start(booster: xgb.Booster, saved: dict[str, Any]) -> float:
    """Return the margin of a booster before its first tree: that of its first tree alone, with leaves of 0."""
    gbtree = saved["learner"]["gradient_booster"]
    first = gbtree["model"]["trees"][0]
    pairs = zip(first["left_children"], first["split_conditions"], strict=True)
    first = {**first, "split_conditions": [0.0 if child < 0 else threshold for child, threshold in pairs]}
    model = {**gbtree["model"], "trees": [first], "tree_info": [0], "iteration_indptr": [0, 1]}
    model["gbtree_model_param"] = {**model["gbtree_model_param"], "num_trees": "1"}
    learner = {**saved["learner"], "gradient_booster": {**gbtree, "model": model}}
    row = np.zeros((1, booster.num_features()), dtype=np.float32)
    blank = _read({**saved, "learner": learner}, booster)
    return float(blank.inplace_predict(row, predict_type="margin", validate_features=False)[0])


def _read(saved: dict[str, Any], like: xgb.Booster) -> xgb.Booster:
    """Read a booster from its JSON; it uses as many threads as `like`."""
    booster = xgb.Booster(model_file=bytearray(json.dumps(saved).encode()))
    threads = json.loads(like.save_config())["learner"]["generic_param"]["nthread"]
    booster.set_param({"nthread": int(threads)})
    return booster


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
