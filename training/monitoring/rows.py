"""The customers whom a churn model scores at one moment: features, score, outcome, and days since the last order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import Feature
from features.compute.builder import Builder
from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle
from models.classify.rhythm import day_number
from models.day_histograms import DayHistograms, day_histograms
from qianmian.errors import ArtifactError
from training.jobs.base import EvaluatedModel, TrainingContext
from training.jobs.churn import REQUIRED_FEATURES, active_customer_rows, labelled_examples

JOB = "churn"
RECENCY = "days_since_last_order"
SCORE, OUTCOME = "score", "outcome"  # columns behind those of the features
WINDOWS = 6  # of a reference: moments a horizon apart, at which the training has built profiles anyway
UNITS = 8  # of a window: whole days with about equally many customers


@dataclass(frozen=True)
class ScoredRows:
    """The n customers that are scored at one moment.

    Attributes
    ----------
    as_of : datetime
    values : ndarray of float64, shape (n, features + 2)
        Features, score and outcome; the outcome is NaN if it is not known yet.
    days : ndarray of float64, shape (n,)
        Days since the last order.
    """

    as_of: datetime
    values: NDArray[np.float64]
    days: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Probabilities of the model."""
        return self.values[:, -2]

    @property
    def outcomes(self) -> NDArray[np.int64]:
        """1 where the customer churned; only if that is known."""
        return self.values[:, -1].astype(np.int64)


def periods(bundle: ModelBundle) -> tuple[int, int]:
    """Horizon and active days of a churn model.

    Raises
    ------
    ArtifactError
        An earlier version trained the model, and did not store them.
    """
    horizon, active = bundle.facts.get("horizon_days"), bundle.facts.get("active_days")
    if horizon is None or active is None or bundle.spec is None:
        raise ArtifactError(
            "an earlier version trained this model, and did not store what it predicts",
            where=f"churn model as of {bundle.as_of:%Y-%m-%d}",
            got="no horizon_days and active_days",
            hint="train again: `qianmian train churn`",
        )
    return int(horizon), int(active)


def scored_rows(context: TrainingContext, bundle: ModelBundle, as_of: datetime) -> ScoredRows:
    """Score the active customers at a moment, with their outcomes if these are known at the cutoff of the context."""
    horizon, active = periods(bundle)
    spec: FeatureSpec = bundle.spec  # type: ignore[assignment]  # `periods` requires it
    found = labelled_examples(context, as_of, horizon, active, spec)
    days = context.profile(as_of).column(RECENCY)[active_customer_rows(context, as_of, active)]
    scores = bundle.model.predict_proba(found.X, as_of)[:, 1] if len(found.y) else np.empty(0)
    is_known = as_of + timedelta(days=horizon) <= context.as_of
    outcomes = found.y.astype(np.float64) if is_known else np.full(len(found.y), np.nan)
    return ScoredRows(as_of, np.column_stack([found.X.astype(np.float64), scores, outcomes]), days.astype(np.float64))


def histograms_of(rows: Sequence[ScoredRows], like: DayHistograms | None = None) -> DayHistograms:
    """Histograms of the rows of several moments, by the day of the last order; units and bins are those of `like`."""
    return day_histograms([(day_number(one.as_of), one.values, one.days) for one in rows], UNITS, like)


def reference_moments(context: TrainingContext, bundle: ModelBundle) -> list[datetime]:
    """The cutoff of a model, and up to `WINDOWS` − 1 moments before it, a horizon apart, the latest first."""
    horizon, active = periods(bundle)
    first = context.history_start("transactions") + timedelta(days=active)
    moments = [bundle.as_of - timedelta(days=horizon * back) for back in range(WINDOWS)]
    return [at for at in moments if at >= first or at == bundle.as_of]


def reference_of(context: TrainingContext, bundle: ModelBundle) -> DayHistograms | None:
    """What later customers are compared with: the rows at the reference moments; None if there is no row.

    The score of a past moment is that of the final model, which has learnt from its outcome.
    """
    rows = [scored_rows(context, bundle, at) for at in reference_moments(context, bundle)]
    rows = [one for one in rows if len(one.days)]
    return histograms_of(rows) if rows else None


def with_reference(context: TrainingContext, job: str, evaluated_model: EvaluatedModel) -> EvaluatedModel:
    """The model with its reference in the bundle, if `qianmian monitor` knows models of this job."""
    if job != JOB:
        return evaluated_model
    bundle = evaluated_model.bundle
    return replace(evaluated_model, bundle=replace(bundle, reference=reference_of(context, bundle)))


# ---- the features that serving gives a model now ---------------------------------------------------------------------


def served_features(builder: Builder, spec: FeatureSpec, as_of: datetime) -> tuple[list[Feature], list[str]]:
    """The features of a model as they are declared now, and the names of those that have vanished.

    Vanished is what is no longer declared, or what the data before `as_of` does not support: the model reads its
    default. What a quotient is made of, and what says who is active, is computed too.
    """
    declared = {feature.name: feature for feature in (*builder.declared, *builder.attributes(builder.states_at(as_of)))}
    wanted, queue = set(), [*spec.names, *REQUIRED_FEATURES]
    while queue:
        name = queue.pop()
        if name in declared and name not in wanted:
            wanted.add(name)
            feature = declared[name]
            if feature.aggregate == "quotient":
                queue += [part for part in (feature.column, feature.over) if part]
    kept, _ = builder.supported([feature for name, feature in declared.items() if name in wanted], as_of)
    names = {feature.name for feature in kept}
    return list(kept), [name for name in spec.names if name not in names]
