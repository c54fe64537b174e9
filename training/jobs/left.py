"""`train left`: which customers will buy nothing in a window of their own, and so have left for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

import ibis
import numpy as np
from ibis import _
from numpy.typing import NDArray

from models.bundle import ModelBundle
from models.classify.boosting import MIN_ROWS
from models.classify.churn_model import ChurnModel
from models.classify.own_window import FIRST_DAYS, LEARNING_DAYS, OwnWindow, days_needed, longest_window
from models.classify.rhythm import RHYTHM_FEATURES, day_number
from models.classify.risk_bands import FACT, RiskBands
from qianmian.errors import DataError
from training import plots
from training.churn.choice import choose_recipe
from training.churn.gains import gains_curves, top_shares
from training.churn.middle import MIDDLE, WEEKS, in_middle, middle_slice
from training.churn.recipes import TrainingRows, can_fit, fit_recipe
from training.churn.report import by_band, evaluate, in_words
from training.churn.snapshots import Snapshots
from training.classify.slices import by_orders, slice_metrics
from training.comparison import LossComparison, columns_for
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.left.choice import SHORT, training_rows, usable_recipes, validate
from training.left.windows import WindowRows, Windows, windows_of_sizes
from training.monitoring.declared import Monitored, MonitoredPeriods, ScoredRows

MIN_CUSTOMERS = 100
TESTED_SHARE = 0.9  # of the customers, whose windows are over at the test date
MIN_OUTCOMES = 10  # customers of each outcome at the test date
REQUIRED_FEATURES = "orders_total", "days_since_last_order"
RECENCY, OWN_GAPS, BASE_RATE = "recency", "recency in own gaps", "base rate"


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose a model on the past, evaluate it on the last date whose windows are over, and ship a fit on all dates."""
    settings, seed = context.settings.left, context.settings.seed
    min_days = context.horizon_days or settings.min_days
    context.require_order_features(REQUIRED_FEATURES, "left needs dated orders")
    begin = context.history_start("transactions")
    history_days = (context.as_of - begin).days
    if longest_window(history_days) < min_days:
        shortest = longest_window(history_days)
        raise DataError(
            "the history is too short to tell who left",
            where="transactions",
            got=f"{max(history_days, 0)} days",
            allowed=f"at least {days_needed(min_days)} days for a window of {min_days}",
            hint="ingest a longer history"
            + (f", or choose a --horizon-days (left.min_days) of at most {shortest}" if shortest >= 7 else ""),
        )
    context.require_outcomes(min_days)
    profile = context.profile(context.as_of)
    rhythm = tuple(name for name in RHYTHM_FEATURES if name in profile.spec.names)
    spec = profile.neutral_spec().select(rhythm)
    snapshots = Snapshots(
        context.builder,
        horizon_days=min_days,
        active_days=min_days,
        end=context.as_of,
        first=begin + timedelta(days=FIRST_DAYS),
        rhythm=rhythm,
        left_out=[account.one_id for account in context.shared_accounts],
        lifecycle=context.settings.lifecycle,
    )
    window = OwnWindow(settings.multiple, float(min_days))
    buyers = (profile.column("orders_total") > 0) & ~context.is_shared(profile.one_ids)
    design = Windows(snapshots, context.as_of, window, np.inf).design
    now_X = context.profile(context.as_of, spec).take(np.flatnonzero(buyers))
    now_windows = design.window_days(now_X.values)
    if not len(now_windows):
        raise DataError("nobody has bought anything, so nobody can have left", where="transactions", got="no buyers")
    # customers with a longer window get no score
    longest = float(max(min(now_windows.max(), longest_window(history_days)), min_days))
    # at the test date, the windows of nine in ten customers are over
    tested = float(np.clip(np.ceil(np.quantile(now_windows, TESTED_SHARE)), min_days, longest))
    everything = Windows(snapshots, context.as_of, window, longest)
    test = Windows(snapshots, context.as_of - timedelta(days=tested), window, longest)
    test_rows = test.at(test.known_at, context.as_of)
    learnt = test.learnt()
    context.progress(
        f"left: {len(test.dates())} dates from {test.dates()[0]:%Y-%m-%d}, evaluated at {test.known_at:%Y-%m-%d} on "
        f"windows of {min_days} to {tested:g} days"
    )
    _check(context, test_rows, learnt, min_days)
    before = training_rows(test, seed, learnt.rows)
    recipes = usable_recipes(before)
    validation = validate(test, _before(test, min_days), recipes, context.shuffled, seed) if len(recipes) > 1 else None
    recipe, recipe_note = choose_recipe(validation, recipes, seed)
    test_model = fit_recipe(recipe, before, context.shuffled)
    y, X = test_rows.rows.y, test_rows.rows.X
    p = test_model.predict_proba(X, test.known_at)[:, 1]
    rankings, probabilities = _baselines(context, test_model, before, X, test_rows)
    report = evaluate(y, p, rankings, probabilities)
    compared = rankings | {name: q for name, q in probabilities.items() if name == SHORT.name != recipe.name}
    hard = np.flatnonzero(in_middle(snapshots.active_weeks(test.known_at, test_rows.rows.owners, WEEKS)))
    slices = {
        **by_band(y, p, RiskBands.relative(p)),
        **{
            name: slice_metrics(y[rows], p[rows])
            for name, rows in windows_of_sizes(test_rows.windows, float(min_days)).items()
        },
        **by_orders(X[:, rhythm.index("orders_total")], y, p),
        **top_shares(y, p, compared),
        **middle_slice(y[hard], p[hard], {name: q[hard] for name, q in compared.items()}),
    }
    context.progress("left: fitting on all dates")
    final = everything.learnt()
    data = training_rows(everything, seed, final.rows)
    model = fit_recipe(recipe, data, context.shuffled).at(day_number(context.as_of), [0.0])
    in_scope = np.flatnonzero(model.window_days(now_X.values) <= longest)
    risks = model.predict_proba(now_X.values[in_scope])[:, 1]
    bands = RiskBands.relative(risks if len(risks) else p)
    facts = context.facts(
        "left",
        min_days=min_days,
        multiple=settings.multiple,
        longest_days=longest,
        base_rate=float(data.rhythm.y.mean()),
        model=recipe.name,
        **{FACT: [bands.medium_from, bands.high_from]},
    )
    config = {"model": model.get_params()}
    bundle = ModelBundle("left", model, context.as_of, spec, config=config, facts=facts, evaluated=test_model)
    parameters = {
        "horizon_days": min_days,
        "multiple": settings.multiple,
        "longest_days": longest,
        "model": recipe.name,
        "dates": len(everything.dates()),
        "rows": len(data.rhythm.y),
        **model.get_params(),
    }
    notes = (
        recipe_note,
        *in_words(slices, "left"),
        *_drops(learnt, test_rows, longest, len(now_windows) - len(in_scope)),
    )
    contributions = test_model.explain(X)
    importance = np.abs(contributions).mean(axis=0)
    figures = {
        "calibration.png": plots.calibration_curve(y, p, "Left: calibration"),
        "gains.png": plots.curves(
            *gains_curves(y, p, compared),
            "customers from the highest risk on, %",
            "of those who left, %",
            "Left: gains",
        ),
        "importance.png": plots.bars(
            dict(zip(spec.names, importance.tolist(), strict=True)),
            "mean |contribution| (log-odds)",
            "Left: feature importance",
        ),
        "beeswarm.png": plots.beeswarm(contributions, X, spec.names, "Left: contributions", seed),
    }
    rules = [
        GateRule(f"brier:{BASE_RATE}", higher_is_better=False),
        GateRule(f"auc:{RECENCY}", require_improvement=False),
        GateRule(f"auc:{OWN_GAPS}", require_improvement=False),
    ]
    example = context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5)
    tags = {"left_risk": (now_X.one_ids[in_scope].tolist(), bands.of(risks))}
    return EvaluatedModel(
        bundle,
        replace(report, slices=slices, notes=notes),
        rules,
        parameters,
        figures,
        example,
        tags,
        _comparison(test.known_at, spec.names, test_rows, p, hard),
    )


