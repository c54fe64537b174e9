"""Next lifecycle stage: the probability of each lifecycle stage after `horizon_days`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from models.classify.boosting import load_booster, save_booster, to_dmatrix
from models.parallel import thread_budget
from models.persist import UserArrays, load_json
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES
from qianmian.workspace import write_json


class NextStageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial gradient-boosted trees over profile features and the current stage.

    Parameters
    ----------
    n_estimators, max_depth, learning_rate, min_child_weight, subsample, colsample_bytree, seed
        As in XGBoost.

    Attributes
    ----------
    classes_ : ndarray of str
        Stages in the training labels, sorted; the columns of `predict_proba`.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    def __init__(
        self,
        n_estimators: int = 120,
        max_depth: int = 3,
        learning_rate: float = 0.06,
        min_child_weight: float = 10.0,
        subsample: float = 0.8,
        colsample_bytree: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.n_estimators, self.max_depth, self.learning_rate = n_estimators, max_depth, learning_rate
        self.min_child_weight, self.subsample = min_child_weight, subsample
        self.colsample_bytree, self.seed = colsample_bytree, seed

    def fit(self, X: NDArray[np.float32], current_stages: NDArray[np.str_], y: NDArray[np.str_]) -> Self:
        """Fit the trees.

        Parameters
        ----------
        X : ndarray of float32, (n, f)
            Features.
        current_stages : ndarray of str, (n,)
            Stage of each customer at the time of the features.
        y : ndarray of str, (n,)
            Stage of each customer one horizon later.

        Raises
        ------
        DataError
            All customers end in the same stage.
        """
        self.classes_, codes = np.unique(np.asarray(y, dtype=np.str_), return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                "all customers end in the same lifecycle stage",
                got=self.classes_.tolist(),
                hint="choose another --horizon-days, or ingest a longer history",
            )
        self.n_features_in_ = X.shape[1]
        parameters = {
            "objective": "multi:softprob",
            "num_class": len(self.classes_),
            "max_depth": self.max_depth,
            "eta": self.learning_rate,
            "seed": self.seed,
            "min_child_weight": self.min_child_weight,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample_bytree,
            "tree_method": "hist",
            "nthread": thread_budget(),
        }
        self.booster_ = xgb.train(
            parameters, to_dmatrix(_with_stage(X, current_stages), codes), num_boost_round=self.n_estimators
        )
        return self

    def predict_proba(self, X: NDArray[np.float32], current_stages: NDArray[np.str_]) -> NDArray[np.float64]:
        """Return the probabilities of `classes_` for customers in `current_stages`, (n, n_classes); rows sum to 1."""
        predicted = self.booster_.predict(to_dmatrix(_with_stage(X, current_stages)))
        p = np.asarray(predicted, dtype=np.float64).reshape(len(X), len(self.classes_))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def predict(self, X: NDArray[np.float32], current_stages: NDArray[np.str_]) -> NDArray[np.str_]:
        """Return the most probable next stage, (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X, current_stages).argmax(axis=1)])

    def save(self, folder: Path) -> None:
        """Write the booster as XGBoost JSON and the rest as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        save_booster(self.booster_, folder / "booster.json")
        write_json(
            folder / "params.json",
            {"params": self.get_params(), "classes": self.classes_.tolist(), "n_features": self.n_features_in_},
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        described = load_json(folder / "params.json")
        model = cls(**described["params"])
        model.classes_, model.n_features_in_ = np.asarray(described["classes"], dtype=np.str_), described["n_features"]
        model.booster_ = load_booster(folder / "booster.json")
        return model


def _with_stage(X: NDArray[np.float32], current_stages: NDArray[np.str_]) -> NDArray[np.float32]:
    """Append the current stage as an ordered code in the last column, (n, f + 1)."""
    codes = np.array([LIFECYCLE_STAGES.index(stage) for stage in current_stages.tolist()], dtype=np.float32)
    return np.column_stack([X, codes]).astype(np.float32)
