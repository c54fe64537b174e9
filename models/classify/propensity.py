"""`PropensityModel`: the probabilities that a customer buys or does each of several targets within the horizon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.classify.calibrated import CalibratedClassifier
from models.persist import UserArrays, load_json
from qianmian.errors import UsageError
from qianmian.workspace import write_json


@dataclass(frozen=True)
class PropensityModel:
    """A calibrated classifier for each target, over its own columns of the features of the profiles.

    Attributes
    ----------
    targets : tuple of str
        As ``kind=NAME``.
    columns : tuple of tuple of int
        For each target the columns of the features that its classifier reads.
    classifiers : tuple of CalibratedClassifier
        Of each target.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    targets: tuple[str, ...] = ()
    columns: tuple[tuple[int, ...], ...] = ()
    classifiers: tuple[CalibratedClassifier, ...] = ()

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each target, float64, (n, targets), for features of shape (n, f)."""
        found = np.empty((len(X), len(self.targets)))
        for place, (columns, classifier) in enumerate(zip(self.columns, self.classifiers, strict=True)):
            found[:, place] = classifier.predict_proba(X[:, columns])[:, 1]
        return found

    def explain(self, X: NDArray[np.float32], target: str) -> NDArray[np.float32]:
        """Return the contribution of each feature to the log-odds of a target, (n, f); 0 for features it does not read.

        Raises
        ------
        UsageError
            The model has no such target.
        """
        if target not in self.targets:
            raise UsageError("the model has no such target", got=target, allowed=", ".join(self.targets))
        place = self.targets.index(target)
        found = np.zeros(X.shape, dtype=np.float32)
        columns = list(self.columns[place])
        found[:, columns] = self.classifiers[place].explain(X[:, columns])
        return found

    def save(self, folder: Path) -> None:
        """Write the classifier of each target into a folder of its own, and the targets as JSON."""
        write_json(folder / "targets.json", {"targets": list(self.targets), "columns": [list(c) for c in self.columns]})
        for place, classifier in enumerate(self.classifiers):
            classifier.save(folder / f"target_{place}")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        found = load_json(folder / "targets.json")
        classifiers = [CalibratedClassifier.load(folder / f"target_{place}") for place in range(len(found["targets"]))]
        return cls(tuple(found["targets"]), tuple(tuple(one) for one in found["columns"]), tuple(classifiers))
