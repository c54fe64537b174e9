"""Regressions of an outcome or of an effect, linear or boosted, with the treatment as a further input if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from models.classify.boosting import load_booster, save_booster, to_dmatrix
from models.classify.column_encoding import ColumnEncoding
from models.parallel import one_blas_thread, thread_budget
from models.persist import load_json
from qianmian.workspace import write_json

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
LOGISTIC_PENALTY = 20.0  # of the squared standardised coefficients, against one row
RIDGE_PENALTIES = 10.0 ** np.arange(0.0, 6.5, 0.5)  # against one row; the best by generalised cross-validation
TREES = {
    "max_depth": 3,
    "eta": 0.1,
    "min_child_weight": 30.0,
    "subsample": 0.7,
    "lambda": 10.0,
    "max_bin": 64,
    "tree_method": "hist",
}
ROUNDS = 50
LOGISTIC = "binary:logistic"
LEAST_COLUMNS_SHARE, TREE_COLUMNS = 0.2, 8  # of the columns in a tree


class Regression(Protocol):
    """A fitted regression; `treatment` is None, or the value of the treatment to predict for."""

    def predict(self, X: Matrix, treatment: float | None = None) -> Floats: ...
    def save(self, folder: Path) -> None: ...


class LinearRegressionModel:
    """Logistic or ridge regression on the standardised linear columns of an encoding.

    Attributes
    ----------
    encoding : ColumnEncoding
    mean, scale : ndarray of float64, (columns,)
        Of the columns of the encoding.
    weights : ndarray of float64, (columns,)
    intercept : float
    is_logistic : bool
        Whether the prediction is a probability.
    """

    def __init__(
        self,
        encoding: ColumnEncoding,
        mean: Floats,
        scale: Floats,
        weights: Floats,
        intercept: float,
        is_logistic: bool,
    ) -> None:
        self.encoding, self.mean, self.scale = encoding, mean, scale
        self.weights, self.intercept, self.is_logistic = weights, intercept, is_logistic

    @classmethod
    def fit(cls, encoding: ColumnEncoding, X: Matrix, y: Floats, *, is_binary: bool, seed: int = 0) -> Self:
        """Fit to the outcomes `y`, which are 0 or 1 if `is_binary`; nothing is random."""
        columns = encoding.linear_columns(X)
        mean, spread = columns.mean(axis=0), columns.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        inputs = (columns - mean) / scale
        with one_blas_thread():
            if is_binary:
                found = LogisticRegression(C=1.0 / LOGISTIC_PENALTY, max_iter=500).fit(inputs, y)
                weights, intercept = found.coef_[0].astype(np.float64), float(found.intercept_[0])
            else:
                weights, intercept = ridge(inputs, y)
        return cls(encoding, mean, scale, weights, intercept, is_binary)

    def predict(self, X: Matrix, treatment: float | None = None) -> Floats:
        """Return the expected outcome of each row, (n,); the treatment is none of the inputs."""
        standard = (self.encoding.linear_columns(X) - self.mean) / self.scale
        linear = np.asarray(standard @ self.weights + self.intercept)
        return np.asarray(expit(linear)) if self.is_logistic else linear

    def save(self, folder: Path) -> None:
        """Write the coefficients as JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
        about = {"intercept": self.intercept, "is_logistic": self.is_logistic, "encoding": self.encoding.as_dict()}
        write_json(folder / "linear.json", {**arrays, **about})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a regression that `save` wrote."""
        found = load_json(folder / "linear.json")
        mean, scale, weights = (np.asarray(found[name], dtype=np.float64) for name in ("mean", "scale", "weights"))
        encoding = ColumnEncoding.from_dict(found["encoding"])
        return cls(encoding, mean, scale, weights, float(found["intercept"]), bool(found["is_logistic"]))


class BoostedRegression:
    """Gradient-boosted trees (XGBoost) on the tree columns of an encoding, and the treatment as a last column."""

    def __init__(self, encoding: ColumnEncoding, booster: xgb.Booster) -> None:
        self.encoding, self.booster = encoding, booster

    @classmethod
    def fit(
        cls,
        encoding: ColumnEncoding,
        X: Matrix,
        y: Floats,
        *,
        treated: NDArray[np.bool_] | None = None,
        is_binary: bool,
        seed: int = 0,
    ) -> Self:
        """Fit to the outcomes `y` (0 or 1 if `is_binary`), with the treatment as an input if `treated` is given."""
        inputs = _tree_inputs(encoding, X, treated)
        share = min(1.0, max(LEAST_COLUMNS_SHARE, TREE_COLUMNS / max(inputs.shape[1], 1)))
        parameters: dict[str, Any] = {
            **TREES,
            "objective": LOGISTIC if is_binary else "reg:squarederror",
            "base_score": float(y.mean()),
            "colsample_bytree": share,
            "seed": seed,
            "nthread": thread_budget(),
        }
        return cls(encoding, xgb.train(parameters, to_dmatrix(inputs, y), num_boost_round=ROUNDS))

    def predict(self, X: Matrix, treatment: float | None = None) -> Floats:
        """Return the expected outcome of each row, (n,)."""
        values = None if treatment is None else np.full(len(X), treatment)
        return np.asarray(self.booster.predict(to_dmatrix(_tree_inputs(self.encoding, X, values))), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write the trees in XGBoost's JSON format."""
        folder.mkdir(parents=True, exist_ok=True)
        save_booster(self.booster, folder / "booster.json")
        write_json(folder / "encoding.json", self.encoding.as_dict())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a regression that `save` wrote."""
        encoding = ColumnEncoding.from_dict(load_json(folder / "encoding.json"))
        return cls(encoding, load_booster(folder / "booster.json"))


OUTCOME_MODELS: dict[str, type[LinearRegressionModel] | type[BoostedRegression]] = {
    "linear": LinearRegressionModel,
    "boosted": BoostedRegression,
}


def ridge(inputs: Floats, y: Floats) -> tuple[Floats, float]:
    """Ridge regression on centred columns, its penalty by generalised cross-validation (Golub, Heath & Wahba 1979).

    Returns
    -------
    ndarray of float64, (columns,)
    float
        The intercept.
    """
    n, mean = len(y), inputs.mean(axis=0)
    centred, target = inputs - mean, y - y.mean()
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.maximum(values, 0.0)
    rotated = vectors.T @ (centred.T @ target)
    best, best_score = np.zeros(len(values)), np.inf
    total = float(target @ target)
    for penalty in RIDGE_PENALTIES:
        shrunk = rotated / (values + penalty)
        residual = total - 2.0 * float(shrunk @ rotated) + float(shrunk @ (values * shrunk))
        degrees = 1.0 + float((values / (values + penalty)).sum())
        if degrees < n and (score := residual / (n - degrees) ** 2) < best_score:
            best, best_score = shrunk, score
    weights = vectors @ best
    return weights, float(y.mean() - mean @ weights)


def _tree_inputs(encoding: ColumnEncoding, X: Matrix, treatment: NDArray[Any] | None) -> Matrix:
    columns = encoding.tree_columns(X)
    return columns if treatment is None else np.column_stack([columns, treatment]).astype(np.float32)
