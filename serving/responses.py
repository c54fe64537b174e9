"""What every answer is made of: its base model, the model and the moment it says it is of, and errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from qianmian.times import is_stale
from serving.champions import Champion, Champions

PROFILES = "profiles"  # the `model` of answers that come from the profiles alone
ResponseBody = dict[str, Any]


class ModelVersion(BaseModel):
    """What made the answer."""

    name: str
    version: str


class Response(BaseModel):
    """Base of every answer."""

    model: ModelVersion = Field(description="registered model and version that answered")
    as_of: str = Field(description="UTC; nothing that happened at or after it is known to the answer")
    stale: bool = Field(description="as_of is longer ago than serving.stale_after_days")


class ErrorBody(BaseModel):
    """The inside of every error."""

    code: str
    message: str
    field: str | None
    hint: str | None


class ErrorResponse(BaseModel):
    """Every error there is."""

    error: ErrorBody


def rounded(value: float, digits: int = 6) -> float:
    """A score as it is shown: enough digits to order by, no float32 noise."""
    return round(float(value), digits)


def utc_text(moment: datetime) -> str:
    """A naive UTC time as ISO 8601.

    Examples
    --------
    >>> utc_text(datetime(2017, 12, 1))
    '2017-12-01T00:00:00Z'
    """
    return moment.isoformat(timespec="seconds") + "Z"


def make_metadata(champions: Champions, champion: Champion, as_of: datetime, now: datetime) -> ResponseBody:
    """The `model`, `as_of` and `stale` of an answer."""
    return {
        "model": {"name": champion.name, "version": champion.version},
        "as_of": utc_text(as_of),
        "stale": is_stale(as_of, now, champions.settings.serving.stale_after_days),
    }


def model_metadata(job: str) -> Callable[[Champions, datetime], ResponseBody]:
    """The stamp of answers that are as old as their model."""
    return lambda champions, now: make_metadata(
        champions, champions.require(job), champions.require(job).bundle.as_of, now
    )


def profile_metadata(job: str) -> Callable[[Champions, datetime], ResponseBody]:
    """The stamp of answers a model makes from the current profiles."""
    return lambda champions, now: make_metadata(champions, champions.require(job), champions.customers.as_of, now)


def snapshot_metadata(champions: Champions, now: datetime) -> ResponseBody:
    """The stamp of answers that come from the profiles alone; the version says which data and which features."""
    customers = champions.customers
    return {
        "model": {"name": PROFILES, "version": f"{customers.data_digest}-{customers.spec.hash}"},
        "as_of": utc_text(customers.as_of),
        "stale": is_stale(customers.as_of, now, champions.settings.serving.stale_after_days),
    }
