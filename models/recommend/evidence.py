"""`Evidence`: facts that a model knows about a user and an item, from which reasons are written."""

from __future__ import annotations

from typing import TypedDict

# facts that hold whichever model ranked the item (`supports_purchase_evidence`); other facts are used only if the model
# that states them ranked it
PURCHASE_EVIDENCE = ("times", "last_days", "cycle_days", "own_cycle")


class Evidence(TypedDict, total=False):
    """Facts about a user and an item. Every fact is optional: a model states those that it knows."""

    times: int  # number of interactions of the user with the item (orders, days or events)
    last_days: float  # days since the last one; missing if interactions have no time
    cycle_days: float  # days between two purchases
    own_cycle: bool  # whether the cycle is mostly estimated from this user and this item
    expected_in_days: float  # cycle minus days since the last purchase; negative if overdue
    with_item: int  # column of the item that it goes with
    with_days: float  # days since the user interacted with that item; missing if it is a context item
    lift: float  # co-occurrence of the two in an order, relative to chance
    alike: dict[str, str]  # shared attributes with the item it is similar to; for the category, the shared levels
    instead_of: int  # column of the item that it is an upgrade of
    better: str  # "larger" or "better"
    price_ratio: float  # its price divided by that of the other item
    size_ratio: float  # its size divided by that of the other item; missing if not comparable
    topic: str  # topic of the content that the user prefers
    because: str  # "read" or "bought": how the user showed that preference
    often: str  # name of a category that the user often buys from; added by serving


def times_and_last(times: int, last_days: float, elapsed_days: float) -> Evidence:
    """Make evidence of the user's own interactions with the item.

    Parameters
    ----------
    times : int
        Number of interactions.
    last_days : float
        Days from the last interaction to the `as_of` of the fit; 0 if interactions have no time.
    elapsed_days : float
        Days from the `as_of` of the fit to the moment of the list.

    Examples
    --------
    >>> times_and_last(3, 2.0, 1.5), times_and_last(3, 0.0, 1.5)
    ({'times': 3, 'last_days': 3.5}, {'times': 3})
    """
    return {"times": times, "last_days": last_days + elapsed_days} if last_days > 0 else {"times": times}
