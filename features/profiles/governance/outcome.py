"""Business goals as outcomes: what each customer did in the days after the tags were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.data.lake import Lake
from qianmian.errors import DataError
from qianmian.registry import Registry

MIN_CUSTOMERS, MIN_CUSTOMERS_PER_LABEL = 100, 10
AMOUNT_QUANTILES = 4


@dataclass(frozen=True)
class TargetLabels:
    """What happened in the horizon.

    Attributes
    ----------
    rows : ndarray of int64, (n,)
        Rows of the profile table that were asked about.
    codes : ndarray of int64, (n,)
        What each of them did.
    labels : tuple of str
        What the codes stand for.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TargetInputs:
    """What a target is computed from, each (n,): customers of the profile table, orders and money of the horizon."""

    orders_before: NDArray[np.float64]
    recency_days: NDArray[np.float64]
    orders: NDArray[np.float64]
    amount: NDArray[np.float64]
    active_days: float


def churn(inputs: TargetInputs) -> TargetLabels:
    """Of who bought within `active_days`: no order in the horizon, or some."""
    rows = np.flatnonzero((inputs.orders_before > 0) & (inputs.recency_days <= inputs.active_days))
    return TargetLabels(rows, (inputs.orders[rows] <= 0).astype(np.int64), ("stayed", "churned"))


def purchase(inputs: TargetInputs) -> TargetLabels:
    """Of everybody: an order in the horizon, or none."""
    return TargetLabels(np.arange(len(inputs.orders)), (inputs.orders > 0).astype(np.int64), ("no order", "ordered"))


def clv(inputs: TargetInputs) -> TargetLabels:
    """Of everybody: the money of the horizon, as none or a quarter of those who paid."""
    paid = inputs.amount > 0
    edges = (
        np.unique(np.quantile(inputs.amount[paid], np.linspace(0, 1, AMOUNT_QUANTILES + 1)[1:-1]))
        if paid.any()
        else np.empty(0)
    )
    codes = np.where(paid, np.searchsorted(edges, inputs.amount, side="right") + 1, 0)
    names = ["nothing", *(f"up to {edge:,.2f}" for edge in edges), *(f"{edge:,.2f} and more" for edge in edges[-1:])]
    return TargetLabels(
        np.arange(len(codes)), codes.astype(np.int64), tuple(names) if len(edges) else ("nothing", "something")
    )


TARGETS: Registry[Callable[[TargetInputs], TargetLabels]] = Registry(
    "target", {"churn": churn, "purchase": purchase, "clv": clv}
)


def horizon_end(lake: Lake, as_of: datetime, horizon_days: int) -> datetime:
    """The end of the horizon.

    Raises
    ------
    DataError
        The data ends before it.
    """
    end = as_of + timedelta(days=horizon_days)
    if end > lake.default_as_of:
        raise DataError(
            "the outcome is not known yet",
            where=f"[{as_of:%Y-%m-%d}, {end:%Y-%m-%d})",
            got=f"data up to {lake.default_as_of:%Y-%m-%d}",
            hint="choose an earlier --as-of or a shorter --horizon-days",
        )
    return end


def target_labels(
    builder: Builder, table: pa.Table, as_of: datetime, target: str, horizon_days: int, active_days: int
) -> TargetLabels:
    """What the customers of a profile table did in ``[as_of, as_of + horizon_days)``.

    Raises
    ------
    UsageError
        There is no such target.
    DataError
        The horizon is not over, orders are not dated, or too few customers did either.
    """
    compute_target = TARGETS[target]
    end = horizon_end(builder.lake, as_of, horizon_days)
    needs = ["orders_total", "days_since_last_order", *(["amount_28d"] if target == "clv" else [])]
    if missing := [name for name in needs if name not in table.column_names]:
        raise DataError(
            f"{target} needs dated orders{' with amounts' if target == 'clv' else ''}",
            got=f"no {', '.join(missing)}",
            where="transactions",
            hint="map `ts` and `amount` of transactions in sources.yaml",
        )
    orders = builder.views(end)["orders"]
    orders = orders.filter(orders.ts >= ibis.timestamp(as_of.isoformat(sep=" ")))
    made = (
        orders.group_by("one_id")
        .aggregate(orders=orders.count(), amount=orders.amount.sum().cast("float64").fill_null(0.0))
        .to_pyarrow()
    )
    found = dict(
        zip(
            made["one_id"].to_pylist(),
            zip(made["orders"].to_pylist(), made["amount"].to_pylist(), strict=True),
            strict=True,
        )
    )
    totals = np.array(
        [found.get(one_id, (0, 0.0)) for one_id in table["one_id"].to_pylist()], dtype=np.float64
    ).reshape(-1, 2)
    before, recency = (table[name].to_numpy() for name in needs[:2])
    outcome = compute_target(TargetInputs(before, recency, totals[:, 0], totals[:, 1], float(active_days)))
    kinds = np.bincount(outcome.codes, minlength=2)
    if len(outcome.rows) < MIN_CUSTOMERS or (kinds > 0).sum() < 2 or kinds[kinds > 0].min() < MIN_CUSTOMERS_PER_LABEL:
        counts = ", ".join(f"{label}: {count}" for label, count in zip(outcome.labels, kinds.tolist(), strict=False))
        raise DataError(
            "too few customers to measure information on",
            got=f"{len(outcome.rows)} asked; {counts}",
            allowed=f"at least {MIN_CUSTOMERS}, {MIN_CUSTOMERS_PER_LABEL} of each outcome",
            hint="choose another --horizon-days or --as-of, or bring more customers",
        )
    return outcome
