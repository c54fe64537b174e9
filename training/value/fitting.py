"""Fits of the value models at a date, from what was known then, and the choice between the recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from models.classify.boosting import fit_trees
from models.parallel import run_parallel
from models.value.bgnbd import BGNBD
from models.value.columns import MONEY_WINDOWS, WINDOWS, by_name, repeat_orders
from models.value.gamma_gamma import GammaGamma
from models.value.intervals import TotalInterval
from models.value.value_model import BG_NBD, MIXTURE, MONEY, ORDERS, SAME_AGAIN, TREES, TotalModel, ValueModel
from qianmian.errors import DataError
from training.bootstrap import mean_metric
from training.value.rows import PastMoments, ValueRows

WEIGHTS = np.linspace(0.0, 1.0, 21)  # of the trees
POWER = 1.5  # of the deviance by which recipes are compared: between that of counts (1) and that of amounts (2)
SMALLEST_SHARE = 0.01  # of the mean total: a prediction of 0 would have an infinite deviance
TREE_PARAMETERS: dict[str, Any] = {
    "n_estimators": 250,
    "tweedie_variance_power": 1.3,
    "max_depth": 4,
    "learning_rate": 0.03,
    "min_child_weight": 50.0,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "reg_lambda": 5.0,
}
Relabel = Callable[[Any], Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ValueFitting:
    """What is common to the fits of one training.

    Attributes
    ----------
    past : PastMoments
    learned_days : int
    whats : tuple of str
        `ORDERS`, and `MONEY` if there are amounts.
    counts, amounts : bool
        Whether BG/NBD and gamma-gamma can be fitted at all dates.
    relabel : callable
        Applied to the totals that models learn from; for tests of the gate.
    seed : int
    trees : mapping of str to any
        Parameters of the trees that differ from `TREE_PARAMETERS`.
    """

    past: PastMoments
    learned_days: int
    whats: tuple[str, ...]
    counts: bool
    amounts: bool
    relabel: Relabel
    seed: int
    trees: Mapping[str, Any] = field(default_factory=dict)

    def fit_at(self, as_of: datetime, like: ValueModel | None = None) -> ValueModel:
        """What was learnt from everything known at a date.

        The model predicts `learned_days`; its intervals are not fitted yet.

        Parameters
        ----------
        like : ValueModel, optional
            An earlier model whose recipe and weights were chosen; what has no weight is not fitted.
        """
        now, rows = self.past.rows(as_of), self.past.before(as_of)
        features = self.past.features
        model = ValueModel(
            features,
            float(self.learned_days),
            float(self.learned_days),
            self.past.snapshots.process(as_of),
            fit_counts(now, features) if self.counts else None,
            fit_amounts(now, features) if self.amounts else None,
        )
        columns = by_name(rows.X, features)
        X = model.columns(columns)

        def fit(what: str) -> TotalModel:
            y = self.relabel(rows.totals[what])
            window = nearest_window(what, self.learned_days)
            found = TotalModel(
                window=window,
                again=line(model.recent_rate(columns, what, window), y),
                scale=float(y.mean()) or 1.0,
                recipe=like.totals[what].recipe if like else MIXTURE,
                weight=like.totals[what].weight if like else 1.0,
            )
            unused = found.recipe == SAME_AGAIN or found.weight == 0.0
            return found if unused else replace(found, booster=self.fit_trees(X, y / found.scale))

        fits = run_parallel([partial(fit, what) for what in self.whats])
        return replace(model, totals=dict(zip(self.whats, fits, strict=True)))

    def fit_trees(self, X: NDArray[np.float32], y: Floats) -> xgb.Booster:
        """Boosted trees with the deviance of totals that are often 0 (Tweedie)."""
        return fit_trees(X, y, "reg:tweedie", {**TREE_PARAMETERS, **self.trees}, self.seed)


def fit_counts(rows: ValueRows, features: Sequence[str]) -> BGNBD:
    """BG/NBD of the customers at one date."""
    return BGNBD.fit(*repeat_orders(by_name(rows.X, features)))


def fit_amounts(rows: ValueRows, features: Sequence[str]) -> GammaGamma:
    """Gamma-gamma of the customers at one date."""
    columns = by_name(rows.X, features)
    return GammaGamma.fit(columns["orders_total"], columns["order_value_mean"])


def nearest_window(what: str, days: int) -> int:
    """The window of the features whose length is nearest to that of the horizon."""
    windows = WINDOWS if what == ORDERS else MONEY_WINDOWS
    return min(windows, key=lambda window: abs(float(np.log(window / days))))


def line(rates: Floats, y: Floats) -> tuple[float, float]:
    """The line a + b · rate nearest to the totals, a and b not negative; a large rate counts less, as it varies more.

    Examples
    --------
    >>> a, b = line(np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.5, 2.0]))
    >>> round(a, 6), round(b, 6)
    (1.0, 0.5)
    """
    weights = 1.0 / (rates + max(float(y.mean()), np.finfo(np.float64).tiny))
    mean_rate, mean = np.average(rates, weights=weights), np.average(y, weights=weights)
    spread = np.average((rates - mean_rate) ** 2, weights=weights)
    slope = float(np.average((rates - mean_rate) * (y - mean), weights=weights) / spread) if spread > 0 else 0.0
    if slope <= 0:
        return float(mean), 0.0
    start = float(mean - slope * mean_rate)
    if start >= 0:
        return start, slope
    return 0.0, float(np.average(rates * y, weights=weights) / np.average(rates**2, weights=weights))


def deviances(y: Floats, predicted: Floats) -> Floats:
    """Tweedie deviance of each customer (Jørgensen 1987), which is lowest on average for the true expectation, (n,).

    Unlike squared errors, those of the few largest customers do not decide.
    """
    mu = np.maximum(predicted, SMALLEST_SHARE * max(float(y.mean()), np.finfo(np.float64).tiny))
    first = np.power(y, 2.0 - POWER) / ((1.0 - POWER) * (2.0 - POWER))
    second = y * np.power(mu, 1.0 - POWER) / (1.0 - POWER)
    return np.asarray(2.0 * (first - second + np.power(mu, 2.0 - POWER) / (2.0 - POWER)), dtype=np.float64)


def with_weights(model: ValueModel, rows: ValueRows) -> ValueModel:
    """A model whose trees have the weight with the least deviance on customers it did not learn from (stacking).

    If BG/NBD could not be fitted, the trees have all the weight.
    """
    if model.counts is None:
        return model
    totals = {}
    for what, total in model.totals.items():
        y = rows.totals[what]
        trees, process = (model.expected(rows.X, what, one) for one in (TREES, BG_NBD))
        losses = [float(deviances(y, weight * trees + (1.0 - weight) * process).mean()) for weight in WEIGHTS]
        totals[what] = replace(total, weight=float(WEIGHTS[int(np.argmin(losses))]))
    return replace(model, totals=totals)


def chosen(model: ValueModel, rows: ValueRows, seed: int) -> tuple[ValueModel, str]:
    """A model with weights and the simplest recipe within noise of the best, and a sentence about the choice.

    Money decides; the number of orders, if there are no amounts.

    Parameters
    ----------
    model : ValueModel
        Fitted on what was known at the date of `rows`.
    rows : ValueRows
        Customers with their later totals, which the model did not learn from.
    """
    model = with_weights(model, rows)
    what = MONEY if MONEY in model.totals else ORDERS
    names = [SAME_AGAIN, *([BG_NBD] if model.counts is not None else []), TREES, MIXTURE]
    losses = {name: deviances(rows.totals[what], model.expected(rows.X, what, name)) for name in names}
    ahead = mean_metric(losses[SAME_AGAIN] - losses[MIXTURE], seed)
    recipe = MIXTURE if ahead.low > 0 else SAME_AGAIN
    table = ", ".join(f"{name} {loss.mean():.4g}" for name, loss in losses.items())
    weights = " and ".join(f"{total.weight:.0%} in {name}" for name, total in model.totals.items())
    found = f"{MIXTURE} (weight of the trees: {weights})" if recipe == MIXTURE else SAME_AGAIN
    note = (
        f"{found}; deviance for {what} of {len(rows):,} customers: {table}; the mixture is ahead of {SAME_AGAIN} by "
        f"{ahead}"
    )
    totals = {name: replace(total, recipe=recipe) for name, total in model.totals.items()}
    return replace(model, totals=totals), note


def with_choice(model: ValueModel, like: ValueModel) -> ValueModel:
    """A model with the recipe and the weights of another."""
    totals = {
        what: replace(total, recipe=like.totals[what].recipe, weight=like.totals[what].weight)
        for what, total in model.totals.items()
    }
    return replace(model, totals=totals)


def with_intervals(model: ValueModel, source: ValueModel, rows: ValueRows, seed: int) -> ValueModel:
    """A model with intervals by what an earlier model (`source`) predicted for totals that it did not learn from."""
    orders, from_zero = float(rows.totals[ORDERS].sum()), source.may_order_nothing(rows.X)
    units = {ORDERS: 1.0, MONEY: float(rows.totals[MONEY].sum()) / max(orders, 1.0) or 1.0}
    totals = {
        what: replace(
            total,
            interval=TotalInterval.fit(source.expected(rows.X, what), rows.totals[what], from_zero, units[what], seed),
        )
        for what, total in model.totals.items()
    }
    return replace(model, totals=totals)


def can_fit(fit: Callable[[ValueRows, Sequence[str]], Any], parts: Sequence[ValueRows], features: Sequence[str]) -> str:
    """Why a model cannot be fitted at one of several dates; empty if it can at all of them."""
    for rows in parts:
        try:
            fit(rows, features)
        except DataError as error:
            return str(error)
    return ""
