"""Target labels: what each customer did in the days after `as_of`, for a business target."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.data.lake import Lake
from features.propensity import require_in_lake, rows_between
from qianmian.errors import DataError, UsageError
from qianmian.propensity_targets import FORMS, require_target
from qianmian.registry import Registry

MIN_CUSTOMERS, MIN_CUSTOMERS_PER_LABEL = 100, 10
AMOUNT_QUANTILES = 4


@dataclass(frozen=True)
class TargetLabels:
    """Classes of the customers in the horizon.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Rows of the profile table that have a label.
    codes : ndarray of int64, shape (n,)
        Class of each of these rows.
    labels : tuple of str
        Names of the classes.
    numbers : ndarray of float64, shape (n,)
        The outcome of each of these rows as a number: 1 if it happened and else 0, or the amount paid.
    verb : str
        What it says of a customer, such as ``left``.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    labels: tuple[str, ...]
    numbers: NDArray[np.float64]
    verb: str


@dataclass(frozen=True)
class TargetInputs:
    """Inputs of a target for the n customers of a profile table.

    Attributes
    ----------
    orders_before, recency_days : ndarray of float64, shape (n,)
        Number of orders before `as_of`, and days since the last one.
    orders, amount : ndarray of float64, shape (n,)
        Number of orders in the horizon, and their amount in currency.
    bought : ndarray of float64, shape (n,)
        Number of order lines or events in the horizon of a propensity target; 0 for other targets.
    active_days : float
        Customers who bought in this many days before `as_of` are active.
    """

    orders_before: NDArray[np.float64]
    recency_days: NDArray[np.float64]
    orders: NDArray[np.float64]
    amount: NDArray[np.float64]
    bought: NDArray[np.float64]
    active_days: float


def churn(inputs: TargetInputs) -> TargetLabels:
    """Customers who bought within `active_days`: no order in the horizon, or at least one."""
    rows = np.flatnonzero((inputs.orders_before > 0) & (inputs.recency_days <= inputs.active_days))
    return _yes_or_no(rows, inputs.orders[rows] <= 0, ("stayed", "churned"), "left")


def purchase(inputs: TargetInputs) -> TargetLabels:
    """All customers: at least one order in the horizon, or none."""
    return _yes_or_no(np.arange(len(inputs.orders)), inputs.orders > 0, ("no order", "ordered"), "ordered")


def propensity(inputs: TargetInputs) -> TargetLabels:
    """All customers: bought the item, category or brand in the horizon (or did the event), or did not."""
    return _yes_or_no(np.arange(len(inputs.bought)), inputs.bought > 0, ("did not buy it", "bought it"), "bought it")


def clv(inputs: TargetInputs) -> TargetLabels:
    """All customers: the amount of the horizon, as nothing or a quartile of the paying customers."""
    paid = inputs.amount > 0
    quantiles = np.linspace(0, 1, AMOUNT_QUANTILES + 1)[1:-1]
    edges = np.unique(np.quantile(inputs.amount[paid], quantiles)) if paid.any() else np.empty(0)
    codes = np.where(paid, np.searchsorted(edges, inputs.amount, side="right") + 1, 0)
    names = ["nothing", *(f"up to {edge:,.2f}" for edge in edges), *(f"{edge:,.2f} and more" for edge in edges[-1:])]
    labels = tuple(names) if len(edges) else ("nothing", "something")
    return TargetLabels(np.arange(len(codes)), codes.astype(np.int64), labels, inputs.amount, "paid")


def _yes_or_no(rows: NDArray[np.int64], is_true: NDArray[np.bool_], labels: tuple[str, str], verb: str) -> TargetLabels:
    return TargetLabels(rows, is_true.astype(np.int64), labels, is_true.astype(np.float64), verb)


TARGETS: Registry[Callable[[TargetInputs], TargetLabels]] = Registry(
    "target", {"churn": churn, "purchase": purchase, "clv": clv}
)


def find_target(target: str) -> Callable[[TargetInputs], TargetLabels]:
    """The function of a target: a name in `TARGETS`, or a propensity target such as ``category=NAME``.

    Raises
    ------
    UsageError
        The target is unknown.

    Examples
    --------
    >>> find_target("category=GROCERY/CAT FOOD") is propensity
    True
    """
    if re.match(r"\w+[=:]", target):
        require_target(target)
        return propensity
    if target not in TARGETS:
        allowed = f"{', '.join(TARGETS)}, {FORMS}"
        raise UsageError(
            "unknown target", where="--target", got=target, allowed=allowed, hint="see `qianmian tags value --help`"
        )
    return TARGETS[target]


