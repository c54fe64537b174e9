"""Lifecycle stages and the state of the next order, by the purchase process of the shop.

The stage of a buyer follows from the probability of an order within the return time (`return_days`, by default four
typical gaps of the shop), given the customer's own rhythm and the silence so far. The buyer stage depends only on the
number of orders. For dormant customers, `falling_asleep_reason` states why they became inactive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.profiles.purchase_process.process import PROCESS_FEATURES, PurchaseProcess
from qianmian.errors import DataError
from qianmian.model_settings import LifecycleSettings

LIFECYCLE_FEATURES = PROCESS_FEATURES
BUYER_STAGE_FEATURES = ("orders_total", "orders_365d")
DORMANT_STAGES = ("asleep", "lost")
USUAL_GAPS = 2.0  # a silence of more own gaps is longer than usual; of random gaps, 14 % are
LONG_GAPS = 4.0  # a silence of more own gaps is that of a customer who is asleep
INACTIVITY_CONTACTS, INACTIVITY_RESPONSES, INACTIVITY_VISITS = "silence_contacts", "silence_responses", "silence_visits"
INACTIVITY_SOURCES = {  # column that `falling_asleep_reason` reads → source table
    INACTIVITY_CONTACTS: "touches",
    INACTIVITY_RESPONSES: "touches",
    INACTIVITY_VISITS: "events",
}
PREVIOUS_STAGE = "previous_stage"  # column: the stage in the profiles that were published before
Columns = Mapping[str, NDArray[Any]]


def return_probability(
    columns: Columns, process: PurchaseProcess, settings: LifecycleSettings | None = None
) -> NDArray[np.float64]:
    """Probability of an order within the return time, shape (n,); without meaning for customers without orders."""
    days = (settings or LifecycleSettings()).return_days or process.return_days
    return process.order_probability(columns, days)


def lifecycle_stage(
    columns: Columns, process: PurchaseProcess, settings: LifecycleSettings | None = None
) -> NDArray[np.str_]:
    """Lifecycle stage of each customer.

    Parameters
    ----------
    columns : mapping of str to ndarray, each of shape (n,)
        Features named in `LIFECYCLE_FEATURES`.
    process : PurchaseProcess
        Purchase process of the shop at the cutoff of the features.
    settings : LifecycleSettings, optional
        Thresholds of the stages.

    Returns
    -------
    ndarray of str, shape (n,)
        Values of `qianmian.schema.LIFECYCLE_STAGES`.

    Examples
    --------
    >>> process = PurchaseProcess(10.0)
    >>> weekly, silent, never = [40, 3, 280, 4, 13, 40], [9, 150, 300, 0, 0, 9], [0, 9999, 0, 0, 0, 0]
    >>> table = np.array([weekly, silent, never], dtype=float).T
    >>> lifecycle_stage(dict(zip(LIFECYCLE_FEATURES, table, strict=True)), process).tolist()
    ['loyal', 'active', 'prospect']
    """
    rules = settings or LifecycleSettings()
    returns = return_probability(columns, process, rules)
    stages = np.select(
        [
            columns["orders_total"] <= 0,
            columns["days_since_first_order"] <= rules.new_days,
            returns < rules.lost_below,
            returns < rules.asleep_below,
            returns < rules.at_risk_below,
            columns["orders_365d"] >= rules.loyal_orders,
        ],
        ["prospect", "new", "lost", "asleep", "at_risk", "loyal"],
        default="active",
    )
    return stages.astype(np.str_)


def replenishment(
    columns: Columns, process: PurchaseProcess, settings: LifecycleSettings | None = None
) -> NDArray[np.str_]:
    """State of the next order of each customer, shape (n,); an empty string without orders.

    *Missed*: an order within the return time is less likely than `at_risk_below`. *Due*: the next order is expected
    (median) within one typical gap. *Overdue*: it is expected later, and the silence is longer than `USUAL_GAPS` own
    gaps. *Not yet*: the silence is not longer than usual. Parameters are those of `lifecycle_stage`.
    """
    rules = settings or LifecycleSettings()
    conditions = [
        columns["orders_total"] <= 0,
        return_probability(columns, process, rules) < rules.at_risk_below,
        process.days_to_order(columns) <= process.typical_gap_days,
        columns["days_since_last_order"] > USUAL_GAPS * process.own_gap_days(columns),
    ]
    return np.select(conditions, ["", "missed", "due", "overdue"], default="not_yet").astype(np.str_)


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
    columns: Columns, process: PurchaseProcess, settings: LifecycleSettings | None = None
) -> NDArray[np.str_]:
    """Reason why each dormant customer became inactive.

    The reason depends on the inactivity window, from the last order to the time when the silence became longer than
    usual (`features.profiles.tags.inactivity`). No contact was delivered: *no offer*. The customer opened no contact
    but visited without one: *irrelevant pushes*. The customer opened a contact without buying, or neither opened one
    nor visited: *no interest*. If opens or visits are not recorded, only reasons that do not depend on them are given.

    Parameters
    ----------
    columns : mapping of str to ndarray, each of shape (n,)
        `LIFECYCLE_FEATURES` and ``silence_contacts``; ``silence_responses`` and ``silence_visits`` if they are
        recorded.
    process, settings
        As in `lifecycle_stage`.

    Returns
    -------
    ndarray of str, shape (n,)
        Values of `qianmian.schema.INACTIVITY_REASONS`; an empty string for other customers and if the data are missing.
    """
    asleep = np.isin(lifecycle_stage(columns, process, settings), DORMANT_STAGES)
    unknown = np.full(len(asleep), np.nan)
    contacts, responses, visits = (
        columns.get(f"silence_{name}", unknown) for name in ("contacts", "responses", "visits")
    )
    unopened = responses == 0
    conditions = [~asleep, contacts == 0, responses > 0, unopened & (visits > 0), unopened & (visits == 0)]
    reasons = np.select(conditions, ["", "no_offer", "no_interest", "irrelevant_pushes", "no_interest"], default="")
    return reasons.astype(np.str_)


def stages_of_build(
    process: PurchaseProcess | None, table: pa.Table, settings: LifecycleSettings | None = None
) -> NDArray[np.str_]:
    """Lifecycle stage of every row of a profile build, shape (n,), by the purchase process at its cutoff.

    Parameters
    ----------
    process : PurchaseProcess or None
        Purchase process of the shop at the cutoff of the build; None without orders with times.
    table : pyarrow.Table
        Table of the build, n rows.
    settings : LifecycleSettings, optional
        Thresholds of the stages.

    Raises
    ------
    DataError
        The build lacks features that need orders with times.
    """
    if process is None:
        missing = [name for name in LIFECYCLE_FEATURES if name not in table.column_names]
        raise DataError(
            "lifecycle stages require orders with times",
            got=f"no {', '.join(missing)}",
            hint="map the column `ts` of transactions in sources.yaml",
        )
    return lifecycle_stage({name: table[name].to_numpy() for name in LIFECYCLE_FEATURES}, process, settings)
