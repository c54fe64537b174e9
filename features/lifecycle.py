"""Lifecycle stage by rule, from each customer's own rhythm.

A customer who has been silent for n of their own mean gaps between orders (bounded by `min_gap_days` and `max_gap_days`) is
active, at risk, asleep or lost; who never bought is a prospect; who first bought lately is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.spec import UserFeatures
from qianmian.config import LifecycleSettings
from qianmian.errors import DataError

NEEDS = ("orders_total", "days_since_last_order", "days_since_first_order", "gap_days_mean", "orders_365d")


def lifecycle_stage(columns: Mapping[str, NDArray[Any]], settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """The stage of each customer, (n,) of `qianmian.schema.LIFECYCLE_STAGES`.

    Parameters
    ----------
    columns : mapping of str to ndarray, each (n,)
        The features named in `NEEDS`.

    Examples
    --------
    >>> silent = dict(zip(NEEDS, np.array([[12.0], [40.0], [300.0], [20.0], [12.0]]), strict=True))
    >>> never = dict(zip(NEEDS, np.array([[0.0], [9999.0], [0.0], [365.0], [0.0]]), strict=True))
    >>> str(lifecycle_stage(silent)[0]), str(lifecycle_stage(never)[0])
    ('at_risk', 'prospect')
    """
    rules = settings or LifecycleSettings()
    silent = columns["days_since_last_order"] / np.clip(columns["gap_days_mean"], rules.min_gap_days, rules.max_gap_days)
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


def stages_of(features: UserFeatures, settings: LifecycleSettings | None = None) -> NDArray[np.str_]:
    """The stage of every row of a profile matrix, (n,).

    Raises
    ------
    DataError
        When the data has no dated orders.
    """
    missing = [name for name in NEEDS if name not in features.spec.names]
    if missing:
        raise DataError(
            "lifecycle stages need dated orders", got=f"no {', '.join(missing)}", hint="map `ts` of transactions in sources.yaml"
        )
    return lifecycle_stage({name: features.column(name) for name in NEEDS}, settings)
