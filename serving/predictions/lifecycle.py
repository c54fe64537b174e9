"""The lifecycle stage of each customer, the probabilities of the next one, and averages of the orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from features.profiles.tags.previous_stage import PREVIOUS
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES
from serving.champions import Champion, Champions
from serving.predictions.base import Predicted, PredictedCustomers, Prediction
from serving.responses import NEVER_BOUGHT, rounded

JOB = "lifecycle"
STAGE_TAG = "lifecycle_stage"
PROSPECT = LIFECYCLE_STAGES[0]


class LifecycleFields(BaseModel):
    """Lifecycle of one customer."""

    lifecycle_stage: str | None = Field(description="stage at as_of: the tag of the profile; null for an unknown user")
    previous_stage: str | None = Field(
        description="stage in the profiles that were published before, of an earlier date; null if there were none"
    )
    next_stage: dict[str, float] | None = Field(
        description="stage → probability of this stage horizon_days after as_of"
    )
    average_days_between_orders: float | None = Field(description="days; null with fewer than two orders")
    average_order_value: float | None = Field(description="in the currency of the data; null without orders")


def columns(champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file; the model names the stages."""
    stages = pa.struct([(name, pa.float64()) for name in champion.bundle.model.classes_.tolist()])
    return [
        pa.field("lifecycle_stage", pa.string()),
        pa.field("previous_stage", pa.string()),
        pa.field("next_stage", stages),
        pa.field("average_days_between_orders", pa.float64()),
        pa.field("average_order_value", pa.float64()),
    ]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict the stages of buyers; the model is trained on buyers only."""
    check_stages(customers.champions)
    stages = np.asarray(customers.tag(STAGE_TAG), dtype=np.str_)
    orders, gaps = customers.orders.tolist(), customers.column("gap_days_mean")
    amounts = customers.column("order_value_mean")
    next_stages: list[dict[str, float] | None] = [None] * len(customers)
    buyers = np.flatnonzero(stages != PROSPECT)
    if len(buyers):
        model = customers.champions.require(JOB).bundle.model
        probabilities = model.predict_proba(customers.values(JOB)[buyers], stages[buyers]).round(6)
        names = model.classes_.tolist()
        for place, row in zip(buyers.tolist(), probabilities.tolist(), strict=True):
            next_stages[place] = dict(zip(names, row, strict=True))
    return Predicted(
        {
            "lifecycle_stage": stages.tolist(),
            "previous_stage": customers.tag(PREVIOUS) or [None] * len(customers),
            "next_stage": next_stages,
            "average_days_between_orders": _averages(gaps, [n > 1 for n in orders]),
            "average_order_value": _averages(amounts, [n > 0 for n in orders]),
        },
        [NEVER_BOUGHT if stage == PROSPECT else None for stage in stages.tolist()],
    )


def check_stages(champions: Champions) -> None:
    """Refuse profiles without lifecycle stages.

    Raises
    ------
    DataError
        The profiles have no such tag, because orders have no times.
    """
    if STAGE_TAG not in champions.customers.tags:
        raise DataError(
            "lifecycle stages require orders with times",
            got=f"profiles without the tag {STAGE_TAG}",
            hint="map the column `ts` of transactions in sources.yaml, then ingest and run `qianmian features`",
        )


def _averages(values: np.ndarray | None, has_one: Sequence[bool]) -> list[float | None]:
    """Rounded averages of the customers who have one."""
    if values is None:
        return [None] * len(has_one)
    return [rounded(value, 4) if has else None for value, has in zip(values.tolist(), has_one, strict=True)]


PREDICTION = Prediction(
    "lifecycle",
    JOB,
    LifecycleFields,
    columns,
    predict,
    (STAGE_TAG,),
    {"horizon_days": ("horizon_days", "next_stage is the stage this many days after the as_of of the row")},
    user_ms=0.014,
    built_tags=(PREVIOUS,),
)
