"""`train clusters`: groups of customers who behave alike, as many as are found again, with names and stable ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.tags import TAGS
from features.profiles.tags.declare import tag_values
from features.profiles.tags.published import read
from features.profiles.tags.transaction import RFM, RFM_TIERS
from models.bundle import ModelBundle
from models.clusters import BehaviourClusters
from qianmian.errors import DataError
from training.clusters.choice import (
    MAX_CUSTOMERS,
    MIN_AGREEMENT,
    ClusterRows,
    Found,
    Space,
    learn_space,
    require_rows,
    sound_choices,
)
from training.clusters.matching import JOB as NAME
from training.clusters.matching import LAST_ID, Before, assign_ids, before_this, same_clusters
from training.clusters.naming import Named, name_clusters, traits_of
from training.clusters.report import NO_GROUPS, ONE_FEWER, REQUIRED, DatedClusters, described, evaluate, figure_of
from training.clusters.stability import k_means, labels_of
from training.clusters.traits import TRAITS
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Job, TrainingContext

DAYS = 28  # between the clusters that are compared over time
TAG = "behaviour_cluster"
EVIDENCE = ("orders_total", "event_days_91d")  # the first that the data support
WORDS = {"orders_total": "orders", "event_days_91d": "days with an event"}
MAX_FIT = 50_000  # customers of the last fit
OUTCOMES = {"orders": "orders_{}d", "money": "amount_{}d", "events": "events_{}d"}


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose the clusters one period ago, evaluate them at the cutoff, and ship the fit at the cutoff."""
    settings, seed = context.settings.clusters, context.settings.seed
    evidence = evidence_of(context)
    days = context.horizon_days or DAYS
    context.require_outcomes(days)
    then = context.as_of - timedelta(days=days)
    now, earlier = (rows_at(context, moment, evidence) for moment in (context.as_of, then))
    before = before_this(context.workspace, context.inherited.get(NAME))
    context.inherited[NAME] = before.named
    found, notes = choose(context, now, earlier, before)
    context.progress(f"clusters: {found.k} in the space {found.space.name}, {found.agreement}")
    model = fit_clusters(now, found, seed, evidence, settings.min_evidence)
    assert model.space is not None
    labels = model.predict(columns_of(context, now.one_ids, model)).cluster
    earlier_model = fit_clusters(earlier, found, seed, evidence, settings.min_evidence)
    moments = clustering_at(context, context.as_of, now, model), clustering_at(context, then, earlier, earlier_model)
    report = evaluate(found, *moments, outcomes_of(context, earlier, days), seed)
    same = same_as_before(context, now, labels, found.k, before)
    ids, last = assign_ids(same, before.bundle.model.ids if before.bundle else (), before.last_id)
    scaled = dict(zip(model.space.features, model.space.scaled(now.of(model.space.features)).T, strict=True))
    traits = traits_of(now, scaled, labels, found.k)
    names = name_clusters(traits, names_before(same, before))
    model.ids, model.names, model.names_zh = tuple(ids), *(tuple(one) for one in zip(*names, strict=True))
    tiers = rfm_tiers(context, context.as_of, now)
    clusters = described(ids, names, labels, traits, tiers)
    published = np.asarray(ids)[labels].tolist()
    moved = moves(context, now.one_ids.tolist(), published, ids, before)
    facts = context.facts(
        NAME,
        space=found.space.name,
        evidence=evidence,
        min_evidence=settings.min_evidence,
        clusters=clusters,
        moves=moved,
    )
    spec = context.profile(context.as_of).spec.select(model.columns)
    notes = (*notes, *(in_words(one) for one in clusters), *moves_in_words(moved))
    return EvaluatedModel(
        ModelBundle(NAME, model, context.as_of, spec, config={"model": model.get_params()}, facts=facts),
        replace(report, notes=notes),
        [GateRule(f"ari:{REQUIRED}"), GateRule(f"gap:{NO_GROUPS}"), GateRule(f"gap:{ONE_FEWER}")],
        {**model.get_params(), "space": found.space.name, LAST_ID: last},
        {"clusters.png": figure_of(model.space, traits, clusters)},
        context.build_profiles(context.as_of).table.select(["one_id", *spec.names]).slice(0, 5),
        {TAG: (now.one_ids.tolist(), published)},
        "clusters have no outcome that could tell which of two groupings is right",
    )


