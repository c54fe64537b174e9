"""`train lookalike`: find more customers like a seed audience; evaluated by how well hidden seed customers are found.

The evaluation uses segments of customers who bought a category, or redeemed a coupon, in the horizon before `as_of`.
Half of a segment is the seed, and the other half is hidden. The profiles are those at the start of the horizon, so they
do not contain the purchases that define the segment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from features.compute.spec import FeatureSpec, UserFeatures
from features.id_map import IdMap
from features.training_data import interaction_rows
from models.bundle import ModelBundle
from models.lookalike import LookalikeExpander
from models.parallel import one_blas_thread
from qianmian.errors import DataError
from training import plots
from training.attribute_choice import Gain, choose_attributes, gain_over_shuffled
from training.attributes import (
    attribute_columns,
    group_codes,
    left_out_notes,
    smoothed_rates,
    sufficient_for_ranking,
)
from training.bootstrap import mean_metric
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.report import EvalReport, Metric

HORIZON_DAYS = 28  # or a quarter of a shorter history
MAX_SEGMENTS = 6
SEGMENT_SHARES = (0.03, 0.25)  # least and greatest share of all customers in a segment
MIN_SEGMENT = 50
MIN_SEGMENTS = 8  # a mean over fewer says little about another segment
N_REPEATS = 3
RFM = ("days_since_last_order", "orders_91d", "amount_91d")

Scorer = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def run(context: TrainingContext) -> EvaluatedModel:
    """Evaluate on segments of the last horizon and ship a fit on all data before `as_of`."""
    span = (context.as_of - context.history_start("transactions", "events")).days
    horizon = min(context.horizon_days or HORIZON_DAYS, max(1, span // 4))
    start = context.as_of - timedelta(days=horizon)
    profile = context.profile(start)
    numeric = [feature.name for feature in profile.spec.features if not feature.categorical]
    candidates = profile.neutral_spec().select(numeric)
    if len(profile.one_ids) < 10 * MIN_SEGMENT:
        raise DataError(
            "there are too few customers to find lookalikes among",
            got=len(profile.one_ids),
            allowed=f"at least {10 * MIN_SEGMENT}",
        )
    segments = _segments(context, start, profile.one_ids)
    if not segments:
        size = f"{MIN_SEGMENT} or more customers, {SEGMENT_SHARES[0]:.0%} to {SEGMENT_SHARES[1]:.0%} of all"
        raise DataError(
            "there is no segment to evaluate lookalikes on",
            where=f"{start:%Y-%m-%d}..{context.as_of:%Y-%m-%d}",
            allowed=f"{size}, who bought one category, redeemed a coupon, or spent the most",
            hint="ingest items with categories, or more customers",
        )
    gain = _precision_gain(replace(context, as_of=start), start - timedelta(days=horizon), candidates)
    spec, attribute_notes = choose_attributes(
        context.settings.profiles.in_models, candidates, gain, "average precision"
    )
    context.progress(f"lookalike: evaluating on {len(segments)} segments: {', '.join(segments)}")
    model = _fit(context, start, spec)
    at_start = context.profile(start, spec)
    report, curves = _evaluate(context, model, at_start, _rfm(context, start), segments)
    notes = (*left_out_notes(context.unknown_attributes(start), start), *attribute_notes)
    report = replace(report, notes=(*notes, *report.notes))
    context.progress("lookalike: fitting on all data before as_of")
    final = _fit(context, context.as_of, spec)
    facts = context.facts("lookalike", horizon_days=horizon, segments=list(segments))
    now = context.profile(context.as_of, spec)
    bundle = ModelBundle(
        "lookalike", final, context.as_of, spec, user_ids=now.one_ids, config={"model": final.get_params()}, facts=facts
    )
    figures = {
        "reach.png": plots.curves(
            [share for share, _ in curves["lookalike"]],
            {name: [found for _, found in curve] for name, curve in curves.items()},
            "share of customers contacted",
            "share of hidden seed customers reached",
            "Lookalike: reach",
        )
    }
    rules = [GateRule(f"average_precision:{name}") for name in ("random", "rfm")] + [
        GateRule("average_precision:seed centroid", require_improvement=False)
    ]
    parameters = {"horizon_days": horizon, "segments": len(segments), **final.get_params()}
    return EvaluatedModel(bundle, report, rules, parameters, figures, pa.table({"one_id": now.one_ids[:25].tolist()}))


def _precision_gain(context: TrainingContext, start: datetime, spec: FeatureSpec) -> Gain | None:
    """The difference in average precision that columns make, on the segments of the period before the evaluation.

    None if there are no numeric attributes or the period has fewer than `MIN_SEGMENTS` segments.
    """
    if not attribute_columns(spec) or context.settings.profiles.in_models != "auto":
        return None
    if start <= context.history_start("transactions", "events"):
        return None
    one_ids = context.profile(start, spec).one_ids
    segments = _segments(context, start, one_ids)
    if len(segments) < MIN_SEGMENTS:
        return None

    values, matrix = context.profile(start, spec).values, _interactions(context, start, one_ids)

    def precision(rows: NDArray[np.float32], _: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        model, found = _expander(context).fit(rows, matrix), []
        for members in segments.values():
            repeats = []
            for _repeat in range(N_REPEATS):
                given, hidden = np.array_split(rng.permutation(members), 2)
                rest = np.setdiff1d(np.arange(len(one_ids)), given)
                repeats.append(average_precision_score(np.isin(rest, hidden), model.score(given)[rest]))
            found.append(np.mean(repeats))  # repeats of one segment are not independent
        return np.array(found)

    seed = context.settings.seed
    return gain_over_shuffled(precision, lambda p, q: mean_metric(p - q, seed), values, values, seed)


def _fit(context: TrainingContext, as_of: datetime, spec: FeatureSpec) -> LookalikeExpander:
    profile = context.profile(as_of, spec)
    return _expander(context).fit(profile.values, _interactions(context, as_of, profile.one_ids))


def _expander(context: TrainingContext) -> LookalikeExpander:
    return LookalikeExpander(factors=context.settings.lookalike.factors, seed=context.settings.seed)


def _interactions(context: TrainingContext, as_of: datetime, one_ids: NDArray[np.str_]) -> sparse.csr_matrix | None:
    """Purchase counts of the customers by item before `as_of`; None if there are too few to learn from."""
    try:
        data = context.training_set(
            as_of, min_item_customers=context.settings.recommend.usual_min_item_customers, with_features=False
        )
    except DataError as error:
        context.progress(f"lookalike: interactions are not used, only profiles ({error.message})")
        return None
    return data.interactions.matrix()[data.user_rows(one_ids)]


def _rfm(context: TrainingContext, as_of: datetime) -> NDArray[np.float64] | None:
    profile = context.profile(as_of)
    if not set(RFM) <= set(profile.spec.names):
        return None
    columns = np.column_stack([np.log1p(profile.column(name)) for name in RFM])
    return np.asarray((columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-6), dtype=np.float64)


def _segments(context: TrainingContext, start: datetime, one_ids: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    """Segment → rows of its customers, who are defined by their behaviour in ``[start, as_of)``."""
    states = context.builder.states
    found: dict[str, NDArray[np.int64]] = {}
    people = IdMap(one_ids)

    def add(name: str, members: list[str]) -> None:
        rows = people.rows(members)
        rows = np.unique(rows[rows >= 0])
        rows = rows[~context.is_shared(one_ids[rows])]
        if len(rows) >= MIN_SEGMENT and SEGMENT_SHARES[0] <= len(rows) / len(one_ids) <= SEGMENT_SHARES[1]:
            found[name] = rows

    views = context.builder.views(context.as_of)
    if "events" in states and states["events"].rows:
        events = views["events"].filter(views["events"].event_type == "coupon_redeem")
        recent = events.filter(events.ts >= start).select("one_id").distinct().to_pyarrow()
        add("coupon redeemers", recent["one_id"].to_pylist())
    if (
        "items" in states
        and "category" in states["items"].filled
        and "transactions" in states
        and "item_id" in states["transactions"].filled
    ):
        rows = interaction_rows(context.builder, context.as_of, start)
        items = context.builder.backend.table("items").select("item_id", "category").to_pyarrow()
        level = dict(
            zip(
                items["item_id"].to_pylist(),
                ("/".join((path or "").split("/")[:2]) for path in items["category"].to_pylist()),
                strict=True,
            )
        )
        members: dict[str, set[str]] = {}
        for one_id, item in zip(rows["one_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True):
            if level.get(item):
                members.setdefault(level[item], set()).add(one_id)
        eligible = sorted(
            (
                name
                for name, who in members.items()
                if SEGMENT_SHARES[0] <= len(who) / len(one_ids) <= SEGMENT_SHARES[1]
            ),
            key=lambda name: (-len(members[name]), name),
        )
        # segments of all sizes, not only the largest
        places = np.linspace(0, len(eligible) - 1, MAX_SEGMENTS).astype(int).tolist() if eligible else []
        for name in dict.fromkeys(eligible[place] for place in places):
            add(name, sorted(members[name]))
    if not found and "transactions" in states and "amount" in states["transactions"].filled:
        paid = views["lines"].filter(views["lines"].ts >= start)
        spent = (
            paid.group_by("one_id")
            .aggregate(amount=paid.amount.sum())
            .to_pyarrow()
            .sort_by([("amount", "descending"), ("one_id", "ascending")])
        )
        add("top spenders", spent["one_id"].to_pylist()[: max(MIN_SEGMENT, len(one_ids) // 20)])
    return found


def _evaluate(
    context: TrainingContext,
    model: LookalikeExpander,
    profile: UserFeatures,
    rfm: NDArray[np.float64] | None,
    segments: dict[str, NDArray[np.int64]],
) -> tuple[EvalReport, dict[str, list[tuple[float, float]]]]:
    rng = np.random.default_rng(context.settings.seed)
    n = len(profile.values)

    def random_negatives(seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        others = np.setdiff1d(np.arange(n), seeds)
        rows = np.concatenate([seeds, rng.choice(others, min(len(others), 4 * len(seeds)), replace=False)])
        with one_blas_thread():  # as in `LookalikeExpander.score`
            classifier = LogisticRegression(C=1.0, max_iter=300).fit(model.space_[rows], np.isin(rows, seeds))
        return np.asarray(classifier.decision_function(model.space_))

    def centroid(space: NDArray[Any]) -> Scorer:
        return lambda seeds: -np.linalg.norm(space - space[seeds].mean(axis=0), axis=1)

    def of_attribute(values: NDArray[np.float32]) -> Scorer:
        codes, _ = group_codes(values, values)
        return lambda seeds: smoothed_rates(codes, np.isin(np.arange(n), seeds).astype(np.float64)[:, None])[codes, 0]

    alone = {name: of_attribute(profile.values[:, at]) for name, at in attribute_columns(profile.spec).items()}
    scorers: dict[str, Scorer] = {
        "lookalike": model.score,
        "random": lambda seeds: rng.random(n),
        "seed centroid": centroid(model.space_),
        "logistic regression, random negatives": random_negatives,
    }
    if rfm is not None:
        scorers["rfm"] = centroid(rfm)
    precision_alone: dict[str, list[float]] = {name: [] for name in alone}
    results: dict[str, dict[str, list[float]]] = {
        name: {"auc": [], "average_precision": [], "lift@5%": [], "recall@10%": []} for name in scorers
    }
    by_segment: dict[str, list[float]] = {}
    shares = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
    reached: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scorers}
    for segment, members in segments.items():
        for _ in range(N_REPEATS):
            shuffled = rng.permutation(members)
            given, hidden = shuffled[: len(members) // 2], shuffled[len(members) // 2 :]
            fit_seeds = rng.choice(n, len(given), replace=False) if context.shuffle_labels else given
            rest = np.setdiff1d(np.arange(n), np.union1d(given, fit_seeds))
            truth = np.isin(rest, hidden)
            for name, scorer in scorers.items():
                scores = scorer(fit_seeds if name == "lookalike" else given)[rest]
                order = np.argsort(-scores, kind="stable")
                found = truth[order].cumsum() / truth.sum()
                at = {share: found[max(1, int(share * len(rest))) - 1] for share in (0.05, 0.1)}
                values_now = (
                    roc_auc_score(truth, scores),
                    average_precision_score(truth, scores),
                    at[0.05] / 0.05,
                    at[0.1],
                )
                for metric, value in zip(results[name], values_now, strict=True):
                    results[name][metric].append(float(value))
                reached[name].append(found[np.maximum(1, (shares * len(rest)).astype(int)) - 1])
            for name, scorer in alone.items():
                precision_alone[name].append(float(average_precision_score(truth, scorer(given)[rest])))
            by_segment.setdefault(segment, []).append(results["lookalike"]["auc"][-1])
    metrics = {
        name: {metric: mean_metric(np.array(values)) for metric, values in found.items()}
        for name, found in results.items()
    }
    differences = {
        f"average_precision:{name}": mean_metric(
            np.array(results["lookalike"]["average_precision"]) - np.array(found["average_precision"])
        )
        for name, found in results.items()
        if name != "lookalike"
    }
    if rfm is None:  # without amounts there is no RFM baseline, so its rule checks the random one
        differences["average_precision:rfm"] = differences["average_precision:random"]
    slices: dict[str, dict[str, Metric]] = {
        segment: {"auc": mean_metric(np.array(values))} for segment, values in by_segment.items()
    }
    precision = {name: np.array(results[name]["average_precision"]) for name in ("lookalike", "random")}
    notes = [
        sufficient_for_ranking(
            name,
            mean_metric(precision["lookalike"]),
            mean_metric(np.array(found)),
            mean_metric(precision["lookalike"] - np.array(found)),
            mean_metric(np.array(found) - precision["random"]),
        )
        for name, found in precision_alone.items()
    ]
    report = EvalReport(
        metrics["lookalike"],
        {name: found for name, found in metrics.items() if name != "lookalike"},
        differences,
        slices,
        notes=tuple(note for found in notes for note in found),
    )
    return report, {
        name: list(zip(shares.tolist(), np.mean(curve, axis=0).tolist(), strict=True))
        for name, curve in reached.items()
    }


JOB = Job(
    "lookalike",
    "which customers resemble a seed audience: positive-unlabelled bagging over profiles and interactions",
    run,
)
