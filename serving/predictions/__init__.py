"""The predictions about customers, one module each: of `/v1/predictions` and of `qianmian score predictions`."""

from __future__ import annotations

from qianmian.registry import Registry
from serving.predictions import churn, clusters, contact, demand, left, lifecycle, propensity, value
from serving.predictions.base import Prediction

PREDICTIONS: Registry[Prediction] = Registry(
    "prediction",
    {
        one.name: one
        for one in (
            lifecycle.PREDICTION,
            churn.PREDICTION,
            left.PREDICTION,
            value.PREDICTION,
            contact.PREDICTION,
            demand.PREDICTION,
            propensity.PREDICTION,
            clusters.PREDICTION,
        )
    },
)
