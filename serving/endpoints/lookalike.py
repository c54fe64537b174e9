"""`/v1/lookalike`: customers similar to a seed audience."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from features.profiles.snapshot import user_ids_of
from models.lookalike import SeedEvaluation
from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.requests import MAX_IDS, Identifier, Request
from serving.responses import Response, ResponseBody, model_metadata, rounded
from serving.users import resolve_users

JOB = "lookalike"
MAX_SIZE = 100_000
EVIDENCE_SPLITS = 5  # each split fits the expander again


class LookalikeRequest(Request):
    """Find customers similar to a seed audience. Exactly one of `size` and `ratio` is required."""

    seed_user_ids: list[Identifier] = Field(min_length=1, max_length=MAX_IDS)
    user_source: Identifier | None = Field(None, description="source system of the ids")
    size: int | None = Field(None, ge=1, le=MAX_SIZE, description="number of customers to return")
    ratio: float | None = Field(None, gt=0, le=1, description="share of all known customers to return")
    exclude: list[Identifier] = Field(default_factory=list, max_length=MAX_IDS, description="customer ids to leave out")
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


@dataclass(frozen=True)
class _Rows:
    """Rows of the customers in the model, and the ids that are not in it."""

    rows: NDArray[np.int64]
    unknown: list[str]


def handle(champions: Champions, request: LookalikeRequest, now: datetime) -> ResponseBody:
    """Return the audience and its evidence.

    Raises
    ------
    InvalidRequest
        If fewer seeds are known than `lookalike.minimum_seed`.
    """
    champion = champions.require(JOB)
    user_ids = champion.bundle.user_ids
    seeds = known_seeds(champions, request)
    left_out = _rows(champions, request.exclude, request.user_source)
    size = request.size if request.size is not None else max(1, round((request.ratio or 0.0) * len(user_ids)))
    # customers that are not in the profiles have no id that the caller could use
    without_id = np.flatnonzero(champions.customers.user_map.rows(user_ids) < 0)
    shared = champion.bundle.user_map.rows(list(champion.bundle.facts.get("shared_accounts", {})))
    excluded = np.concatenate([left_out.rows, without_id, shared[shared >= 0]])
    rows, scores = champion.bundle.model.expand(seeds.rows, size, exclude=np.unique(excluded))
    evidence = (
        champion.bundle.model.evidence(seeds.rows, size, splits=EVIDENCE_SPLITS) if request.with_evidence else None
    )
    one_ids = user_ids[rows].tolist()
    users = [
        {"user_id": user_id, "user_source": source, "one_id": one_id, "score": rounded(score)}
        for (user_id, source), one_id, score in zip(
            user_ids_of(champions.customers, one_ids), one_ids, scores.tolist(), strict=True
        )
    ]
    short = f"all {len(users)} other customers are in the list" if len(users) < size else None
    return {
        "users": users,
        "known_seeds": len(seeds.rows),
        "evidence": evidence_entry(evidence) if evidence is not None else None,
        "unknown": list(dict.fromkeys([*seeds.unknown, *left_out.unknown])),
        "short_reason": short,
        **model_metadata(JOB)(champions, now),
    }


def known_seeds(champions: Champions, request: LookalikeRequest) -> _Rows:
    """Return the seed customers.

    Raises
    ------
    InvalidRequest
        If fewer of them are known than `lookalike.minimum_seed`.
    """
    seeds = _rows(champions, request.seed_user_ids, request.user_source)
    minimum = champions.settings.lookalike.minimum_seed
    if len(seeds.rows) < minimum:
        raise InvalidRequest(
            "too few known seed customers",
            got=f"{len(seeds.rows)} known of {len(request.seed_user_ids)} ids",
            allowed=f"at least {minimum}",
            field="seed_user_ids",
            hint="add customers, or name the source of the ids in user_source",
        )
    return seeds


def evidence_entry(evidence: SeedEvaluation) -> ResponseBody:
    """Return the evidence as in `EvidenceEntry`."""
    intervals = {name: getattr(evidence, name) for name in ("auc", "recall_at_size", "lift_at_size")}
    return {
        **{
            name: {"value": rounded(value, 4), "low": rounded(low, 4), "high": rounded(high, 4)}
            for name, (value, low, high) in intervals.items()
        },
        "reach": [{"share": point["share"], "found": rounded(point["found"], 4)} for point in evidence.reach],
        "splits": evidence.splits,
    }


def _rows(champions: Champions, user_ids: list[str], user_source: str | None) -> _Rows:
    users = resolve_users(champions, user_ids, user_source)
    known = [user for user in users if user.one_id is not None]
    rows = champions.require(JOB).bundle.user_map.rows([str(user.one_id) for user in known])
    unknown = [user.user_id for user in users if user.one_id is None]
    unknown += [user.user_id for user, row in zip(known, rows.tolist(), strict=True) if row < 0]
    return _Rows(np.unique(rows[rows >= 0]), unknown)


ENDPOINT = Endpoint(
    "/lookalike",
    "Customers similar to a seed audience",
    LookalikeRequest,
    LookalikeResponse,
    handle,
    model_metadata(JOB),
    check=known_seeds,
    runs_in_thread=lambda _: True,
)
