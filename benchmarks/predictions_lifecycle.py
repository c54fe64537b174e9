"""Do stages, risk and due dates agree on the same customers? Measured over all customers of a trained workspace.

A part of `benchmarks/predictions.py`.

The stages and due dates are rules of the purchase process; the risk is that of `train churn`, the expected date, where
`train value` has run, that of its model. Customers without a score of a model are left out of its comparisons.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Must

from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
from serving.predictions import PREDICTIONS
from serving.predictions.base import predict_rows
from training.bootstrap import mean_metric

ORDER = ("loyal", "active", "at_risk", "asleep", "lost")  # stages by falling probability of an order
LATE = ORDER[2:]
MIN_CUSTOMERS = 20  # of a stage, for its mean to be compared
JOBS = ("churn", "lifecycle", "value")
MUSTS = {
    "least rise of the mean churn probability from stage to stage": Must("metric", least=0.0),
    "share of customers of low risk who are at_risk, asleep or lost": Must("metric", most=0.02),
    "share of at_risk, asleep and lost customers whose next order is due": Must("metric", most=0.0),
    "share of loyal and active customers whose next order is missed": Must("metric", most=0.0),
    "least rise of the median days to the next order from stage to stage": Must("metric", least=0.0),
    "share of lost customers whose expected order is within a typical gap": Must("metric", most=0.02),
}


def agreement(workspace: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Results under the model `qianmian`, and the value of each must that the models of the workspace allow."""
    located = Workspace(workspace)
    jobs = [job for job in JOBS if job in {one.job for one in PREDICTIONS.values()}]
    champions = load_from_workspace(located, load_settings(located.config_file), jobs)
    profiles = champions.customers
    predictions = [one for one in PREDICTIONS.values() if one.job in champions.models]
    rows = predict_rows(champions, np.arange(profiles.table.num_rows), None, predictions)
    stages = _texts(profiles.tags["lifecycle_stage"])
    due, days = _texts(profiles.tags["replenishment"]), _numbers(profiles.tags["days_to_next_order"])
    churn = _numbers([row.get("churn_probability") for row in rows])
    bands = _texts([row.get("risk_band") for row in rows])
    late, early = np.isin(stages, LATE), np.isin(stages, ORDER[:2])
    means = [churn[(stages == stage) & np.isfinite(churn)] for stage in ORDER]
    medians = [days[(stages == stage) & np.isfinite(days)] for stage in ORDER]
    values = {
        "least rise of the mean churn probability from stage to stage": _least_rise([v.mean() for v in _enough(means)]),
        "share of customers of low risk who are at_risk, asleep or lost": float(np.mean((bands == "low") & late)),
        "share of at_risk, asleep and lost customers whose next order is due": float(np.mean(due[late] == "due")),
        "share of loyal and active customers whose next order is missed": float(np.mean(due[early] == "missed")),
        "least rise of the median days to the next order from stage to stage": _least_rise(
            [float(np.median(v)) for v in _enough(medians)]
        ),
    }
    found = {
        f"churn_probability_{stage}": mean_metric(v).__dict__ for stage, v in zip(ORDER, means, strict=True) if len(v)
    }
    found |= {f"customers_{stage}": common.value(float((stages == stage).sum())) for stage in ORDER}
    low_and_late = ((bands == "low") & late).astype(np.float64)
    found["low_risk_and_late"] = mean_metric(low_and_late).__dict__
    if "value" in champions.models:
        typical = profiles.tag_facts["lifecycle_stage"].fitted["typical_gap_days"][0]
        expected = np.array([row.get("expected_date_of_next_order") or "NaT" for row in rows], dtype="datetime64[D]")
        soon = expected <= np.datetime64(profiles.as_of, "D") + np.timedelta64(int(np.ceil(typical)), "D")
        lost = stages == "lost"
        values["share of lost customers whose expected order is within a typical gap"] = float(soon[lost].mean())
    return {"qianmian": found}, values


def _texts(values: Any) -> np.ndarray:
    return np.array([value or "" for value in values])


def _numbers(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _enough(groups: list[np.ndarray]) -> list[np.ndarray]:
    return [group for group in groups if len(group) >= MIN_CUSTOMERS]


def _least_rise(levels: list[float]) -> float:
    return float(np.diff(levels).min()) if len(levels) > 1 else float("nan")
