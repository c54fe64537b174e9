"""Logistic regression on few columns, for shops where trees find nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from models.classify.boosting import check_outcomes
from models.persist import load_json
from qianmian.workspace import write_json


class LogisticClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression on the logarithm of each column, standardised.

    The logarithm is sign(x) · log(1 + abs(x)), because counts, amounts and times are skewed. A value beyond those that
    were fitted counts as the nearest of them: a column that hardly varied in a short history says little, and nothing
    about a value far from those.

    Parameters
    ----------
    penalty : float
        Weight of the squared coefficients, against one row.

    Attributes
    ----------
    coefficients_ : ndarray of float64, (f,)
        Change of the log-odds for one standard deviation.
    intercept_ : float
    mean_, scale_ : ndarray of float64, (f,)
        Mean and standard deviation of the logarithms in the rows that were fitted.
    low_, high_ : ndarray of float64, (f,)
        Smallest and largest of these logarithms.
    """

    def __init__(self, penalty: float = 20.0) -> None:
        self.penalty = penalty

    def fit(self, X: NDArray[np.float32], y: NDArray[np.int64], groups: NDArray[Any] | None = None) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : ndarray of float32, (n, f)
        y : ndarray of int, (n,)
            1 where the customer churned, else 0.
        groups : ndarray, (n,), optional
            Not used: few coefficients do not need a calibration on customers that are left out.

        Raises
        ------
        DataError
            An outcome has fewer than 20 rows.
        """
        labels = check_outcomes(y)
        logs = _logs(X)
        self.classes_, self.n_features_in_ = np.array([0, 1]), X.shape[1]
        self.mean_, spread = logs.mean(axis=0), logs.std(axis=0)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self.low_, self.high_ = logs.min(axis=0), logs.max(axis=0)
        found = LogisticRegression(C=1.0 / self.penalty, max_iter=500).fit((logs - self.mean_) / self.scale_, labels)
        self.coefficients_, self.intercept_ = found.coef_[0].astype(np.float64), float(found.intercept_[0])
        return self

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-odds of churn, (n,)."""
        return np.asarray(self._terms(X).sum(axis=1) + self.intercept_, dtype=np.float64)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities of staying and churning, (n, 2)."""
        churn = 1.0 / (1.0 + np.exp(-self.log_odds(X)))
        return np.column_stack([1.0 - churn, churn])

    def explain(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the contribution of each column to the log-odds: coefficient × distance from the mean, (n, f)."""
        return self._terms(X).astype(np.float32)

    def _terms(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        logs = np.clip(_logs(X), self.low_, self.high_)
        return np.asarray((logs - self.mean_) / self.scale_ * self.coefficients_, dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write the coefficients as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"mean": self.mean_, "scale": self.scale_, "coefficients": self.coefficients_}
        arrays |= {"low": self.low_, "high": self.high_}
        state = {name: array.tolist() for name, array in arrays.items()}
        write_json(folder / "logistic.json", {"params": self.get_params(), "intercept": self.intercept_, **state})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        described = load_json(folder / "logistic.json")
        model = cls(**described["params"])
        model.mean_, model.scale_, model.coefficients_ = (
            np.asarray(described[name], dtype=np.float64) for name in ("mean", "scale", "coefficients")
        )
        # an earlier version stored no bounds
        limits = described.get("low", [-np.inf] * len(model.mean_)), described.get("high", [np.inf] * len(model.mean_))
        model.low_, model.high_ = (np.asarray(limit, dtype=np.float64) for limit in limits)
        model.intercept_ = float(described["intercept"])
        model.classes_, model.n_features_in_ = np.array([0, 1]), len(model.coefficients_)
        return model


def _logs(X: NDArray[np.float32]) -> NDArray[np.float64]:
    values = np.asarray(X, dtype=np.float64)
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)), dtype=np.float64)
