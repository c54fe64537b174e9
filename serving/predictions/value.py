"""Orders and money of each customer within the horizon, and the date of the next order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from features.profiles.tags.declare import TagValue
from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction
from serving.responses import NEVER_BOUGHT

JOB = "value"
DATE_TAGS = {  # field → the tag of the profile, which is its only source
    "expected_date_of_next_order": "next_order_date",
    "expected_date_of_next_order_earliest": "next_order_earliest",
    "expected_date_of_next_order_latest": "next_order_latest",
}


class ValueFields(BaseModel):
    """Value of one customer. Money is null if the data have no amounts."""

    historic_number_of_orders: int | None = Field(description="paid orders so far")
    historic_clv: float | None = Field(description="paid so far, in the currency of the data")
    predicted_number_of_orders: float | None = Field(description="expected orders within value_horizon_days")
    predicted_number_of_orders_low: float | None = Field(description="lower bound of the 80 % interval")
    predicted_number_of_orders_high: float | None = Field(description="upper bound of the 80 % interval")
    predicted_clv: float | None = Field(description="expected amount paid within value_horizon_days")
    predicted_clv_low: float | None = Field(description="lower bound of the 80 % interval")
    predicted_clv_high: float | None = Field(description="upper bound of the 80 % interval")
    total_clv: float | None = Field(description="historic_clv + predicted_clv")
    purchase_probability: float | None = Field(description="of at least one order within value_horizon_days")
    expected_date_of_next_order: str | None = Field(
        description="date on which the next order has come with a probability of ½; null beyond two years"
    )
    expected_date_of_next_order_earliest: str | None = Field(
        description="day before which the next order comes with a probability of 10 %"
    )
    expected_date_of_next_order_latest: str | None = Field(
        description="day before which the next order comes with a probability of 90 %"
    )


def columns(_champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file."""
    types = {"historic_number_of_orders": pa.int64(), **dict.fromkeys(DATE_TAGS, pa.string())}
    return [pa.field(name, types.get(name, pa.float64())) for name in ValueFields.model_fields]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict the value of buyers; a shared account is no single customer."""
    reasons = [
        shared or (None if orders > 0 else NEVER_BOUGHT)
        for shared, orders in zip(customers.shared_accounts(JOB), customers.orders.tolist(), strict=True)
    ]
    buyers = np.array([place for place, reason in enumerate(reasons) if reason is None], dtype=np.int64)
    found = customers.champions.require(JOB).bundle.model.predict(customers.values(JOB)[buyers])
    paid = customers.column("amount_total")
    historic = None if paid is None or found.money is None else paid[buyers].astype(np.float64)
    numbers = {
        "historic_clv": (historic, 2),
        "predicted_number_of_orders": (found.orders, 4),
        "predicted_number_of_orders_low": (found.orders_low, 4),
        "predicted_number_of_orders_high": (found.orders_high, 4),
        "predicted_clv": (found.money, 2),
        "predicted_clv_low": (found.money_low, 2),
        "predicted_clv_high": (found.money_high, 2),
        "total_clv": (None if historic is None else historic + found.money, 2),
        "purchase_probability": (found.purchase_probability, 6),
    }
    fields: dict[str, Sequence[Any]] = {
        name: _spread(values, digits, buyers, len(customers)) for name, (values, digits) in numbers.items()
    }
    fields["historic_number_of_orders"] = [
        int(orders) if reason is None else None for orders, reason in zip(customers.orders, reasons, strict=True)
    ]
    for name, tag in DATE_TAGS.items():
        fields[name] = _dates(customers.tag(tag), reasons)
    return Predicted({name: fields[name] for name in ValueFields.model_fields}, reasons)


def _spread(values: NDArray[np.float64] | None, digits: int, places: NDArray[np.int64], n: int) -> list[float | None]:
    """Rounded values at the places of n customers; None elsewhere."""
    found: list[float | None] = [None] * n
    if values is not None:
        for place, value in zip(places.tolist(), values.round(digits).tolist(), strict=True):
            found[place] = value
    return found


def _dates(values: list[TagValue] | None, reasons: Sequence[str | None]) -> list[TagValue]:
    """Dates of a tag, for the customers with a prediction."""
    if values is None:
        return [None] * len(reasons)
    return [value if reason is None else None for value, reason in zip(values, reasons, strict=True)]


PREDICTION = Prediction(
    "value",
    JOB,
    ValueFields,
    columns,
    predict,
    tuple(DATE_TAGS.values()),
    {"value_horizon_days": ("horizon_days", "orders and money are those of this many days after the as_of of the row")},
    user_ms=0.04,
)
