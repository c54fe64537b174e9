"""The shared accounts among the customers of a lake at a cutoff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from features.compute.builder import Builder
from features.data.shared_accounts import SharedAccount, find_shared_accounts


def shared_accounts(builder: Builder, as_of: datetime, min_share: float) -> list[SharedAccount]:
    """Find the customers whose order lines before `as_of` cannot be those of one person, largest first.

    Without times of orders there are none.
    """
    states = builder.states
    if "transactions" not in states or "ts" not in states["transactions"].filled:
        return []
    views = builder.views(as_of)
    lines = views["lines"].group_by("one_id").aggregate(lines=views["lines"].count()).to_pyarrow()

    def orders_per_day(one_ids: Sequence[str]) -> Mapping[str, float]:
        orders = views["orders"].filter(views["orders"].one_id.isin(one_ids))
        daily = orders.group_by("one_id").aggregate(orders=orders.count(), days=orders.day.nunique()).to_pyarrow()
        return {row["one_id"]: row["orders"] / max(row["days"], 1) for row in daily.to_pylist()}

    counts = lines["lines"].to_numpy().astype(np.float64)
    found = find_shared_accounts(lines["one_id"].to_pylist(), counts, min_share, orders_per_day)
    if not found:
        return []
    people = views.customers.filter(views.customers.one_id.isin([account.one_id for account in found])).to_pyarrow()
    # of several records the one whose id sorts last
    user_ids = {row["one_id"]: row["source_user_id"] for row in people.sort_by("source_user_id").to_pylist()}
    return [replace(account, user_id=user_ids[account.one_id]) for account in found]
