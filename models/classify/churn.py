"""Churn: the calibrated probability that an active customer buys nothing within the next `horizon_days`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from models.classify.boosting import check_outcomes, contributions, fit_trees, load_booster, save_booster, to_dmatrix
from models.parallel import run_parallel
from models.persist import load_json
from qianmian.errors import DataError
from qianmian.workspace import write_json

CHURN, WEEKS = "churn", "weeks"  # targets of the trees
OBJECTIVES = {CHURN: "binary:logistic", WEEKS: "reg:squarederror"}


class ChurnClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient-boosted trees with Platt scaling (Platt 1999) of out-of-fold margins.

    All snapshots of a customer are in the same fold.

    The trees learn who churned, or in how many weeks of the horizon the customers ordered: that also tells those who
    hardly stayed from those who came every week. Either way the calibration turns the margins into log-odds of churn.

    Parameters
    ----------
    n_estimators, max_depth, learning_rate, min_child_weight, subsample, colsample_bytree, reg_lambda
        As in XGBoost.
    folds : int
        Number of folds of the cross-validation that the calibration is fitted on; 0 for no calibration.
    seed : int
        Seed of the trees.
    target : {"churn", "weeks"}
        What the trees learn: churn by log loss, the weeks with an order by squared error.

    Attributes
    ----------
    booster_ : xgboost.Booster
        Trees fitted on all rows.
    calibration_ : ndarray of float64, (2,)
        Slope and intercept on the margin: p = 1 / (1 + exp(−(slope · margin + intercept))).
    """

    def __init__(
        self,
        n_estimators: int = 150,
        max_depth: int = 3,
        learning_rate: float = 0.05,
        min_child_weight: float = 20.0,
        subsample: float = 0.7,
        colsample_bytree: float = 0.4,
        reg_lambda: float = 5.0,
        folds: int = 5,
        seed: int = 0,
        target: str = CHURN,
    ) -> None:
        self.n_estimators, self.max_depth, self.learning_rate = n_estimators, max_depth, learning_rate
        self.min_child_weight, self.subsample, self.colsample_bytree = min_child_weight, subsample, colsample_bytree
        self.reg_lambda, self.folds, self.seed, self.target = reg_lambda, folds, seed, target

    def fit_trees(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> xgb.Booster:
        """Fit trees alone to the target, without the calibration: enough to order customers by their margins."""
        own = ("folds", "seed", "target")
        parameters = {name: value for name, value in self.get_params().items() if name not in own}
        return fit_trees(X, y, OBJECTIVES[self.target], parameters, self.seed)

    def fit(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        groups: NDArray[Any] | None = None,
        weeks: NDArray[np.int64] | None = None,
    ) -> Self:
        """Fit the trees and the calibration.

        Parameters
        ----------
        X : ndarray of float32, (n, f)
            Features.
        y : ndarray of int, (n,)
            1 where the customer churned, else 0.
        groups : ndarray, (n,), optional
            Customer of each row, if a customer appears in several snapshots.
        weeks : ndarray of int, (n,), optional
            Weeks of the horizon with an order, 0 where the customer churned; needed if the trees learn them.

        Raises
        ------
        DataError
            An outcome has fewer than 20 rows, all rows belong to one customer, or the weeks are missing.
        """
        labels = check_outcomes(y)
        if self.target == WEEKS and weeks is None:
            raise DataError("the trees learn the weeks with an order, and these are not given", hint="pass `weeks`")
        target = labels if weeks is None or self.target == CHURN else np.asarray(weeks, dtype=np.int64)
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = X.shape[1]
        if self.folds == 0:
            self.booster_, self.calibration_ = self.fit_trees(X, target), np.array([1.0, 0.0])
            return self
        margins = np.empty(len(labels), dtype=np.float64)
        owners = np.arange(len(labels)) if groups is None else np.asarray(groups)
        folds = min(self.folds, len(np.unique(owners)))
        if folds < 2:
            raise DataError("the churn model needs more than one customer", hint="ingest more customers")
        parts = list(GroupKFold(folds).split(X, labels, owners))
        whole = partial(self.fit_trees, X, target)
        self.booster_, *boosters = run_parallel(
            [whole, *(partial(self.fit_trees, X[train], target[train]) for train, _ in parts)]
        )
        for booster, (_, held_out) in zip(boosters, parts, strict=True):
            margins[held_out] = booster.predict(to_dmatrix(X[held_out]), output_margin=True)
        scaler = LogisticRegression(C=1e6).fit(margins[:, None], labels)
        self.calibration_ = np.array([scaler.coef_[0, 0], scaler.intercept_[0]], dtype=np.float64)
        return self

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the calibrated log-odds of churn, (n,)."""
        margin = self.booster_.predict(to_dmatrix(X), output_margin=True).astype(np.float64)
        return np.asarray(self.calibration_[0] * margin + self.calibration_[1], dtype=np.float64)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the calibrated probabilities of staying and churning, (n, 2)."""
        churn = 1.0 / (1.0 + np.exp(-self.log_odds(X)))
        return np.column_stack([1.0 - churn, churn])

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return 1 where the probability of churn is at least 0.5, else 0, (n,)."""
        return (self.predict_proba(X)[:, 1] >= 0.5).astype(np.int64)

    def explain(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the contribution of each feature to the log-odds of churn, (n, f)."""
        return contributions(self.booster_, X) * np.float32(self.calibration_[0])

    def save(self, folder: Path) -> None:
        """Write the booster as XGBoost JSON and the rest as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        save_booster(self.booster_, folder / "booster.json")
        write_json(
            folder / "params.json",
            {"params": self.get_params(), "calibration": self.calibration_.tolist(), "n_features": self.n_features_in_},
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        described = load_json(folder / "params.json")
        model = cls(**described["params"])
        model.classes_, model.n_features_in_ = np.array([0, 1]), described["n_features"]
        model.calibration_ = np.asarray(described["calibration"], dtype=np.float64)
        model.booster_ = load_booster(folder / "booster.json")
        return model
