"""Promotions of an item, past and planned, and how customers respond to them: features of the ranker.

Everything is computed from what is known at a moment (`ItemPromotions`): at the earlier cutoffs of training, at the
time of the fit, and, of the plans that a model carries, at the moment of a request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from features.promotions import ARRAYS, ItemPromotions
from models.persist import Arrays
from models.recommend.ranking.item_sums import BLOCK_LINES
from models.recommend.sampling import customer_blocks

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PAST_DAYS = 28.0  # of past promotions
PLANNED_DAYS = 28.0  # of planned ones
MAX_KINDS = 4  # with features of their own, the most frequent; all kinds together have features besides
ALL = "promoted"
ITEM = ("past_share", "days_since", "reach_now", "planned_share", "days_until")
KINDS_PLANNED = "promoted_kinds_planned"
RESPONSE = "user_share"  # mean reach of the promotions of what the customer bought, at the time of the purchase


def promotion_kinds(train: TrainingSet) -> tuple[str, ...] | None:
    """The kinds with features of their own; none if there is only one, and None for a training set without promotions.

    A shop without promotions has no features of them.
    """
    promotions = train.promotions
    if promotions is None or not len(promotions):
        return None
    # in an order that does not change with the cutoff, so that rankers of several cutoffs share their examples
    return tuple(sorted(promotions.kind_names[:MAX_KINDS])) if len(promotions.kind_names) > 1 else ()


def promotion_feature_names(kinds: Sequence[str] | None) -> list[str]:
    """The names of the columns of `PlannedPromotions.features`, none without promotions.

    Examples
    --------
    >>> both = promotion_feature_names(("mailer", "display"))
    >>> promotion_feature_names(())[:2], len(both), promotion_feature_names(None)
    (['promoted_past_share', 'promoted_days_since'], 19, [])
    """
    if kinds is None:
        return []
    # XGBoost refuses some characters in the name of a feature
    plain = [re.sub(r"[\[\]<]", "_", kind) for kind in kinds]
    levels = [ALL, *(f"{ALL}_{place}_{kind}" for place, kind in enumerate(plain))]
    names = [f"{level}_{name}" for level in levels for name in (*ITEM, RESPONSE)]
    return [*names, KINDS_PLANNED] if kinds else names


@dataclass(frozen=True)
class PlannedPromotions:
    """The promotions that a ranker reads, and the response of customers to promotions.

    Attributes
    ----------
    promotions : ItemPromotions or None
        Those known at the fit that had not ended before the past days, or those of the lake; None if no promotion was
        known at an earlier cutoff.
    kinds : tuple of str
        Kinds with columns of their own.
    response : ndarray of float32, (n_users, 1 + kinds)
        Mean reach of the promotions of the items that each customer bought, NaN without purchases.
    """

    promotions: ItemPromotions | None
    kinds: tuple[str, ...]
    response: Floats

    @classmethod
    def of(cls, promotions: ItemPromotions | None, kinds: tuple[str, ...], lines: Interactions) -> PlannedPromotions:
        """Compute the response of the customers of `lines`."""
        n = lines.shape[0]
        counts, reach = np.bincount(lines.users, minlength=n), np.zeros((n, 1 + len(kinds)))
        if promotions is not None:
            current = promotions.current()
            levels = [current.reach_at(_code(current, kind)) for kind in (None, *kinds)]
            for customers in customer_blocks(lines.users, BLOCK_LINES):
                users, items, ages = lines.users[customers], lines.items[customers], lines.age_days[customers]
                for place, level in enumerate(levels):
                    reach[:, place] += np.bincount(users, level(items, ages), minlength=n)
        response = np.where(counts > 0, reach.T / np.maximum(counts, 1), np.nan).T
        carried = None if promotions is None else promotions.not_ended(PAST_DAYS)
        return cls(carried, kinds, response.astype(np.float32))

    def features(self, users: Ints, ids: Ints, elapsed_days: float = 0.0) -> Floats:
        """Compute the columns of `promotion_feature_names` for (customer, item) pairs, (m, width).

        Parameters
        ----------
        users, ids : ndarray of int64, (m,)
            Row of `response`, −1 for a customer without one, and the item.
        elapsed_days : float
            Days from the cutoff of the promotions to now: what became known since counts, and time has passed.
        """
        wanted, place = np.unique(ids, return_inverse=True)
        known = self._known(wanted, elapsed_days)
        response = self.response[users] if len(self.response) else np.full((len(users), 1 + len(self.kinds)), np.nan)
        response = np.where((users >= 0)[:, None], response, np.nan)
        columns, planned = list[NDArray[np.floating]](), np.zeros(len(wanted))
        for level, kind in enumerate((None, *self.kinds)):
            code = _code(self.promotions, kind)
            table = _item_columns(known if code is None else known.where(known.kinds == code), len(wanted))
            if kind is not None:
                planned += table[:, ITEM.index("planned_share")] > 0
            columns += [table[place], response[:, [level]]]
        if self.kinds:
            columns.append(planned[place][:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)

    def _known(self, wanted: Ints, elapsed_days: float) -> ItemPromotions:
        """The promotions of some items that are known now, with their places in `wanted` as item numbers."""
        promotions = self.promotions
        if promotions is None:
            nothing = np.empty(0, np.float32)
            empty = (np.empty(0, np.int32), np.empty(0, np.int16))
            return ItemPromotions(*empty, nothing, nothing, nothing, nothing, nothing, (), len(wanted))
        first, last = (np.searchsorted(promotions.items, wanted, side=side) for side in ("left", "right"))
        counts = last - first
        at = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        chosen = promotions.where(at)
        owners = np.repeat(np.arange(len(wanted), dtype=np.int32), counts)
        columns = {name: getattr(chosen, name) for name in ARRAYS} | {"items": owners}
        known = ItemPromotions(**columns, kind_names=promotions.kind_names, n_items=len(wanted)).later(elapsed_days)
        return known.current()

    # ---- persistence ---------------------------------------------------------------------------------------------

    def state(self) -> Arrays:
        """Return the arrays by name, for a saved model."""
        given = {"promotions_kinds": np.asarray(self.kinds, dtype=np.str_), "promotions_response": self.response}
        if self.promotions is None:
            return given
        arrays = {f"promotions_of_{name}": getattr(self.promotions, name) for name in ARRAYS}
        names = {"promotions_names": np.asarray(self.promotions.kind_names, dtype=np.str_)}
        return {**given, **arrays, **names}

    @classmethod
    def restored(cls, state: Arrays, n_items: int) -> PlannedPromotions | None:
        """Read the arrays of `state`; None for a model without promotions."""
        if "promotions_kinds" not in state:
            return None
        promotions = None
        if "promotions_names" in state:
            arrays = {name: state[f"promotions_of_{name}"] for name in ARRAYS}
            names = tuple(state["promotions_names"].tolist())
            promotions = ItemPromotions(**arrays, kind_names=names, n_items=n_items)
        return cls(promotions, tuple(state["promotions_kinds"].tolist()), state["promotions_response"])


def promotion_columns(planned: PlannedPromotions | None, users: Ints, ids: Ints, elapsed_days: float = 0.0) -> Floats:
    """`PlannedPromotions.features`, or no columns where there are none."""
    if planned is None:
        return np.empty((len(ids), 0), dtype=np.float32)
    return planned.features(users, ids, elapsed_days)


def _code(promotions: ItemPromotions | None, kind: str | None) -> int | None:
    """Index of a kind in promotions, −1 if they lack it; None for all kinds."""
    if kind is None:
        return None
    return promotions.kind_names.index(kind) if promotions is not None and kind in promotions.kind_names else -1


def _item_columns(known: ItemPromotions, n: int) -> NDArray[np.float64]:
    """Compute `ITEM` for items 0 … n − 1, (n, 5); NaN for days of a promotion that is not known.

    Shares and reach are those of all promotions together, at most 1.
    """
    items, reach = known.items, known.reach.astype(np.float64)
    start, end = known.start_days.astype(np.float64), known.end_days.astype(np.float64)
    past = np.clip(np.minimum(start, PAST_DAYS) - np.maximum(end, 0.0), 0.0, None) * reach
    planned = np.clip(np.minimum(start, 0.0) - np.maximum(end, -PLANNED_DAYS), 0.0, None) * reach
    runs, begins = (start >= 0) & (end < 0), (start < 0) & (start > -PLANNED_DAYS)
    over = (end >= 0) & (end <= PAST_DAYS)
    days_since, days_until, now = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
    np.fmin.at(days_since, items[over], end[over])
    days_since[items[runs]] = 0.0
    np.fmin.at(days_until, items[begins], -start[begins])
    days_until[items[runs]] = 0.0
    np.add.at(now, items[runs], reach[runs])
    shares = [
        np.minimum(np.bincount(items, days, minlength=n) / length, 1.0)
        for days, length in ((past, PAST_DAYS), (planned, PLANNED_DAYS))
    ]
    return np.column_stack([shares[0], days_since, np.minimum(now, 1.0), shares[1], days_until])
