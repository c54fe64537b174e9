"""The probabilities that a customer buys or does each declared target within the horizon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from features.definitions.recency import NEVER
from features.definitions.target_features import features_of
from models.bundle import ModelBundle
from qianmian.propensity_targets import PropensityTarget
from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction

JOB = "propensity"
NO_HISTORY = "no order or event"
REMOVED = "the profiles do not have the features of the targets"  # which were removed since the training


class PropensityFields(BaseModel):
    """Propensities of one customer."""

    propensities: dict[str, float] | None = Field(
        description="target (such as category=GROCERY/SOUP) → probability to buy or do it within "
        "propensity_horizon_days; null for customers without an order or event"
    )


def columns(champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file; the model names the targets."""
    return [pa.field("propensities", pa.struct([(name, pa.float64()) for name in champion.bundle.model.targets]))]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict the targets of customers with an order or an event, as in training.

    A target that was removed since the training is left out: the profiles do not have its features any more.
    """
    bundle = customers.champions.require(JOB).bundle
    model = bundle.model
    known = _known_targets(bundle, customers.champions.customers.features.spec.names)
    if not any(known):
        return Predicted({"propensities": [None] * len(customers)}, [REMOVED] * len(customers))
    has_history = np.zeros(len(customers), dtype=bool)
    if (orders := customers.column("orders_total")) is not None:
        has_history |= orders > 0
    if (days := customers.column("days_since_last_event")) is not None:
        has_history |= days < NEVER
    shared = customers.shared_accounts(JOB)
    reasons = [why or (None if has else NO_HISTORY) for why, has in zip(shared, has_history.tolist(), strict=True)]
    found: list[dict[str, float] | None] = [None] * len(customers)
    places = [place for place, reason in enumerate(reasons) if reason is None]
    if places:
        probabilities = model.predict_proba(customers.values(JOB)[places]).round(6).tolist()
        for place, row in zip(places, probabilities, strict=True):
            found[place] = {
                target: p for target, p, is_known in zip(model.targets, row, known, strict=True) if is_known
            }
    return Predicted({"propensities": found}, reasons)


def _known_targets(bundle: ModelBundle, names: Sequence[str]) -> list[bool]:
    """Whether the profiles have all features of a target that its classifier reads."""
    assert bundle.spec is not None
    read = set(bundle.spec.names)
    own = [{one.name for one in features_of(PropensityTarget.of(text))} for text in bundle.model.targets]
    return [(one & read).issubset(names) for one in own]


PREDICTION = Prediction(
    "propensity",
    JOB,
    PropensityFields,
    columns,
    predict,
    facts={
        "propensity_horizon_days": ("horizon_days", "propensities are for this many days after the as_of of the row")
    },
)
