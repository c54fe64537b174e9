"""`Evidence`: what a model knows about a user and an item; the reasons of a recommendation are written from it."""

from __future__ import annotations

from typing import TypedDict


class Evidence(TypedDict, total=False):
    """Facts about a user and an item. A model fills the fields that it knows; every field may be missing."""

    times: int  # how often the user interacted with the item: orders, days or interactions
    last_days: float  # days since the last interaction; missing where the data have no time
    cycle_days: float  # days between two purchases
    own_cycle: bool  # whether the cycle mostly comes from this user's purchases of this item
    expected_in_days: float  # the cycle minus the days since the last purchase; negative when overdue
    with_item: int  # the item that this item is bought together with
    with_days: float  # days since the user bought `with_item`; missing where it is a context item of the request
    lift: float  # observed over expected frequency of the two items in one order
    alike: dict[str, str]  # attributes shared with the similar item; for the category, the shared levels
    instead_of: int  # the item that this item is an upgrade of
    better: str  # kind of upgrade: "larger" or "better"
    price_ratio: float  # price of this item over that of `instead_of`
    size_ratio: float  # size of this item over that of `instead_of`; missing where the sizes do not compare
    topic: str  # topic of a content that the user prefers
    because: str  # whether the user "read" or "bought" items of that topic
    often: str  # name of an item group that the user often buys from; added in serving


def times_and_last(times: int, last_days: float, elapsed_days: float) -> Evidence:
    """Return evidence of earlier purchases of the item by the user.

    Parameters
    ----------
    times : int
        Number of purchases.
    last_days : float
        Days from the last purchase to the `as_of` of the fit; 0 where the data have no time.
    elapsed_days : float
        Days from the `as_of` of the fit to now.

    Examples
    --------
    >>> times_and_last(3, 2.0, 1.5), times_and_last(3, 0.0, 1.5)
    ({'times': 3, 'last_days': 3.5}, {'times': 3})
    """
    return {"times": times, "last_days": last_days + elapsed_days} if last_days > 0 else {"times": times}
