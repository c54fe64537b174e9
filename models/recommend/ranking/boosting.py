"""Train the boosters of the second stage with XGBoost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.recommend.ranking.boosters import Boosters
from models.recommend.ranking.examples import RankingExamples
from models.recommend.ranking.spool import SpooledRows, without_gaps
from models.recommend.ranking.xgboost_trees import flattened

LIST_OBJECTIVE = {"lambdarank_pair_method": "topk", "lambdarank_num_pair_per_sample": 10}
SCALE_ROWS = 20_000  # examples on which the scale of a booster is measured


def fit_boosters(
    samples: Sequence[RankingExamples],
    names: list[str],
    objectives: Sequence[str],
    rounds: int,
    trees: Mapping[str, Any],
) -> Boosters:
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
        matrix = binned(examples, names, bins=trees["max_bin"], threads=trees["nthread"], like=bins)
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
    return boosters_of(boosters, np.array(scales, dtype=np.float32))


def boosters_of(boosters: Sequence[xgb.Booster], scales: NDArray[np.float32], *, reads_gaps: bool = False) -> Boosters:
    """Return boosters with their trees as arrays; the other parameters are attributes of `Boosters`."""
    names = tuple(boosters[0].feature_names or ())
    return Boosters(tuple(boosters), scales, names, flattened(boosters), reads_gaps)


def is_of_lists(objective: str) -> bool:
    """Whether an objective compares the candidates of a list."""
    return objective.startswith("rank:")


def binned(
    examples: RankingExamples, names: list[str], *, bins: int, threads: int, like: xgb.QuantileDMatrix | None = None
) -> xgb.QuantileDMatrix:
    """Return examples as XGBoost holds them: the bin of each feature, read in blocks, and labels.

    The bounds of the bins are those of the matrix `like`, if there is one, which saves most of the time.
    """
    rows = RowIterator(examples.parts, {"label": examples.labels}, names)
    return xgb.QuantileDMatrix(rows, max_bin=bins, nthread=threads, ref=like)


class RowIterator(xgb.DataIter):
    """Gives rows, without gaps, and their labels to XGBoost block by block.

    Parameters
    ----------
    parts : sequence of SpooledRows
        The rows.
    columns : mapping of str to ndarray, (m,)
        Arguments of `xgboost.DMatrix` that have one entry per row (label, weight, qid).
    names : sequence of str
        Names of the features.
    """

    def __init__(self, parts: list[SpooledRows], columns: dict[str, NDArray[Any]], names: list[str]) -> None:
        super().__init__()
        self._parts, self._columns, self._names = parts, columns, names
        self.reset()

    def reset(self) -> None:
        """Start again with the first block."""
        self._place = 0
        self._blocks = (block for part in self._parts for block in part.blocks())

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Give the next block to XGBoost; False after the last."""
        block = next(self._blocks, None)
        if block is None:
            return False
        rows = slice(self._place, self._place + len(block))
        self._place = rows.stop
        columns = {name: column[rows] for name, column in self._columns.items()}
        input_data(data=without_gaps(block), feature_names=self._names, **columns)
        return True


def _spread_within(groups: NDArray[np.int64], margins: NDArray[np.floating[Any]]) -> float:
    """Standard deviation of the margins within their groups; 1 if they do not differ."""
    means = np.bincount(groups, margins) / np.maximum(np.bincount(groups), 1)
    spread = float(np.sqrt(np.mean((margins - means[groups]) ** 2)))
    return spread if spread > 0 else 1.0
