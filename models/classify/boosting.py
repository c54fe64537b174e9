"""What the XGBoost classifiers share: parameters, the save format, and reasons from the model's own contributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.persist import RETRAIN
from qianmian.errors import ArtifactError


def to_dmatrix(X: NDArray[np.float32], y: NDArray[Any] | None = None) -> xgb.DMatrix:
    """A DMatrix; categories are codes and treated as ordered numbers, −1 unknown."""
    return xgb.DMatrix(np.asarray(X, dtype=np.float32), label=y)


def save_booster(booster: xgb.Booster, path: Path) -> None:
    """XGBoost's own JSON."""
    booster.save_model(path)


def load_booster(path: Path) -> xgb.Booster:
    """The inverse of `save_booster`."""
    booster = xgb.Booster()
    try:
        booster.load_model(path)
    except xgb.core.XGBoostError as error:
        raise ArtifactError(
            "a boosted model cannot be read", where=str(path), got=str(error).splitlines()[0], hint=RETRAIN
        ) from error
    return booster


def contributions(booster: xgb.Booster, X: NDArray[np.float32], trees: int = 0) -> NDArray[np.float32]:
    """Exact SHAP values in log-odds (Lundberg et al. 2020), (n, f); the bias column is dropped."""
    return np.asarray(booster.predict(to_dmatrix(X), pred_contribs=True, iteration_range=(0, trees)))[:, :-1]
