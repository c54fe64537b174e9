"""`/v1/lookalike`: customers similar to a seed audience."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, FailFast, Field, model_validator

from serving import costs
from serving.champions import Champions
from serving.counting import counted_audience
from serving.endpoints.base import Endpoint
from serving.requests import MAX_IDS, Identifier, Identifiers, Request, Text
from serving.responses import Response, ResponseBody, model_metadata
from serving.scoring.lookalike import (
    JOB,
    Exclusions,
    SourcedId,
    audience_users,
    evidence_entry,
    find_audience,
    known_seeds,
)

MAX_SIZE = 100_000
MAX_TAGS, MAX_TAG_VALUES = 20, 100
TagValues = Annotated[
    dict[Identifier, Annotated[list[Text | bool | None], Field(min_length=1, max_length=MAX_TAG_VALUES)]],
    FailFast(),
    Field(max_length=MAX_TAGS),
]


class LookalikeRequest(Request):
    """Find customers similar to a seed audience. Exactly one of `size` and `ratio` is required."""

    seed_user_ids: Identifiers = Field(min_length=1, max_length=MAX_IDS)
    user_source: Identifier | None = Field(None, description="source system of the ids")
    size: int | None = Field(None, ge=1, le=MAX_SIZE, description="number of customers to return")
    ratio: float | None = Field(None, gt=0, le=1, description="share of all known customers to return")
    exclude: Identifiers = Field(default_factory=list, max_length=MAX_IDS, description="customer ids to leave out")
    exclude_tags: TagValues = Field(
        default_factory=dict,
        description="tag → values; whoever has one of them in the profiles is left out; null is an unknown value",
    )
    control_share: float = Field(
        0.0, ge=0, le=0.5, description="share of the audience that is set aside at random, to measure the effect"
    )
    salt: Identifier | None = Field(
        None, description="name of the campaign: with the same one, the same customers are in the control group"
    )
    with_evidence: bool = Field(
        True, description="measure how well hidden halves of the seed are found, and say what sets the seed apart"
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
    found: float = Field(description="share of the hidden seeds among them: recall")
    low: float
    high: float
    lift: float = Field(description="found ÷ share; 1 is chance")


class EvidenceEntry(BaseModel):
    """How well the hidden half of the seed was found among all customers."""

    auc: Interval
    chance_auc: float = Field(description="AUC that 97.5 % of random seeds of this size stay below")
    separable: bool = Field(description="whether the seed differs from the other customers beyond chance")
    meaning: str = Field(description="the AUC in words")
    recall_at_size: Interval
    lift_at_size: Interval
    reach: list[Reach]
    splits: int


class TraitEntry(BaseModel):
    """Feature or tag in which the seed differs from all other customers."""

    name: str
    value: str | bool | None = Field(description="value of the tag; null for a feature")
    seed: float = Field(description="median of the feature, or share of the customers with the tag, in the seed")
    audience: float = Field(description="the same of the customers found")
    others: float = Field(description="the same of all but the seed")
    difference: float = Field(description="standardised difference of the seed from all others")
    low: float
    high: float
    tgi: float | None = Field(description="share of the seed ÷ share of all customers × 100; null for a feature")
    text: str


class LookalikeUser(BaseModel):
    """Customer of the audience."""

    user_id: str
    user_source: str | None
    one_id: str
    score: float = Field(description="share of all customers who are not more similar; decreases along the list")


class LookalikeResponse(Response):
    """Customers most similar to the seed, best first, without seed customers, excluded ones and shared accounts."""

    users: list[LookalikeUser]
    control_group: list[LookalikeUser] = Field(description="part of the audience that is not to be contacted")
    known_seeds: int
    evidence: EvidenceEntry | None = Field(description="null when with_evidence is false")
    traits: list[TraitEntry] = Field(description="what sets the seed apart, the largest difference first")
    counts: dict[str, int] = Field(
        description="considered: all customers; seed, erased, not_in_profiles, shared_accounts, excluded_ids, "
        "excluded_tags, contact, control and not_chosen add up to it"
    )
    unknown: list[str] = Field(description="ids of the request that are no known customers")
    short_reason: str | None = Field(description="why there are fewer customers than requested, else null")


def handle(champions: Champions, request: LookalikeRequest, now: datetime) -> ResponseBody:
    """Return the audience and its evidence.

    Raises
    ------
    InvalidRequest
        Of `find_audience`.
    """
    audience = find_audience(
        champions,
        _sourced(request.seed_user_ids, request),
        size=request.size,
        ratio=request.ratio,
        exclude=Exclusions(_sourced(request.exclude, request), request.exclude_tags),
        control_share=request.control_share,
        salt=request.salt or "",
        with_evidence=request.with_evidence,
    )
    users, control_group = audience_users(champions, audience)
    return {
        "users": users,
        "control_group": control_group,
        "known_seeds": audience.known_seeds,
        "evidence": evidence_entry(audience.evidence) if audience.evidence is not None else None,
        "traits": [trait.as_dict() for trait in audience.traits],
        "counts": audience.counts,
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
