"""`ValueModel`: orders and money of each customer within the horizon, with intervals, from features of the profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from features.profiles.purchase_process.process import PurchaseProcess
from models.classify.boosting import load_booster, save_booster, to_dmatrix
from models.persist import UserArrays, load_json
from models.value.bgnbd import BGNBD
from models.value.columns import (
    MONEY_FEATURES,
    amounts_by_window,
    by_name,
    counts_by_window,
    rate,
    repeat_orders,
    value_columns,
)
from models.value.gamma_gamma import GammaGamma
from models.value.intervals import TAIL, TotalInterval
from qianmian.workspace import write_json

ORDERS, MONEY = "orders", "money"  # what is predicted
SAME_AGAIN, BG_NBD, TREES, MIXTURE = "same again, shrunk", "BG/NBD", "trees", "BG/NBD and trees"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TotalModel:
    """What was learnt about one of the totals, for a horizon of `ValueModel.learned_days`.

    Attributes
    ----------
    recipe : str
        What predicts: `SAME_AGAIN` or `MIXTURE`.
    interval : TotalInterval
    weight : float
        Weight of the trees in the mixture, from 0 to 1; BG/NBD has the rest.
    window : int
        Days of the recent past of the recipe `SAME_AGAIN`.
    again : tuple of float
        Its line: what everybody gets, and the part of the own recent total.
    booster : xgboost.Booster or None
        Trees, which predict the total ÷ `scale`; None if they have no weight.
    scale : float
        Mean total of the rows that the trees learnt from.
    """

    recipe: str = MIXTURE
    interval: TotalInterval = field(default_factory=TotalInterval)
    weight: float = 0.5
    window: int = 91
    again: tuple[float, float] = (0.0, 1.0)
    booster: xgb.Booster | None = None
    scale: float = 1.0


class PredictedValue(NamedTuple):
    """Predictions of n customers, each array of shape (n,); money is None if the model has no amounts.

    Attributes
    ----------
    orders, orders_low, orders_high : ndarray
        Expected number of orders within the horizon, and the bounds of the 80 % interval.
    money, money_low, money_high : ndarray or None
        Expected amount paid within the horizon, and the bounds of the 80 % interval.
    purchase_probability : ndarray
        Probability of at least one order within the horizon, by the purchase process.
    """

    orders: Floats
    orders_low: Floats
    orders_high: Floats
    money: Floats | None
    money_low: Floats | None
    money_high: Floats | None
    purchase_probability: Floats


@dataclass(frozen=True)
class ValueModel:
    """Orders and money of customers with at least one order.

    Attributes
    ----------
    features : tuple of str
        Names of the f feature columns: `ORDER_FEATURES`, and `MONEY_FEATURES` if there are amounts.
    horizon_days : float
        Days that are predicted.
    learned_days : float
        Days of the outcomes that were learnt from; fewer where the history is short. A longer horizon is predicted in
        the proportion in which BG/NBD expects more orders.
    process : PurchaseProcess
        Purchase process of the shop.
    counts : BGNBD or None
        None if it could not be fitted.
    amounts : GammaGamma or None
        None if there are no amounts, or it could not be fitted: the own mean amount then takes its place.
    totals : mapping of str to TotalModel
        For `ORDERS`, and for `MONEY` if there are amounts.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    features: tuple[str, ...] = ()
    horizon_days: float = 90.0
    learned_days: float = 90.0
    process: PurchaseProcess = field(default_factory=lambda: PurchaseProcess(30.0))
    counts: BGNBD | None = None
    amounts: GammaGamma | None = None
    totals: Mapping[str, TotalModel] = field(default_factory=dict)

    def predict(self, X: NDArray[np.float32]) -> PredictedValue:
        """Predict n customers.

        Parameters
        ----------
        X : ndarray of float32, shape (n, f)
            Features of customers with at least one order.
        """
        orders, money, from_zero = self.expected(X, ORDERS), None, self.may_order_nothing(X)
        low, high = self.totals[ORDERS].interval.of(orders, from_zero)
        money_low = money_high = None
        if MONEY in self.totals:
            money = self.expected(X, MONEY)
            money_low, money_high = self.totals[MONEY].interval.of(money, from_zero)
        return PredictedValue(orders, low, high, money, money_low, money_high, self.purchase_probability(X))

    def purchase_probability(self, X: NDArray[np.float32]) -> Floats:
        """Probability of at least one order within the horizon, by the purchase process, (n,)."""
        return self.process.order_probability(by_name(X, self.features), self.horizon_days)

    def may_order_nothing(self, X: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whose intervals begin at 0: no order at all is at least as likely as what an interval leaves out below."""
        return np.asarray(self.purchase_probability(X) <= 1.0 - TAIL, dtype=np.bool_)

    def expected(self, X: NDArray[np.float32], what: str, recipe: str | None = None) -> Floats:
        """Expected total of each customer within the horizon, (n,); by default with the recipe that was chosen.

        `BG_NBD` and `TREES` are the parts of the mixture alone.
        """
        columns = by_name(X, self.features)
        learned = self._learned(columns, what, recipe or self.totals[what].recipe)
        return learned if self.horizon_days == self.learned_days else learned * self._growth(columns)

    def columns(self, columns: Mapping[str, Floats]) -> NDArray[np.float32]:
        """What the trees read, (n, c)."""
        whats = (ORDERS, MONEY) if self.has_money else (ORDERS,)
        expectations = [self.process_based(columns, what) for what in whats] if self.counts is not None else []
        return value_columns(columns, expectations, self.process.typical_gap_days)

    def process_based(self, columns: Mapping[str, Floats], what: str) -> Floats:
        """What BG/NBD expects within `learned_days`; of money, times the mean amount by gamma-gamma."""
        assert self.counts is not None
        orders = self.counts.expected_orders(self.learned_days, *repeat_orders(columns))
        if what == ORDERS:
            return orders
        means = columns["order_value_mean"]
        return orders * (self.amounts.expected_amount(columns["orders_total"], means) if self.amounts else means)

    def recent_rate(self, columns: Mapping[str, Floats], what: str, window: int) -> Floats:
        """The total of a recent window at the length of `learned_days`, (n,)."""
        totals = counts_by_window(columns) if what == ORDERS else amounts_by_window(columns)
        found = rate(totals, window, columns["days_since_first_order"], self.process.typical_gap_days)
        return found * self.learned_days

    def _learned(self, columns: Mapping[str, Floats], what: str, recipe: str) -> Floats:
        total = self.totals[what]
        if recipe == SAME_AGAIN:
            return total.again[0] + total.again[1] * self.recent_rate(columns, what, total.window)
        if recipe == BG_NBD:
            return self.process_based(columns, what)
        weight = 1.0 if recipe == TREES else total.weight
        found = np.zeros(len(next(iter(columns.values()))))
        if weight > 0.0 and len(found):
            assert total.booster is not None
            found += weight * total.scale * total.booster.predict(to_dmatrix(self.columns(columns))).astype(np.float64)
        return found if weight == 1.0 else found + (1.0 - weight) * self.process_based(columns, what)

    def _growth(self, columns: Mapping[str, Floats]) -> Floats | float:
        """Expected orders of the horizon ÷ those of `learned_days`."""
        if self.counts is None:
            return self.horizon_days / self.learned_days
        repeats = repeat_orders(columns)
        longer, learned = (
            self.counts.expected_orders(days, *repeats) for days in (self.horizon_days, self.learned_days)
        )
        return np.asarray(longer / np.maximum(learned, np.finfo(np.float64).tiny))

    def within(self, horizon_days: float) -> ValueModel:
        """The same model for another horizon."""
        return replace(self, horizon_days=float(horizon_days))

    @property
    def has_money(self) -> bool:
        return set(MONEY_FEATURES) <= set(self.features)

    def get_params(self) -> dict[str, Any]:
        """The parameters as plain values, for the run and the manifest."""
        found: dict[str, Any] = {"recipe": self.totals[ORDERS].recipe}
        found |= {f"weight_of_trees_{what}": total.weight for what, total in self.totals.items()}
        for name, part in (("bgnbd", self.counts), ("gamma_gamma", self.amounts)):
            if part is not None:
                found |= {f"{name}_{parameter}": value for parameter, value in part.as_dict().items()}
        return found

    def save(self, folder: Path) -> None:
        """Write the boosters as XGBoost JSON and the rest as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {}
        for what, total in self.totals.items():
            if total.booster is not None:
                save_booster(total.booster, folder / f"{what}.json")
            described[what] = {
                "recipe": total.recipe,
                "weight": total.weight,
                "interval": total.interval.as_dict(),
                "window": total.window,
                "again": list(total.again),
                "trees": total.booster is not None,
                "scale": total.scale,
            }
        write_json(
            folder / "value.json",
            {
                "features": list(self.features),
                "horizon_days": self.horizon_days,
                "learned_days": self.learned_days,
                "process": self.process.as_fitted(),
                "counts": self.counts.as_dict() if self.counts is not None else None,
                "amounts": self.amounts.as_dict() if self.amounts is not None else None,
                "totals": described,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        described = load_json(folder / "value.json")
        totals = {
            what: TotalModel(
                total["recipe"],
                TotalInterval.from_dict(total["interval"]),
                total["weight"],
                total["window"],
                (total["again"][0], total["again"][1]),
                load_booster(folder / f"{what}.json") if total["trees"] else None,
                total["scale"],
            )
            for what, total in described["totals"].items()
        }
        return cls(
            tuple(described["features"]),
            described["horizon_days"],
            described["learned_days"],
            PurchaseProcess.of(described["process"]),
            BGNBD(**described["counts"]) if described["counts"] is not None else None,
            GammaGamma(**described["amounts"]) if described["amounts"] is not None else None,
            totals,
        )
