"""Lifecycle stages by rule, relative to each customer's mean gap between orders.

The time since the last order, in units of the customer's mean gap between orders (bounded by `min_gap_days` and
`max_gap_days`), decides between active, at risk, asleep and lost. A customer without orders is a prospect; a customer
whose first order is recent is new. The buyer stage depends only on the number of orders. For dormant customers,
`falling_asleep_reason` states why they became inactive.
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
    """Mean gap between orders in days, bounded by `min_gap_days` and `max_gap_days`, shape (n,)."""
    bounded: NDArray[Any] = np.clip(gap_days, rules.min_gap_days, rules.max_gap_days)
    return bounded


def lifecycle_stage(columns: Mapping[str, NDArray[Any]], settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """Lifecycle stage of each customer.

    Parameters
    ----------
    columns : mapping of str to ndarray, each of shape (n,)
        Features named in `LIFECYCLE_FEATURES`.
    settings : LifecycleSettings, optional
        Thresholds of the stages.

    Returns
    -------
    ndarray of str, shape (n,)
        Values of `qianmian.schema.LIFECYCLE_STAGES`.

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
    """Buyer stage of each customer by the number of orders, whenever they were.

    Parameters
    ----------
    columns : mapping of str to ndarray, each of shape (n,)
        Features named in `BUYER_STAGE_FEATURES`.
    settings : LifecycleSettings, optional
        `loyal_orders` is the threshold of loyal buyers.

    Returns
    -------
    ndarray of str, shape (n,)
        Values of `qianmian.schema.BUYER_STAGES`.

    Examples
    --------
    >>> total, last_year = np.array([0.0, 1.0, 9.0, 40.0]), np.array([0.0, 1.0, 9.0, 30.0])
    >>> buyer_stage({"orders_total": total, "orders_365d": last_year}).tolist()
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
    """Reason why each dormant customer became inactive.

    The reason depends on the inactivity window, from the last order to the time the customer counted as at risk
    (`features.profiles.tags.inactivity`). No contact was delivered: *no offer*. The customer opened no contact but
    visited without one: *irrelevant pushes*. The customer opened a contact without buying, or neither opened one nor
    visited: *no interest*. If opens or visits are not recorded, only reasons that do not depend on them are given.

    Parameters
    ----------
    columns : mapping of str to ndarray, each of shape (n,)
        `LIFECYCLE_FEATURES` and ``silence_contacts``; ``silence_responses`` and ``silence_visits`` if they are
        recorded.
    settings : LifecycleSettings, optional
        Thresholds of the stages.

    Returns
    -------
    ndarray of str, shape (n,)
        Values of `qianmian.schema.INACTIVITY_REASONS`; an empty string for other customers and if the data are missing.
    """
    asleep = np.isin(lifecycle_stage(columns, settings), DORMANT_STAGES)
    unknown = np.full(len(asleep), np.nan)
    contacts, responses, visits = (
        columns.get(f"silence_{name}", unknown) for name in ("contacts", "responses", "visits")
    )
    unopened = responses == 0
    conditions = [~asleep, contacts == 0, responses > 0, unopened & (visits > 0), unopened & (visits == 0)]
    reasons = np.select(conditions, ["", "no_offer", "no_interest", "irrelevant_pushes", "no_interest"], default="")
    return reasons.astype(np.str_)


def stages_from_features(features: UserFeatures, settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """Lifecycle stage of every row of a feature matrix, shape (n,).

    Raises
    ------
    DataError
        The matrix lacks features that need orders with times.
    """
    missing = [name for name in LIFECYCLE_FEATURES if name not in features.spec.names]
    if missing:
        raise DataError(
            "lifecycle stages require orders with times",
            got=f"no {', '.join(missing)}",
            hint="map the column `ts` of transactions in sources.yaml",
        )
    return lifecycle_stage({name: features.column(name) for name in LIFECYCLE_FEATURES}, settings)
