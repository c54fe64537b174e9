"""`/v1/lookalike`: customers similar to a seed audience."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field, model_validator

from serving import costs
from serving.champions import Champions
from serving.counting import counted_audience
from serving.endpoints.base import Endpoint
from serving.requests import MAX_IDS, Identifier, Identifiers, Request
from serving.responses import Response, ResponseBody, model_metadata
from serving.scoring.lookalike import JOB, SourcedId, audience_users, evidence_entry, find_audience, known_seeds

MAX_SIZE = 100_000


class LookalikeRequest(Request):
    """Find customers similar to a seed audience. Exactly one of `size` and `ratio` is required."""

    seed_user_ids: Identifiers = Field(min_length=1, max_length=MAX_IDS)
    user_source: Identifier | None = Field(None, description="source system of the ids")
    size: int | None = Field(None, ge=1, le=MAX_SIZE, description="number of customers to return")
    ratio: float | None = Field(None, gt=0, le=1, description="share of all known customers to return")
    exclude: Identifiers = Field(default_factory=list, max_length=MAX_IDS, description="customer ids to leave out")
    with_evidence: bool = Field(
        True, description="measure how well hidden halves of the seed are found; takes most of the response time"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.size is None) == (self.ratio is None):
            raise ValueError("give exactly one of size and ratio")
        return self


class Interval(BaseModel):
    """Mean over repeated splits, with the 2.5 % and 97.5 % quantiles."""

    value: float
    low: float
    high: float


class Reach(BaseModel):
    """Point of the reach curve."""

    share: float = Field(description="share of all customers, highest scores first")
    found: float = Field(description="share of the hidden seeds among them")


class EvidenceEntry(BaseModel):
    """How well the hidden half of the seed was found among all customers."""

    auc: Interval
    recall_at_size: Interval
    lift_at_size: Interval
    reach: list[Reach]
    splits: int


class LookalikeUser(BaseModel):
    """Customer of the audience."""

    user_id: str
    user_source: str | None
    one_id: str
    score: float = Field(description="0..1; decreases along the list")


class LookalikeResponse(Response):
    """Customers most similar to the seed, best first, without seed customers, excluded ones and shared accounts."""

    users: list[LookalikeUser]
    known_seeds: int
    evidence: EvidenceEntry | None = Field(description="null when with_evidence is false")
    unknown: list[str] = Field(description="ids of the request that are no known customers")
    short_reason: str | None = Field(description="why there are fewer customers than requested, else null")


def handle(champions: Champions, request: LookalikeRequest, now: datetime) -> ResponseBody:
    """Return the audience and its evidence.

    Raises
    ------
    InvalidRequest
        If fewer seeds are known than `lookalike.minimum_seed`.
    """
    audience = find_audience(
        champions,
        _sourced(request.seed_user_ids, request),
        size=request.size,
        ratio=request.ratio,
        exclude=_sourced(request.exclude, request),
        with_evidence=request.with_evidence,
    )
    return {
        "users": audience_users(champions, audience),
        "known_seeds": audience.known_seeds,
        "evidence": evidence_entry(audience.evidence) if audience.evidence is not None else None,
        "unknown": list(audience.unknown),
        "short_reason": audience.short_reason,
        **model_metadata(JOB)(champions, now),
    }


def _sourced(user_ids: list[str], request: LookalikeRequest) -> list[SourcedId]:
    return [(user_id, request.user_source) for user_id in user_ids]


def estimated_ms(request: LookalikeRequest) -> float:
    """Cost of a request for a few thousand customers; always slow."""
    audiences = costs.EVIDENCE if request.with_evidence else 1
    return audiences * (costs.AUDIENCE_MS + costs.SEED_MS * len(request.seed_user_ids))


ENDPOINT = Endpoint(
    "/lookalike",
    "Customers similar to a seed audience",
    LookalikeRequest,
    LookalikeResponse,
    handle,
    model_metadata(JOB),
    estimated_ms,
    is_always_slow=True,
    counted=counted_audience,
    check=lambda champions, request: known_seeds(champions, _sourced(request.seed_user_ids, request)),
)
