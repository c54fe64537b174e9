"""What a prediction about customers is, and how the predictions of all models are put together into one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel

from features.profiles.tags.declare import TagValue
from qianmian.errors import QianmianError
from serving.champions import Champion, Champions
from serving.responses import UNKNOWN_CUSTOMER, ResponseBody

ToldConsents: TypeAlias = Callable[[str], Mapping[str, bool]]


@dataclass(frozen=True)
class PredictedCustomers:
    """Customers of the profiles whose predictions are computed together.

    Attributes
    ----------
    champions : Champions
        Models, profiles and settings.
    rows : ndarray of int64, shape (n,)
        Their rows in the profiles; none is −1.
    moments : ndarray of datetime64[us], shape (n,)
        Moment of the features of each customer.
    told : callable, optional
        one_id → consents that accepted events of the customer give or withdraw.
    """

    champions: Champions
    rows: NDArray[np.int64]
    moments: NDArray[np.datetime64]
    told: ToldConsents | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, job: str) -> NDArray[np.float32]:
        """Features in the columns of the model of a job, shape (n, f)."""
        return self.champions.encoded(job).values[self.rows]

    def column(self, name: str) -> NDArray[np.float32] | None:
        """A feature of the profiles, shape (n,); None if the data do not support it."""
        profiles = self.champions.customers.features
        return profiles.column(name)[self.rows] if name in profiles.spec.names else None

    def tag(self, name: str) -> list[TagValue] | None:
        """Values of a tag that `Prediction.tags` or `built_tags` names; None if the profiles do not have it."""
        values = self.champions.customers.tags.get(name)
        return None if values is None else [values[row] for row in self.rows.tolist()]

    def consents(self, name: str) -> list[TagValue]:
        """Consents of a column, as accepted events tell them, else as the profiles know them."""
        built = self.tag(name) or [None] * len(self)
        if self.told is None:
            return built
        told = (self.told(one_id) for one_id in self.one_ids)
        return [events.get(name, value) for events, value in zip(told, built, strict=True)]

    @cached_property
    def one_ids(self) -> list[str]:
        """The one_id of each customer."""
        one_ids = self.champions.customers.one_ids
        return [one_ids[row] for row in self.rows.tolist()]

    @property
    def orders(self) -> NDArray[np.float32]:
        """Number of orders of each customer, shape (n,); 1 where orders have no times, so that nobody is left out."""
        found = self.column("orders_total")
        return np.ones(len(self), dtype=np.float32) if found is None else found

    def shared_accounts(self, job: str) -> list[str | None]:
        """Why a customer is a shared account, which is no single customer, as the model of a job knows; else None."""
        shared: Mapping[str, str] = self.champions.require(job).bundle.facts.get("shared_accounts", {})
        return [shared.get(one_id) for one_id in self.one_ids] if shared else [None] * len(self)


class Predicted(NamedTuple):
    """What a model predicts of n customers.

    Attributes
    ----------
    fields : mapping of str to sequence
        Field → n values: texts, numbers, lists or objects of JSON; None where unknown.
    reasons : sequence of str or None
        Why a customer has no prediction; None for who has one.
    """

    fields: Mapping[str, Sequence[Any]]
    reasons: Sequence[str | None]


@dataclass(frozen=True)
class Prediction:
    """One kind of prediction: a row of `PREDICTIONS`.

    Attributes
    ----------
    name : str
        Name in requests and on the command line.
    job : str
        Job whose model makes it.
    response : type of BaseModel
        Its fields in a row of `/v1/predictions`, with descriptions.
    columns : callable
        champion → columns of the file with these fields.
    predict : callable
        Predicts customers; a champion of `job` is there.
    tags : tuple of str
        Tags that it reads: rules and statistics, because those of models are not computed anew.
    built_tags : tuple of str
        Tags that it reads as they were built, such as consents: they are not computed anew from accepted events,
        which `PredictedCustomers.consents` adds.
    facts : mapping of str to (str, str)
        Field of the whole response → the fact of the model that it is, such as the horizon, and its description.
    user_ms : float
        CPU milliseconds of a customer (`benchmarks/request_costs.py`).
    """

    name: str
    job: str
    response: type[BaseModel]
    columns: Callable[[Champion], Sequence[pa.Field]]
    predict: Callable[[PredictedCustomers], Predicted]
    tags: tuple[str, ...] = ()
    facts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    user_ms: float = 0.01
    built_tags: tuple[str, ...] = ()


def available(champions: Champions, predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions that have a model.

    Raises
    ------
    NotReady or ArtifactError
        None of them has one; the error is that of the first.
    """
    found = [one for one in predictions if one.job in champions.models]
    if not found:
        champions.require(predictions[0].job)
    return found


def unavailable(champions: Champions, predictions: Sequence[Prediction]) -> dict[str, str]:
    """Why predictions have no model: name → reason."""
    reasons = {}
    for one in predictions:
        if one.job not in champions.models:
            try:
                champions.require(one.job)
            except QianmianError as error:
                reasons[one.name] = error.message
    return reasons


def predict_rows(
    champions: Champions,
    rows: NDArray[np.int64],
    moments: NDArray[np.datetime64] | None,
    predictions: Sequence[Prediction],
    told: ToldConsents | None = None,
) -> list[ResponseBody]:
    """Predict rows of the profiles, −1 for an unknown customer; the fields of a row of `/v1/predictions` for each.

    Parameters
    ----------
    moments : ndarray of datetime64, shape (n,), optional
        Moment of the features of each row; default: that of the profiles.
    predictions : sequence of Prediction
        Those without a model have null fields.
    told : callable, optional
        one_id → consents that accepted events of the customer give or withdraw.
    """
    found = available(champions, predictions)
    nothing = {name: None for one in predictions for name in one.response.model_fields}
    unknown = {**nothing, "no_score_reason": UNKNOWN_CUSTOMER, "no_score_reasons": None}
    results: list[ResponseBody] = [dict(unknown) for _ in range(len(rows))]
    places = np.flatnonzero(rows >= 0)
    if not len(places):
        return results
    if moments is None:
        moments = np.full(len(rows), np.datetime64(champions.customers.as_of, "us"))
    customers = PredictedCustomers(champions, rows[places], moments[places], told)
    made = {one.name: one.predict(customers) for one in found}
    columns = {name: values for part in made.values() for name, values in part.fields.items()}
    names = tuple(columns)
    rows_of_values = zip(*columns.values(), strict=True)
    rows_of_reasons = zip(*(part.reasons for part in made.values()), strict=True)
    for place, values, reasons in zip(places.tolist(), rows_of_values, rows_of_reasons, strict=True):
        results[place] = {
            **nothing,
            **dict(zip(names, values, strict=True)),
            "no_score_reason": None if None in reasons else reasons[0],
            "no_score_reasons": {name: why for name, why in zip(made, reasons, strict=True) if why is not None} or None,
        }
    return results
