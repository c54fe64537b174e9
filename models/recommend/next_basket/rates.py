"""How often what was bought is bought again in the next order: a rate of each item and of each customer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.next_basket.orders import MIN_HALVINGS, Ints, Orders, scaled

Floats = NDArray[np.float32]
SHRINKAGE = 3.0  # of ρ_i in shares, of ρ_u in expected purchases


def fit_rates(
    orders: Orders, target_orders: Ints, held: NDArray[np.bool_], half_life_days: float, fresh_half_life_days: float
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """ρ_i and ρ_u from the orders `target_orders` that are not `held`, and from all; see `NextBasketRecommender`."""
    n_users, n_items = len(orders.starts) - 1, orders.baskets.shape[1]
    expected, observed = np.zeros((2, n_items)), np.zeros((2, n_items))  # of the held, of the others
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
        usual = (times.sum() + 1.0) / (shares_of.sum() + 2.0)
        items.append((times + SHRINKAGE * usual) / (shares_of + SHRINKAGE))
    expected, observed = np.zeros((2, n_users)), np.zeros((2, n_users))  # with the rates of the others, of all
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
    """s of the customers just before these orders, (r, n_items), and 1 where the order has what they had."""
    counts, n_orders = orders.sums(
        orders.starts[orders.owners[target_orders]], target_orders, orders.ages[target_orders], half_life_days
    )
    shares = scaled(counts, 1.0 / (1.0 + n_orders))
    interacted = shares.copy()
    interacted.data = np.ones_like(interacted.data)
    return shares, interacted.multiply(orders.baskets[target_orders]).tocsr()