def evidence_of(context: TrainingContext) -> str:
    """The feature that counts the evidence about a customer: orders, or days with an event where there are no orders.

    Raises
    ------
    DataError
        The data have neither.
    """
    supported = {feature.name for feature in context.builder.supported()[0]}
    for name in EVIDENCE:
        if name in supported:
            return name
    raise DataError(
        "behaviour clusters need dated orders or events",
        where="the lake",
        hint="map `order_id` and `ts` of transactions, or `ts` of events, in sources.yaml",
    )


def rows_at(context: TrainingContext, as_of: datetime, evidence: str) -> ClusterRows:
    """The customers with enough evidence at a date, shared accounts left out.

    Raises
    ------
    DataError
        They are too few, or do not differ.
    """
    profile, least = context.profile(as_of), context.settings.clusters.min_evidence
    enough = (profile.column(evidence) >= least) & ~context.is_shared(profile.one_ids)
    features = tuple(name for name in TRAITS if name in profile.spec.names)
    places = [profile.spec.names.index(name) for name in features]
    values = profile.values[enough][:, places]
    if context.shuffle_labels:  # without labels, what is permuted is which values belong together
        values = np.random.default_rng(context.settings.seed).permuted(values, axis=0)
    rows = ClusterRows(profile.one_ids[enough], values, features)
    require_rows(rows, WORDS[evidence], least, len(profile.one_ids), as_of)
    return rows


def choose(
    context: TrainingContext, now: ClusterRows, earlier: ClusterRows, before: Before
) -> tuple[Found, tuple[str, ...]]:
    """The sound choice with most clusters one period ago that is sound at the cutoff, on other resamples, too.

    The choice of the clusters in production is kept while it is sound, unless `context.tune`.

    Raises
    ------
    DataError
        Neither two nor more clusters are sound at both dates.
    """
    settings, seed = context.settings.clusters, context.settings.seed
    first = None
    if before.bundle is not None and not context.tune:
        first = (str(before.bundle.facts["space"]), len(before.bundle.model.ids))
    sample = now.sample(MAX_CUSTOMERS, seed + 1)
    notes: tuple[str, ...] = ()
    for choice in sound_choices(earlier, settings, seed, first):
        found = Space(choice.space, sample, seed + 1).found(choice.k, seed + 1)
        if found.is_sound(len(sample), settings.min_share):
            return found, notes
        held = f"{choice.k} clusters ({choice.space.name}) were found one period ago, not at the cutoff"
        notes = (*notes, f"{held}: agreement {found.agreement}, gap {found.gap}")
    raise DataError(
        "the customers have no groups: no number of clusters is found again on other customers",
        got=f"{len(earlier)} customers; {len(notes)} choices held one period ago, none of them at the cutoff",
        allowed=f"an adjusted Rand index under resampling of at least {MIN_AGREEMENT}, tighter than {NO_GROUPS}, and "
        f"{settings.min_share:.0%} of the customers and 20 customers in each cluster",
        hint="divide the customers with the tags rfm_tier, rfm_segment or value_tier instead",
    )


def fit_clusters(rows: ClusterRows, found: Found, seed: int, evidence: str, min_evidence: float) -> BehaviourClusters:
    """The clusters of these customers, the largest first, without ids and names."""
    sample = rows.sample(MAX_FIT, seed)
    space = learn_space(found.space, sample)
    places = space(sample.of(space.features))
    centroids = k_means(places, found.k, seed)
    sizes = np.bincount(labels_of(places, centroids), minlength=found.k)
    order = np.argsort(-sizes, kind="stable")
    return BehaviourClusters(space, centroids[order], evidence=evidence, min_evidence=float(min_evidence))


def columns_of(context: TrainingContext, one_ids: NDArray[np.str_], model: BehaviourClusters) -> NDArray[np.float32]:
    """The columns of a model for these customers at the cutoff; a feature that the data no longer have is missing."""
    profile = context.profile(context.as_of)
    rows = profile.rows_of(one_ids)
    values = np.full((len(rows), len(model.columns)), np.nan, dtype=np.float32)
    for place, name in enumerate(model.columns):
        if name in profile.spec.names:
            values[:, place] = profile.column(name)[rows]
    return values


