"""`train propensity`: who buys or does each declared target within the horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
from numpy.typing import NDArray

from features.profiles.tags.target_tags import tag_name
from features.propensity import require_in_lake, rows_between
from models.bundle import ModelBundle
from models.classify.calibrated import MIN_OUTCOMES, CalibratedClassifier, platt_scaling
from models.classify.propensity import PropensityModel
from models.classify.rhythm import probability
from qianmian.errors import DataError
from qianmian.propensity_targets import PropensityTarget
from training import plots
from training.classify.choice import CANDIDATES, fit_best
from training.classify.evaluation import BASE_RATE, gains, joined, measure, single_column_rates
from training.classify.slices import by_orders
from training.comparison import LossComparison, columns_for
from training.gate import GateRule, apply_gate
from training.jobs.base import EvaluatedModel, Job, TrainingContext, snapshot_dates
from training.propensity.monitored import MONITORED
from training.propensity.rows import (
    TargetRows,
    decayed_count,
    feature_names,
    rows_with_history,
    stacked,
    target_rows_at,
)
from training.propensity.tuning import tune_propensity
from training.report import EvalReport
from training.tuning import Parameters, tuned_parameters
from training.tuning_trees import TREES

# the dates that `train churn` builds features at: a date costs 3 CPU s on Complete Journey
PROFILE_DATES = 4
MIN_CUSTOMERS = 100
MIN_TEST_OUTCOMES = 10
LAST_HORIZON, DECAYED = "did it in the last 28 days", "decayed count"
SMALLEST_PROBABILITY = 1e-6
MAX_REPEATS = 3  # of purchases in the last 28 days, as a baseline


@dataclass(frozen=True)
class EvaluatedTarget:
    """A target with a classifier that was evaluated on the test date.

    Attributes
    ----------
    target : PropensityTarget
    names : tuple of str
        Features that its classifier reads.
    model : str
        What ships (`training.classify.choice.CANDIDATES`).
    report : EvalReport
        With the verdict on this target alone; its metrics begin with the target.
    rules : tuple of GateRule
    test : TargetRows
    p : ndarray of float64, (n,)
        Probabilities of the test rows.
    baseline : ndarray of float64, (n,)
        Those of the decayed count.
    evaluated, final : CalibratedClassifier
        Fitted on the dates before the test date, and on all dates.
    base_rate : float
        Share of the test rows that bought or did it.
    """

    target: PropensityTarget
    names: tuple[str, ...]
    model: str
    report: EvalReport
    rules: tuple[GateRule, ...]
    test: TargetRows
    p: NDArray[np.float64]
    baseline: NDArray[np.float64]
    evaluated: CalibratedClassifier
    final: CalibratedClassifier

    @property
    def base_rate(self) -> float:
        return float(self.test.y.mean())


def run(context: TrainingContext) -> EvaluatedModel:
    """Train and evaluate a classifier for each declared target, and ship those that beat their baselines."""
    targets = context.settings.propensity.declared
    if not targets:
        raise DataError(
            "no propensity target is declared",
            where="propensity.targets",
            hint='name one, as in `qianmian train propensity --target "category=NAME"`',
        )
    horizon = context.horizon_days or context.settings.propensity.horizon_days
    tables = sorted({target.table for target in targets})
    gap = context.settings.propensity.gap_days
    context.require_outcomes(horizon, gap)
    known_after = timedelta(days=horizon + gap)  # windows roll with the gap: outcomes were known at the next date
    test = context.as_of - known_after
    start = context.history_start(*tables)
    dates = snapshot_dates(start + timedelta(days=horizon), test - known_after, horizon, PROFILE_DATES)
    if not dates:
        span = max(0, (context.as_of - start).days)
        longest = (span - 2 * gap) // 3
        raise DataError(
            "the history is too short to train propensity",
            where=" and ".join(tables),
            got=f"{span} days",
            allowed=f"at least {3 * horizon + 2 * gap} days for a horizon of {horizon}"
            + (f" and a gap of {gap}" if gap else ""),
            hint=(f"choose a --horizon-days of at most {longest}, or " if longest > 0 else "")
            + "ingest a longer history",
        )
    left_out: dict[str, str] = {}
    usable: list[PropensityTarget] = []
    for target in targets:  # before the features, which cost more
        try:
            _require_rows(context, target, test, test + timedelta(days=horizon))
            usable.append(target)
        except DataError as error:
            left_out[str(target)] = str(error)
    found: list[EvaluatedTarget] = []
    if usable:
        context.progress(
            f"propensity: {len(usable)} targets, {len(dates)} dates from {dates[0]:%Y-%m-%d}, evaluated at "
            f"{test:%Y-%m-%d}"
        )
        _require_customers(context, test)
        search = partial(_tune, context, usable, dates, test, horizon)
        trees = tuned_parameters(context, "propensity", test, search).get(TREES, {})
        for target in usable:
            try:
                found.append(_evaluate(context, target, dates, test, horizon, trees))
            except DataError as error:
                left_out[str(target)] = str(error)
    if not found:
        raise DataError(
            "no propensity target can be trained",
            got="; ".join(f"{target}: {reason}" for target, reason in left_out.items()),
            hint="choose another target, or a longer --horizon-days",
        )
    shipped = [one for one in found if one.report.passed] or found  # the gate refuses if none passes
    left_out |= {str(one.target): "; ".join(one.report.reasons) for one in found if one not in shipped}
    return _evaluated_model(context, shipped, left_out, dates, horizon)


def _require_rows(context: TrainingContext, target: PropensityTarget, test: datetime, end: datetime) -> None:
    """Check that the lake has the target, and that enough customers bought or did it in the test period.

    Raises
    ------
    DataError
    """
    require_in_lake(context.builder, target)
    did = len(rows_between(context.builder, target, test, end))
    if did < MIN_TEST_OUTCOMES:
        raise DataError(
            "too few customers bought or did it to evaluate a model",
            where=f"{test:%Y-%m-%d} to {end:%Y-%m-%d}",
            got=f"{did} customers",
            allowed=f"at least {MIN_TEST_OUTCOMES}",
        )


def _require_customers(context: TrainingContext, test: datetime) -> None:
    if len(rows := rows_with_history(context, test)) < MIN_CUSTOMERS:
        raise DataError(
            "there are too few customers to evaluate propensity",
            where=f"{test:%Y-%m-%d}",
            got=f"{len(rows)} customers with an order or an event before",
            allowed=f"at least {MIN_CUSTOMERS}",
            hint="ingest more customers",
        )


def _evaluate(
    context: TrainingContext,
    target: PropensityTarget,
    dates: Sequence[datetime],
    test: datetime,
    horizon: int,
    trees: Parameters,
) -> EvaluatedTarget:
    """Fit on the dates before the test date, evaluate there, and fit again on all dates.

    Dates of before the rows of the target were recorded are left out, because nothing is known of who did it then; and
    features that the first of the others does not have.

    Raises
    ------
    DataError
        Too few customers bought or did it, or did not.
    """
    context.progress(f"propensity: {target}")
    seed = context.settings.seed
    dates, names, parts = _rows_before(context, target, dates, horizon)
    before, later = stacked(parts), target_rows_at(context, target, test, horizon, names)
    _require_outcomes(before, MIN_OUTCOMES, f"{dates[0]:%Y-%m-%d} to {test:%Y-%m-%d}")
    _require_outcomes(later, MIN_TEST_OUTCOMES, f"{test:%Y-%m-%d} to {test + timedelta(days=horizon):%Y-%m-%d}")
    categorical = (False,) * len(names)
    chosen, model = fit_best(
        before.X, context.shuffled(before.y), before.owners, categorical, seed, before.moments, trees=trees
    )
    p = model.predict_proba(later.X)[:, 1]
    baselines = _baselines(target, names, before, later)
    prefix = f"{target} "
    rules = (
        GateRule(f"{prefix}log_loss:{BASE_RATE}", higher_is_better=False),
        GateRule(f"{prefix}log_loss:{LAST_HORIZON}", higher_is_better=False),
        GateRule(f"{prefix}auc:{DECAYED}", require_improvement=False),
    )
    orders = later.orders
    slices = {} if orders is None else by_orders(orders, later.y, p, prefix)
    report = apply_gate(replace(measure(later.y, p, baselines, seed, prefix), slices=slices), rules)
    everything = stacked([*parts, later])
    y = context.shuffled(everything.y)
    evaluated = {chosen: CANDIDATES[chosen]}  # a choice from all dates could ship what was not evaluated
    final = fit_best(everything.X, y, everything.owners, categorical, seed, everything.moments, evaluated, trees)[1]
    return EvaluatedTarget(target, names, chosen, report, rules, later, p, baselines[DECAYED], model, final)


def _rows_before(
    context: TrainingContext, target: PropensityTarget, dates: Sequence[datetime], horizon: int
) -> tuple[list[datetime], tuple[str, ...], list[TargetRows]]:
    """The dates at which the rows of a target were recorded, the features of its classifier, and its rows at each date.

    Raises
    ------
    DataError
        They were recorded at none of the dates.
    """
    begin = context.history_start(target.table) + timedelta(days=horizon)
    kept = [at for at in dates if at >= begin]
    if not kept:
        raise DataError(
            "its rows begin too late to train a model",
            where=target.table,
            got=f"{(context.as_of - begin).days + horizon} days",
            allowed=f"at least {3 * horizon + 2 * context.settings.propensity.gap_days} days, three horizons",
        )
    names = feature_names(target, context.profile(kept[0]).spec.names)
    return kept, names, [target_rows_at(context, target, at, horizon, names) for at in kept]


def _tune(
    context: TrainingContext,
    targets: Sequence[PropensityTarget],
    dates: Sequence[datetime],
    test: datetime,
    horizon: int,
) -> dict[str, Parameters]:
    """Tune the trees of all targets together; those whose rows begin too late are left out later, with the reason."""
    begins = {target: context.history_start(target.table) + timedelta(days=horizon) for target in targets}
    recorded = [target for target, begin in begins.items() if begin <= dates[-1]]
    return tune_propensity(context, [_rows_before(context, target, dates, horizon)[2] for target in recorded], test)


def _require_outcomes(rows: TargetRows, least: int, where: str) -> None:
    yes = int(rows.y.sum())
    if min(yes, len(rows.y) - yes) < least:
        raise DataError(
            "too few customers bought or did it" if yes < least else "almost all customers bought or did it",
            where=where,
            got=f"{yes} of {len(rows.y)} rows",
            allowed=f"at least {least} of each",
        )


def _baselines(
    target: PropensityTarget, names: Sequence[str], before: TargetRows, later: TargetRows
) -> dict[str, NDArray[np.float64]]:
    """Probabilities of the test rows by what a shop would use without a model, fitted on the rows before."""
    counts = [np.minimum(rows.X[:, :1], MAX_REPEATS) for rows in (before, later)]  # the first is that of 28 days
    decayed = [np.log1p(decayed_count(target, names, rows.X)) for rows in (before, later)]
    slope, intercept = platt_scaling(decayed[0], before.y)
    return {
        BASE_RATE: np.full(len(later.y), before.y.mean()),
        LAST_HORIZON: single_column_rates(counts[0], before.y, counts[1], (True,))[:, 0],
        DECAYED: probability(slope * decayed[1] + intercept),
    }


def _evaluated_model(
    context: TrainingContext,
    shipped: Sequence[EvaluatedTarget],
    left_out: Mapping[str, str],
    dates: Sequence[datetime],
    horizon: int,
) -> EvaluatedModel:
    profile = context.profile(context.as_of)
    used = dict.fromkeys(name for one in shipped for name in one.names)
    spec = context.profile(dates[-1]).spec.select(list(used))
    model = PropensityModel(
        tuple(str(one.target) for one in shipped),
        tuple(tuple(spec.names.index(name) for name in one.names) for one in shipped),
        tuple(one.final for one in shipped),
    )
    gap = context.settings.propensity.gap_days
    facts = context.facts(
        "propensity",
        horizon_days=horizon,
        targets=list(model.targets),
        base_rates={str(one.target): one.base_rate for one in shipped},
    )
    rows = rows_with_history(context, context.as_of)
    p = model.predict_proba(context.profile(context.as_of, spec).values[rows])
    one_ids = profile.one_ids[rows].tolist()
    figures = {}
    for one in shipped:
        slug, title = one.target.slug, str(one.target)
        figures[f"calibration_{slug}.png"] = plots.calibration_curve(one.test.y, one.p, f"{title}: calibration")
        figures[f"gains_{slug}.png"] = gains(one.test.y, {"model": one.p, DECAYED: one.baseline}, f"{title}: gains")
        contributions = one.final.explain(one.test.X)  # of the model that ships
        figures[f"beeswarm_{slug}.png"] = plots.beeswarm(
            contributions, one.test.X, one.names, f"{title}: contributions", context.settings.seed
        )
    return EvaluatedModel(
        ModelBundle(
            "propensity",
            model,
            context.as_of,
            spec,
            facts=facts,
            evaluated=replace(model, classifiers=tuple(one.evaluated for one in shipped)),
        ),
        replace(
            joined([one.report for one in shipped]),
            notes=(
                *(f"{one.target}: ships {one.model}, base rate {one.base_rate:.1%}" for one in shipped),
                *(f"{target} is left out: {reason}" for target, reason in left_out.items()),
            ),
        ),
        [rule for one in shipped for rule in one.rules],
        {
            "horizon_days": horizon,
            "gap_days": gap,
            "targets": len(shipped),
            "dates": len(dates) + 1,
        },
        figures,
        context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5),
        {tag_name(one.target): (one_ids, p[:, place].tolist()) for place, one in enumerate(shipped)},
        _comparison(context, shipped, context.as_of - timedelta(days=horizon + gap)),
    )


def _comparison(context: TrainingContext, shipped: Sequence[EvaluatedTarget], test: datetime) -> LossComparison:
    """The log loss of each customer of the test date, mean of the targets."""
    targets = [str(one.target) for one in shipped]
    labels = np.column_stack([one.test.y for one in shipped])

    def log_loss(p: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.where(labels == 1, p, 1 - p).clip(SMALLEST_PROBABILITY)
        return np.asarray(-np.log(kept).mean(axis=1))

    def losses(bundle: ModelBundle) -> NDArray[np.float64]:
        if set(targets) - set(bundle.model.targets):
            return np.full(len(labels), np.nan)  # a target is new
        assert bundle.spec is not None
        columns_for(bundle, bundle.spec.names, context.profile(test).spec.names)
        p = bundle.model.predict_proba(context.profile(test, bundle.spec).values[rows_with_history(context, test)])
        return log_loss(p[:, [bundle.model.targets.index(target) for target in targets]])

    return LossComparison("log_loss", test, log_loss(np.column_stack([one.p for one in shipped])), losses)


JOB = Job(
    "propensity",
    "who buys or does each declared target within the horizon: calibrated classifiers",
    run,
    can_tune=True,
    monitored=MONITORED,
)
