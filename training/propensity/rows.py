"""The rows of a propensity target: customers at past moments, and whether they bought or did it within the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.definitions.recency import NEVER
from features.definitions.target_features import WINDOWS, count_name, features_of
from features.propensity import rows_between
from qianmian.propensity_targets import PropensityTarget
from training.jobs.base import TrainingContext

# of every target: how active the customer is at all
GENERAL = (
    "days_since_last_order",
    "orders_28d",
    "orders_91d",
    "amount_28d",
    "amount_91d",
    "lines_28d",
    "lines_91d",
    "order_weeks_91d",
    "days_since_last_event",
    "events_28d",
)


@dataclass(frozen=True)
class TargetRows:
    """Features and labels of n customers at one or more moments.

    Attributes
    ----------
    X : ndarray of float32, (n, f)
    y : ndarray of int64, (n,)
        1 where the customer bought or did the target within the horizon.
    owners : ndarray of str, (n,)
        Customer of each row.
    moments : ndarray of int64, (n,)
        Number of the date of each row, the oldest first.
    orders : ndarray of float32, (n,), or None
        Orders of each customer before the date; None if the lake has none.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    owners: NDArray[Any]
    moments: NDArray[np.int64]
    orders: NDArray[np.float32] | None = None


def stacked(parts: Sequence[TargetRows]) -> TargetRows:
    """The rows of several moments, one below the other."""
    return TargetRows(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.owners for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part.y) for part in parts]),
    )


def feature_names(target: PropensityTarget, supported: Sequence[str]) -> tuple[str, ...]:
    """The features that the classifier of a target reads, of those that the data supports: its own first."""
    wanted = (*(feature.name for feature in features_of(target)), *GENERAL)
    return tuple(name for name in wanted if name in supported)


def rows_with_history(context: TrainingContext, as_of: datetime) -> NDArray[np.int64]:
    """Profile rows of the customers with an order or an event before `as_of`, without shared accounts."""
    profile = context.profile(as_of)
    found = np.zeros(len(profile.one_ids), dtype=bool)
    if "orders_total" in profile.spec.names:
        found |= profile.column("orders_total") > 0
    if "days_since_last_event" in profile.spec.names:
        found |= profile.column("days_since_last_event") < NEVER
    return np.flatnonzero(found & ~context.is_shared(profile.one_ids))


def target_rows_at(
    context: TrainingContext, target: PropensityTarget, as_of: datetime, horizon: int, names: Sequence[str]
) -> TargetRows:
    """Features at `as_of` and labels of ``[as_of, as_of + horizon)``; the labels are 0 if they are not known yet."""
    profile = context.profile(as_of).take(rows_with_history(context, as_of))
    columns = [profile.spec.names.index(name) for name in names]
    end = as_of + timedelta(days=horizon)
    did = rows_between(context.builder, target, as_of, end) if end <= context.as_of else {}
    y = np.array([one_id in did for one_id in profile.one_ids.tolist()], dtype=np.int64)
    orders = profile.column("orders_total") if "orders_total" in profile.spec.names else None
    return TargetRows(profile.values[:, columns], y, profile.one_ids, np.zeros(len(y), dtype=np.int64), orders)


def decayed_count(target: PropensityTarget, names: Sequence[str], X: NDArray[np.float32]) -> NDArray[np.float64]:
    """The counts of the windows, with half the weight from each window to the next longer one, (n,)."""
    counts = [X[:, names.index(count_name(target, days))].astype(np.float64) for days in WINDOWS]
    later = [counts[0], *(longer - shorter for shorter, longer in pairwise(counts))]
    return np.asarray(sum(part * 0.5**place for place, part in enumerate(later)))