def _comparison(
    start: datetime, computed: Sequence[str], rows: WindowRows, p: NDArray[np.float64], hard: NDArray[np.int64]
) -> LossComparison:
    """The Brier score of each customer of the test date, and of those who are hard to tell apart from the others."""
    X, y = rows.rows.X, rows.rows.y

    def losses(bundle: ModelBundle) -> NDArray[np.float64]:
        read = columns_for(bundle, bundle.model.design.features, computed)
        return np.asarray((bundle.model.predict_proba(X[:, read], start)[:, 1] - y) ** 2)

    middle = np.isin(np.arange(len(y)), hard)
    return LossComparison("brier", start, (p - y) ** 2, losses, {MIDDLE: middle, "the other customers": ~middle})


def _before(test: Windows, min_days: int) -> Windows | None:
    """The windows of a date before the test date, if the history has room for it; else None."""
    moment = test.known_at - timedelta(days=min_days)
    room = (moment - test.snapshots.first).days - min_days
    return replace(test, known_at=moment) if room >= LEARNING_DAYS else None


def _check(context: TrainingContext, test: WindowRows, learnt: WindowRows, min_days: int) -> None:
    """Check that there are enough customers, and of both outcomes.

    Raises
    ------
    DataError
        If not.
    """
    y = test.rows.y
    if len(y) >= MIN_CUSTOMERS and not 0 < y.sum() < len(y):
        nobody = not y.any()
        raise DataError(
            f"{'nobody' if nobody else 'everybody'} left: {'all' if nobody else 'none of the'} {len(y)} customers "
            "bought again within their window",
            where=f"the windows before {context.as_of:%Y-%m-%d}",
            hint="a shorter left.min_days or left.multiple tells more customers apart"
            if nobody
            else "left needs customers who come back: ingest a longer history, or set a longer left.min_days",
        )
    least = int(min(y.sum(), (1 - y).sum()))
    of_past = int(min(learnt.rows.y.sum(), (1 - learnt.rows.y).sum()))
    if len(y) < MIN_CUSTOMERS or least < MIN_OUTCOMES or of_past < MIN_ROWS:
        raise DataError(
            "there are too few customers to tell who left",
            got=f"{len(y)} customers at the test date, {int(y.sum())} of them left; {of_past} earlier rows of the "
            "rarer outcome",
            allowed=f"at least {MIN_CUSTOMERS} customers, {MIN_OUTCOMES} of each outcome, and {MIN_ROWS} earlier rows "
            "of each",
            hint=f"ingest more customers or a longer history; windows have at least {min_days} days (left.min_days)",
        )


