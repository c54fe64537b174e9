"""`train churn`: which customers active in the last `active_days` will buy nothing in the next `horizon_days`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from models.classify.boosting import to_dmatrix
from models.classify.churn import ChurnClassifier
from models.classify.rhythm import CHURN_FEATURES, day_number
from models.classify.risk_bands import FACT, RiskBands
from qianmian.errors import DataError
from training import plots
from training.attribute_choice import Gain, choose_attributes, gain_over_shuffled, without_neutral_values
from training.attributes import coded_attributes, left_out_notes, sufficient_for_labels
from training.bootstrap import CLASSIFICATION, paired_difference
from training.churn.choice import MAX_ORIGINS, backtests, choose_recipe, chosen_level, validate
from training.churn.fitting import Fitting, season_note
from training.churn.gains import gains_curves, top_shares
from training.churn.levels import SEASONAL, Rates
from training.churn.middle import MIDDLE, WEEKS, in_middle, middle_slice
from training.churn.recipes import LOGISTIC, usable_recipes
from training.churn.records import read_records
from training.churn.report import (
    DATE,
    at_date,
    by_band,
    by_month,
    evaluate,
    in_words,
    middle_note,
    month_curves,
    returns_note,
)
from training.churn.snapshots import ChurnRows, Snapshots, stacked
from training.churn.tuning import tune_churn
from training.classify.slices import by_orders
from training.comparison import LossComparison, columns_for
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext, snapshot_dates
from training.monitoring.declared import Monitored, MonitoredPeriods, ScoredRows
from training.report import Metric
from training.tuning import tuned_parameters
from training.tuning_trees import TREES

# dates before the test date at which all features are built, 3 CPU s each on Complete Journey: three dates to learn
# from are as good as seven (validated at 2017-10-04: AUC .870 and .868), and models are compared on the last three
PROFILE_DATES = 4
MIN_CUSTOMERS = 100
MIN_OUTCOMES = 20  # customers per outcome in the validation period of the profile attributes
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
) -> ChurnRows:
    """Features and churn labels of the active customers at `as_of`: 1 for no order within `horizon` days.

    The labels are 0 if they are not known at the cutoff of the training.
    """
    profile = context.profile(as_of, spec).take(active_customer_rows(context, as_of, active_days))
    end = as_of + timedelta(days=horizon)
    retained = buyers_between(context, as_of, end) if end <= context.as_of else set(profile.one_ids.tolist())
    churned = np.array([one_id not in retained for one_id in profile.one_ids.tolist()], dtype=np.int64)
    return ChurnRows(profile.values, churned, profile.one_ids, np.full(len(churned), day_number(as_of)))


def _auc_gain(context: TrainingContext, spec: FeatureSpec, parts: Sequence[ChurnRows]) -> Gain | None:
    """The difference in AUC that columns make, on the last of the snapshot dates.

    The models are fitted on the dates before it, whose labels were known then. None if there are no such dates or too
    few customers of each outcome.
    """
    if len(parts) < 2:
        return None
    before, later, seed = stacked(parts[:-1]), parts[-1], context.settings.seed
    X, y, later_X, later_y = before.X, before.y, later.X, later.y
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
    """Choose a model on the past, evaluate it on the last date with known labels, and ship a fit on all dates."""
    horizon = context.horizon_days or context.settings.churn.horizon_days
    active_days = context.active_days or context.settings.churn.active_days or 2 * horizon
    context.require_order_features(REQUIRED_FEATURES, "churn needs dated orders")
    gap, seed = context.settings.churn.gap_days, context.settings.seed
    known_after = timedelta(days=horizon + gap)  # windows roll with the gap: outcomes were known at the next date
    test = context.as_of - known_after
    first = context.history_start("transactions") + timedelta(days=active_days)
    # a date is training data if its labels were known at the test date
    train_dates = snapshot_dates(first, test - known_after, horizon, PROFILE_DATES)
    if not train_dates:
        raise DataError(
            "the history is too short to train churn",
            where="transactions",
            got=f"{max((context.as_of - context.history_start('transactions')).days, 0)} days",
            allowed=f"at least {active_days + 2 * (horizon + gap)} days for a horizon of {horizon}"
            + (f" and a gap of {gap}" if gap else ""),
            hint=_shorter_horizon(context) + "ingest a longer history",
        )
    context.require_outcomes(horizon, gap)
    profile_spec = context.profile(train_dates[-1]).neutral_spec()
    candidates = context.stationary_spec(train_dates[-1])
    rhythm = tuple(name for name in CHURN_FEATURES if name in profile_spec.names)
    wide = profile_spec.select([*candidates.names, *(name for name in rhythm if name not in candidates.names)])
    shared = [account.one_id for account in context.shared_accounts]
    snapshots = Snapshots(
        context.builder,
        horizon,
        active_days,
        context.as_of,
        first,
        rhythm,
        shared,
        context.settings.lifecycle,
        gap_days=gap,
    )
    dates = snapshots.dates(test)
    context.progress(
        f"churn: {len(dates)} dates from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}, {len(train_dates)} of them with "
        f"all features, evaluated at {test:%Y-%m-%d}"
    )
    parts = {at: labelled_examples(context, at, horizon, active_days, wide) for at in [*train_dates, test]}
    stationary = [replace(part, X=part.X[:, : len(candidates.names)]) for at, part in parts.items() if at != test]
    spec, attribute_notes = choose_attributes(
        context.settings.profiles.in_models, candidates, _auc_gain(context, candidates, stationary), "AUC"
    )
    test_rows = parts.pop(test)
    _require_both_outcomes(context, test, horizon, test_rows.y)
    least = int(min(test_rows.y.sum(), (1 - test_rows.y).sum()))
    if len(test_rows.y) < MIN_CUSTOMERS or least < 10:
        raise DataError(
            "there are too few active customers to evaluate churn",
            got=f"{len(test_rows.y)} active customers, {int(test_rows.y.sum())} of them churned",
            allowed=f"at least {MIN_CUSTOMERS} active customers, 10 of each class",
            hint="choose another --horizon-days or --active-days, or ingest more customers",
        )
    builds = {at: context.build_profiles(at) for at in train_dates}
    snapshots = replace(snapshots, records=read_records(context.builder, spec, dates[0], builds))
    fitting = Fitting(snapshots, wide, spec, context.shuffled, seed)
    before = fitting.training_rows(test, parts)
    origins = [test - known_after - timedelta(days=horizon * back) for back in range(MAX_ORIGINS - 1, -1, -1)]
    origins = [at for at in origins if len(snapshots.dates(at)) > 1]
    rates = Rates(snapshots, test)
    seasonal = rates.a_year_before(test) is not None and rates.a_year_before(context.as_of) is not None
    context.progress(f"churn: {len(origins)} dates are predicted by models of then")
    made = backtests(snapshots, origins, before, context.shuffled, seasonal)
    level, level_note = chosen_level(made)
    before = replace(before, season=level in SEASONAL)
    recipes = usable_recipes(before, context.settings.profiles.in_models, spec)
    prepared = partial(without_neutral_values, wide, seed=seed)
    search = partial(tune_churn, context, snapshots, parts, before, level, recipes, prepared, test)
    before = replace(before, trees=tuned_parameters(context, "churn", test, search).get(TREES, {}))
    validation = (
        validate(snapshots, parts, before, level, context.shuffled, recipes, prepared) if len(recipes) > 1 else None
    )
    recipe, recipe_note = choose_recipe(validation, recipes, seed)
    test_model = fitting.fit_at(recipe, before, level, test, test_rows)
    test_X = fitting.columns(test_model, test_rows.X)
    p = test_model.predict_proba(test_X)[:, 1]
    rankings, probabilities = fitting.baselines(before, rates, test, test_rows)
    report = evaluate(test_rows.y, p, rankings, probabilities)
    compared = rankings | {name: q for name, q in probabilities.items() if name == LOGISTIC.name != recipe.name}
    hard = np.flatnonzero(in_middle(snapshots.active_weeks(test, test_rows.owners, WEEKS)))
    slices = {
        **by_band(test_rows.y, p, _bands(context, p)),
        **by_month(made, level),
        f"{DATE}{test:%Y-%m-%d}": at_date(test_rows.y, p),
        **by_orders(test_rows.X[:, wide.names.index("orders_total")], test_rows.y, p),
        **top_shares(test_rows.y, p, compared),
        **middle_slice(test_rows.y[hard], p[hard], {name: q[hard] for name, q in compared.items()}),
    }
    own = [wide.names.index(name) for name in spec.names]
    learnt = stacked(parts.values())
    coded = coded_attributes(spec, learnt.X[:, own], test_rows.X[:, own])
    notes = (
        recipe_note,
        level_note,
        *season_note(rates, test, seasonal, level),
        *in_words(slices),
        *middle_note(validation, recipe.name, seed),
        *returns_note(snapshots, context.settings.left.min_days),
        *left_out_notes(context.unknown_attributes(train_dates[-1]), train_dates[-1]),
        *attribute_notes,
        *sufficient_for_labels(coded, learnt.y, test_rows.y, p, seed),
    )
    context.progress("churn: fitting on all dates")
    everything = replace(
        fitting.training_rows(context.as_of, {**parts, test: test_rows}), season=before.season, trees=before.trees
    )
    now = labelled_examples(context, context.as_of, horizon, active_days, wide)
    model = fitting.fit_at(recipe, everything, level, context.as_of, now)
    bundle_spec = wide.select(model.design.features)
    risks = model.predict_proba(fitting.columns(model, now.X))[:, 1] if len(now.y) else p
    bands = _bands(context, risks)
    contributions = test_model.explain(test_X)
    importance = np.abs(contributions).mean(axis=0)
    figures = {
        "calibration.png": plots.calibration_curve(test_rows.y, p, "Churn: calibration"),
        "gains.png": plots.curves(
            *gains_curves(test_rows.y, p, compared),
            "customers from the highest risk on, %",
            "of those who churned, %",
            "Churn: gains",
        ),
        "months.png": plots.curves(*month_curves(slices), "date", "share that churned", "Churn: by date"),
        "importance.png": plots.bars(
            dict(zip(bundle_spec.names, importance.tolist(), strict=True)),
            "mean |contribution| (log-odds)",
            "Churn: feature importance",
        ),
        "beeswarm.png": plots.beeswarm(contributions, test_X, bundle_spec.names, "Churn: contributions", seed),
    }
    facts = context.facts(
        "churn",
        horizon_days=horizon,
        active_days=active_days,
        base_rate=float(everything.rhythm.y.mean()),
        model=recipe.name,
        level=level,
        **{FACT: [bands.medium_from, bands.high_from]},
    )
    config = {"model": model.get_params()}
    bundle = ModelBundle("churn", model, context.as_of, bundle_spec, config=config, facts=facts, evaluated=test_model)
    rules = [
        GateRule("brier:base rate", higher_is_better=False),
        GateRule("auc:orders in the last 28 days", require_improvement=False),
        GateRule("auc:recency", require_improvement=False),
    ]
    parameters = {
        "horizon_days": horizon,
        "gap_days": gap,
        "active_days": active_days,
        "model": recipe.name,
        "level": level,
        "dates": len(dates) + 1,
        "rows": len(everything.rhythm.y),
        **model.get_params(),
    }
    return EvaluatedModel(
        bundle,
        replace(report, slices=slices, notes=notes),
        rules,
        parameters,
        figures,
        _example(context, bundle_spec),
        {"churn_risk": (now.owners.tolist(), bands.of(risks) if len(now.y) else [])},
        _comparison(context, test, test_rows, p, hard),
    )


def _comparison(
    context: TrainingContext, test: datetime, rows: ChurnRows, p: NDArray[np.float64], hard: NDArray[np.int64]
) -> LossComparison:
    """The Brier score of each customer of the test date, and of those who are hard to tell apart from the others."""

    def losses(bundle: ModelBundle) -> NDArray[np.float64]:
        assert bundle.spec is not None
        columns_for(bundle, bundle.spec.names, context.profile(test).spec.names)
        profile = context.profile(test, bundle.spec)
        X = profile.values[profile.rows_of(rows.owners)]
        read = columns_for(bundle, bundle.model.design.features, bundle.spec.names)
        return np.asarray((bundle.model.predict_proba(X[:, read], test)[:, 1] - rows.y) ** 2)

    in_the_middle = np.isin(np.arange(len(rows.y)), hard)
    return LossComparison(
        "brier", test, (p - rows.y) ** 2, losses, {MIDDLE: in_the_middle, "the other customers": ~in_the_middle}
    )


def _shorter_horizon(context: TrainingContext) -> str:
    """The longest horizon that the history allows, as the first half of a hint; empty if no horizon fits."""
    days = (context.as_of - context.history_start("transactions")).days - 2 * context.settings.churn.gap_days
    longest = days // 4  # active for two, two to learn from
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
    where = f"{test:%Y-%m-%d} to {test + timedelta(days=horizon):%Y-%m-%d}"
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


def _bands(context: TrainingContext, risks: NDArray[np.float64]) -> RiskBands:
    """The risk bands of the settings, or those relative to the customers with these probabilities."""
    absolute = context.settings.churn.risk_bands
    return RiskBands(*absolute) if absolute else RiskBands.relative(risks)


def _example(context: TrainingContext, spec: FeatureSpec) -> pa.Table:
    return context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5)


def _monitored_rows(context: TrainingContext, bundle: ModelBundle, as_of: datetime) -> ScoredRows:
    """The active customers at a moment, with their risk, and whether they churned."""
    horizon, active = int(bundle.facts["horizon_days"]), int(bundle.facts["active_days"])
    assert bundle.spec is not None
    found = labelled_examples(context, as_of, horizon, active, bundle.spec)
    days = context.profile(as_of).column("days_since_last_order")[active_customer_rows(context, as_of, active)]
    scores = bundle.model.predict_proba(found.X, as_of)[:, 1] if len(found.y) else np.empty(0)
    is_known = as_of + timedelta(days=horizon) <= context.as_of
    outcomes = found.y.astype(np.float64) if is_known else np.full(len(found.y), np.nan)
    return ScoredRows(as_of, found.X, scores[:, None], outcomes[:, None], days.astype(np.float64))


def _monitored_periods(bundle: ModelBundle) -> MonitoredPeriods:
    horizon = int(bundle.facts["horizon_days"])
    return MonitoredPeriods(horizon, horizon, int(bundle.facts["active_days"]))


JOB = Job(
    "churn",
    "which active customers will stop buying: calibrated trees or logistic regression",
    run,
    can_tune=True,
    monitored=Monitored(("horizon_days", "active_days"), REQUIRED_FEATURES, _monitored_periods, _monitored_rows),
)
