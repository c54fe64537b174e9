"""Lifecycle stage by rule, from each customer's own rhythm.

A customer who has been silent for n of their own mean gaps between orders (bounded by `min_gap_days` and `max_gap_days`) is
active, at risk, asleep or lost; who never bought is a prospect; who first bought lately is new. Beside the stage, which says how
things stand, stand the buyer's stage (how far they have come) and, for sleepers, why they fell asleep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import UserFeatures
from qianmian.errors import DataError
from qianmian.settings import LifecycleSettings

LIFECYCLE_FEATURES = ("orders_total", "days_since_last_order", "days_since_first_order", "gap_days_mean", "orders_365d")
BUYER_STAGE_FEATURES = ("orders_total", "orders_365d")
DORMANT_STAGES = ("asleep", "lost")


def bounded_gap_days(gap_days: NDArray[Any], rules: LifecycleSettings) -> NDArray[Any]:
    """The mean gap between orders, bounded by `min_gap_days` and `max_gap_days`, (n,)."""
    bounded: NDArray[Any] = np.clip(gap_days, rules.min_gap_days, rules.max_gap_days)
    return bounded


def lifecycle_stage(columns: Mapping[str, NDArray[Any]], settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """The stage of each customer, (n,) of `qianmian.schema.LIFECYCLE_STAGES`.

    Parameters
    ----------
    columns : mapping of str to ndarray, each (n,)
        The features named in `LIFECYCLE_FEATURES`.

    Examples
    --------
    >>> silent = dict(zip(LIFECYCLE_FEATURES, np.array([[12.0], [40.0], [300.0], [20.0], [12.0]]), strict=True))
    >>> never = dict(zip(LIFECYCLE_FEATURES, np.array([[0.0], [9999.0], [0.0], [365.0], [0.0]]), strict=True))
    >>> str(lifecycle_stage(silent)[0]), str(lifecycle_stage(never)[0])
    ('at_risk', 'prospect')
    """
    rules = settings or LifecycleSettings()
    silent = columns["days_since_last_order"] / bounded_gap_days(columns["gap_days_mean"], rules)
    stages = np.select(
        [
            columns["orders_total"] <= 0,
            silent >= rules.lost_gaps,
            silent >= rules.asleep_gaps,
            silent >= rules.at_risk_gaps,
            columns["days_since_first_order"] <= rules.new_days,
            columns["orders_365d"] >= rules.loyal_orders,
        ],
        ["prospect", "lost", "asleep", "at_risk", "new", "loyal"],
        default="active",
    )
    return stages.astype(np.str_)


def buyer_stage(columns: Mapping[str, NDArray[Any]], settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """How far each customer has come, whenever that was, (n,) of `qianmian.schema.BUYER_STAGES`.

    Parameters
    ----------
    columns : mapping of str to ndarray, each (n,)
        The features named in `BUYER_STAGE_FEATURES`.

    Examples
    --------
    >>> buyer_stage({"orders_total": np.array([0.0, 1.0, 9.0, 40.0]), "orders_365d": np.array([0.0, 1.0, 9.0, 30.0])}).tolist()
    ['prospect', 'first_time', 'repeat', 'loyal']
    """
    orders, least = columns["orders_total"], (settings or LifecycleSettings()).loyal_orders
    stages = np.select(
        [orders <= 0, columns["orders_365d"] >= least, orders >= 2],
        ["prospect", "loyal", "repeat"],
        default="first_time",
    )
    return stages.astype(np.str_)


def falling_asleep_reason(
    columns: Mapping[str, NDArray[Any]], settings: LifecycleSettings | None = None
) -> NDArray[np.str_]:
    """Why each sleeper fell asleep, (n,) of `qianmian.schema.SLEEP_REASONS`; '' for who is awake and where the data cannot tell.

    What counts happened between the last order and the moment the customer was at risk (`features.profiles.tags.inactivity`): nothing of ours
    arrived: *no offer*. Nothing that arrived was opened, though they came by themselves: *irrelevant pushes*. Opened without
    buying, or neither opened nor came: *no interest*. Where opens or visits are not recorded, only what they do not decide is said.

    Parameters
    ----------
    columns : mapping of str to ndarray, each (n,)
        `LIFECYCLE_FEATURES` and ``silence_contacts``; ``silence_responses`` and ``silence_visits`` where they are known.
    """
    asleep = np.isin(lifecycle_stage(columns, settings), DORMANT_STAGES)
    unknown = np.full(len(asleep), np.nan)
    contacts, responses, visits = (
        columns.get(f"silence_{name}", unknown) for name in ("contacts", "responses", "visits")
    )
    conditions = [
        ~asleep,
        contacts == 0,
        responses > 0,
        (responses == 0) & (visits > 0),
        (responses == 0) & (visits == 0),
    ]
    reasons = np.select(conditions, ["", "no_offer", "no_interest", "irrelevant_pushes", "no_interest"], default="")
    return reasons.astype(np.str_)


def stages_from_features(features: UserFeatures, settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """The stage of every row of a profile matrix, (n,).

    Raises
    ------
    DataError
        When the data has no dated orders.
    """
    missing = [name for name in LIFECYCLE_FEATURES if name not in features.spec.names]
    if missing:
        raise DataError(
            "lifecycle stages need dated orders",
            got=f"no {', '.join(missing)}",
            hint="map `ts` of transactions in sources.yaml",
        )
    return lifecycle_stage({name: features.column(name) for name in LIFECYCLE_FEATURES}, settings)
