"""`CalibratedClassifier`: probabilities of a yes or no, by logistic regression, boosted trees or the mean of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold

from models.classify.boosting import contributions, fit_trees, load_booster, save_booster, to_dmatrix
from models.classify.column_encoding import ColumnEncoding
from models.classify.rhythm import probability
from models.persist import load_json
from qianmian.errors import DataError
from qianmian.workspace import write_json

Floats = NDArray[np.float64]
MIN_OUTCOMES = 20  # rows of each outcome
FOLDS = 5
PENALTY = 20.0  # of the squared standardised coefficients, against one row
TREES: Mapping[str, float] = {
    "n_estimators": 150,
    "max_depth": 3,
    "learning_rate": 0.05,
    "min_child_weight": 20.0,
    "subsample": 0.7,
    "reg_lambda": 5.0,
}
NO_CHANGE: Mapping[str, float] = MappingProxyType({})
COLUMNS_SHARE, MIN_TREE_COLUMNS = 0.4, 4  # of the columns in a tree: with fewer it could not combine them


class _Member(Protocol):
    def log_odds(self, X: NDArray[np.float32]) -> Floats: ...
    def explain(self, X: NDArray[np.float32]) -> Floats: ...
    def save(self, folder: Path) -> None: ...


class LogisticMember:
    """Logistic regression on the standardised linear columns of an encoding."""

    def __init__(self, encoding: ColumnEncoding, mean: Floats, scale: Floats, weights: Floats, intercept: float):
        self.encoding, self.mean, self.scale, self.weights, self.intercept = encoding, mean, scale, weights, intercept

    @classmethod
    def fit(
        cls,
        encoding: ColumnEncoding,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        seed: int,
        trees: Mapping[str, float] = NO_CHANGE,
    ) -> Self:
        columns = encoding.linear_columns(X)
        mean, spread = columns.mean(axis=0), columns.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        found = LogisticRegression(C=1.0 / PENALTY, max_iter=1000).fit((columns - mean) / scale, y)
        return cls(encoding, mean, scale, found.coef_[0].astype(np.float64), float(found.intercept_[0]))

    def log_odds(self, X: NDArray[np.float32]) -> Floats:
        return np.asarray(self._terms(X).sum(axis=1) + self.intercept)

    def explain(self, X: NDArray[np.float32]) -> Floats:
        return _by_source(self._terms(X), self.encoding.linear_sources(), X.shape[1])

    def _terms(self, X: NDArray[np.float32]) -> Floats:
        return np.asarray((self.encoding.linear_columns(X) - self.mean) / self.scale * self.weights)

    def save(self, folder: Path) -> None:
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
        write_json(folder / "logistic.json", {"intercept": self.intercept, **arrays})

    @classmethod
    def load(cls, folder: Path, encoding: ColumnEncoding) -> Self:
        found = load_json(folder / "logistic.json")
        mean, scale, weights = (np.asarray(found[name], dtype=np.float64) for name in ("mean", "scale", "weights"))
        return cls(encoding, mean, scale, weights, float(found["intercept"]))


class TreesMember:
    """Gradient-boosted trees (XGBoost) on the tree columns of an encoding."""

    def __init__(self, encoding: ColumnEncoding, booster: xgb.Booster):
        self.encoding, self.booster = encoding, booster

    @classmethod
    def fit(
        cls,
        encoding: ColumnEncoding,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        seed: int,
        trees: Mapping[str, float] = NO_CHANGE,
    ) -> Self:
        columns = encoding.tree_columns(X)
        share = min(1.0, max(COLUMNS_SHARE, MIN_TREE_COLUMNS / max(columns.shape[1], 1)))
        parameters = {**TREES, "colsample_bytree": share, **trees}
        return cls(encoding, fit_trees(columns, y, "binary:logistic", parameters, seed))

    def log_odds(self, X: NDArray[np.float32]) -> Floats:
        margins = self.booster.predict(to_dmatrix(self.encoding.tree_columns(X)), output_margin=True)
        return np.asarray(margins, dtype=np.float64)

    def explain(self, X: NDArray[np.float32]) -> Floats:
        values = contributions(self.booster, self.encoding.tree_columns(X)).astype(np.float64)
        return _by_source(values, self.encoding.tree_sources(), X.shape[1])

    def save(self, folder: Path) -> None:
        save_booster(self.booster, folder / "booster.json")

    @classmethod
    def load(cls, folder: Path, encoding: ColumnEncoding) -> Self:
        return cls(encoding, load_booster(folder / "booster.json"))


MEMBERS: dict[str, type[LogisticMember] | type[TreesMember]] = {"logistic": LogisticMember, "trees": TreesMember}


class CalibratedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A calibrated classifier of yes and no over numbers, categories and missing values.

    The log-odds are the mean of those of the members, corrected by Platt scaling (Platt 1999) on out-of-fold rows: a
    slope and an intercept. All rows of a group (a customer at several moments) are in the same fold. The model keeps no
    row: coefficients, trees, and the codes of categories that at least 20 rows share.

    Parameters
    ----------
    members : tuple of str
        Of `MEMBERS`: ``logistic``, ``trees`` or both.
    categorical : tuple of bool
        Which columns of X are codes of categories; empty if none is.
    seed : int
        Seed of the trees and of the folds.
    trees : mapping of str to float, optional
        Parameters of the trees that differ from `TREES`.

    Attributes
    ----------
    members_ : tuple of member
        Fitted on all rows.
    calibration_ : ndarray of float64, (2,)
        Slope and intercept: p = 1 / (1 + exp(−(slope · log-odds + intercept))).
    """

    def __init__(
        self,
        members: Sequence[str] = ("logistic", "trees"),
        categorical: Sequence[bool] = (),
        seed: int = 0,
        trees: Mapping[str, float] | None = None,
    ):
        self.members, self.categorical, self.seed, self.trees = members, categorical, seed, trees

    def fit(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        groups: NDArray[Any] | None = None,
        out_of_fold: Mapping[str, Floats] | None = None,
        calibrated_on: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Fit the members on all rows, and the calibration on out-of-fold rows.

        Parameters
        ----------
        X : ndarray of float32, (n, f)
            Numbers (NaN if missing) and codes of categories (−1 if missing).
        y : ndarray of int, (n,)
            1 for yes, 0 for no.
        groups : ndarray, (n,), optional
            Customer of each row, if a customer has several.
        out_of_fold : mapping of str to ndarray, optional
            Result of `out_of_fold_log_odds` for these rows, if it is there already.
        calibrated_on : ndarray of bool, (n,), optional
            Rows that the calibration is fitted on, such as the most recent ones; default: all.

        Raises
        ------
        DataError
            An outcome has fewer than 20 rows, or all rows belong to fewer than two customers.
        """
        categorical = self._categorical(X)
        found = out_of_fold or out_of_fold_log_odds(X, y, groups, categorical, self.seed, self.members, self._trees)
        rows = slice(None) if calibrated_on is None else calibrated_on
        self.calibration_ = platt_scaling(np.mean([found[name] for name in self.members], axis=0)[rows], y[rows])
        encoding = ColumnEncoding.of(X, categorical)
        self.members_ = tuple(MEMBERS[name].fit(encoding, X, y, self.seed, self._trees) for name in self.members)
        self.encoding_, self.classes_, self.n_features_in_ = encoding, np.array([0, 1]), X.shape[1]
        return self

    def log_odds(self, X: NDArray[np.float32]) -> Floats:
        """Return the calibrated log-odds of yes, (n,)."""
        slope, intercept = self.calibration_
        return np.asarray(slope * np.mean([member.log_odds(X) for member in self.members_], axis=0) + intercept)

    def predict_proba(self, X: NDArray[np.float32]) -> Floats:
        """Return the calibrated probabilities of no and yes, (n, 2)."""
        yes = probability(self.log_odds(X))
        return np.column_stack([1.0 - yes, yes])

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return 1 where the probability of yes is at least 0.5, else 0, (n,)."""
        return (self.predict_proba(X)[:, 1] >= 0.5).astype(np.int64)

    def explain(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the contribution of each column to the log-odds of yes, (n, f).

        Trees have SHAP values (Lundberg et al. 2020), the logistic regression coefficient × distance from the mean.
        """
        parts = [member.explain(X) for member in self.members_]
        return np.asarray(self.calibration_[0] * np.mean(parts, axis=0), dtype=np.float32)

    @property
    def _trees(self) -> Mapping[str, float]:
        return NO_CHANGE if self.trees is None else self.trees

    def _categorical(self, X: NDArray[np.float32]) -> tuple[bool, ...]:
        return tuple(self.categorical) or (False,) * X.shape[1]

    def save(self, folder: Path) -> None:
        """Write the members as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        for member in self.members_:
            member.save(folder)
        write_json(
            folder / "calibrated.json",
            {
                "params": {
                    "members": list(self.members),
                    "categorical": [bool(one) for one in self.categorical],
                    "seed": self.seed,
                    "trees": dict(self._trees),
                },
                "calibration": self.calibration_.tolist(),
                "encoding": self.encoding_.as_dict(),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a classifier that `save` wrote."""
        found = load_json(folder / "calibrated.json")
        parameters = found["params"]
        tuned = parameters.get("trees")  # absent in models of earlier versions
        model = cls(tuple(parameters["members"]), tuple(parameters["categorical"]), parameters["seed"], tuned)
        model.calibration_ = np.asarray(found["calibration"], dtype=np.float64)
        model.encoding_ = ColumnEncoding.from_dict(found["encoding"])
        model.members_ = tuple(MEMBERS[name].load(folder, model.encoding_) for name in model.members)
        model.classes_, model.n_features_in_ = np.array([0, 1]), len(model.encoding_.levels)
        return model


def out_of_fold_log_odds(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    groups: NDArray[Any] | None,
    categorical: Sequence[bool],
    seed: int,
    members: Sequence[str] = tuple(MEMBERS),
    trees: Mapping[str, float] = NO_CHANGE,
) -> dict[str, Floats]:
    """Return the log-odds of each member for every row, by models that have not seen the customer of the row, (n,).

    Raises
    ------
    DataError
        An outcome has fewer than 20 rows, or there are fewer than two customers.
    """
    least = int(min(y.sum(), (1 - y).sum()))
    if least < MIN_OUTCOMES:
        raise DataError(
            "too few rows with one of the outcomes to train a classifier",
            got=f"{least} of {len(y)}",
            allowed=f"at least {MIN_OUTCOMES} of each outcome",
            hint="add customers, or choose a label or a horizon with which both outcomes are common",
        )
    if groups is None:
        parts = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y)
    else:
        folds = min(FOLDS, len(np.unique(groups)))
        if folds < 2:
            raise DataError("a classifier needs more than one customer", hint="add customers")
        parts = GroupKFold(folds).split(X, y, groups)
    found = {name: np.empty(len(y), dtype=np.float64) for name in members}
    for train, held_out in parts:
        encoding = ColumnEncoding.of(X[train], categorical)
        for name in members:
            found[name][held_out] = MEMBERS[name].fit(encoding, X[train], y[train], seed, trees).log_odds(X[held_out])
    return found


def platt_scaling(log_odds: Floats, y: NDArray[np.int64]) -> Floats:
    """Return the slope and the intercept of Platt (1999), (2,).

    A sigmoid keeps the order of the customers and the contributions additive, and has two parameters; an isotonic curve
    has neither, and needs thousands of rows.
    """
    scaler = LogisticRegression(C=1e6).fit(log_odds[:, None], y)
    return np.array([scaler.coef_[0, 0], scaler.intercept_[0]], dtype=np.float64)


def _by_source(terms: Floats, sources: NDArray[np.int64], n_columns: int) -> Floats:
    """Sum the contributions of all columns that were made of one source column, (n, n_columns)."""
    found = np.zeros((len(terms), n_columns))
    for column, source in enumerate(sources.tolist()):
        found[:, source] += terms[:, column]
    return found
