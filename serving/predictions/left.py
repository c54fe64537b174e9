"""The probability that a customer has left: no purchase in a window of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from models.classify.own_window import days_needed
from models.classify.risk_bands import bands_of_model
from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction
from serving.responses import NEVER_BOUGHT

JOB = "left"


class LeftFields(BaseModel):
    """Whether one customer has left."""

    left_probability: float | None = Field(description="of no purchase within left_days after the as_of of the row")
    left_days: int | None = Field(
        description="a multiple of the customer's own gap between orders, at least left.min_days; null if never bought"
    )
    left_risk: str | None = Field(description="low, medium or high")


def columns(_champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file."""
    return [
        pa.field("left_probability", pa.float64()),
        pa.field("left_days", pa.int64()),
        pa.field("left_risk", pa.string()),
    ]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict buyers whose window is no longer than the history of the training could label."""
    bundle = customers.champions.require(JOB).bundle
    longest: float = bundle.facts["longest_days"]
    reasons: list[str | None] = customers.shared_accounts(JOB)
    buyers = np.flatnonzero((customers.orders > 0) & [reason is None for reason in reasons])
    values = customers.values(JOB)[buyers]
    windows = bundle.model.window_days(values)
    scored = np.flatnonzero(windows <= longest)
    probabilities = bundle.model.predict_proba(values[scored], customers.moments[buyers[scored]])[:, 1]
    fields: dict[str, list[float | int | str | None]] = {
        name: [None] * len(customers) for name in LeftFields.model_fields
    }
    for place, days in zip(buyers.tolist(), windows.astype(int).tolist(), strict=True):
        fields["left_days"][place] = days
        if days > longest:
            reasons[place] = f"a window of {days} days, which a history of {days_needed(days)} days would be enough for"
    bands = bands_of_model(bundle.facts).of(probabilities)
    for place, value, band in zip(buyers[scored].tolist(), probabilities.round(6).tolist(), bands, strict=True):
        fields["left_probability"][place], fields["left_risk"][place] = value, band
    for place, bought in enumerate((customers.orders > 0).tolist()):
        if not bought and reasons[place] is None:
            reasons[place] = NEVER_BOUGHT
    return Predicted(fields, reasons)


PREDICTION = Prediction(
    "left",
    JOB,
    LeftFields,
    columns,
    predict,
    facts={"left_min_days": ("min_days", "left_days is at least so many days")},
)