def horizon_end(lake: Lake, as_of: datetime, horizon_days: int) -> datetime:
    """End of the horizon, `horizon_days` after `as_of`.

    Raises
    ------
    DataError
        The data ends before the end of the horizon.
    """
    end = as_of + timedelta(days=horizon_days)
    if end > lake.default_as_of:
        raise DataError(
            "the data ends before the end of the horizon",
            where=f"[{as_of:%Y-%m-%d}, {end:%Y-%m-%d})",
            got=f"data up to {lake.default_as_of:%Y-%m-%d}",
            hint="choose an earlier --as-of or a shorter --horizon-days",
        )
    return end


def target_labels(
    builder: Builder, table: pa.Table, as_of: datetime, target: str, horizon_days: int, active_days: int
) -> TargetLabels:
    """Labels of the customers of a profile table in ``[as_of, as_of + horizon_days)``.

    Parameters
    ----------
    builder : Builder
        Builder of the lake.
    table : pyarrow.Table
        Table of the profile build at `as_of`.
    as_of : datetime
        Begin of the horizon, naive UTC.
    target : str
        Name in `TARGETS`, or a propensity target such as ``category=NAME``: bought or did it in the horizon.
    horizon_days : int
        Length of the horizon in days.
    active_days : int
        Customers who bought in this many days before `as_of` are active.

    Raises
    ------
    UsageError
        The target is unknown.
    DataError
        The data ends before the end of the horizon, orders have no times, a class has too few customers, or the lake
        has no row of the propensity target.
    """
    compute_target = find_target(target)
    end = horizon_end(builder.lake, as_of, horizon_days)
    needs = ["orders_total", "days_since_last_order", *(["amount_28d"] if target == "clv" else [])]
    if missing := [name for name in needs if name not in table.column_names]:
        raise DataError(
            f"the target {target} requires orders with times{' and amounts' if target == 'clv' else ''}",
            got=f"no {', '.join(missing)}",
            where="transactions",
            hint="map the columns `ts` and `amount` of transactions in sources.yaml",
        )
    orders = builder.views(end)["orders"]
    orders = orders.filter(orders.ts >= ibis.timestamp(as_of.isoformat(sep=" ")))
    amount = orders.amount.sum().cast("float64").fill_null(0.0)
    sums = orders.group_by("one_id").aggregate(orders=orders.count(), amount=amount).to_pyarrow().to_pydict()
    by_customer = dict(zip(sums["one_id"], zip(sums["orders"], sums["amount"], strict=True), strict=True))
    one_ids = table["one_id"].to_pylist()
    totals = np.array([by_customer.get(one_id, (0, 0.0)) for one_id in one_ids], dtype=np.float64).reshape(-1, 2)
    lines: dict[str, int] = {}
    if compute_target is propensity:
        wanted = require_target(target)
        require_in_lake(builder, wanted)
        lines = rows_between(builder, wanted, as_of, end)
    bought = np.array([lines.get(one_id, 0) for one_id in one_ids], dtype=np.float64)
    before, recency = (table[name].to_numpy() for name in needs[:2])
    outcome = compute_target(TargetInputs(before, recency, totals[:, 0], totals[:, 1], bought, float(active_days)))
    kinds = np.bincount(outcome.codes, minlength=2)
    if len(outcome.rows) < MIN_CUSTOMERS or (kinds > 0).sum() < 2 or kinds[kinds > 0].min() < MIN_CUSTOMERS_PER_LABEL:
        counts = ", ".join(f"{label}: {count}" for label, count in zip(outcome.labels, kinds.tolist(), strict=False))
        raise DataError(
            "too few customers to estimate the information of tags",
            got=f"{len(outcome.rows)} customers; {counts}",
            allowed=f"at least {MIN_CUSTOMERS}, and {MIN_CUSTOMERS_PER_LABEL} per outcome",
            hint="choose another --horizon-days or --as-of, or ingest more customers",
        )
    return outcome
