"""Base class of the response models, response metadata, and the error format."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from qianmian.times import is_stale as is_older
from serving.champions import Champion, Champions

MOST_CHARACTERS = 2_000  # of each text of an error
_random = random.Random()  # seeded by the system; a forked process needs another seed
os.register_at_fork(after_in_child=_random.seed)
UNKNOWN_CUSTOMER, NEVER_BOUGHT = "unknown customer", "never bought"  # reasons why a customer has no score
PROFILES = "profiles"  # name in `model` of responses that are made from the profiles only
ResponseBody = dict[str, Any]


class ModelVersion(BaseModel):
    """Model that made the response."""

    name: str
    version: str


class Response(BaseModel):
    """Base class of all responses."""

    model: ModelVersion = Field(description="registered model and its version")
    as_of: str = Field(description="UTC; no data from this moment or later was used")
    stale: bool = Field(
        description="whether as_of is more than serving.stale_after_days ago, unless accepted events of the customer "
        "were used; true if accepted events cannot be read"
    )


class UserScore(BaseModel):
    """Base class of the rows of scores: the customer, and what the score knows."""

    user_id: str
    user_source: str | None
    one_id: str | None
    as_of: str = Field(
        description="UTC; no data from this moment or later was used for this row. It is the as_of of the response, or "
        "later if the customer has accepted events: the moment of the request, or just after the last event if the "
        "profiles are older than serving.stale_after_days"
    )
    recent_events: int | None = Field(
        None,
        description="number of accepted events since the as_of of the response that the row takes into account; only "
        "if its features were computed with them",
    )


class ValidationResponse(Response):
    """Response to a valid request with `validate_only`."""

    valid: Literal[True]


class ErrorBody(BaseModel):
    """Fields of an error."""

    code: str
    message: str
    field: str | None
    hint: str | None


class ErrorResponse(BaseModel):
    """Response body of an error."""

    error: ErrorBody


def error_fields(fields: ResponseBody) -> ResponseBody:
    """Return the fields of an error for a response; what it repeats of the request is cut."""
    return {name: _cut(text) for name, text in fields.items()}


def _cut(text: Any) -> Any:
    return text[:MOST_CHARACTERS] + "…" if isinstance(text, str) and len(text) > MOST_CHARACTERS else text


def rounded(value: float, digits: int = 6) -> float:
    """Round a score for a response, which removes float32 noise."""
    return round(float(value), digits)


def utc_text(moment: datetime) -> str:
    """Format a naive UTC time as ISO 8601.

    Examples
    --------
    >>> utc_text(datetime(2017, 12, 1))
    '2017-12-01T00:00:00Z'
    """
    return moment.isoformat(timespec="seconds") + "Z"


def make_metadata(
    champions: Champions, champion: Champion, as_of: datetime, now: datetime, *, is_fresh: bool = False
) -> ResponseBody:
    """Return the response fields `model`, `as_of` and `stale`; `is_fresh` if what came after `as_of` was used too."""
    stale = champions.misses_events if is_fresh else is_stale(champions, as_of, now)
    return metadata_of(champion.name, champion.version, as_of, stale=stale)


def metadata_json(champion: Champion, stale: bool) -> bytes:
    """Return `make_metadata` at the cutoff of the champion as JSON."""
    return _metadata_json(champion.name, champion.version, champion.bundle.as_of, stale)


def is_stale(champions: Champions, as_of: datetime, now: datetime) -> bool:
    """Whether what is made from data up to `as_of` is stale."""
    return champions.misses_events or is_older(as_of, now, champions.settings.serving.stale_after_days)


@lru_cache
def _metadata_json(name: str, version: str, as_of: datetime, stale: bool) -> bytes:
    return orjson.dumps(metadata_of(name, version, as_of, stale=stale))


def metadata_of(name: str, version: str, as_of: datetime, *, stale: bool) -> ResponseBody:
    """Return the response fields `model`, `as_of` and `stale` of these values."""
    return {"model": {"name": name, "version": version}, "as_of": utc_text(as_of), "stale": stale}


def new_recommendation_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits; they are no secret, so the system is asked once per process."""
    return f"{_random.getrandbits(128):032x}"


def model_metadata(job: str) -> Callable[[Champions, datetime], ResponseBody]:
    """Return the metadata function of responses whose `as_of` is the cutoff of the model."""
    return lambda champions, now: make_metadata(
        champions, champions.require(job), champions.require(job).bundle.as_of, now
    )


def profile_metadata(job: str) -> Callable[[Champions, datetime], ResponseBody]:
    """Return the metadata function of responses whose `as_of` is that of the profiles."""
    return lambda champions, now: make_metadata(champions, champions.require(job), champions.customers.as_of, now)


def snapshot_metadata(champions: Champions, now: datetime) -> ResponseBody:
    """Return the metadata of a response made from the profiles only; the version is data digest and spec hash."""
    customers = champions.customers
    stale = is_stale(champions, customers.as_of, now)
    return metadata_of(PROFILES, f"{customers.data_digest}-{customers.spec.hash}", customers.as_of, stale=stale)
