"""The probability that an active customer buys nothing within the horizon."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pydantic import BaseModel, Field

from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction
from serving.scoring.churn import JOB, score_rows


class ChurnFields(BaseModel):
    """Churn of one customer."""

    churn_probability: float | None = Field(
        description="of no purchase within churn_horizon_days; null for customers who are not active"
    )
    risk_band: str | None = Field(description="low, medium or high")


def columns(_champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file."""
    return [pa.field("churn_probability", pa.float64()), pa.field("risk_band", pa.string())]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict the churn of active customers."""
    champions = customers.champions
    scores = score_rows(champions, champions.encoded(JOB), customers.rows, customers.moments, explain=False)
    return Predicted(
        {name: [score[name] for score in scores] for name in ChurnFields.model_fields},
        [score["no_score_reason"] for score in scores],
    )


PREDICTION = Prediction(
    "churn",
    JOB,
    ChurnFields,
    columns,
    predict,
    facts={
        "churn_horizon_days": ("horizon_days", "churn is no purchase for this many days after the as_of of the row")
    },
)
