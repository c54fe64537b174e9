"""`train lifecycle`: in which lifecycle stage each customer will be one horizon after `as_of`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from features.profiles.lifecycle import LIFECYCLE_FEATURES
from models.bundle import ModelBundle
from models.classify.lifecycle import NextStageClassifier
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES
from training import plots
from training.attribute_choice import Gain, choose_attributes, gain_over_shuffled, without_neutral_values
from training.attributes import coded_attributes, left_out_notes, sufficient_for_classes
from training.bootstrap import mean_metric
from training.comparison import LossComparison, columns_for
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext, snapshot_dates
from training.monitoring.declared import Monitored, MonitoredPeriods, ScoredRows
from training.report import EvalReport, Metric

MAX_SNAPSHOTS = 8
MIN_CUSTOMERS = 100
MIN_PROBABILITY = 1e-6
LabelledRows = tuple[NDArray[np.float32], NDArray[np.str_], NDArray[np.str_]]


def labelled_examples(context: TrainingContext, as_of: datetime, horizon: int, spec: FeatureSpec) -> LabelledRows:
    """Features, stage at `as_of` and stage `horizon` days later of the customers with an order before `as_of`."""
    now, later = context.profile(as_of), context.profile(as_of + timedelta(days=horizon))
    today = context.lifecycle_stages(as_of)
    buyers = np.flatnonzero(today != "prospect")
    then = context.lifecycle_stages(as_of + timedelta(days=horizon))[later.rows_of(now.one_ids[buyers])]
    return context.profile(as_of, spec).values[buyers], today[buyers], then


def transition_probabilities(
    before: NDArray[np.str_], after: NDArray[np.str_], classes: NDArray[np.str_]
) -> dict[str, NDArray[np.float64]]:
    """Smoothed transition probabilities: counts of the next stage, plus one pseudo-count spread by the overall shares.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_classes,)
        Stage → probability of each class.
    """
    overall = np.array([(after == c).mean() for c in classes])
    return {
        stage: (np.array([((before == stage) & (after == c)).sum() for c in classes]) + overall)
        / ((before == stage).sum() + 1.0)
        for stage in LIFECYCLE_STAGES
    }


def run(context: TrainingContext) -> EvaluatedModel:
    """Fit on earlier transitions, evaluate on the last one before `as_of`, and ship a fit on all of them."""
    horizon = context.horizon_days or context.settings.lifecycle.horizon_days
    context.require_order_features(LIFECYCLE_FEATURES, "lifecycle stages need dated orders")
    test = context.as_of - timedelta(days=horizon)
    as_of_dates = snapshot_dates(
        context.history_start("transactions") + timedelta(days=2 * horizon), test, horizon, MAX_SNAPSHOTS
    )
    if len(as_of_dates) < 2:
        raise DataError(
            "the history is too short to train lifecycle stages",
            where="transactions",
            got=f"{(context.as_of - context.history_start('transactions')).days} days",
            allowed=f"at least {4 * horizon} days for a horizon of {horizon}",
            hint="choose a shorter --horizon-days or ingest a longer history",
        )
    context.require_outcomes(horizon)
    candidates = context.stationary_spec(as_of_dates[-2])
    context.progress(f"lifecycle: {len(as_of_dates)} transitions of {horizon} days, evaluated on the last")
    parts = [labelled_examples(context, as_of, horizon, candidates) for as_of in as_of_dates]
    spec, attribute_notes = choose_attributes(
        context.settings.profiles.in_models,
        candidates,
        _log_loss_gain(context, candidates, parts[:-1]),
        "reduction of log loss",
    )
    kept = [candidates.names.index(name) for name in spec.names]
    parts = [(values[:, kept], today, then) for values, today, then in parts]
    X, before, after = (np.concatenate([part[i] for part in parts[:-1]]) for i in range(3))
    test_X, test_before, test_after = parts[-1]
    if len(test_after) < MIN_CUSTOMERS:
        raise DataError(
            "there are too few buyers to evaluate lifecycle stages",
            got=len(test_after),
            allowed=f"at least {MIN_CUSTOMERS}",
        )
    seed = context.settings.seed
    shown = without_neutral_values(spec, X, seed)
    test_model = NextStageClassifier(seed=seed).fit(shown, before, context.shuffled(after))
    transition_baseline = transition_probabilities(before, after, test_model.classes_)
    at = _places(test_model.classes_, test_after)
    p = test_model.predict_proba(test_X, test_before)
    q = np.array([transition_baseline[stage] for stage in test_before.tolist()])
    loss, counted_loss = _losses(p, at), _losses(q, at)
    right = test_model.classes_[p.argmax(axis=1)] == test_after
    stays, majority = test_before == test_after, test_after == _majority(after)
    report = EvalReport(
        {"log_loss": mean_metric(loss), "accuracy": mean_metric(right.astype(float))},
        {
            "stage transitions": {
                "log_loss": mean_metric(counted_loss),
                "accuracy": mean_metric((test_model.classes_[q.argmax(axis=1)] == test_after).astype(float)),
            },
            "stays in its stage": {"accuracy": mean_metric(stays.astype(float))},
            "majority": {"accuracy": mean_metric(majority.astype(float))},
        },
        {
            "log_loss:stage transitions": mean_metric(loss - counted_loss),
            "accuracy:stays in its stage": mean_metric(right.astype(float) - stays),
        },
        {
            stage: {"accuracy": mean_metric(right[test_before == stage].astype(float))}
            for stage in LIFECYCLE_STAGES
            if (test_before == stage).any()
        },
        notes=(
            *left_out_notes(context.unknown_attributes(as_of_dates[-2]), as_of_dates[-2]),
            *attribute_notes,
            *sufficient_for_classes(
                coded_attributes(spec, X, test_X),
                _places(test_model.classes_, after),
                at,
                loss,
                len(test_model.classes_),
            ),
        ),
    )
    context.progress("lifecycle: fitting on all transitions")
    every_X, every_before, every_after = (np.concatenate([part[i] for part in parts]) for i in range(3))
    shown = without_neutral_values(spec, every_X, seed)
    model = NextStageClassifier(seed=seed).fit(shown, every_before, context.shuffled(every_after))
    bundle = ModelBundle(
        "lifecycle",
        model,
        context.as_of,
        spec,
        config={"model": model.get_params()},
        facts=context.facts("lifecycle", horizon_days=horizon),
        evaluated=test_model,
    )
    figures = {
        "transitions.png": plots.transition_matrix(
            test_before, test_after, LIFECYCLE_STAGES, f"Stages, {test:%Y-%m-%d} to {context.as_of:%Y-%m-%d}"
        )
    }
    rules = [GateRule("log_loss:stage transitions", higher_is_better=False)]
    parameters = {
        "horizon_days": horizon,
        "transitions": len(as_of_dates),
        "rows": len(every_after),
        **model.get_params(),
    }
    today = context.lifecycle_stages(context.as_of)
    example = (
        context.build_profiles(context.as_of)
        .table.select(["one_id", *spec.names])
        .append_column("lifecycle_stage", pa.array(today.tolist()))
        .slice(0, 5)
    )
    comparison = _comparison(context, test, test_before, test_after, loss)
    return EvaluatedModel(bundle, report, rules, parameters, figures, example, comparison=comparison)


def _comparison(
    context: TrainingContext,
    test: datetime,
    before: NDArray[np.str_],
    after: NDArray[np.str_],
    own: NDArray[np.float64],
) -> LossComparison:
    """The log loss of the stage of each customer, and of those of each stage at the test date."""

    def losses(bundle: ModelBundle) -> NDArray[np.float64]:
        assert bundle.spec is not None
        columns_for(bundle, bundle.spec.names, context.profile(test).spec.names)
        X = context.profile(test, bundle.spec).values[context.lifecycle_stages(test) != "prospect"]
        return _losses(bundle.model.predict_proba(X, before), _places(bundle.model.classes_, after))

    return LossComparison("log_loss", test, own, losses, {stage: before == stage for stage in LIFECYCLE_STAGES})


def _log_loss_gain(context: TrainingContext, spec: FeatureSpec, parts: Sequence[LabelledRows]) -> Gain | None:
    """By how much columns reduce the log loss of the last transition, fitted on those before it.

    None if there is no transition before it, or all customers end in one stage.
    """
    if len(parts) < 2:
        return None
    X, before, after = (np.concatenate([part[i] for part in parts[:-1]]) for i in range(3))
    later_X, later_before, later_after = parts[-1]
    if len(later_after) < MIN_CUSTOMERS or len(np.unique(after)) < 2:
        return None

    classes, seed = np.unique(after), context.settings.seed
    places = _places(classes, later_after)

    def predict(rows: NDArray[np.float32], later_rows: NDArray[np.float32], fit_seed: int) -> NDArray[np.float64]:
        model = NextStageClassifier(seed=fit_seed).fit(rows, before, context.shuffled(after))
        return model.predict_proba(later_rows, later_before)

    def difference(p: NDArray[np.float64], q: NDArray[np.float64]) -> Metric:
        return mean_metric(_losses(q, places) - _losses(p, places), seed)

    return gain_over_shuffled(predict, difference, without_neutral_values(spec, X, seed), later_X, seed)


def _losses(probabilities: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log loss of each customer, shape (n,): that of `MIN_PROBABILITY` where the class is unknown to the model."""
    known = np.where(places >= 0, probabilities[np.arange(len(places)), places], MIN_PROBABILITY)
    return np.asarray(-np.log(known.clip(MIN_PROBABILITY)))


