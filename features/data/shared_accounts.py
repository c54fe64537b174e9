"""Shared accounts: a till's walk-in account or a guest account looks like one customer, but many people buy with it.

The account is real and so are its orders: models still learn from them which items are bought together. But it is no
customer who can churn, or who resembles anybody. One rule says which accounts these are, at ingest and in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_CUSTOMERS = 20  # of fewer customers, a large one is no surprise
TIMES_P95 = 10.0  # an account has at least this many times the lines of the 95th percentile of all customers
ORDERS_PER_DAY = 2.0  # and places at least this many orders on a mean day with orders


@dataclass(frozen=True)
class SharedAccount:
    """A customer whose rows cannot be those of one person.

    Attributes
    ----------
    one_id, user_id : str
        The customer, and its id in a source; at ingest, where customers are not resolved yet, both are that id.
    lines : int
        Number of its rows.
    share : float
        Share of the rows of all customers.
    orders_per_day : float or None
        Orders per day with orders; None if that is not known.
    """

    one_id: str
    user_id: str
    lines: int
    share: float
    orders_per_day: float | None

    @property
    def text(self) -> str:
        """Why the account is no single customer."""
        rate = "" if self.orders_per_day is None else f", {self.orders_per_day:.1f} orders a day"
        return f"shared account: {self.share:.0%} of all order lines{rate}"


def find_shared_accounts(
    customers: Sequence[str],
    lines: NDArray[np.float64],
    min_share: float,
    orders_per_day: Callable[[Sequence[str]], Mapping[str, float]] | None,
) -> list[SharedAccount]:
    """Find the customers whose rows cannot be those of one person, largest first.

    Such a customer has more than `min_share` of the rows, at least `TIMES_P95` times as many as 95 % of the customers,
    and at least `ORDERS_PER_DAY` orders on a day with orders.

    Parameters
    ----------
    customers : sequence of str, shape (n,)
    lines : float64 array, shape (n,)
        Number of rows of each customer.
    min_share : float
        `identity.shared_account_share` of the settings.
    orders_per_day : callable or None
        Gives the orders per day with orders of some customers; None if the rows have no orders or no times, so that
        the number of rows decides alone.

    Examples
    --------
    >>> lines = np.array([2.0] * 40 + [50.0])
    >>> people = [f"c{number}" for number in range(40)]
    >>> [account.text for account in find_shared_accounts([*people, "guest"], lines, 0.02, lambda some: {"guest": 6.0})]
    ['shared account: 38% of all order lines, 6.0 orders a day']
    """
    if len(lines) < MIN_CUSTOMERS:
        return []
    most = np.quantile(lines, 0.95, method="lower")  # of a real customer, also where 5 % are a fraction of one
    large = (lines > min_share * lines.sum()) & (lines >= TIMES_P95 * most)
    counts = {customers[at]: lines[at] for at in np.flatnonzero(large).tolist()}
    rates = orders_per_day(list(counts)) if counts and orders_per_day is not None else {}
    found = [
        SharedAccount(customer, customer, int(count), float(count / lines.sum()), rates.get(customer))
        for customer, count in counts.items()
        if orders_per_day is None or rates[customer] >= ORDERS_PER_DAY
    ]
    return sorted(found, key=lambda account: (-account.share, account.one_id))