def _baselines(
    context: TrainingContext, model: ChurnModel, data: TrainingRows, X: NDArray[np.float32], rows: WindowRows
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Baselines that order the customers of the test date, and those that are probabilities."""
    recency = X[:, model.design.features.index("days_since_last_order")].astype(np.float64)
    # the window is a multiple of the own gap, as far as the shortest window allows
    design = replace(model.design, window=OwnWindow(1.0, 0.0))
    rankings = {RECENCY: recency, OWN_GAPS: recency / np.maximum(design.window_days(X), 1.0)}
    probabilities = {BASE_RATE: np.full(len(X), float(data.rhythm.y.mean()))}
    if can_fit(SHORT, data):
        short = fit_recipe(SHORT, data, context.shuffled)
        probabilities[SHORT.name] = short.predict_proba(X)[:, 1]
    return rankings, probabilities


def _drops(learnt: WindowRows, test: WindowRows, longest: float, no_score: int) -> tuple[str, ...]:
    """Which customers were left out because their window was not over, or is longer than the history can label."""
    found = []
    if learnt.not_over or test.not_over:
        found.append(
            f"left out, whatever happened in their window, because it was not over: {learnt.not_over:,} rows of the "
            f"past beside {len(learnt.rows.y):,} that were learnt from, and {test.not_over:,} customers at the test "
            f"date beside {len(test.rows.y):,} that were predicted"
        )
    if no_score:
        found.append(
            f"no score: {no_score:,} customers, whose window is longer than {longest:g} days, the longest that the "
            "history can label twice"
        )
    return tuple(found)


def _days_to_next_order(context: TrainingContext, start: datetime, end: datetime) -> dict[str, float]:
    """Days from `start` to the first paid order in ``[start, end)`` of each customer who has one."""
    paid = context.builder.views(end)["lines"]
    first = paid.filter(paid.ts >= ibis.timestamp(start.isoformat(sep=" "))).group_by("one_id").agg(ts=_.ts.min())
    found = first.to_pyarrow().to_pydict()
    return {
        one_id: (ts - start).total_seconds() / 86400 for one_id, ts in zip(found["one_id"], found["ts"], strict=True)
    }


def _monitored_rows(context: TrainingContext, bundle: ModelBundle, as_of: datetime) -> ScoredRows:
    """The buyers with a window that the model predicts, with their risk, and whether nothing was bought in it.

    Outcomes are known once the longest window is over, whatever happened in the shorter ones before.
    """
    assert bundle.spec is not None
    profile = context.profile(as_of, bundle.spec)
    buyers = context.profile(as_of).column("orders_total") > 0
    longest = float(bundle.facts["longest_days"])
    windows = bundle.model.window_days(profile.values) if len(profile.one_ids) else np.empty(0)
    rows = np.flatnonzero(buyers & ~context.is_shared(profile.one_ids) & (windows <= longest))
    scores = bundle.model.predict_proba(profile.values[rows], as_of)[:, 1] if len(rows) else np.empty(0)
    outcomes = np.full(len(rows), np.nan)
    if as_of + timedelta(days=longest) <= context.as_of:
        waits = _days_to_next_order(context, as_of, as_of + timedelta(days=longest))
        came_back = np.array([waits.get(one_id, np.inf) for one_id in profile.one_ids[rows].tolist()])
        outcomes = (came_back >= windows[rows]).astype(np.float64)
    days = context.profile(as_of).column("days_since_last_order")[rows].astype(np.float64)
    return ScoredRows(as_of, profile.values[rows], scores[:, None], outcomes[:, None], days)


def _monitored_periods(bundle: ModelBundle) -> MonitoredPeriods:
    return MonitoredPeriods(ceil(bundle.facts["longest_days"]), int(bundle.facts["min_days"]), FIRST_DAYS)


JOB = Job(
    "left",
    "which customers have left: no purchase in a multiple of their own gap between orders",
    run,
    monitored=Monitored(("min_days", "longest_days"), REQUIRED_FEATURES, _monitored_periods, _monitored_rows),
)
