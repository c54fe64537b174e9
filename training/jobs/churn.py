"""`train churn`: who, of the customers active in the last `active_days`, will buy nothing for `horizon_days`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from models.classify.churn import ChurnClassifier, risk_bands
from qianmian.errors import DataError
from training import plots
from training.gate import Rule
from training.jobs.base import Context, Job, Outcome, snapshots
from training.metrics import CLASSIFICATION, paired_difference, statistic_metric
from training.report import EvalReport

MOST_SNAPSHOTS = 9  # half-horizon steps double the rows and gain nothing (validated at 2017-10-04: AUC .867 either way)
MIN_CUSTOMERS = 100
NEEDS = "orders_total", "days_since_last_order"


def bought(context: Context, start: datetime, end: datetime) -> set[str]:
    """one_ids with a paid order in ``[start, end)``."""
    paid = context.builder.views(end)["lines"]
    return set(
        paid.filter(paid.ts >= ibis.timestamp(start.isoformat(sep=" ")))
        .select("one_id")
        .distinct()
        .to_pyarrow()["one_id"]
        .to_pylist()
    )


def asked(context: Context, moment: datetime, active_days: int) -> NDArray[np.int64]:
    """Rows of the customers churn is asked of at `moment`: those with an order in the last `active_days`."""
    profile = context.profile(moment)
    return np.flatnonzero(
        (profile.column("orders_total") > 0) & (profile.column("days_since_last_order") <= active_days)
    )


def labelled(
    context: Context, moment: datetime, horizon: int, active_days: int, spec: FeatureSpec
) -> tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.int64]]:
    """Customers asked at `moment`, their features there, and 1 where they then bought nothing for `horizon` days."""
    rows = asked(context, moment, active_days)
    profile = context.profile(moment, spec).take(rows)
    stayed = bought(context, moment, moment + timedelta(days=horizon))
    return (
        profile.one_ids,
        profile.values,
        np.array([one_id not in stayed for one_id in profile.one_ids.tolist()], dtype=np.int64),
    )


def run(context: Context) -> Outcome:
    """Train on earlier snapshots, measure on the last one whose outcome is known, ship a refit that includes it."""
    horizon = context.horizon_days or context.settings.churn.horizon_days
    active_days = context.active_days or context.settings.churn.active_days or 2 * horizon
    context.need_orders(NEEDS, "churn needs dated orders")
    test = context.as_of - timedelta(days=horizon)
    moments = snapshots(context.first("transactions") + timedelta(days=active_days), test, horizon, MOST_SNAPSHOTS)
    # a snapshot may be learnt from when its outcome was known at the test moment
    learnt = [moment for moment in moments if moment + timedelta(days=horizon) <= test]
    if not learnt:
        raise DataError(
            "the history is too short to learn churn from",
            where="transactions",
            got=f"{(context.as_of - context.first('transactions')).days} days",
            allowed=f"at least {active_days + 2 * horizon} days for a horizon of {horizon}",
            hint="choose a shorter --horizon-days or bring a longer history",
        )
    spec = context.steady_spec(learnt[-1])

    def stacked(chosen: list[datetime]) -> tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.int64]]:
        ids, X, y = zip(*(labelled(context, moment, horizon, active_days, spec) for moment in chosen), strict=True)
        return np.concatenate(ids), np.concatenate(X), np.concatenate(y)

    context.progress(
        f"churn: {len(learnt)} snapshots, {learnt[0]:%Y-%m-%d} to {learnt[-1]:%Y-%m-%d}; measured at {test:%Y-%m-%d}"
    )
    ids, X, y = stacked(learnt)
    _, test_X, test_y = labelled(context, test, horizon, active_days, spec)
    least = int(min(test_y.sum(), (1 - test_y).sum()))
    if len(test_y) < MIN_CUSTOMERS or least < 10:
        raise DataError(
            "too few customers to measure churn on",
            got=f"{len(test_y)} asked, {int(test_y.sum())} of them churned",
            allowed=f"at least {MIN_CUSTOMERS}, 10 of each outcome",
            hint="choose another --horizon-days or --active-days, or bring more customers",
        )
    measured = ChurnClassifier(seed=context.settings.seed).fit(X, context.shuffled(y), groups=ids)
    p = measured.predict_proba(test_X)[:, 1]
    report = _report(context, test, active_days, test_y, p, float(y.mean()))
    context.progress("churn: fitting on every snapshot")
    all_ids, all_X, all_y = stacked([*learnt, test])
    model = ChurnClassifier(seed=context.settings.seed).fit(all_X, context.shuffled(all_y), groups=all_ids)
    importance = np.abs(measured.explain(test_X)).mean(axis=0)
    figures = {
        "calibration.png": plots.calibration(test_y, p, "Churn: predicted and observed"),
        "importance.png": plots.bars(
            dict(zip(spec.names, importance.tolist(), strict=True)),
            "mean |contribution| to the log-odds",
            "Churn: what the model uses",
        ),
    }
    facts = context.facts("churn", horizon_days=horizon, active_days=active_days, base_rate=float(all_y.mean()))
    bundle = ModelBundle("churn", model, context.as_of, spec, config={"model": model.get_params()}, facts=facts)
    rules = [
        Rule("brier:base rate", higher_is_better=False),
        Rule("auc:orders in the last 28 days", clearly=False),
        Rule("auc:recency", clearly=False),
    ]
    parameters = {
        "horizon_days": horizon,
        "active_days": active_days,
        "snapshots": len(learnt) + 1,
        "rows": len(all_y),
        **model.get_params(),
    }
    return Outcome(
        bundle,
        report,
        rules,
        parameters,
        figures,
        _example(context, spec),
        {"churn_risk": _risk(context, model, active_days, spec)},
    )


def _report(
    context: Context, test: datetime, active_days: int, y: NDArray[np.int64], p: NDArray[np.float64], base_rate: float
) -> EvalReport:
    metrics = {name: statistic_metric(statistic, y, p) for name, statistic in CLASSIFICATION.items()}
    profile = context.profile(test).take(asked(context, test, active_days))
    constant = np.full(len(y), base_rate)
    rankings: dict[str, NDArray[Any]] = {"recency": profile.column("days_since_last_order").astype(np.float64)}
    if "orders_28d" in profile.spec.names:
        rankings["orders in the last 28 days"] = -profile.column("orders_28d").astype(np.float64)
    baselines = {
        name: {metric: statistic_metric(CLASSIFICATION[metric], y, ranking) for metric in ("auc", "average_precision")}
        for name, ranking in rankings.items()
    }
    baselines["base rate"] = {
        metric: statistic_metric(CLASSIFICATION[metric], y, constant) for metric in ("brier", "log_loss")
    }
    differences = {
        f"auc:{name}": paired_difference(CLASSIFICATION["auc"], y, p, ranking) for name, ranking in rankings.items()
    }
    differences |= {
        f"{metric}:base rate": paired_difference(CLASSIFICATION[metric], y, p, constant)
        for metric in ("brier", "log_loss")
    }
    return EvalReport(metrics, baselines, differences)


def _risk(context: Context, model: ChurnClassifier, active_days: int, spec: FeatureSpec) -> tuple[list[str], list[str]]:
    """The risk band of every customer asked today."""
    profile = context.profile(context.as_of, spec).take(asked(context, context.as_of, active_days))
    if not len(profile.one_ids):
        return [], []
    bands = risk_bands(model.predict_proba(profile.values)[:, 1], context.settings.churn.risk_bands)
    return profile.one_ids.tolist(), bands


def _example(context: Context, spec: FeatureSpec) -> pa.Table:
    return context.built(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5)


JOB = Job("churn", "who is about to stop buying: calibrated XGBoost on profile features", run)