def clustering_at(
    context: TrainingContext, as_of: datetime, rows: ClusterRows, model: BehaviourClusters
) -> DatedClusters:
    """The clusters of customers at a date, beside their RFM."""
    assert model.space is not None
    assert model.centroids is not None
    places = model.space(rows.of(model.space.features))
    profile = context.profile(as_of)
    at = profile.rows_of(rows.one_ids)
    rfm = tiers = None
    if set(RFM) <= set(profile.spec.names):
        logged = np.log1p(np.column_stack([profile.column(name)[at] for name in RFM]).astype(np.float64).clip(0))
        rfm = (logged - logged.mean(axis=0)) / np.where(logged.std(axis=0) > 0, logged.std(axis=0), 1.0)
    if (texts := rfm_tiers(context, as_of, rows)) is not None:
        tiers = np.array([RFM_TIERS.index(text) if text else -1 for text in texts.tolist()], dtype=np.int64)
    return DatedClusters(rows.one_ids, places, labels_of(places, model.centroids), rfm, tiers)


def rfm_tiers(context: TrainingContext, as_of: datetime, rows: ClusterRows) -> NDArray[np.str_] | None:
    """The tag `rfm_tier` of customers at a date, empty for those who have none; None if the data do not support it."""
    found = tag_values(context.build_profiles(as_of).table, [TAGS["rfm_tier"]], context.settings).get("rfm_tier")
    if found is None:
        return None
    return np.array([value or "" for value in found], dtype=np.str_)[context.profile(as_of).rows_of(rows.one_ids)]


def outcomes_of(context: TrainingContext, earlier: ClusterRows, days: int) -> dict[str, NDArray[np.float64]]:
    """Orders, money and events of customers in the period before the cutoff, where a feature has that window."""
    profile = context.profile(context.as_of)
    rows = profile.rows_of(earlier.one_ids)
    found = {}
    for name, pattern in OUTCOMES.items():
        if (feature := pattern.format(days)) in profile.spec.names:
            found[name] = np.where(rows >= 0, profile.column(feature)[rows], 0.0).astype(np.float64)
    return found


# ---- from one training to the next -----------------------------------------------------------------------------------


def same_as_before(
    context: TrainingContext, now: ClusterRows, labels: NDArray[np.int64], k: int, before: Before
) -> list[int]:
    """For each cluster that in production which has the same customers at this cutoff, −1 for a new one."""
    if before.bundle is None:
        return [-1] * k
    model: BehaviourClusters = before.bundle.model
    former = model.predict(columns_of(context, now.one_ids, model)).cluster
    return same_clusters(former, labels, len(model.ids), k)


def names_before(same: Sequence[int], before: Before) -> dict[int, Named]:
    """Cluster → the name that it had, of those that are not new."""
    if before.bundle is None:
        return {}
    model: BehaviourClusters = before.bundle.model
    return {place: (model.names[former], model.names_zh[former]) for place, former in enumerate(same) if former >= 0}


def moves(
    context: TrainingContext, one_ids: Sequence[str], clusters: Sequence[str], ids: Sequence[str], before: Before
) -> dict[str, Any] | None:
    """Which clusters are kept, new and gone, and the share of customers whose cluster is another; None at first."""
    if before.bundle is None:
        return None
    former = before.bundle.model.ids
    tag = read(context.workspace, TAG)
    last = tag.values if tag is not None else {}
    changed = [last[one] != cluster for one, cluster in zip(one_ids, clusters, strict=True) if one in last]
    return {
        "previous_as_of": before.bundle.as_of.isoformat(),
        "kept": [one for one in ids if one in former],
        "new": [one for one in ids if one not in former],
        "gone": [one for one in former if one not in ids],
        "changed_share": round(float(np.mean(changed)), 4) if changed else None,
    }


def in_words(cluster: dict[str, Any]) -> str:
    """A cluster in one line."""
    traits = ", ".join(f"{one['feature']} {one['difference']:+.1f}" for one in cluster["traits"])
    return f"{cluster['id']} {cluster['name']}: {cluster['share']:.1%} of the customers; {traits} (standard deviations)"


def moves_in_words(moved: dict[str, Any] | None) -> tuple[str, ...]:
    """What changed since the clusters in production, in one line."""
    if moved is None:
        return ()
    parts = [f"{what} {', '.join(moved[what]) or 'none'}" for what in ("kept", "new", "gone")]
    share = moved["changed_share"]
    changed = "" if share is None else f"; {share:.1%} of the customers changed cluster"
    return (f"against the clusters of {moved['previous_as_of'][:10]}: {'; '.join(parts)}{changed}",)


JOB = Job(
    NAME, "groups of customers who behave alike, as many as are found again, named by their traits", run, can_tune=True
)
