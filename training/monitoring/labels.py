"""Predictions beside the outcomes that have arrived: calibration, overall and by risk band, and AUC."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from features.profiles.analytics.rates import Z_95, rate
from models.classify.risk_bands import RiskBands
from qianmian.schema import RISK_BANDS
from training.bootstrap import CLASSIFICATION, statistic_metric
from training.report import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Predicted and observed outcomes of a group of customers.

    Attributes
    ----------
    predicted : float
        Mean probability.
    observed : Metric
        Share of outcomes, with the interval of Wilson (1927).
    ratio : float
        Observed over predicted.
    out : bool
        Whether the ratio is beyond its limit, and beyond noise.
    """

    predicted: float
    observed: Metric
    ratio: float
    out: bool


def calibration(
    y: NDArray[np.int64], p: Floats, bands: RiskBands | None, limit: float, alpha: float
) -> dict[str, Calibration]:
    """Calibration of all customers and of each risk band that has some.

    A group is out of calibration if observed over predicted is beyond `limit` or its inverse, and the prediction
    differs from what was observed beyond noise, at alpha divided by the number of groups (Bonferroni).

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
    p : ndarray of float64, shape (n,)
    bands : RiskBands or None
        None for a model without bands.
    limit : float
        Above 1.
    alpha : float
    """
    groups = {"all": np.ones(len(y), dtype=np.bool_)}
    if bands is not None:
        names = np.asarray(bands.of(p))
        groups |= {band: names == band for band in RISK_BANDS if (names == band).any()}
    z = float(norm.ppf(1 - alpha / len(groups) / 2))
    found = {}
    for name, rows in groups.items():
        observed, expected, n = rate(int(y[rows].sum()), int(rows.sum())), float(p[rows].mean()), int(rows.sum())
        ratio = observed.value / expected if expected > 0 else math.inf
        # the number of outcomes, if every prediction is right, has the variance of independent Bernoulli trials
        spread = math.sqrt(float((p[rows] * (1 - p[rows])).sum()))
        beyond = abs(float(y[rows].sum()) - float(p[rows].sum())) > max(z * spread, 0.5)
        out = beyond and not 1 / limit <= ratio <= limit
        found[name] = Calibration(expected, Metric(observed.value, observed.low, observed.high, n), ratio, out)
    return found


@dataclass(frozen=True)
class Discrimination:
    """AUC on the outcomes that have arrived, beside that at the training.

    Attributes
    ----------
    now : Metric
    at_training : Metric or None
        None if the bundle does not say it.
    lost : bool
        Whether it is lower by more than its limit, and beyond noise.
    """

    now: Metric
    at_training: Metric | None
    lost: bool


def discrimination(
    y: NDArray[np.int64], p: Floats, evaluation: Mapping[str, Any] | None, limit: float, seed: int
) -> Discrimination:
    """AUC now and at the training, which are of different customers: their errors are independent.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        Both outcomes occur.
    p : ndarray of float64, shape (n,)
    evaluation : mapping or None
        `EvalReport.summary` of the bundle.
    limit : float
        A smaller loss is none.
    seed : int
    """
    now = statistic_metric(CLASSIFICATION["auc"], y, p, seed)
    stored = (evaluation or {}).get("metrics", {}).get("auc")
    if stored is None or None in stored:
        return Discrimination(now, None, False)
    then = Metric(*stored)
    errors = [(metric.high - metric.low) / (2 * Z_95) for metric in (now, then)]
    lost = then.value - now.value
    return Discrimination(now, then, lost > limit and lost > Z_95 * math.hypot(*errors))
