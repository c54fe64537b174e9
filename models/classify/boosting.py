"""Helpers of the XGBoost classifiers: data matrix, file format, and SHAP contributions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.parallel import thread_budget
from models.persist import RETRAIN
from qianmian.errors import ArtifactError, DataError

MIN_ROWS = 20  # of each outcome, to fit a churn model


def check_outcomes(y: NDArray[Any]) -> NDArray[np.int64]:
    """Return the labels 0 and 1 as integers.

    Raises
    ------
    DataError
        An outcome has fewer than `MIN_ROWS` rows.
    """
    labels = np.asarray(y, dtype=np.int64)
    least = int(min((labels == 0).sum(), (labels == 1).sum()))
    if least < MIN_ROWS:
        raise DataError(
            "too few customers with one of the outcomes to train the churn model",
            got=least,
            allowed=f"at least {MIN_ROWS} per outcome",
            hint="choose another --horizon-days, or ingest a longer history",
        )
    return labels


def to_dmatrix(X: NDArray[np.float32], y: NDArray[Any] | None = None) -> xgb.DMatrix:
    """Build a DMatrix; categories are codes, treated as ordered numbers, with −1 for a missing value."""
    return xgb.DMatrix(np.asarray(X, dtype=np.float32), label=y)


def fit_trees(
    X: NDArray[np.float32], y: NDArray[Any], objective: str, parameters: Mapping[str, Any], seed: int
) -> xgb.Booster:
    """Fit boosted trees with histograms, which are the same on any number of cores (measured with XGBoost 3.2).

    Parameters
    ----------
    X : ndarray of float32, (n, f)
    y : ndarray, (n,)
    objective : str
        As in XGBoost.
    parameters : mapping of str to any
        By the names of XGBoost's scikit-learn interface; ``n_estimators`` is the number of trees.
    seed : int
    """
    rest = {name: value for name, value in parameters.items() if name != "n_estimators"}
    fixed = {"objective": objective, "seed": seed, "tree_method": "hist", "nthread": thread_budget()}
    return xgb.train({**rest, **fixed}, to_dmatrix(X, y), num_boost_round=int(parameters["n_estimators"]))


def save_booster(booster: xgb.Booster, path: Path) -> None:
    """Write a booster in XGBoost's JSON format."""
    booster.save_model(path)


def load_booster(path: Path) -> xgb.Booster:
    """Read a booster that `save_booster` wrote.

    Raises
    ------
    ArtifactError
        The file is missing or damaged.
    """
    return _read(str(path), path)


def read_booster(content: bytes, path: Path) -> xgb.Booster:
    """Read a booster from the content of its file; the path is for errors.

    Raises
    ------
    ArtifactError
        It is damaged.
    """
    return _read(bytearray(content), path)


def _read(model: str | bytearray, path: Path) -> xgb.Booster:
    booster = xgb.Booster()
    try:
        booster.load_model(model)
    except xgb.core.XGBoostError as error:
        raise ArtifactError(
            "a boosted model cannot be read", where=str(path), got=str(error).splitlines()[0], hint=RETRAIN
        ) from error
    return booster


def contributions(booster: xgb.Booster, X: NDArray[np.float32], trees: int = 0) -> NDArray[np.float32]:
    """Return exact SHAP values in log-odds (Lundberg et al. 2020), (n, f), without the bias column."""
    return np.asarray(booster.predict(to_dmatrix(X), pred_contribs=True, iteration_range=(0, trees)))[:, :-1]
