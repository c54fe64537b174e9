"""What `train recommend` chooses and measures on: the windows before `as_of`, or, where nothing is dated, a share of what each customer had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from features.id_map import IdMap
from features.interactions import Interactions, TrainingSet
from features.training_data import interaction_rows, interaction_source, interactions_from_rows
from qianmian.errors import DataError
from training.evaluation.protocols import hold_out, sort_items_by_popularity
from training.jobs.base import TrainingContext
from training.tasks.base import MIN_EXAMPLES

NO_START = datetime(1, 1, 1)
HOLDOUT_SHARE = 0.1  # of each customer's items, where nothing is dated


@dataclass(frozen=True)
class HoldoutSplit:
    """What may be learnt from, and what happened then.

    Attributes
    ----------
    holdout : Interactions
        Of the customers and items of `train`.
    period : str
        What is held out, in words.
    start : datetime
        From when on; `NO_START` where nothing is dated.
    """

    train: TrainingSet
    holdout: Interactions
    period: str
    start: datetime


class HoldoutSplitter:
    """The part to measure on, and the part before it to choose on.

    Dated interactions are cut in time: measured is the last horizon before `as_of`, chosen is on the horizon before that, and a model that is measured on a
    window has seen nothing of it or after it. Where the source has no time, a tenth of each customer's items, drawn, is measured, and of the rest
    another tenth is chosen on (as Wang et al. 2019, NGCF, do); profiles are then left out, for nobody can tell what of them is older.

    Attributes
    ----------
    horizon_days : int or None
        None where nothing is dated.

    Raises
    ------
    DataError
        When the history is too short to be cut.
    """

    def __init__(self, context: TrainingContext) -> None:
        self._context = context
        source = interaction_source(context.builder, context.as_of)
        self.horizon_days = _horizon_days(context, source) if context.builder.states[source].begin is not None else None

    def test(self) -> HoldoutSplit:
        """What is measured.

        Raises
        ------
        DataError
            When too few customers are in it.
        """
        if self.horizon_days is None:
            return _random_split(self._full_training_set(), self._context.settings.seed)
        return self._window_split(1, with_features=True)

    def validation(self, *, with_features: bool) -> HoldoutSplit:
        """What is chosen on; nothing of `test` is in it."""
        if self.horizon_days is None:
            seed = self._context.settings.seed
            return _random_split(_random_split(self._full_training_set(), seed).train, seed + 1)
        return self._window_split(2, with_features=with_features)

    def _full_training_set(self) -> TrainingSet:
        return self._training_set(self._context.as_of, with_features=False)

    def _training_set(self, as_of: datetime, *, with_features: bool) -> TrainingSet:
        least = self._context.settings.recommend.min_item_customers
        return self._context.training_set(as_of, min_item_customers=least, with_features=with_features)

    def _window_split(self, horizons_back: int, *, with_features: bool) -> HoldoutSplit:
        """The horizon that begins `horizons_back` horizons before `as_of`."""
        assert self.horizon_days is not None
        end = self._context.as_of - timedelta(days=(horizons_back - 1) * self.horizon_days)
        start = end - timedelta(days=self.horizon_days)
        train = self._training_set(start, with_features=with_features)
        period = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        return _require_enough_customers(
            HoldoutSplit(train, interactions_between(self._context, train, start, end), period, start)
        )


def interactions_between(context: TrainingContext, train: TrainingSet, start: datetime, end: datetime) -> Interactions:
    """What the customers of a training set did with its items in ``[start, end)``; ages count from `end`."""
    rows, _ = interaction_rows(context.builder, end, start)
    users, items = IdMap(train.user_ids).rows(rows["one_id"]), IdMap(train.item_ids).rows(rows["item_id"])
    return interactions_from_rows(rows, users, items, (train.n_users, train.n_items))


def _horizon_days(context: TrainingContext, source: str) -> int:
    wanted = context.horizon_days or context.settings.recommend.horizon_days
    span = (context.as_of - context.history_start(source)).days
    # a short history gets shorter windows: at least half of it stays for learning
    horizon = min(wanted, span // 4)
    if horizon < 1:
        raise DataError(
            "the history is too short to hold out a validation and a test window",
            where=source,
            got=f"{span} days",
            allowed="at least 4 days",
        )
    return horizon


def _random_split(data: TrainingSet, seed: int) -> HoldoutSplit:
    """A share of each customer's items held out; the others in the order of their popularity without it."""
    kept, held = hold_out(data, share=HOLDOUT_SHARE, seed=seed)
    train, items = sort_items_by_popularity(kept)
    place = np.full(data.n_items, -1, dtype=np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    holdout = held.where(place[held.items] >= 0)
    holdout = replace(holdout, items=place[holdout.items], shape=(train.n_users, train.n_items))
    return _require_enough_customers(
        HoldoutSplit(train, holdout, f"{HOLDOUT_SHARE:.0%} of each customer's items, drawn: nothing is dated", NO_START)
    )


def _require_enough_customers(held: HoldoutSplit) -> HoldoutSplit:
    both = np.intersect1d(held.train.interactions.users, held.holdout.users)
    if len(both) < MIN_EXAMPLES:
        raise DataError(
            f"only {len(both)} customers have both a history and something in {held.period}",
            allowed=f"at least {MIN_EXAMPLES}",
            hint="bring more customers, a longer history, or lower recommend.min_item_customers",
        )
    return held
