"""The demand type of each customer: by purchases where there are enough, else by what the first sessions show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from qianmian.schema import DEMAND_TYPES
from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction
from serving.responses import rounded

JOB = "demand"
TAG = "demand_type"
PURCHASES, FIRST_SESSIONS = "purchases", "first_sessions"
MIN_EVENTS = 3  # in 91 days; fewer show nothing
NOTHING_SHOWN = "too few purchases and events to tell a demand type"


class DemandFields(BaseModel):
    """What moves one customer most."""

    demand_type: str | None = Field(description="price_driven, quality_driven, content_driven or balanced")
    demand_type_source: str | None = Field(
        description="purchases: the tag of that name; first_sessions: the model, from what the customer looks at"
    )
    demand_type_probability: float | None = Field(description="of the type, by the model; null by purchases")


def columns(_champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file."""
    texts = [pa.field(name, pa.string()) for name in ("demand_type", "demand_type_source")]
    return [*texts, pa.field("demand_type_probability", pa.float64())]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict demand types of those whose purchases do not show one."""
    types = list(customers.tag(TAG) or [None] * len(customers))
    sources: list[str | None] = [PURCHASES if value is not None else None for value in types]
    certain: list[float | None] = [None] * len(customers)
    events = customers.column("events_91d")
    looked = np.zeros(len(customers), dtype=bool) if events is None else events >= MIN_EVENTS
    rows = np.flatnonzero(looked & np.array([value is None for value in types], dtype=bool))
    if len(rows):
        model = customers.champions.require(JOB).bundle.model
        found = model.predict_proba(customers.values(JOB)[rows])
        for row, best, probability in zip(rows.tolist(), found.argmax(axis=1), found.max(axis=1), strict=True):
            types[row], sources[row], certain[row] = DEMAND_TYPES[best], FIRST_SESSIONS, rounded(probability)
    reasons = [None if value is not None else NOTHING_SHOWN for value in types]
    return Predicted({"demand_type": types, "demand_type_source": sources, "demand_type_probability": certain}, reasons)


PREDICTION = Prediction("demand", JOB, DemandFields, columns, predict, built_tags=(TAG,))
