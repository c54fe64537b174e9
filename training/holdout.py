"""Validation and test data of `train recommend`: the last periods before `as_of`, or a random split of undated data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.encoded_rows import text_codes
from features.id_map import IdMap
from features.interaction_arrays import distinct_customers
from features.interaction_types import ANY
from features.interactions import Interactions, TrainingSet
from features.training_data import interaction_rows, interactions_from_rows, target_tables
from qianmian.errors import DataError
from training.evaluation.protocols import hold_out, sort_items_by_popularity
from training.jobs.base import TrainingContext
from training.tasks.base import MIN_EXAMPLES

NO_START = datetime(1, 1, 1)
HOLDOUT_SHARE = 0.1  # share of each customer's items, for undated interactions
MIN_ITEM_CUSTOMERS = (5, 3, 2, 1)  # a rarer item costs time and memory, and its statistics are noise
MAX_LEFT_OUT = 0.1  # share of the purchases of known items that may be left out


@dataclass(frozen=True)
class HoldoutSplit:
    """Training data and the interactions that are held out of it.

    Attributes
    ----------
    train : TrainingSet
        Data up to the cutoff.
    holdout : Interactions
        Held-out interactions of the customers and items of `train`.
    period : str
        Description of the held-out period.
    start : datetime
        Start of the held-out period; `NO_START` for undated interactions.
    """

    train: TrainingSet
    holdout: Interactions
    period: str
    start: datetime


class HoldoutSplitter:
    """Makes the test split and the validation split.

    Dated interactions are split in time: the last horizon before `as_of` is the test period, the horizon before it the
    validation period. Models see nothing of the period they are evaluated on, nor anything later. Undated interactions
    are split at random: a tenth of each customer's items is test data, and a tenth of the rest is validation data (as
    in Wang et al. 2019, NGCF). Profile features are then left out, because they could contain held-out interactions.

    Attributes
    ----------
    horizon_days : int or None
        Length of a period in days; None for undated interactions.
    min_item_customers : int
        Items with fewer customers are left out: that of the settings, or the one that fits the data
        (`fitting_min_item_customers`).

    Raises
    ------
    DataError
        If the history is too short to hold out two periods.
    """

    def __init__(self, context: TrainingContext) -> None:
        self._context = context
        self._tables = tables = target_tables(context.builder, context.as_of, context.target.name)
        dated = any(context.builder.states[table].begin is not None for table in tables)
        self.horizon_days = _horizon_days(context, tables) if dated else None
        self._history = "" if self.horizon_days is None else _history_text(context, tables)
        self.min_item_customers = context.settings.recommend.min_item_customers or self._fitting_min_item_customers()
        self._made: dict[int, HoldoutSplit] = {}
        found = context.target.counts[context.target.name].evaluable
        if found >= MIN_EXAMPLES and self.min_item_customers > 1:
            self._history += f"; with items of any number of customers, {found:,} could be evaluated"

    def test(self) -> HoldoutSplit:
        """The test split.

        Raises
        ------
        DataError
            If it has too few customers.
        """
        if self.horizon_days is None:
            return _random_split(self._full_training_set(), self._context.settings.seed)
        return self._window_split(1, with_features=True)

    @property
    def validation_periods(self) -> int:
        """Number of validation splits before the test split that leave two horizons of training data, at least one."""
        if self.horizon_days is None:
            return 1
        span = (self._context.as_of - self._context.history_start(*self._tables)).days
        return max(1, span // self.horizon_days - 3)

    def validation(self, back: int = 1, *, with_features: bool = True) -> HoldoutSplit:
        """The validation split that is `back` horizons before the test split; it contains nothing of later splits.

        Parameters
        ----------
        back : int
            1 is the period that ends where the test period begins.
        with_features : bool
            Whether its training set has profile features.
        """
        if back not in self._made:
            if self.horizon_days is None:
                seed = self._context.settings.seed
                self._made[back] = _random_split(_random_split(self._full_training_set(), seed).train, seed + back)
            else:
                self._made[back] = self._window_split(1 + back, with_features=with_features)
        return self._made[back]

    def free(self, back: int) -> None:
        """Free a validation split that was made, with the models that were fitted on it."""
        self._made.pop(back, None)

    def _fitting_min_item_customers(self) -> int:
        """The choice of `fitting_min_item_customers` on the last validation period; the largest for undated data."""
        if self.horizon_days is None:
            return MIN_ITEM_CUSTOMERS[0]
        context, horizon = self._context, timedelta(days=self.horizon_days)
        start, target = context.as_of - 2 * horizon, context.target.name
        # an item is known by interactions of any type
        before = interaction_rows(context.builder, start, target=ANY)
        after = interaction_rows(context.builder, start + horizon, start, target=target)
        (owners, of), (ids, items) = text_codes(before["one_id"]), text_codes(before["item_id"])
        customers = distinct_customers(of, items, (len(owners), len(ids)))
        item, owner = IdMap(ids.to_pylist()).rows(after["item_id"]), text_codes(after["one_id"])[1].astype(np.int64)
        pairs = np.unique((owner * len(ids) + item)[item >= 0])
        found = fitting_min_item_customers(customers[pairs % len(ids)])
        if found != MIN_ITEM_CUSTOMERS[0]:
            needed = "1 customer" if found == 1 else f"{found} customers"
            context.progress(f"recommend: an item needs {needed}; a larger minimum would leave out too many purchases")
        return found

    def _full_training_set(self) -> TrainingSet:
        return self._training_set(self._context.as_of, with_features=False)

    def _training_set(self, as_of: datetime, *, with_features: bool) -> TrainingSet:
        return self._context.training_set(
            as_of, min_item_customers=self.min_item_customers, with_features=with_features
        )

    def _window_split(self, horizons_back: int, *, with_features: bool) -> HoldoutSplit:
        """The split whose held-out period begins `horizons_back` horizons before `as_of`."""
        assert self.horizon_days is not None
        end = self._context.as_of - timedelta(days=(horizons_back - 1) * self.horizon_days)
        start = end - timedelta(days=self.horizon_days)
        train = self._training_set(start, with_features=with_features)
        period = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        return _require_enough_customers(
            HoldoutSplit(train, interactions_between(self._context, train, start, end), period, start), self._history
        )


def fitting_min_item_customers(customers: NDArray[np.int64]) -> int:
    """The largest of `MIN_ITEM_CUSTOMERS` that leaves out at most `MAX_LEFT_OUT` of the later purchases of known items.

    Parameters
    ----------
    customers : ndarray of int64, shape (m,)
        For each (customer, item) pair of the validation period, the customers of the item before it; 0 for an item
        that no customer had, which no setting can recommend.

    Examples
    --------
    >>> fitting_min_item_customers(np.array([9] * 95 + [1] * 5)), fitting_min_item_customers(np.array([9, 9, 2, 1, 0]))
    (5, 1)
    """
    known = customers[customers > 0]
    for least in MIN_ITEM_CUSTOMERS:
        if not len(known) or float(np.mean(known < least)) <= MAX_LEFT_OUT:
            return least
    return MIN_ITEM_CUSTOMERS[-1]


def interactions_between(context: TrainingContext, train: TrainingSet, start: datetime, end: datetime) -> Interactions:
    """Interactions of the target by a training set's customers with its items in ``[start, end)``.

    Ages count back from `end`.
    """
    rows = interaction_rows(context.builder, end, start, target=train.target)
    users, items = IdMap(train.user_ids).rows(rows["one_id"]), IdMap(train.item_ids).rows(rows["item_id"])
    held = interactions_from_rows(rows, users, items, (train.n_users, train.n_items))
    return held if train.target == ANY else replace(held, types=None)


def _horizon_days(context: TrainingContext, tables: Sequence[str]) -> int:
    wanted = context.horizon_days or context.settings.recommend.horizon_days
    span = (context.as_of - context.history_start(*tables)).days
    # a short history gets shorter periods, so that at least half of it is training data
    horizon = min(wanted, span // 4)
    if horizon < 1:
        raise DataError(
            "the history is too short to hold out a validation and a test period",
            where=" and ".join(tables),
            got=f"{span} days",
            allowed="at least 4 days",
            hint=f"ingest a longer history; periods of {wanted} days take {4 * wanted} days",
        )
    return horizon


def _history_text(context: TrainingContext, tables: Sequence[str]) -> str:
    """How long the history is, and how long it has to be for periods of the full length; for an error message."""
    wanted = context.horizon_days or context.settings.recommend.horizon_days
    span = (context.as_of - context.history_start(*tables)).days
    return f"; the history has {span} days, and periods of {wanted} days take {4 * wanted}"


def _random_split(data: TrainingSet, seed: int) -> HoldoutSplit:
    """Hold out a share of each customer's items. Items are ordered by their popularity in the remaining data."""
    kept, held = hold_out(data, share=HOLDOUT_SHARE, seed=seed)
    train, items = sort_items_by_popularity(kept)
    place = np.full(data.n_items, -1, dtype=np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    holdout = held.where(place[held.items] >= 0)
    holdout = replace(holdout, items=place[holdout.items], shape=(train.n_users, train.n_items))
    return _require_enough_customers(
        HoldoutSplit(train, holdout, f"a random {HOLDOUT_SHARE:.0%} of each customer's items (undated data)", NO_START)
    )


def _require_enough_customers(held: HoldoutSplit, history: str = "") -> HoldoutSplit:
    train = held.train
    both = np.unique(held.holdout.users[train.has_interactions[held.holdout.users]])
    if len(both) < MIN_EXAMPLES:
        kind = "interactions" if train.target == ANY else f"interactions of the target ({train.target})"
        raise DataError(
            f"only {len(both)} customers have both a history and {kind} in {held.period}",
            allowed=f"at least {MIN_EXAMPLES}{history}",
            hint="bring more customers or a longer history"
            + ("" if train.target == ANY or train.auxiliary is None else ", or set recommend.target to any"),
        )
    return held
