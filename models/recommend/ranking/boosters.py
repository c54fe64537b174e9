"""The second stage: boosted trees of several objectives and samples of examples, whose scores are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

import numpy as np
from numpy.typing import NDArray

from models.parallel import thread_budget
from models.persist import RETRAIN, load_arrays, save_arrays
from models.recommend.ranking.compiled import COMPILED
from models.recommend.ranking.features import FEATURES
from models.recommend.ranking.flat_trees import FlatTrees
from models.recommend.ranking.spool import MISSING, without_gaps
from qianmian.errors import ArtifactError

if TYPE_CHECKING:
    import xgboost as xgb

Floats = NDArray[np.float32]
OBJECTIVES = ("binary:logistic", "rank:ndcg", "rank:pairwise")
# up to so many rows, or with so few threads, the trees as arrays are faster than XGBoost, which shares rows out
FEW_ROWS, FEW_THREADS = 4_096, 2
TREES_FILE = "trees.npz"


@dataclass(frozen=True)
class Boosters:
    """Rankers of several objectives and samples of examples (`boosting.fit_boosters`).

    A classifier learns mostly from customers with many purchases, an objective of lists from every customer alike and
    from the order at the top. Their errors differ, so their mean is better than either.

    Attributes
    ----------
    boosters : sequence of xgboost.Booster
        One for each objective and sample of examples.
    scales : ndarray of float32, (boosters,)
        Standard deviation of the margins of each booster within lists of its examples. A margin is divided by it; it
        does not depend on the list that is ranked, so what a call leaves out does not change the order of the rest.
    names : tuple of str
        Names of the features.
    flat : FlatTrees or None
        The trees as arrays, None if they are too deep.
    reads_gaps : bool
        Whether the boosters were trained on missing values as NaN, as in earlier versions; else `spool.MISSING` stands
        for them.
    threads : int or None
        Number of threads of XGBoost; None leaves the choice to OpenMP.
    """

    boosters: Sequence[xgb.Booster]
    scales: Floats
    names: tuple[str, ...]
    flat: FlatTrees | None
    reads_gaps: bool = False
    threads: int | None = None

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
        if COMPILED and self.flat is not None and (len(X) <= FEW_ROWS or thread_budget() <= FEW_THREADS):
            return self.flat.margins(X, float(np.nan if self.reads_gaps else MISSING))
        given = X if self.reads_gaps else without_gaps(X)
        margins = self._joined.inplace_predict(given, predict_type="margin", validate_features=False)
        return np.asarray(margins, dtype=np.float32).reshape(len(X), len(self.boosters))

    @cached_property
    def _joined(self) -> xgb.Booster:
        """One booster with an output per ranker: a call costs as much as the trees of a request."""
        from models.recommend.ranking.xgboost_trees import joined  # imports XGBoost

        whole = joined(self.boosters)
        if self.threads is not None:
            whole.set_param({"nthread": self.threads})
        return whole

    def check_names(self, names: list[str], folder: Path) -> None:
        """Check that the rankers were trained on these features.

        Raises
        ------
        ArtifactError
            They were trained on others.
        """
        if self.names != tuple(names):
            raise _other_features(folder)

    def save(self, folder: Path) -> None:
        """Write `booster.ubj`, `booster_1.ubj` and so on, and what ranks the few rows of a request to `trees.npz`."""
        for place, booster in enumerate(self.boosters):
            booster.save_model(folder / _file(place))
        trees = {} if self.flat is None else self.flat.arrays()
        save_arrays(folder / TREES_FILE, {"names": np.array(self.names), **trees})

    @classmethod
    def load(cls, folder: Path, scales: Floats, *, reads_gaps: bool, threads: int | None = None) -> Self:
        """Read what `save` wrote. XGBoost's files are read when they are needed.

        Raises
        ------
        ArtifactError
            A file is missing or damaged.
        """
        stored = _StoredBoosters([folder / _file(place) for place in range(len(scales))])
        if not (folder / TREES_FILE).exists():  # an earlier version wrote none
            from models.recommend.ranking.xgboost_trees import flattened  # imports XGBoost

            names = tuple(stored[0].feature_names or ())
            return cls(stored, scales, names, flattened(stored), reads_gaps, threads)
        trees = load_arrays(folder / TREES_FILE)
        names = tuple(trees.pop("names").tolist())
        return cls(stored, scales, names, FlatTrees(**trees, width=len(names)) if trees else None, reads_gaps, threads)


class _StoredBoosters(Sequence["xgb.Booster"]):
    """Boosters in files, which are read when one of them is wanted.

    Raises
    ------
    ArtifactError
        A file is missing or, later, damaged.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        for path in paths:
            if not path.exists():
                raise ArtifactError("a file of a model is missing", where=str(path), hint=RETRAIN)

    @cached_property
    def _boosters(self) -> tuple[xgb.Booster, ...]:
        from models.classify.boosting import load_booster  # imports XGBoost

        return tuple(load_booster(path) for path in self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> xgb.Booster: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[xgb.Booster]: ...
    def __getitem__(self, place: int | slice) -> xgb.Booster | Sequence[xgb.Booster]:
        return self._boosters[place]


def check_features(folder: Path) -> None:
    """Check that the saved rankers read the features that this version computes.

    Raises
    ------
    ArtifactError
        They read others, or cannot be read.
    """
    if (folder / TREES_FILE).exists():
        names = load_arrays(folder / TREES_FILE)["names"].tolist()
    else:
        names = _StoredBoosters([folder / _file(0)])[0].feature_names or []
    if names[: len(FEATURES)] != list(FEATURES):
        raise _other_features(folder)


def _other_features(folder: Path) -> ArtifactError:
    return ArtifactError("the ranker reads other features than this version computes", where=str(folder), hint=RETRAIN)


def _file(place: int) -> str:
    return f"booster_{place}.ubj" if place else "booster.ubj"
