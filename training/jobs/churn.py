"""`train churn`: which customers active in the last `active_days` will buy nothing in the next `horizon_days`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from models.classify.boosting import to_dmatrix
from models.classify.churn import ChurnClassifier, risk_bands
from qianmian.errors import DataError
from training import plots
from training.attribute_choice import Gain, choose_attributes, gain_over_shuffled, without_neutral_values
from training.attributes import coded_attributes, left_out_notes, sufficient_for_labels
from training.bootstrap import CLASSIFICATION, paired_difference, statistic_metric
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext, snapshot_dates
from training.report import EvalReport, Metric

MAX_SNAPSHOTS = 9  # steps of half a horizon double the rows without a gain (validated at 2017-10-04: AUC .867 for both)
MIN_CUSTOMERS = 100
MIN_OUTCOMES = 20  # customers per outcome in the validation period of the profile attributes
LabelledRows = tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.int64]]
REQUIRED_FEATURES = "orders_total", "days_since_last_order"


def buyers_between(context: TrainingContext, start: datetime, end: datetime) -> set[str]:
    """one_ids with a paid order in ``[start, end)``."""
    paid = context.builder.views(end)["lines"]
    return set(
        paid.filter(paid.ts >= ibis.timestamp(start.isoformat(sep=" ")))
        .select("one_id")
        .distinct()
        .to_pyarrow()["one_id"]
        .to_pylist()
    )


def active_customer_rows(context: TrainingContext, as_of: datetime, active_days: int) -> NDArray[np.int64]:
    """Profile rows of the active customers at `as_of`: those with an order in the last `active_days`.

    Shared accounts are left out, because they are no customers who can churn.
    """
    profile = context.profile(as_of)
    recent = profile.column("days_since_last_order") <= active_days
    return np.flatnonzero((profile.column("orders_total") > 0) & recent & ~context.is_shared(profile.one_ids))


def labelled_examples(
    context: TrainingContext, as_of: datetime, horizon: int, active_days: int, spec: FeatureSpec
) -> LabelledRows:
    """one_ids, features and churn labels of the active customers at `as_of`; 1 for no order within `horizon` days."""
    rows = active_customer_rows(context, as_of, active_days)
    profile = context.profile(as_of, spec).take(rows)
    retained = buyers_between(context, as_of, as_of + timedelta(days=horizon))
    churned = np.array([one_id not in retained for one_id in profile.one_ids.tolist()], dtype=np.int64)
    return profile.one_ids, profile.values, churned


def _stacked(parts: Sequence[LabelledRows]) -> LabelledRows:
    """The examples of several snapshot dates, one below the other."""
    ids, X, y = zip(*parts, strict=True)
    return np.concatenate(ids), np.concatenate(X), np.concatenate(y)


def _auc_gain(context: TrainingContext, spec: FeatureSpec, parts: Sequence[LabelledRows]) -> Gain | None:
    """The difference in AUC that columns make, on the last of the snapshot dates.

    The models are fitted on the dates before it, whose labels were known then. None if there are no such dates or too
    few customers of each outcome.
    """
    if len(parts) < 2:
        return None
    (_, X, y), (_, later_X, later_y), seed = _stacked(parts[:-1]), parts[-1], context.settings.seed
    if min(int(part.sum()) for labels in (y, later_y) for part in (labels, 1 - labels)) < MIN_OUTCOMES:
        return None

    def predict(rows: NDArray[np.float32], later_rows: NDArray[np.float32], fit_seed: int) -> NDArray[np.float64]:
        # the order of the customers does not depend on the calibration
        trees = ChurnClassifier(seed=fit_seed).fit_trees(rows, context.shuffled(y))
        return np.asarray(trees.predict(to_dmatrix(later_rows), output_margin=True), dtype=np.float64)

    def difference(p: NDArray[np.float64], q: NDArray[np.float64]) -> Metric:
        return paired_difference(CLASSIFICATION["auc"], later_y, p, q, seed)

    return gain_over_shuffled(predict, difference, without_neutral_values(spec, X, seed), later_X, seed)


def run(context: TrainingContext) -> EvaluatedModel:
    """Fit on earlier snapshot dates, evaluate on the last one with known labels, and ship a fit on all of them."""
    horizon = context.horizon_days or context.settings.churn.horizon_days
    active_days = context.active_days or context.settings.churn.active_days or 2 * horizon
    context.require_order_features(REQUIRED_FEATURES, "churn needs dated orders")
    test = context.as_of - timedelta(days=horizon)
    as_of_dates = snapshot_dates(
        context.history_start("transactions") + timedelta(days=active_days), test, horizon, MAX_SNAPSHOTS
    )
    # a snapshot date is training data if its labels were known at the test date
    train_dates = [as_of for as_of in as_of_dates if as_of + timedelta(days=horizon) <= test]
    if not train_dates:
        raise DataError(
            "the history is too short to train churn",
            where="transactions",
            got=f"{(context.as_of - context.history_start('transactions')).days} days",
            allowed=f"at least {active_days + 2 * horizon} days for a horizon of {horizon}",
            hint=_shorter_horizon(context) + "ingest a longer history",
        )
    candidates = context.stationary_spec(train_dates[-1])
    period = f"{train_dates[0]:%Y-%m-%d} to {train_dates[-1]:%Y-%m-%d}"
    context.progress(f"churn: {len(train_dates)} snapshot dates from {period}, evaluated at {test:%Y-%m-%d}")
    parts = [labelled_examples(context, as_of, horizon, active_days, candidates) for as_of in [*train_dates, test]]
    spec, attribute_notes = choose_attributes(
        context.settings.profiles.in_models, candidates, _auc_gain(context, candidates, parts[:-1]), "AUC"
    )
    kept = [candidates.names.index(name) for name in spec.names]
    parts = [(one_ids, values[:, kept], churned) for one_ids, values, churned in parts]
    ids, X, y = _stacked(parts[:-1])
    _, test_X, test_y = parts[-1]
    _require_both_outcomes(context, test, horizon, test_y)
    least = int(min(test_y.sum(), (1 - test_y).sum()))
    if len(test_y) < MIN_CUSTOMERS or least < 10:
        raise DataError(
            "there are too few active customers to evaluate churn",
            got=f"{len(test_y)} active customers, {int(test_y.sum())} of them churned",
            allowed=f"at least {MIN_CUSTOMERS} active customers, 10 of each class",
            hint="choose another --horizon-days or --active-days, or ingest more customers",
        )
    seed = context.settings.seed
    shown = without_neutral_values(spec, X, seed)
    test_model = ChurnClassifier(seed=seed).fit(shown, context.shuffled(y), groups=ids)
    p = test_model.predict_proba(test_X)[:, 1]
    notes = (
        *left_out_notes(context.unknown_attributes(train_dates[-1]), train_dates[-1]),
        *attribute_notes,
        *sufficient_for_labels(coded_attributes(spec, X, test_X), y, test_y, p, seed),
    )
    report = replace(_report(context, test, active_days, test_y, p, float(y.mean())), notes=notes)
    context.progress("churn: fitting on all snapshot dates")
    all_ids, all_X, all_y = _stacked(parts)
    shown = without_neutral_values(spec, all_X, seed)
    model = ChurnClassifier(seed=seed).fit(shown, context.shuffled(all_y), groups=all_ids)
    importance = np.abs(test_model.explain(test_X)).mean(axis=0)
    figures = {
        "calibration.png": plots.calibration_curve(test_y, p, "Churn: calibration"),
        "importance.png": plots.bars(
            dict(zip(spec.names, importance.tolist(), strict=True)),
            "mean |SHAP value| (log-odds)",
            "Churn: feature importance",
        ),
    }
    facts = context.facts("churn", horizon_days=horizon, active_days=active_days, base_rate=float(all_y.mean()))
    bundle = ModelBundle("churn", model, context.as_of, spec, config={"model": model.get_params()}, facts=facts)
    rules = [
        GateRule("brier:base rate", higher_is_better=False),
        GateRule("auc:orders in the last 28 days", require_improvement=False),
        GateRule("auc:recency", require_improvement=False),
    ]
    parameters = {
        "horizon_days": horizon,
        "active_days": active_days,
        "snapshots": len(train_dates) + 1,
        "rows": len(all_y),
        **model.get_params(),
    }
    return EvaluatedModel(
        bundle,
        report,
        rules,
        parameters,
        figures,
        _example(context, spec),
        {"churn_risk": _risk(context, model, active_days, spec)},
    )


def _shorter_horizon(context: TrainingContext) -> str:
    """The longest horizon that the history allows, as the first half of a hint; empty if no horizon fits."""
    longest = (context.as_of - context.history_start("transactions")).days // 4  # active for two, two to learn from
    return f"choose a --horizon-days of at most {longest}, or " if longest >= 1 else ""


def _require_both_outcomes(context: TrainingContext, test: datetime, horizon: int, churned: NDArray[np.int64]) -> None:
    """Check that some of the active customers of the test date churned and some did not.

    Raises
    ------
    DataError
        If all did, or none.
    """
    if not len(churned) or 0 < churned.sum() < len(churned):
        return
    where = f"{test:%Y-%m-%d} to {context.as_of:%Y-%m-%d}"
    if not churned.any():
        raise DataError(
            f"nobody churned: all {len(churned)} active customers bought again within {horizon} days",
            where=where,
            hint="choose a shorter --horizon-days, in which some customers do not buy",
        )
    orders = context.profile(test).column("orders_total")
    no_repeat_buyers = not (orders > 1).any()
    raise DataError(
        f"everybody churned: none of the {len(churned)} active customers bought again within {horizon} days",
        where=where,
        got="no customer has ever ordered twice" if no_repeat_buyers else None,
        hint="a longer --horizon-days does not help: churn needs customers who come back"
        if no_repeat_buyers
        else "choose a longer --horizon-days, in which some customers buy again",
    )


def _report(
    context: TrainingContext,
    test: datetime,
    active_days: int,
    y: NDArray[np.int64],
    p: NDArray[np.float64],
    base_rate: float,
) -> EvalReport:
    metrics = {name: statistic_metric(statistic, y, p) for name, statistic in CLASSIFICATION.items()}
    profile = context.profile(test).take(active_customer_rows(context, test, active_days))
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


def _risk(
    context: TrainingContext, model: ChurnClassifier, active_days: int, spec: FeatureSpec
) -> tuple[list[str], list[str]]:
    """one_ids of the active customers at `as_of` and their risk bands."""
    profile = context.profile(context.as_of, spec).take(active_customer_rows(context, context.as_of, active_days))
    if not len(profile.one_ids):
        return [], []
    bands = risk_bands(model.predict_proba(profile.values)[:, 1], context.settings.churn.risk_bands)
    return profile.one_ids.tolist(), bands


def _example(context: TrainingContext, spec: FeatureSpec) -> pa.Table:
    return context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5)


JOB = Job("churn", "which active customers will stop buying: calibrated XGBoost on profile features", run)
