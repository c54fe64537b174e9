"""`train lookalike`: find more customers like a seed audience; evaluated by how well hidden seed customers are found.

The evaluation uses segments of customers who bought a category, or redeemed a coupon, in the horizon before `as_of`.
Half of a segment is the seed, and the other half is hidden. The profiles are those at the start of the horizon, so they
do not contain the purchases that define the segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec, UserFeatures
from models.bundle import ModelBundle
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
from training.lookalike.columns import fit_at, new_expander, numeric_spec, plain_columns, purchase_counts, rfm_columns
from training.lookalike.evaluation import (
    CENTROID,
    LOGISTIC,
    MODEL,
    RANDOM,
    REPEATS,
    RFM,
    Scorer,
    baselines,
    evaluate,
    ranking_metrics,
)
from training.lookalike.segments import MIN_SEGMENT, SEGMENT_SHARES, segments_of

HORIZON_DAYS = 28  # or a quarter of a shorter history
MIN_SEGMENTS = 8  # a mean over fewer says little about another segment
# said where the champion would be compared
NOT_COMPARED = "it compares the customers of its own cutoff, and no others"


def run(context: TrainingContext) -> EvaluatedModel:
    """Evaluate on segments of the last horizon and ship a fit on all data before `as_of`."""
    span = (context.as_of - context.history_start("transactions", "events")).days
    horizon = min(context.horizon_days or HORIZON_DAYS, max(1, span // 4))
    start = context.as_of - timedelta(days=horizon)
    profile = context.profile(start)
    candidates = numeric_spec(profile)
    if len(profile.one_ids) < 10 * MIN_SEGMENT:
        raise DataError(
            "there are too few customers to find lookalikes among",
            got=len(profile.one_ids),
            allowed=f"at least {10 * MIN_SEGMENT}",
        )
    segments = segments_of(context, start, profile.one_ids)
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
    model = fit_at(context, start, spec)
    if not model.tells_apart:
        raise DataError(
            "the customers cannot be told apart: every feature has the same value for all of them",
            where=f"the profiles at {start:%Y-%m-%d}",
            hint="ingest orders or events of more than one kind, or more days of them",
        )
    seed, n = context.settings.seed, len(model.space_)
    scorers: dict[str, Scorer] = {
        MODEL: model.score,
        **baselines(
            plain_columns(context.profile(start, spec).values),
            rfm_columns(context, start),
            np.random.default_rng(seed),
        ),
    }
    report, curves, _ = evaluate(scorers, segments, n, seed, shuffle=context.shuffle_labels)
    notes = (
        *left_out_notes(context.unknown_attributes(start), start),
        *attribute_notes,
        *_attribute_notes(context.profile(start, spec), scorers, segments, seed),
    )
    report = replace(report, notes=notes)
    context.progress("lookalike: fitting on all data before as_of")
    final = fit_at(context, context.as_of, spec)
    facts = context.facts("lookalike", horizon_days=horizon, segments=list(segments))
    now = context.profile(context.as_of, spec)
    bundle = ModelBundle(
        "lookalike", final, context.as_of, spec, user_ids=now.one_ids, config={"model": final.get_params()}, facts=facts
    )
    figures = {
        "reach.png": plots.curves(
            [share for share, _ in curves[MODEL]],
            {name: [found for _, found in curve] for name, curve in curves.items()},
            "share of customers contacted",
            "share of hidden seed customers reached",
            "Lookalike: reach",
        )
    }
    # without amounts there is no RFM ranking
    rules = [GateRule(f"average_precision:{name}") for name in (RANDOM, RFM) if name in scorers] + [
        GateRule(f"average_precision:{name}", require_improvement=False) for name in (CENTROID, LOGISTIC)
    ]
    parameters = {"horizon_days": horizon, "segments": len(segments), **final.get_params()}
    example = pa.table({"one_id": now.one_ids[:25].tolist()})
    return EvaluatedModel(bundle, report, rules, parameters, figures, example, comparison=NOT_COMPARED)


def _precision_gain(context: TrainingContext, start: datetime, spec: FeatureSpec) -> Gain | None:
    """The difference in average precision that columns make, on the segments of the period before the evaluation.

    None if there are no numeric attributes or the period has fewer than `MIN_SEGMENTS` segments.
    """
    if not attribute_columns(spec) or context.settings.profiles.in_models != "auto":
        return None
    if start <= context.history_start("transactions", "events"):
        return None
    one_ids = context.profile(start, spec).one_ids
    segments = segments_of(context, start, one_ids)
    if len(segments) < MIN_SEGMENTS:
        return None

    values = context.profile(start, spec).values
    interactions, categories = purchase_counts(context, start, one_ids)

    def precision(rows: NDArray[np.float32], _: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        model, found = new_expander(context).fit(rows, interactions, categories), []
        for members in segments.values():
            repeats = []
            for _repeat in range(REPEATS):
                given, hidden = np.array_split(rng.permutation(members), 2)
                rest = np.setdiff1d(np.arange(len(one_ids)), given)
                scores = model.score(given)[rest]
                repeats.append(ranking_metrics(scores, np.isin(rest, hidden))["average_precision"])
            found.append(np.mean(repeats))  # repeats of one segment are not independent
        return np.array(found)

    seed = context.settings.seed
    return gain_over_shuffled(precision, lambda p, q: mean_metric(p - q, seed), values, values, seed)


def _attribute_notes(
    profile: UserFeatures,
    scorers: Mapping[str, Scorer],
    segments: Mapping[str, NDArray[np.int64]],
    seed: int,
) -> tuple[str, ...]:
    """Say which attributes alone rank customers as well as the model."""
    n = len(profile.values)

    def of_attribute(values: NDArray[np.float32]) -> Scorer:
        codes, _ = group_codes(values, values)
        return lambda seeds: smoothed_rates(codes, np.isin(np.arange(n), seeds).astype(np.float64)[:, None])[codes, 0]

    alone = {name: of_attribute(profile.values[:, at]) for name, at in attribute_columns(profile.spec).items()}
    if not alone:
        return ()
    compared = {name: scorers[name] for name in (MODEL, RANDOM)}
    _, _, precision = evaluate({**compared, **alone}, segments, n, seed)
    return tuple(
        note
        for name in alone
        for note in sufficient_for_ranking(
            name,
            mean_metric(precision[MODEL]),
            mean_metric(precision[name]),
            mean_metric(precision[MODEL] - precision[name]),
            mean_metric(precision[name] - precision[RANDOM]),
        )
    )


JOB = Job(
    "lookalike",
    "which customers resemble a seed audience: a positive-unlabelled classifier over profiles and interactions",
    run,
    fits_horizon=True,
)
