"""Next lifecycle stage: the probability of each stage `horizon_days` from now."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from models.classify.boosting import load_booster, save_booster, to_dmatrix
from models.persist import load_json
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES
from qianmian.workspace import write_json


class NextStageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial gradient-boosted trees over profile features and today's stage.

    Attributes
    ----------
    classes_ : ndarray of str
        Stages seen in fitting, sorted; the columns of `predict_proba`.
    """

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
        self.min_child_weight, self.subsample, self.colsample_bytree, self.seed = (
            min_child_weight,
            subsample,
            colsample_bytree,
            seed,
        )

    def fit(self, X: NDArray[np.float32], current_stages: NDArray[np.str_], y: NDArray[np.str_]) -> Self:
        """Learn from (n, f) features, today's stage (n,) and the stage (n,) each customer was in one horizon later.

        Raises
        ------
        DataError
            When all customers end in one stage.
        """
        self.classes_, codes = np.unique(np.asarray(y, dtype=np.str_), return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                "all customers end in the same lifecycle stage",
                got=self.classes_.tolist(),
                hint="choose another --horizon-days, or bring a longer history",
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
        }
        self.booster_ = xgb.train(
            parameters, to_dmatrix(_with_stage(X, current_stages), codes), num_boost_round=self.n_estimators
        )
        return self

    def predict_proba(self, X: NDArray[np.float32], current_stages: NDArray[np.str_]) -> NDArray[np.float64]:
        """The probability of each of `classes_` for customers in the stages `current_stages`, (n, number of classes), rows sum to 1."""
        p = np.asarray(self.booster_.predict(to_dmatrix(_with_stage(X, current_stages))), dtype=np.float64).reshape(
            len(X), len(self.classes_)
        )
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def predict(self, X: NDArray[np.float32], current_stages: NDArray[np.str_]) -> NDArray[np.str_]:
        """The likeliest next stage, (n,)."""
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
        """The inverse of `save`."""
        described = load_json(folder / "params.json")
        model = cls(**described["params"])
        model.classes_, model.n_features_in_ = np.asarray(described["classes"], dtype=np.str_), described["n_features"]
        model.booster_ = load_booster(folder / "booster.json")
        return model


def _with_stage(X: NDArray[np.float32], current_stages: NDArray[np.str_]) -> NDArray[np.float32]:
    """Features with today's stage as an ordered code in the last column, (n, f + 1)."""
    codes = np.array([LIFECYCLE_STAGES.index(stage) for stage in current_stages.tolist()], dtype=np.float32)
    return np.column_stack([X, codes]).astype(np.float32)
