"""Repurchase rates: how often items are bought again in the next order, per item and per customer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.next_basket.orders import MIN_HALVINGS, Ints, Orders, scaled

Floats = NDArray[np.float32]
SHRINKAGE = 3.0  # weight of the prior of ρ_i, in shares, and of ρ_u, in expected purchases


def fit_rates(
    orders: Orders, target_orders: Ints, held: NDArray[np.bool_], half_life_days: float, fresh_half_life_days: float
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Estimate ρ_i and ρ_u of `NextBasketRecommender`.

    Parameters
    ----------
    orders : Orders
        All orders.
    target_orders : ndarray of int64, (r,)
        Orders to predict from the orders before them.
    held : ndarray of bool, (r,)
        Target orders that are left out of the first estimate.
    half_life_days, fresh_half_life_days : float
        As in `NextBasketRecommender`.

    Returns
    -------
    earlier, whole : tuple of (item rates, customer rates)
        Estimates from the target orders that are not `held`, and from all.
    """
    n_users, n_items = len(orders.starts) - 1, orders.baskets.shape[1]
    expected, observed = np.zeros((2, n_items)), np.zeros((2, n_items))  # row 0: held orders, row 1: the others
    fresh = np.exp2(np.maximum(-orders.ages[target_orders] / fresh_half_life_days, MIN_HALVINGS))
    for rows in orders.blocks(target_orders):
        shares, again = shares_before(orders, target_orders[rows], half_life_days)
        for part in (0, 1):
            weights = np.where(held[rows] == (part == 0), fresh[rows], 0.0)
            expected[part] += shares.T @ weights
            observed[part] += again.T @ weights
    items = []
    for parts in ((1,), (0, 1)):
        shares_of, times = sum(expected[part] for part in parts), sum(observed[part] for part in parts)
        overall = (times.sum() + 1.0) / (shares_of.sum() + 2.0)
        items.append((times + SHRINKAGE * overall) / (shares_of + SHRINKAGE))
    expected, observed = np.zeros((2, n_users)), np.zeros((2, n_users))  # row 0: without held orders, row 1: all
    for rows in orders.blocks(target_orders):
        shares, again = shares_before(orders, target_orders[rows], half_life_days)
        owners, times = orders.owners[target_orders[rows]], np.asarray(again.sum(axis=1)).ravel()
        for level, counted in enumerate((~held[rows], np.ones(len(rows), dtype=bool))):
            expected[level] += np.bincount(owners, np.where(counted, shares @ items[level], 0.0), minlength=n_users)
            observed[level] += np.bincount(owners, np.where(counted, times, 0.0), minlength=n_users)
    customers = (observed + SHRINKAGE) / (expected + SHRINKAGE)
    earlier, whole = ((items[level].astype(np.float32), customers[level].astype(np.float32)) for level in (0, 1))
    return earlier, whole


def shares_before(
    orders: Orders, target_orders: Ints, half_life_days: float
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return the shares s of the customers before these orders, (r, n_items), and 1 where the order repeats an item."""
    counts, n_orders = orders.sums(
        orders.starts[orders.owners[target_orders]], target_orders, orders.ages[target_orders], half_life_days
    )
    shares = scaled(counts, 1.0 / (1.0 + n_orders))
    interacted = shares.copy()
    interacted.data = np.ones_like(interacted.data)
    return shares, interacted.multiply(orders.baskets[target_orders]).tocsr()
