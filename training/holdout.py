"""Validation and test data of `train recommend`: the last periods before `as_of`, or a random split of undated data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from features.id_map import IdMap
from features.interaction_types import ANY
from features.interactions import Interactions, TrainingSet
from features.training_data import interaction_rows, interactions_from_rows, target_tables
from qianmian.errors import DataError
from training.evaluation.protocols import hold_out, sort_items_by_popularity
from training.jobs.base import TrainingContext
from training.tasks.base import MIN_EXAMPLES

NO_START = datetime(1, 1, 1)
HOLDOUT_SHARE = 0.1  # share of each customer's items, for undated interactions


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

    Raises
    ------
    DataError
        If the history is too short to hold out two periods.
    """

    def __init__(self, context: TrainingContext) -> None:
        self._context = context
        tables = target_tables(context.builder, context.as_of, context.target.name)
        dated = any(context.builder.states[table].begin is not None for table in tables)
        self.horizon_days = _horizon_days(context, tables) if dated else None
        self._history = "" if self.horizon_days is None else _history_text(context, tables)

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

    def validation(self, *, with_features: bool) -> HoldoutSplit:
        """The validation split, which contains nothing of the test split.

        Parameters
        ----------
        with_features : bool
            Whether its training set has profile features.
        """
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
        """The split whose held-out period begins `horizons_back` horizons before `as_of`."""
        assert self.horizon_days is not None
        end = self._context.as_of - timedelta(days=(horizons_back - 1) * self.horizon_days)
        start = end - timedelta(days=self.horizon_days)
        train = self._training_set(start, with_features=with_features)
        period = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        return _require_enough_customers(
            HoldoutSplit(train, interactions_between(self._context, train, start, end), period, start), self._history
        )


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
            hint="bring more customers, a longer history, lower recommend.min_item_customers, or set recommend.target "
            "to any",
        )
    return held