def _places(classes: NDArray[np.str_], stages: NDArray[np.str_]) -> NDArray[np.int64]:
    """Position of each stage among the classes, −1 if it is none of them."""
    order = {stage: place for place, stage in enumerate(classes.tolist())}
    return np.array([order.get(stage, -1) for stage in stages.tolist()], dtype=np.int64)


def _majority(stages: NDArray[np.str_]) -> str:
    values, counts = np.unique(stages, return_counts=True)
    return str(values[counts.argmax()])


def _monitored_rows(context: TrainingContext, bundle: ModelBundle, as_of: datetime) -> ScoredRows:
    """The buyers at a moment, with the probability of each stage, and the stage in which they were afterwards."""
    assert bundle.spec is not None
    horizon, classes = int(bundle.facts["horizon_days"]), bundle.model.classes_
    today = context.lifecycle_stages(as_of)
    buyers = np.flatnonzero(today != "prospect")
    X = context.profile(as_of, bundle.spec).values[buyers]
    scores = bundle.model.predict_proba(X, today[buyers]) if len(buyers) else np.empty((0, len(classes)))
    outcomes = np.full((len(buyers), len(classes)), np.nan)
    if len(buyers) and as_of + timedelta(days=horizon) <= context.as_of:
        _, _, then = labelled_examples(context, as_of, horizon, bundle.spec)
        outcomes = (then[:, None] == classes).astype(np.float64)
    days = context.profile(as_of).column("days_since_last_order")[buyers].astype(np.float64)
    return ScoredRows(as_of, X, scores, outcomes, days)


def _monitored_periods(bundle: ModelBundle) -> MonitoredPeriods:
    horizon = int(bundle.facts["horizon_days"])
    return MonitoredPeriods(horizon, horizon, 2 * horizon)


JOB = Job(
    "lifecycle",
    "in which lifecycle stage each customer will be after the horizon",
    run,
    monitored=Monitored(
        ("horizon_days",),
        LIFECYCLE_FEATURES,
        _monitored_periods,
        _monitored_rows,
        lambda bundle: tuple(bundle.model.classes_.tolist()),
        auc=lambda bundle: (),
    ),
)
