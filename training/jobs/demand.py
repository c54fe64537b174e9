"""`train demand`: what will move newcomers, price, quality or content, by what they look at in their first sessions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import Feature
from models.bundle import ModelBundle
from models.classify.demand import LOGISTIC, RULE, DemandClassifier
from qianmian.errors import DataError
from qianmian.schema import DEMAND_TYPES
from training.bootstrap import mean_metric
from training.classify.evaluation import joined, measure
from training.comparison import LossComparison, columns_for
from training.demand.newcomers import (
    LOOKS,
    MIN_LATER_LINES,
    NEWCOMER_DAYS,
    Newcomers,
    features_at,
    input_columns,
    newcomers,
    supported_inputs,
    undecided,
)
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext, snapshot_dates
from training.report import EvalReport

MAX_DATES = 10  # moments of training
HELD_OUT_DATES = 2  # moments of the validation, and of the test
MIN_NEWCOMERS = 50  # of the training, of the validation and of the test
REGULARIZATIONS = (0.01, 0.03, 0.1, 0.3, 1.0)
MIN_PROBABILITY = 1e-6
SHARES, RULE_NAME = "shares of the types", "what they looked at"  # baselines


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose on validation moments, evaluate on later ones, and ship a fit on all moments whose future is known."""
    features = _required_features(context)
    start = context.history_start("events")
    span = (context.as_of - start).days
    horizon = context.horizon_days or min(context.settings.demand.horizon_days, span // 5)
    gap = context.settings.demand.gap_days
    known_after = timedelta(days=horizon + gap)  # windows roll with the gap: outcomes were known at the next moments
    last = context.as_of - known_after
    dates = snapshot_dates(start + timedelta(days=NEWCOMER_DAYS), last, NEWCOMER_DAYS, MAX_DATES)
    tests = dates[-HELD_OUT_DATES:]
    validations = _before(dates, tests, known_after)[-HELD_OUT_DATES:]
    earlier = _before(dates, validations, known_after)
    if not earlier:
        needed = 3 * (horizon + gap) + (2 * HELD_OUT_DATES + 1) * NEWCOMER_DAYS
        raise DataError(
            "the history is too short to tell demand types of newcomers",
            got=f"{span} days with events",
            allowed=f"about {needed} days for a horizon of {horizon}",
            hint="choose a shorter --horizon-days or ingest a longer history",
        )
    context.require_outcomes(horizon, gap)
    context.progress(f"demand: newcomers at {len(dates)} moments, what they show in the {horizon} days after each")
    spec = features_at(context.builder, context.as_of, features).spec
    at = {date: newcomers(context.builder, date, horizon, spec) for date in dates}
    groups = {
        "training": Newcomers.joined([at[date] for date in earlier]),
        "validation": Newcomers.joined([at[date] for date in validations]),
        "test": Newcomers.joined([at[date] for date in tests]),
    }
    _require_newcomers(groups, horizon)
    seed = context.settings.seed
    columns = tuple(spec.names[place] for place in input_columns(spec))
    chosen, note = _chosen(context, groups["training"], groups["validation"], columns)
    known = Newcomers.joined([at[date] for date in _before(dates, tests, known_after)])
    candidate = _fit(context, chosen, known)
    rule = _fit(context, DemandClassifier(RULE, columns), known)
    test = groups["test"]
    probabilities, by_rule = candidate.predict_proba(test.X), rule.predict_proba(test.X)
    loss, rule_loss = (_losses(p, test.types) for p in (probabilities, by_rule))
    share_loss = _share_losses(known, test)
    majority = DEMAND_TYPES[int(_shares(known.types).argmax())]
    right = np.array(DEMAND_TYPES)[probabilities.argmax(axis=1)] == test.types
    report = EvalReport(
        {"log_loss": mean_metric(loss, seed), "accuracy": mean_metric(right.astype(np.float64), seed)},
        {
            SHARES: {"log_loss": mean_metric(share_loss, seed)},
            "majority": {"accuracy": mean_metric((test.types == majority).astype(np.float64), seed)},
            RULE_NAME: {
                "log_loss": mean_metric(rule_loss, seed),
                "accuracy": mean_metric(
                    (np.array(DEMAND_TYPES)[by_rule.argmax(axis=1)] == test.types).astype(np.float64), seed
                ),
            },
        },
        {
            f"log_loss:{SHARES}": mean_metric(loss - share_loss, seed),
            f"log_loss:{RULE_NAME}": mean_metric(loss - rule_loss, seed),
            "accuracy:majority": mean_metric(right.astype(np.float64) - (test.types == majority), seed),
        },
        {
            name: {"accuracy": mean_metric(right[test.types == name].astype(np.float64), seed)}
            for name in DEMAND_TYPES
            if (test.types == name).any()
        },
        notes=(note,),
    )
    report = replace(joined([report, *_each_type(known, test, probabilities, by_rule, seed)]), notes=report.notes)
    context.progress("demand: fitting on all moments")
    model = _fit(context, chosen, Newcomers.joined(list(at.values())))
    now = features_at(context.builder, context.as_of, features)
    used = now.spec.select(columns)
    bundle = ModelBundle(
        "demand",
        model,
        context.as_of,
        used,
        config={"model": model.get_params()},
        facts=context.facts("demand", horizon_days=horizon, newcomer_days=NEWCOMER_DAYS),
        evaluated=candidate,
    )
    rows = undecided(now)
    kinds = np.array(DEMAND_TYPES)[
        model.predict_proba(now.values[np.ix_(rows, input_columns(now.spec))]).argmax(axis=1)
    ]
    rules = [
        GateRule(f"log_loss:{SHARES}", higher_is_better=False),
        GateRule(f"log_loss:{RULE_NAME}", higher_is_better=False, require_improvement=False),
    ]
    parameters = {
        "horizon_days": horizon,
        "gap_days": gap,
        "moments": len(dates),
        "method": model.method,
        "newcomers": len(known.types),
    }
    example = context.builder.build(context.as_of, features).table.select(["one_id", *columns]).slice(0, 5)
    tags = {"expected_demand_type": (now.one_ids[rows].tolist(), kinds.tolist())}
    comparison = _comparison(tests[0], test, columns, loss)
    return EvaluatedModel(bundle, report, rules, parameters, {}, example, tags, comparison)


def _comparison(start: datetime, test: Newcomers, columns: tuple[str, ...], own: NDArray[np.float64]) -> LossComparison:
    """The log loss of each newcomer of the test moments, the first of which is at `start`."""

    def losses(bundle: ModelBundle) -> NDArray[np.float64]:
        read = columns_for(bundle, bundle.model.columns, columns)
        return _losses(bundle.model.predict_proba(test.X[:, read]), test.types)

    return LossComparison("log_loss", start, own, losses, {name: test.types == name for name in DEMAND_TYPES})


def _required_features(context: TrainingContext) -> tuple[Feature, ...]:
    """The features of newcomers that the data support.

    Raises
    ------
    DataError
        The data do not show what customers look at, or what they buy later.
    """
    features = supported_inputs(context.builder, context.as_of)
    names = {feature.name for feature in features}
    missing = [name for name in ("orders_total", "events_91d", "days_since_first_event") if name not in names]
    if missing or not names.intersection(LOOKS) or "price_level_lines" not in names:
        raise DataError(
            "the data do not show what newcomers look at and buy",
            where="the lake",
            got=f"no {', '.join(missing or [name for name in (*LOOKS, 'price_level_lines') if name not in names])}",
            allowed="events with `item_id` or `content_id`, orders, and items with categories",
            hint="map the views and reads of your site or app as events in sources.yaml",
        )
    return features


def _require_newcomers(groups: dict[str, Newcomers], horizon: int) -> None:
    """Refuse too few newcomers, and those who are all of one type."""
    for name, group in groups.items():
        if len(group.types) < MIN_NEWCOMERS:
            raise DataError(
                "there are too few newcomers whose purchases tell their demand type",
                where=f"the {name} moments",
                got=len(group.types),
                allowed=f"at least {MIN_NEWCOMERS}, each with {MIN_LATER_LINES} lines in the {horizon} days after",
                hint="ingest a longer history, or choose a longer --horizon-days",
            )
    if len(found := np.unique(groups["training"].types)) < 2:
        raise DataError(
            "all newcomers have the same demand type, so there is nothing to tell apart",
            got=str(found[0]),
            allowed="at least two demand types",
            hint="ingest discounts, prices that differ within categories, or contents",
        )


def _before(dates: list[datetime], later: list[datetime], known_after: timedelta) -> list[datetime]:
    """The dates whose outcomes were known at the first of `later`."""
    return [date for date in dates if date + known_after <= later[0]] if later else []


def _fit(context: TrainingContext, like: DemandClassifier, data: Newcomers) -> DemandClassifier:
    return DemandClassifier(like.method, like.columns, like.regularization).fit(data.X, context.shuffled(data.types))


def _chosen(
    context: TrainingContext, training: Newcomers, validation: Newcomers, columns: tuple[str, ...]
) -> tuple[DemandClassifier, str]:
    """The rule, unless the regression is better beyond noise on the validation moments; and why.

    Raises
    ------
    DataError
        What was chosen is no better than the shares of the types.
    """
    rule = DemandClassifier(RULE, columns)
    losses = _losses(_fit(context, rule, training).predict_proba(validation.X), validation.types)
    candidates = [DemandClassifier(LOGISTIC, columns, strength) for strength in REGULARIZATIONS]
    others = [_losses(_fit(context, one, training).predict_proba(validation.X), validation.types) for one in candidates]
    best = int(np.argmin([other.mean() for other in others]))
    seed = context.settings.seed
    gain = mean_metric(others[best] - losses, seed)
    kind = "the logistic regression ships" if gain.high < 0 else "the rule ships, which is simpler"
    counts = ", ".join(f"{name} {n}" for name, n in sorted(Counter(validation.types.tolist()).items()))
    note = f"{kind}: log loss of the validation, regression minus rule, is {gain} ({counts})"
    ahead = mean_metric((others[best] if gain.high < 0 else losses) - _share_losses(training, validation), seed)
    if ahead.value >= 0 and not context.shuffle_labels:  # whether it is beyond noise, the gate asks of the test moments
        raise DataError(
            "no usable signal: what newcomers look at first does not tell what they buy and read next",
            where="the validation moments",
            got=f"log loss minus that of the shares of the types {ahead}",
            allowed="a difference below 0",
            hint="ingest a longer history or more customers",
        )
    return (candidates[best] if gain.high < 0 else rule), note


def _each_type(
    known: Newcomers, test: Newcomers, p: NDArray[np.float64], by_rule: NDArray[np.float64], seed: int
) -> list[EvalReport]:
    """Metrics of the probability of each type that some newcomers of the test have and others have not."""
    shares = _shares(known.types)
    reports = []
    for place, name in enumerate(DEMAND_TYPES):
        y = (test.types == name).astype(np.int64)
        baselines = {SHARES: np.full(len(y), shares[place]), RULE_NAME: by_rule[:, place]}
        if 0 < y.sum() < len(y):
            reports.append(measure(y, p[:, place], baselines, seed, f"{name} "))
    return reports


def _shares(types: NDArray[np.str_]) -> NDArray[np.float64]:
    counts = np.array([(types == name).sum() for name in DEMAND_TYPES]) + 0.5
    return np.asarray(counts / counts.sum())


def _share_losses(training: Newcomers, later: Newcomers) -> NDArray[np.float64]:
    """Log losses of later newcomers, if all have the shares of the types among those of the training."""
    return _losses(np.tile(_shares(training.types), (len(later.types), 1)), later.types)


def _losses(probabilities: NDArray[np.float64], types: NDArray[np.str_]) -> NDArray[np.float64]:
    places = [DEMAND_TYPES.index(name) for name in types.tolist()]
    return np.asarray(-np.log(probabilities[np.arange(len(places)), places].clip(MIN_PROBABILITY)))


JOB = Job(
    "demand", "what will move newcomers, price, quality or content, by their first sessions", run, fits_horizon=True
)
