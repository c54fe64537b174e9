"""The behaviour cluster of each customer, beside the RFM tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from models.clusters import BehaviourClusters
from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction

JOB = "clusters"
RFM_TAGS = ("rfm_tier", "rfm_segment")
TOO_LITTLE = "fewer than {} {}"  # orders, or days with an event
WORDS = {"orders_total": "orders", "event_days_91d": "days with an event"}


class ClustersFields(BaseModel):
    """Behaviour cluster of one customer."""

    behaviour_cluster: str | None = Field(description="id of the cluster, which stays from one training to the next")
    cluster_name: str | None = Field(description="its strongest traits, such as: frequent orders, one store")
    cluster_name_zh: str | None = Field(description="the same in Chinese")
    typicality: float | None = Field(
        description="1 − distance to the centre of the cluster ÷ distance to the next: 0 on the border, near 1 inside"
    )
    rfm_tier: str | None = Field(description="tag of the profile: recency, frequency and money in fifths, summed")
    rfm_segment: str | None = Field(description="tag of the profile: the eight RFM classes")


def columns(_champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file."""
    return [
        pa.field(name, pa.float64() if name == "typicality" else pa.string()) for name in ClustersFields.model_fields
    ]


def predict(customers: PredictedCustomers) -> Predicted:
    """Assign the customers with enough evidence, as in training."""
    model: BehaviourClusters = customers.champions.require(JOB).bundle.model
    values = customers.values(JOB)
    too_little = TOO_LITTLE.format(f"{model.min_evidence:g}", WORDS[model.evidence])
    reasons = [
        shared or (None if enough else too_little)
        for shared, enough in zip(customers.shared_accounts(JOB), model.has_evidence(values).tolist(), strict=True)
    ]
    ids, names, names_zh = ([*texts, None] for texts in (model.ids, model.names, model.names_zh))
    assigned = np.array([reason is None for reason in reasons], dtype=bool)
    found = model.predict(values)
    places = np.where(assigned, found.cluster, -1).tolist()
    typicality = found.typicality.round(4).tolist()
    return Predicted(
        {
            "behaviour_cluster": [ids[place] for place in places],
            "cluster_name": [names[place] for place in places],
            "cluster_name_zh": [names_zh[place] for place in places],
            "typicality": [value if place >= 0 else None for value, place in zip(typicality, places, strict=True)],
            **{tag: customers.tag(tag) or [None] * len(customers) for tag in RFM_TAGS},
        },
        reasons,
    )


PREDICTION = Prediction("clusters", JOB, ClustersFields, columns, predict, RFM_TAGS)
