"""Slices of the evaluated customers by activity: new, asleep, light and heavy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from features.profiles.lifecycle import LONG_GAPS
from features.profiles.purchase_process.process import typical_gap_days
from qianmian.model_settings import LifecycleSettings

Mask = NDArray[np.bool_]


def activity_slices(
    history: Interactions, users: NDArray[np.int64], settings: LifecycleSettings | None = None
) -> dict[str, Mask]:
    """Split customers into slices by number and recency of orders. Each customer is in the first slice that applies:

    - **new**: at most one order, or the first order at most `new_days` before the cutoff.
    - **asleep**: the last order is at least `LONG_GAPS` own gaps ago; the own gap is the mean gap between the orders,
      pooled with one typical gap of the shop (`features.profiles.purchase_process`).
    - **light**, **heavy**: the other customers, with at most, or more than, their median number of orders.

    Without timestamps no customer is asleep. Without order ids, the interactions of a customer at one time are one
    order; without both, each interaction is one.

    Parameters
    ----------
    history : Interactions
        Interactions before the cutoff; ages count back from it.
    users : ndarray of int64, shape (n,)
        User indices of `history`; −1 for an unknown user.
    settings : LifecycleSettings, optional

    Returns
    -------
    dict of str to ndarray of bool, shape (n,)
        ``new``, ``asleep``, ``light`` and ``heavy``.

    Examples
    --------
    >>> from features.interactions import TrainingSet
    >>> ages = [20.0, 90.0, 190.0, 180.0, 2.0, 1.0, 9.0, 16.0, 9.0, 16.0, 37.0]
    >>> data = TrainingSet.from_arrays([0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 4], [0] * 11, n_users=5, n_items=1, age_days=ages)
    >>> {name: np.flatnonzero(held).tolist() for name, held in activity_slices(data.interactions, np.arange(5)).items()}
    {'new': [2, 3], 'asleep': [1], 'light': [0], 'heavy': [4]}
    """
    rules = settings or LifecycleSettings()
    orders, first, last = _orders(history)
    count = np.append(orders, 0)[users]
    new = count <= 1
    asleep = np.zeros(len(users), dtype=bool)
    if history.age_days.any():
        oldest, youngest = np.append(first, 0.0)[users], np.append(last, 0.0)[users]
        several = orders > 1
        typical = typical_gap_days((first - last)[several] / (orders[several] - 1), rules)
        own = (typical + oldest - youngest) / np.maximum(count, 1)
        new |= oldest <= rules.new_days
        asleep = ~new & (youngest >= LONG_GAPS * own)
    rest = ~new & ~asleep
    heavy = rest & (count > (np.median(count[rest]) if rest.any() else 0))
    return {"new": new, "asleep": asleep, "light": rest & ~heavy, "heavy": heavy}


def _orders(history: Interactions) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of orders of each user, age of the first and age of the last one in days, each of shape (n_users,)."""
    n_users = history.shape[0]
    users = history.users.astype(np.int64)
    if history.orders is not None:
        of = history.orders.astype(np.int64)
    elif history.age_days.any():
        of = np.unique(history.age_days, return_inverse=True)[1].astype(np.int64)
    else:
        of = np.arange(len(users))
    width = int(of.max(initial=0)) + 1
    keys = np.sort(users * width + of)  # several times faster than np.unique
    orders = np.bincount(keys[np.diff(keys, prepend=-1) > 0] // width, minlength=n_users)
    first, last = np.zeros(n_users), np.full(n_users, np.inf)
    np.maximum.at(first, users, history.age_days.astype(np.float64))
    np.minimum.at(last, users, history.age_days.astype(np.float64))
    return orders, first, np.where(np.isfinite(last), last, 0.0)
