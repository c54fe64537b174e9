"""A shop in which customers buy what is promoted, and plans are known ten days ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.interactions import TrainingSet
from features.promotions import ItemPromotions

N_USERS, N_ITEMS, DAYS = 120, 60, 168


def promotions_of(rows, n_items):
    """Promotions of (item, kind, start, end, known, reach), in days before the cutoff; a seventh value is replaced."""
    rows = sorted(rows, key=lambda row: (row[0], -row[2], row[1], row[3], -row[4]))
    names = tuple(sorted({row[1] for row in rows}))
    start, end, known, reach = (np.array([row[place] for row in rows], dtype=np.float32) for place in (2, 3, 4, 5))
    columns = start, end, known, np.array([[*row[6:], -np.inf][0] for row in rows], dtype=np.float32), reach
    kinds = np.array([names.index(row[1]) for row in rows], dtype=np.int16)
    return ItemPromotions(np.array([row[0] for row in rows], dtype=np.int32), kinds, *columns, names, n_items)


def shop(seed=0):
    """A training set with promotions, and what was bought in the 28 days after its end."""
    rng = np.random.default_rng(seed)
    lines, plans = [], []
    for begin in range(DAYS, -28, -28):  # begins of periods, in days before the end
        promoted = rng.permutation(N_ITEMS)[:6]
        plans += [(int(item), "mailer", begin - 5.0, begin - 25.0, begin + 10.0, 1.0) for item in promoted]
        for user in range(N_USERS):
            own = rng.integers(0, N_ITEMS, 2)
            bought = np.append(promoted[rng.random(6) < 0.4], own)
            lines += [(user, int(item), begin - rng.uniform(5, 25)) for item in bought]
    known = [plan for plan in plans if plan[4] > 0]
    users, items, ages = np.array(lines).T
    before, n = ages > 0, {"n_users": N_USERS, "n_items": N_ITEMS}
    train, after = (
        TrainingSet.from_arrays(
            users[kept].astype(int), items[kept].astype(int), **n, age_days=np.maximum(ages[kept], 0)
        )
        for kept in (before, ~before)
    )
    truth = after.interactions.matrix().sign()
    return replace(train, promotions=promotions_of(known, N_ITEMS)), truth
