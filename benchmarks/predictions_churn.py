"""Churn on Complete Journey at 2017-11-01, where it is hard: households active in 2–6 of the last 13 weeks.

A part of `benchmarks/predictions.py`.

The outcomes, the slice and the baselines are computed from the transactions without the product. A household has
churned if it has no basket in the next 28 days; evaluated are those with a basket in the last 56. The baselines are
recency, the number of baskets in the last 28 days, and a logistic regression on seven recency and count columns of
weekly snapshots. One date tells differences of .02; the models of this date are therefore also compared on the five
weeks from it on together, by the households as the unit of the interval.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import churn
import common
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.bootstrap import (
    CLASSIFICATION,
    N_RESAMPLES,
    paired_difference,
    percentile_interval,
    statistic_metric,
)
from training.report import Metric

AS_OF, WEEK, WEEKS = "2017-11-01", pd.Timedelta(days=7), 13
LATER_WEEKS = 5
FEWEST, MOST = 2, 6  # of the weeks, with a basket
METRICS = ("auc", "brier", "ece")


def ages(orders: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """user_id and age in days of each basket before a day."""
    before = orders[orders.ts < day]
    return pd.DataFrame({"user_id": before.user_id, "days": (day - before.ts).dt.total_seconds() / 86_400})


def active_weeks(orders: pd.DataFrame, day: pd.Timestamp, users: pd.Index) -> np.ndarray:
    """In how many of the last 13 weeks each household has a basket."""
    recent = ages(orders, day)
    recent["week"] = (np.ceil(recent.days / WEEK.days) - 1).clip(lower=0)
    weeks = recent[recent.week < WEEKS].groupby("user_id").week.nunique()
    return weeks.reindex(users).fillna(0).to_numpy()


def short_columns(orders: pd.DataFrame, day: pd.Timestamp, users: pd.Index) -> np.ndarray:
    """Days since the last and the first basket, baskets ever, of 28, 56 and 91 days, and their trend; as logarithms."""
    before = ages(orders, day)
    by_user = before.days.groupby(before.user_id)
    columns = [by_user.min(), by_user.max(), by_user.size()]
    columns += [(before.days <= days).groupby(before.user_id).sum() for days in (28, 56, 91)]
    found = np.column_stack([column.reindex(users).to_numpy(dtype=float) for column in columns])
    trend = (found[:, 3] + 1) / (found[:, 4] - found[:, 3] + 1)
    return np.log1p(np.column_stack([found, trend]))


def short_logistic(orders: pd.DataFrame, day: pd.Timestamp) -> Any:
    """A logistic regression on the weekly snapshots whose outcomes were known at a day."""
    first = orders.ts.min().normalize() + churn.ACTIVE
    moments = pd.date_range(end=day - churn.HORIZON, periods=52, freq=WEEK)
    known = {moment: churn.outcomes(orders, moment) for moment in moments if moment >= first}
    columns = [short_columns(orders, moment, found.index) for moment, found in known.items()]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return model.fit(np.concatenate(columns), pd.concat(known.values()))


def later_weeks(workspace: Path, orders: pd.DataFrame, model: Any) -> Metric:
    """AUC of the product minus that of `model`, both of `AS_OF`, in the middle slice of five weeks together."""
    parts = []
    for back in range(LATER_WEEKS):
        day = pd.Timestamp(AS_OF) + back * WEEK
        labels = churn.outcomes(orders, day)
        users = labels.index[np.isin(active_weeks(orders, day, labels.index), range(FEWEST, MOST + 1))]
        out = workspace / "later.parquet"
        churn.cli(workspace, "score", "churn", "--out", str(out), "--as-of", f"{day:%Y-%m-%d}")
        p = pd.read_parquet(out).set_index("user_id").churn_probability.reindex(users)
        q = model.predict_proba(short_columns(orders, day, users))[:, 1]
        parts.append(pd.DataFrame({"user": users, "y": labels[users].to_numpy(), "p": p.to_numpy(dtype=float), "q": q}))
    rows = pd.concat(parts).dropna()
    y, p, q = (rows[name].to_numpy() for name in ("y", "p", "q"))
    auc, (households, place) = CLASSIFICATION["auc"], np.unique(rows.user, return_inverse=True)
    rng, found = np.random.default_rng(0), []
    for _ in range(N_RESAMPLES):  # a household with several weeks is one draw
        times = np.bincount(rng.integers(0, len(households), len(households)), minlength=len(households))
        drawn = np.repeat(np.arange(len(rows)), times[place])
        found.append(auc(y[drawn], p[drawn]) - auc(y[drawn], q[drawn]))
    return percentile_interval(auc(y, p) - auc(y, q), np.array(found), len(households))


def completejourney(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The product at 2017-11-01: results as in the JSON file, and the values of the musts.

    Parameters
    ----------
    folder : Path
        For the workspace; one with an ingested lake in `completejourney` is used.
    """
    workspace, orders, day = folder / "completejourney", churn.orders_of_completejourney(), pd.Timestamp(AS_OF)
    if not (workspace / "lake").exists():
        churn.cli(workspace, "ingest", "completejourney")
    labels = churn.outcomes(orders, day)
    y = labels.to_numpy()
    p, missing, cost = churn.predicted(workspace, AS_OF, labels.index)
    print(f"\nComplete Journey, {AS_OF}, {len(y):,} active households, {missing} without a score; train churn: {cost}")
    found = churn.show("qianmian", y, p)
    hard = np.flatnonzero(np.isin(active_weeks(orders, day, labels.index), range(FEWEST, MOST + 1)))
    columns = np.expm1(short_columns(orders, day, labels.index))
    logistic = short_logistic(orders, day)
    baselines = {
        "recency": columns[:, 0],
        "frequency": -columns[:, 3],
        "logistic": logistic.predict_proba(short_columns(orders, day, labels.index))[:, 1],
    }
    auc = CLASSIFICATION["auc"]
    found["auc_middle"] = statistic_metric(auc, y[hard], p[hard], n_resamples=N_RESAMPLES).__dict__
    for name, q in baselines.items():
        difference = paired_difference(auc, y[hard], p[hard], q[hard], n_resamples=N_RESAMPLES)
        found[f"auc_middle_minus_{name}"] = difference.__dict__
        print(f"{name:10s} AUC {auc(y, q):.4f}, in the middle {auc(y[hard], q[hard]):.4f}; behind by {difference}")
    print(f"active in {FEWEST}–{MOST} of {WEEKS} weeks: {len(hard)} households, AUC {auc(y[hard], p[hard]):.4f}")
    weeks = later_weeks(workspace, orders, logistic)
    found["auc_middle_5_weeks_minus_logistic"] = weeks.__dict__
    print(
        f"the same in the five weeks from {AS_OF} on, {weeks.n} households: ahead of the logistic regression by {weeks}"
    )
    found["cpu_seconds"] = common.value(cost.cpu_seconds)
    values = {name: float(found[name]["value"]) for name in (*METRICS, "auc_middle")}
    values |= {name: float(found[name]["low"]) for name in found if name.startswith("auc_middle_")}
    return {"qianmian": found}, values
