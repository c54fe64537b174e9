"""Predictions beside the outcomes that have arrived: calibration, of all and by risk band or prediction, and AUC."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from features.profiles.analytics.rates import Z_95, rate
from training.bootstrap import CLASSIFICATION, statistic_metric
from training.monitoring.report import Check, Status
from training.monitoring.texts import CheckText, named
from training.report import Metric

Floats = NDArray[np.float64]
ALL = "all"  # group of all customers


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


def calibration(groups: Mapping[str, tuple[Floats, Floats]], limit: float, alpha: float) -> dict[str, Calibration]:
    """Calibration of each group of predictions.

    A group is out of calibration if observed over predicted is beyond `limit` or its inverse, and the prediction
    differs from what was observed beyond noise, at alpha divided by the number of groups (Bonferroni).

    Parameters
    ----------
    groups : mapping of str to (ndarray of shape (n,), ndarray of shape (n,))
        Outcomes, 0 or 1, and probabilities of each group, which has at least one row.
    limit : float
        Above 1.
    alpha : float
    """
    z = float(norm.ppf(1 - alpha / len(groups) / 2))
    found = {}
    for name, (y, p) in groups.items():
        observed, expected = rate(int(y.sum()), len(y)), float(p.mean())
        ratio = observed.value / expected if expected > 0 else math.inf
        # the number of outcomes, if every prediction is right, has the variance of independent Bernoulli trials
        spread = math.sqrt(float((p * (1 - p)).sum()))
        beyond = abs(float(y.sum()) - float(p.sum())) > max(z * spread, 0.5)
        out = beyond and not 1 / limit <= ratio <= limit
        found[name] = Calibration(expected, Metric(observed.value, observed.low, observed.high, len(y)), ratio, out)
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
    y: NDArray[np.int64],
    p: Floats,
    evaluation: Mapping[str, Any] | None,
    metric: str,
    limit: float,
    alpha: float,
    seed: int,
) -> Discrimination:
    """AUC now and at the training, which are of different customers: their errors are independent.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        Both outcomes occur.
    p : ndarray of float64, shape (n,)
    evaluation : mapping or None
        `EvalReport.summary` of the bundle.
    metric : str
        Name of the AUC in it.
    limit : float
        A smaller loss is none.
    alpha : float
        Share of false alarms, on one side.
    seed : int
    """
    now = statistic_metric(CLASSIFICATION["auc"], y, p, seed)
    stored = (evaluation or {}).get("metrics", {}).get(metric)
    if stored is None or None in stored:
        return Discrimination(now, None, False)
    then = Metric(*stored)
    errors = [(one.high - one.low) / (2 * Z_95) for one in (now, then)]
    lost = then.value - now.value
    return Discrimination(now, then, lost > limit and lost > float(norm.ppf(1 - alpha / 2)) * math.hypot(*errors))


# ---- in words --------------------------------------------------------------------------------------------------------


def of_calibration(groups: Mapping[str, Calibration], moment: datetime, customers: int) -> Check:
    """The check of the calibration of all and each risk band, or of each prediction."""
    out = tuple(named(name) for name, group in groups.items() if group.out)
    date = f"{moment:%Y-%m-%d}"
    if ALL in groups:
        every = groups[ALL]
        observed = every.observed
        values = {
            "date": date,
            "predicted": f"{every.predicted:.1%}",
            "observed": f"{observed.value:.1%}",
            "low": f"{observed.low:.1%}",
            "high": f"{observed.high:.1%}",
            "n": observed.n,
        }
        statement = CheckText("calibrated", values)
    else:
        parts = tuple(f"{name} {one.predicted:.1%} / {one.observed.value:.1%}" for name, one in groups.items())
        statement = CheckText("calibrated_each", {"date": date, "n": customers, "groups": parts})
    if not out:
        return Check("calibration", "fine", statement)
    return Check("calibration", "alarm", CheckText("uncalibrated", {"text": statement, "groups": out}))


def of_discrimination(
    told: Mapping[str, Discrimination], moment: datetime, yes: int, n: int, predictions: int
) -> Check:
    """The check of the AUC of each prediction of which both outcomes occur."""
    date = f"{moment:%Y-%m-%d}"
    if not told:
        if predictions > 1:
            return Check("discrimination", "unknown", CheckText("one_class_each", {"date": date, "n": n}))
        return Check("discrimination", "unknown", CheckText("one_class", {"date": date, "yes": yes, "n": n}))
    compared = [one for one in told.values() if one.at_training is not None]
    status: Status = "alarm" if any(one.lost for one in compared) else "fine" if compared else "unknown"
    statements = {name: _auc(one, date) for name, one in told.items()}
    if list(told) == [ALL]:
        return Check("discrimination", status, statements[ALL])
    shown = [name for name in told if told[name].lost] or list(told)
    each = tuple(CheckText("of", {"name": name, "text": statements[name]}) for name in shown)
    return Check("discrimination", status, CheckText("each", {"texts": each}))


def _auc(one: Discrimination, date: str) -> CheckText:
    numbers = {"now": one.now.value, "low": one.now.low, "high": one.now.high}
    then = one.at_training
    if then is not None:
        numbers |= {"then": then.value, "then_low": then.low, "then_high": then.high}
    values = {name: f"{value:.3f}" for name, value in numbers.items()}
    return CheckText("auc_alone" if then is None else "auc", {"date": date, **values})
