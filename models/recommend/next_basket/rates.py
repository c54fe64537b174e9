"""How often what was bought is bought again in the next order: a rate of each item and of each customer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.next_basket.orders import FEWEST_HALVINGS, Ints, Orders, scaled

Floats = NDArray[np.float32]
SHRINKAGE = 3.0  # of ρ_i in shares, of ρ_u in expected purchases


def fit_rates(
    orders: Orders, answers: Ints, held: NDArray[np.bool_], half_life_days: float, fresh_half_life_days: float
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """ρ_i and ρ_u from the orders `answers` that are not `held`, and from all; see `NextBasketRecommender`."""
    n_users, n_items = len(orders.starts) - 1, orders.baskets.shape[1]
    expected, happened = np.zeros((2, n_items)), np.zeros((2, n_items))  # of the held, of the others
    fresh = np.exp2(np.maximum(-orders.ages[answers] / fresh_half_life_days, FEWEST_HALVINGS))
    for rows in orders.blocks(answers):
        shares, again = shares_before(orders, answers[rows], half_life_days)
        for part in (0, 1):
            weights = np.where(held[rows] == (part == 0), fresh[rows], 0.0)
            expected[part] += shares.T @ weights
            happened[part] += again.T @ weights
    items = []
    for parts in ((1,), (0, 1)):
        shares_of, times = sum(expected[part] for part in parts), sum(happened[part] for part in parts)
        usual = (times.sum() + 1.0) / (shares_of.sum() + 2.0)
        items.append((times + SHRINKAGE * usual) / (shares_of + SHRINKAGE))
    expected, happened = np.zeros((2, n_users)), np.zeros((2, n_users))  # with the rates of the others, of all
    for rows in orders.blocks(answers):
        shares, again = shares_before(orders, answers[rows], half_life_days)
        owners, times = orders.owners[answers[rows]], np.asarray(again.sum(axis=1)).ravel()
        for level, counted in enumerate((~held[rows], np.ones(len(rows), dtype=bool))):
            expected[level] += np.bincount(owners, np.where(counted, shares @ items[level], 0.0), minlength=n_users)
            happened[level] += np.bincount(owners, np.where(counted, times, 0.0), minlength=n_users)
    customers = (happened + SHRINKAGE) / (expected + SHRINKAGE)
    earlier, whole = ((items[level].astype(np.float32), customers[level].astype(np.float32)) for level in (0, 1))
    return earlier, whole


def shares_before(orders: Orders, answers: Ints, half_life_days: float) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """s of the customers just before these orders, (r, n_items), and 1 where the order has what they had."""
    counts, n_orders = orders.sums(orders.starts[orders.owners[answers]], answers, orders.ages[answers], half_life_days)
    shares = scaled(counts, 1.0 / (1.0 + n_orders))
    had = shares.copy()
    had.data = np.ones_like(had.data)
    return shares, had.multiply(orders.baskets[answers]).tocsr()
