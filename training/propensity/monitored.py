"""How `qianmian monitor` looks at propensity models: a prediction for each target."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from features.propensity import rows_between
from models.bundle import ModelBundle
from qianmian.propensity_targets import PropensityTarget
from training.jobs.base import TrainingContext
from training.monitoring.declared import Monitored, MonitoredPeriods, ScoredRows
from training.propensity.rows import rows_with_history

FEATURES = "orders_total", "days_since_last_order", "days_since_last_event"


def monitored_rows(context: TrainingContext, bundle: ModelBundle, as_of: datetime) -> ScoredRows:
    """The customers with a history at a moment, with the probability of each target, and whether they did it."""
    assert bundle.spec is not None
    rows = rows_with_history(context, as_of)
    profile, everything = context.profile(as_of, bundle.spec).take(rows), context.profile(as_of).take(rows)
    targets, end = bundle.model.targets, as_of + timedelta(days=int(bundle.facts["horizon_days"]))
    scores = bundle.model.predict_proba(profile.values) if len(rows) else np.empty((0, len(targets)))
    outcomes = np.full(scores.shape, np.nan)
    if end <= context.as_of:
        for place, target in enumerate(targets):
            did = rows_between(context.builder, PropensityTarget.of(target), as_of, end)
            outcomes[:, place] = [one_id in did for one_id in profile.one_ids.tolist()]
    ages = [everything.column(name) for name in FEATURES[1:] if name in everything.spec.names]
    return ScoredRows(as_of, profile.values, scores, outcomes, np.min(ages, axis=0).astype(np.float64))


def _periods(bundle: ModelBundle) -> MonitoredPeriods:
    horizon = int(bundle.facts["horizon_days"])
    return MonitoredPeriods(horizon, horizon, horizon)


MONITORED = Monitored(
    ("horizon_days",),
    FEATURES,
    _periods,
    monitored_rows,
    lambda bundle: tuple(bundle.model.targets),
    tables=("transactions", "events"),
    auc=lambda bundle: tuple(f"{target} auc" for target in bundle.model.targets),
)
