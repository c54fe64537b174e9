"""The channels through which each customer responds, best first, and the best time of the week."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from models.contact import ContactPreferences, consent_channel
from qianmian.schema import CONSENTS
from serving.champions import Champion
from serving.predictions.base import Predicted, PredictedCustomers, Prediction

JOB = "contact"
BASIS = "what tells most of it: the responses of the customer, of the segment, or of all customers"


class ChannelAffinity(BaseModel):
    """One channel of a customer."""

    channel: str
    share: float = Field(description="of the responses, if all channels were used equally often")
    basis: str = Field(description=BASIS)


class ContactTime(BaseModel):
    """The best time of the week of a customer, in the time zone of the workspace."""

    day: str = Field(description="monday … sunday")
    slot: str = Field(description="night, morning, midday, afternoon or evening")
    hours: str = Field(description="from and until, of the slot")
    share: float = Field(description="of the responses in this of 35 times, if all were used equally often")
    basis: str = Field(description=BASIS)


class ContactFields(BaseModel):
    """How to contact one customer."""

    ranked_channel_affinity: list[ChannelAffinity] | None = Field(
        description="channels, best first, without those that the customer refused; null where data name none"
    )
    best_contact_time: ContactTime | None = Field(description="null where the data tell no times")


def columns(_champion: Champion) -> Sequence[pa.Field]:
    """Columns of the file."""
    channel = pa.struct([("channel", pa.string()), ("share", pa.float64()), ("basis", pa.string())])
    texts = [(name, pa.string()) for name in ("day", "slot", "hours")]
    time = pa.struct([*texts, ("share", pa.float64()), ("basis", pa.string())])
    return [pa.field("ranked_channel_affinity", pa.list_(channel)), pa.field("best_contact_time", time)]


def predict(customers: PredictedCustomers) -> Predicted:
    """Predict how to contact customers; one who is not in the model has the pattern of all, a shared account none."""
    bundle = customers.champions.require(JOB).bundle
    model: ContactPreferences = bundle.model
    found = model.predict(bundle.user_map.rows(customers.one_ids))
    refused = np.zeros((len(customers), len(model.channel_names)), dtype=bool)
    for place, name in enumerate(model.channel_names):
        if (channel := consent_channel(name)) is not None:
            refused[:, place] = [consent is False for consent in customers.consents(f"consent_{channel}")]
    channels = model.ranked_channels(found, refused) if model.channels is not None else [None] * len(customers)
    reasons = customers.shared_accounts(JOB)
    fields = {"ranked_channel_affinity": channels, "best_contact_time": model.best_times(found)}
    return Predicted(
        {
            name: [None if reason else value for value, reason in zip(values, reasons, strict=True)]
            for name, values in fields.items()
        },
        reasons,
    )


PREDICTION = Prediction("contact", JOB, ContactFields, columns, predict, built_tags=CONSENTS)
