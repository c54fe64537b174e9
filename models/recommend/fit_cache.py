"""Fits that are cached with their training set, so that several tasks, rankers and blends share them."""

from __future__ import annotations

import json

from features.interactions import TrainingSet
from models.recommend.base import Recommender

FitKey = tuple[str, str, str]


def fit_key(model: Recommender) -> FitKey:
    """Return the key of `fit_cached` for a model with these parameters."""
    return "model", model.name, json.dumps(model.get_params(), sort_keys=True, default=str)


def fit_cached(model: Recommender, train: TrainingSet) -> Recommender:
    """Return a fit on `train` with the parameters of `model`, which itself stays unfitted; cached with `train`."""
    return train.memoize(fit_key(model), lambda: type(model)(**model.get_params()).fit(train))
