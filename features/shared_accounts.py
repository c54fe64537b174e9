"""Shared accounts: a till's walk-in account or a guest account looks like one customer, but many people buy with it.

The account is real and so are its orders: models still learn from them which items are bought together. But it is no
customer who can churn, or who resembles anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from features.compute.builder import Builder

MIN_CUSTOMERS = 20  # of fewer customers, a large one is no surprise
TIMES_P95 = 10.0  # an account has at least this many times the lines of the 95th percentile of all customers
ORDERS_PER_DAY = 2.0  # and places at least this many orders on a mean day with orders


@dataclass(frozen=True)
class SharedAccount:
    """A customer whose order lines cannot be those of one person.

    Attributes
    ----------
    one_id, user_id : str
        The customer, and its id in a source.
    share : float
        Share of the order lines of all customers.
    orders_per_day : float
        Orders per day with orders.
    """

    one_id: str
    user_id: str
    share: float
    orders_per_day: float

    @property
    def text(self) -> str:
        """Why the account is no single customer."""
        return f"shared account: {self.share:.0%} of all order lines, {self.orders_per_day:.1f} orders a day"


def shared_accounts(builder: Builder, as_of: datetime, min_share: float) -> list[SharedAccount]:
    """Find the customers whose order lines before `as_of` cannot be those of one person, largest first.

    Such a customer has more than `min_share` of the order lines, at least `TIMES_P95` times as many as 95 % of the
    customers, and at least `ORDERS_PER_DAY` orders on a day with orders. Without times of orders there are none.
    """
    states = builder.states
    if "transactions" not in states or "ts" not in states["transactions"].filled:
        return []
    views = builder.views(as_of)
    lines = views["lines"]
    per_customer = lines.group_by("one_id").aggregate(lines=lines.count()).to_pyarrow()
    counts = per_customer["lines"].to_numpy().astype(np.float64)
    if len(counts) < MIN_CUSTOMERS:
        return []
    large = (counts > min_share * counts.sum()) & (counts >= TIMES_P95 * np.quantile(counts, 0.95))
    one_ids = [one_id for one_id, is_large in zip(per_customer["one_id"].to_pylist(), large, strict=True) if is_large]
    if not one_ids:
        return []
    orders = views["orders"].filter(views["orders"].one_id.isin(one_ids))
    daily = orders.group_by("one_id").aggregate(orders=orders.count(), days=orders.day.nunique()).to_pyarrow()
    rate = {row["one_id"]: row["orders"] / max(row["days"], 1) for row in daily.to_pylist()}
    people = views.customers.filter(views.customers.one_id.isin(one_ids)).to_pyarrow().to_pylist()
    user_ids = {row["one_id"]: row["source_user_id"] for row in sorted(people, key=lambda row: row["source_user_id"])}
    found = [
        SharedAccount(one_id, user_ids[one_id], float(count / counts.sum()), rate[one_id])
        for one_id, count in zip(one_ids, counts[large].tolist(), strict=True)
        if rate[one_id] >= ORDERS_PER_DAY
    ]
    return sorted(found, key=lambda account: (-account.share, account.one_id))
