"""Whether planned promotions tell what sold: a table made from the sales knows the answer that models must predict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.compute.builder import Builder
from training.holdout import HoldoutSplit

MIN_ITEMS = 20  # sold, unsold or planned items; fewer tell nothing
NEARLY_ALL, NEARLY_NONE = 0.9, 0.1
ASLEEP_SOLD = 0.9  # share of the promoted items nobody bought before that sell in the period
FIX = (
    "if the table was made from the sales, the models learn from the answer and do worse in use than measured: export "
    "the promotions as they were planned, with those that did not sell, and the time of the plan in `known_at`; or "
    "leave the table out"
)


def planned_items(split: HoldoutSplit, horizon_days: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which items are planned to go on promotion in a held-out period, and which sell in it, each (n_items,)."""
    train = split.train
    is_planned = np.zeros(train.n_items, dtype=bool)
    if train.promotions is not None:
        promotions = train.promotions.current()
        begin = (promotions.start_days <= 0) & (promotions.start_days > -horizon_days)
        is_planned[promotions.items[begin]] = True
    return is_planned, np.bincount(split.holdout.items, minlength=train.n_items) > 0


def promotion_notes(builder: Builder, split: HoldoutSplit, horizon_days: float) -> tuple[str, ...]:
    """Say what is odd about the promotions that were planned for a held-out period; nothing without the table.

    A plan is suspicious if it names nearly every item that sold and nearly none that did not, or if nearly every item
    it names sold although nobody had bought the item in as many days before.

    Parameters
    ----------
    split : HoldoutSplit
        Training data, with the promotions known at its end, and the interactions of the period after it.
    horizon_days : float
        Length of the period.
    """
    state = builder.states.get("promotions")
    if state is None or not state.rows:
        return ()
    train, promotions = split.train, split.train.promotions
    if promotions is None or not len(promotions):
        return (
            f"promotions: none of the {state.rows:,} was known before {train.as_of:%Y-%m-%d}, so nothing could be "
            "learnt from them: check that `known_at` is the time of the plan and not that of the export",
        )
    is_planned, is_sold = planned_items(split, horizon_days)
    lately = train.interactions.items[train.interactions.age_days <= horizon_days]
    asleep = is_planned & (np.bincount(lately, minlength=train.n_items) == 0)
    found = []
    if min(is_sold.sum(), (~is_sold).sum()) >= MIN_ITEMS:
        named, others = is_planned[is_sold].mean(), is_planned[~is_sold].mean()
        if named >= NEARLY_ALL and others <= NEARLY_NONE:
            found.append(f"name {named:.0%} of the items that sold and {others:.0%} of those that did not")
    if asleep.sum() >= MIN_ITEMS and (share := is_sold[asleep].mean()) >= ASLEEP_SOLD:
        found.append(
            f"name {asleep.sum():,} items nobody had bought for {horizon_days:g} days, of which {share:.0%} sold"
        )
    if not found:
        return ()
    return (f"warning: the promotions planned for {split.period} {' and '.join(found)}: {FIX}",)
