"""`Evidence`: what a model knows of a user and an item, from which the reasons of a recommendation are written."""

from __future__ import annotations

from typing import TypedDict


class Evidence(TypedDict, total=False):
    """Facts about a user and an item. A model gives those that it knows; every one may be missing."""

    times: int  # how often the user interacted with the item: orders, days or interactions
    last_days: float  # days since the last time; missing where the data have no time
    cycle_days: float  # days between two purchases
    own_cycle: bool  # the cycle is mostly that of this user with this item
    expected_in_days: float  # the cycle less the days since the last purchase; negative when overdue
    with_item: int  # the item that it goes with
    with_days: float  # days since the user had that one; missing where the request named it
    lift: float  # how many times as often the two are in one order as by chance
    alike: dict[str, str]  # attributes that it shares with the item it is similar to; of the category the shared levels
    instead_of: int  # the item that it is an upgrade of
    better: str  # how: "larger" or "better"
    price_ratio: float  # its price over that of the other item
    size_ratio: float  # its size over that of the other item; missing where the sizes do not compare
    topic: str  # what a content is about that the user prefers
    because: str  # whether the user "read" or "bought" of that topic
    often: str  # name of a group of items that the user often buys from; added in serving


def times_and_last(times: int, last_days: float, elapsed_days: float) -> Evidence:
    """Evidence of own purchases.

    Parameters
    ----------
    last_days : float
        Days from the last one to the `as_of` of the fit; 0 where the data have no time.
    elapsed_days : float
        Days from the `as_of` of the fit to now.

    Examples
    --------
    >>> times_and_last(3, 2.0, 1.5), times_and_last(3, 0.0, 1.5)
    ({'times': 3, 'last_days': 3.5}, {'times': 3})
    """
    return {"times": times, "last_days": last_days + elapsed_days} if last_days > 0 else {"times": times}
