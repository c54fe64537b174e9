"""Segments of the past: customers who bought a category or redeemed a coupon in a period."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.id_map import IdMap
from features.training_data import interaction_rows
from training.jobs.base import TrainingContext

MAX_SEGMENTS = 12  # of categories
SEGMENT_SHARES = (0.03, 0.25)  # least and greatest share of all customers in a segment
MIN_SEGMENT = 50
CATEGORY_LEVELS = 2
COUPONS = "coupon redeemers"


def category_names(paths: Sequence[str | None]) -> list[str]:
    """The first two levels of each category path; empty where there is none.

    Examples
    --------
    >>> category_names(["GROCERY/CAT FOOD/DRY", None])
    ['GROCERY/CAT FOOD', '']
    """
    return ["/".join((path or "").split("/")[:CATEGORY_LEVELS]) for path in paths]


def segments_of(
    context: TrainingContext,
    start: datetime,
    one_ids: NDArray[np.str_],
    shares: tuple[float, float] = SEGMENT_SHARES,
    most: int = MAX_SEGMENTS,
) -> dict[str, NDArray[np.int64]]:
    """Find segments of customers who are defined by their behaviour in ``[start, as_of)``.

    Parameters
    ----------
    one_ids : str array, (n,)
        Customers of the profiles at `start`.
    shares : (float, float)
        Least and greatest share of all customers in a segment.
    most : int
        Number of categories, of all sizes between the shares.

    Returns
    -------
    dict of str to ndarray of int64
        Segment → rows of its customers in `one_ids`.
    """
    states = context.builder.states
    found: dict[str, NDArray[np.int64]] = {}
    people = IdMap(one_ids)

    def add(name: str, members: list[str]) -> None:
        rows = people.rows(members)
        rows = np.unique(rows[rows >= 0])
        rows = rows[~context.is_shared(one_ids[rows])]
        if len(rows) >= MIN_SEGMENT and shares[0] <= len(rows) / len(one_ids) <= shares[1]:
            found[name] = rows

    views = context.builder.views(context.as_of)
    if "events" in states and states["events"].rows:
        events = views["events"].filter(views["events"].event_type == "coupon_redeem")
        recent = events.filter(events.ts >= start).select("one_id").distinct().to_pyarrow()
        add(COUPONS, recent["one_id"].to_pylist())
    if (
        "items" in states
        and "category" in states["items"].filled
        and "transactions" in states
        and "item_id" in states["transactions"].filled
    ):
        rows = interaction_rows(context.builder, context.as_of, start)
        items = context.builder.backend.table("items").select("item_id", "category").to_pyarrow()
        names = category_names(items["category"].to_pylist())
        level = dict(zip(items["item_id"].to_pylist(), names, strict=True))
        members: dict[str, set[str]] = {}
        for one_id, item in zip(rows["one_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True):
            if level.get(item):
                members.setdefault(level[item], set()).add(one_id)
        eligible = sorted(
            (name for name, who in members.items() if shares[0] <= len(who) / len(one_ids) <= shares[1]),
            key=lambda name: (-len(members[name]), name),
        )
        # segments of all sizes, not only the largest
        places = np.linspace(0, len(eligible) - 1, most).astype(int).tolist() if eligible else []
        for name in dict.fromkeys(eligible[place] for place in places):
            add(name, sorted(members[name]))
    if not found and "transactions" in states and "amount" in states["transactions"].filled:
        paid = views["lines"].filter(views["lines"].ts >= start)
        spent = (
            paid.group_by("one_id")
            .aggregate(amount=paid.amount.sum())
            .to_pyarrow()
            .sort_by([("amount", "descending"), ("one_id", "ascending")])
        )
        add("top spenders", spent["one_id"].to_pylist()[: max(MIN_SEGMENT, len(one_ids) // 20)])
    return found
