"""`train value`: how many orders each customer will place within the horizon, and how much they will pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from features.profiles.tags.declare import TagValue
from models.bundle import ModelBundle
from models.value.columns import MONEY_FEATURES, ORDER_FEATURES, by_name
from models.value.value_model import MONEY, ORDERS, ValueModel
from qianmian.errors import DataError
from training import plots
from training.churn.snapshots import Snapshots
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.monitoring.declared import Monitored, MonitoredPeriods, ScoredRows
from training.tuning import tuned_parameters
from training.tuning_trees import TREES
from training.value.fitting import (
    ValueFitting,
    can_fit,
    chosen,
    fit_amounts,
    fit_counts,
    with_choice,
    with_intervals,
)
from training.value.report import (
    EVERYBODY,
    LAST_AGAIN,
    PURCHASE,
    comparison_of,
    evaluate,
    in_words,
    next_order_coverage,
)
from training.value.rows import PastMoments, ValueRows
from training.value.tuning import tune_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# the history has four parts of equal length: to learn from, to be learnt, to choose, and to test
PARTS = 4
MOST_OF_ONE = 0.5  # of the money of a period: what one customer paid is no expectation of the others
SHORTEST = 7  # days that can be learnt
MIN_CUSTOMERS, MIN_BUYERS = 100, 20  # at the test date, and of them those who order afterwards


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose a model on the past, evaluate it on the last days, and ship a fit on everything."""
    context.require_order_features(ORDER_FEATURES, "value needs dated orders")
    start, seed = context.history_start("transactions"), context.settings.seed
    history_days = (context.as_of - start).days
    horizon, learned, notes = horizons(context, history_days)
    context.require_outcomes(learned)
    test, validation = (context.as_of - timedelta(days=learned * parts) for parts in (1, 2))
    supported = {feature.name for feature in context.builder.supported()[0]}
    features = (*ORDER_FEATURES, *(MONEY_FEATURES if supported.issuperset(MONEY_FEATURES) else ()))
    shared = [account.one_id for account in context.shared_accounts]
    first = start + timedelta(days=max(learned // 2, 1))
    past = PastMoments(
        Snapshots(
            context.builder, learned, learned, context.as_of, first, features, shared, context.settings.lifecycle
        ),
        features,
    )
    now, tested, validated = (past.rows(date) for date in (context.as_of, test, validation))
    check_rows(tested, learned)
    if no_money := no_money_reason(features, now, [past.before(validation), validated, past.before(test), tested]):
        notes = (*notes, f"money: {no_money}; orders and dates are predicted")
        past = PastMoments(past.snapshots, ORDER_FEATURES)
        now, tested, validated = (past.rows(date) for date in (context.as_of, test, validation))
    fit_counts(now, past.features)  # nobody comes back: no model can learn when
    parts = (now, tested, validated)
    no_counts = can_fit(fit_counts, parts, past.features)
    no_amounts = "" if no_money else can_fit(fit_amounts, parts, past.features)
    notes = (*notes, *(f"left out: {why}" for why in (no_counts, no_amounts) if why))
    whats = (ORDERS,) if no_money else (ORDERS, MONEY)
    # BG/NBD learns from no labels, so a test of the gate with permuted ones leaves it out
    counts, amounts = not no_counts and not context.shuffle_labels, not no_money and not no_amounts
    fitting = ValueFitting(past, learned, whats, counts, amounts, context.shuffled, seed)
    context.progress(f"value: {learned} days ahead, chosen at {validation:%Y-%m-%d}, evaluated at {test:%Y-%m-%d}")
    search = partial(tune_value, context, fitting, validation, validated, test)
    fitting = replace(fitting, trees=tuned_parameters(context, "value", test, search).get(TREES, {}))
    before, first_note = chosen(fitting.fit_at(validation), validated, seed)
    fitted_at_test = fitting.fit_at(test)
    test_model = with_intervals(with_choice(fitted_at_test, before), before, validated, seed)
    learnt = past.before(test).totals
    means = {what: float(values.mean()) for what, values in learnt.items()}
    means[PURCHASE] = float((learnt[ORDERS] > 0).mean())
    report = evaluate(test_model, tested, past.last_totals(test), means, seed)
    dates = next_order_coverage(past.snapshots.process(test), tested, past.features, float(learned), seed)
    context.progress("value: fitting on all dates")
    # what ships is made as what was evaluated, one period later: chosen and calibrated on the test period
    last, recipe_note = chosen(fitted_at_test, tested, seed)
    model = with_intervals(fitting.fit_at(context.as_of, last), last, tested, seed).within(horizon)
    recipe = model.totals[ORDERS].recipe
    notes = (
        f"evaluated: {first_note}",
        f"registered: {recipe_note}",
        *notes,
        *(model.counts.notes() if model.counts else ()),
        *in_words(report, learned, dates),
    )
    if dates is not None:
        report = replace(report, metrics={**report.metrics, "coverage_80_next_order": dates})
    facts = context.facts(
        "value", horizon_days=horizon, learned_days=learned, model=recipe, no_money_reason=no_money or None
    )
    spec = context.profile(context.as_of).neutral_spec().select(past.features)
    parameters = {"horizon_days": horizon, "learned_days": learned, "rows": len(past.before(context.as_of))}
    parameters |= model.get_params()
    return EvaluatedModel(
        ModelBundle(
            "value",
            model,
            context.as_of,
            spec,
            config={"model": model.get_params()},
            facts=facts,
            evaluated=test_model,
        ),
        replace(report, notes=notes),
        gate_rules(whats),
        parameters,
        figures(test_model, tested),
        context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5),
        published(context, model),
        comparison_of(test_model, tested, past.last_totals(test), past.features, test),
    )


def horizons(context: TrainingContext, history_days: int) -> tuple[int, int, tuple[str, ...]]:
    """Days to predict, days that can be learnt, and notes about what the history does not allow.

    Raises
    ------
    DataError
        The history is too short to learn anything, or shorter than a horizon that was given.
    """
    learnable = history_days // PARTS
    if learnable < SHORTEST:
        raise DataError(
            "the history is too short to train value",
            where="transactions",
            got=f"{max(history_days, 0)} days",
            allowed=f"at least {PARTS * SHORTEST} days",
            hint="ingest a longer history",
        )
    horizon = context.horizon_days or context.settings.value.horizon_days
    if horizon > history_days and context.horizon_days:
        raise DataError(
            "the horizon is longer than the history",
            where="transactions",
            got=f"{horizon} days ahead from {history_days} days",
            allowed=f"at most {history_days} days; up to {learnable} can be tested",
            hint=f"choose a --horizon-days of at most {learnable}, or ingest a longer history",
        )
    notes: tuple[str, ...] = ()
    if horizon > history_days:
        notes = (f"horizon: {history_days} days instead of {horizon}, because the history is no longer",)
        horizon = history_days
    if horizon > learnable:
        notes = (
            *notes,
            f"horizon: {horizon} days are predicted by what was learnt for {learnable}, in the proportion in which "
            f"BG/NBD expects more orders; the evaluation is of {learnable} days, a quarter of the history",
        )
    return horizon, min(horizon, learnable), notes


def check_rows(tested: ValueRows, learned: int) -> None:
    """Check that enough customers can be tested.

    Raises
    ------
    DataError
        Fewer than `MIN_CUSTOMERS` customers, or fewer than `MIN_BUYERS` of them order in the test period.
    """
    buyers = int((tested.totals[ORDERS] > 0).sum())
    if len(tested) < MIN_CUSTOMERS or buyers < MIN_BUYERS:
        raise DataError(
            "there are too few customers to evaluate value",
            got=f"{len(tested)} customers before the last {learned} days, {buyers} of them with a later order",
            allowed=f"at least {MIN_CUSTOMERS} customers, {MIN_BUYERS} of them with a later order",
            hint="ingest more customers or a longer history, or choose another --horizon-days",
        )


def no_money_reason(features: tuple[str, ...], now: ValueRows, parts: Sequence[ValueRows]) -> str:
    """Why no money can be predicted; empty if it can.

    Parameters
    ----------
    parts : sequence of ValueRows
        What is learnt from, chosen on and tested on; each needs amounts above 0, and of more than one customer.
    """
    if MONEY_FEATURES[0] not in features:
        return "the orders have no amounts"
    if not (by_name(now.X, features)["amount_total"] > 0).any():
        return "all amounts are 0"
    if not all((part.totals[MONEY] > 0).any() for part in parts):
        return "all amounts of a part of the history are 0, so that there is nothing to learn from or to test on"
    share = max(largest_share(part) for part in parts)
    if share > MOST_OF_ONE:
        return f"one customer paid {share:.1%} of all in a part of the history; check the mapping of `amount`"
    return ""


def largest_share(rows: ValueRows) -> float:
    """Share of the money that the customer who paid the most has paid."""
    paid = np.bincount(np.unique(rows.owners, return_inverse=True)[1], weights=rows.totals[MONEY])
    return float(paid.max() / paid.sum())


def gate_rules(whats: tuple[str, ...]) -> list[GateRule]:
    """Neither orders nor money worse than the last horizon again, both together better, and better than the mean."""
    not_worse = [
        GateRule(f"squared_error_{what}:{LAST_AGAIN}", higher_is_better=False, require_improvement=False)
        for what in whats
    ]
    better = [GateRule(f"squared_error:{name}", higher_is_better=False) for name in (LAST_AGAIN, EVERYBODY)]
    return [*not_worse, *better]


def figures(model: ValueModel, rows: ValueRows) -> dict[str, Figure]:
    """Predicted against observed by tenths of the customers, with the 80 % intervals."""
    found = model.predict(rows.X)
    made = {
        "orders.png": plots.observed_by_predicted(
            found.orders, rows.totals[ORDERS], found.orders_low, found.orders_high, "orders", "Value: number of orders"
        )
    }
    if found.money is not None and found.money_low is not None and found.money_high is not None:
        made["money.png"] = plots.observed_by_predicted(
            found.money, rows.totals[MONEY], found.money_low, found.money_high, "amount paid", "Value: money"
        )
    return made


def published(context: TrainingContext, model: ValueModel) -> dict[str, tuple[list[str], list[TagValue]]]:
    """Expected money and orders of every customer with an order, as tags."""
    profile = context.profile(context.as_of)
    buyers = np.flatnonzero((profile.column("orders_total") > 0) & ~context.is_shared(profile.one_ids))
    if not len(buyers):
        return {}
    places = [profile.spec.names.index(name) for name in model.features]
    found = model.predict(profile.values[buyers][:, places])
    one_ids = profile.one_ids[buyers].tolist()
    tags: dict[str, tuple[list[str], list[TagValue]]] = {"predicted_orders": (one_ids, found.orders.tolist())}
    if found.money is not None:
        tags["predicted_clv"] = (one_ids, found.money.tolist())
    return tags


def _monitored_rows(context: TrainingContext, bundle: ModelBundle, as_of: datetime) -> ScoredRows:
    """The buyers at a moment, with the orders and the money that are expected of them."""
    model: ValueModel = bundle.model
    profile = context.profile(as_of, bundle.spec)
    rows = np.flatnonzero((context.profile(as_of).column("orders_total") > 0) & ~context.is_shared(profile.one_ids))
    whats = (ORDERS, MONEY) if model.has_money else (ORDERS,)
    scores = np.empty((len(rows), len(whats)))
    if len(rows):
        places = [profile.spec.names.index(name) for name in model.features]
        X = profile.values[rows][:, places]
        scores = np.column_stack([model.expected(X, what) for what in whats])
    days = context.profile(as_of).column("days_since_last_order")[rows].astype(np.float64)
    return ScoredRows(as_of, profile.values[rows], scores, np.full(scores.shape, np.nan), days)


def _monitored_periods(bundle: ModelBundle) -> MonitoredPeriods:
    learned = int(bundle.facts["learned_days"])
    return MonitoredPeriods(None, learned, max(learned // 2, 1))


JOB = Job(
    "value",
    "orders and money of each customer within the horizon, with intervals",
    run,
    can_tune=True,
    fits_horizon=True,
    monitored=Monitored(
        ("learned_days",),
        ORDER_FEATURES,
        _monitored_periods,
        _monitored_rows,
        lambda bundle: (ORDERS, MONEY) if bundle.model.has_money else (ORDERS,),
        auc=lambda bundle: (),
        in_percent=False,
    ),
)
