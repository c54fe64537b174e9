"""`/v1/lookalike`: more customers like these."""

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
EVIDENCE_SPLITS = 5  # each is another fit of the expander


class LookalikeRequest(Request):
    """More customers like these. Exactly one of `size` and `ratio`."""

    seed_user_ids: list[Identifier] = Field(min_length=1, max_length=MAX_IDS)
    user_source: Identifier | None = Field(None, description="the system those ids are from")
    size: int | None = Field(None, ge=1, le=MAX_SIZE, description="how many customers are wanted")
    ratio: float | None = Field(None, gt=0, le=1, description="… or which share of all known customers")
    exclude: list[Identifier] = Field(default_factory=list, max_length=MAX_IDS, description="customers to leave out")
    with_evidence: bool = Field(
        True, description="hide half of the seed a few times and say how well it is found; costs most of the time"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.size is None) == (self.ratio is None):
            raise ValueError("give exactly one of size and ratio")
        return self


class Interval(BaseModel):
    """A mean over repeated splits and its 2.5 and 97.5 % quantiles."""

    value: float
    low: float
    high: float


class Reach(BaseModel):
    """A point of the reach curve."""

    share: float = Field(description="best share of all customers")
    found: float = Field(description="share of the hidden seeds in it")


class EvidenceEntry(BaseModel):
    """How well the hidden half of the seed was found among everybody."""

    auc: Interval
    recall_at_size: Interval
    lift_at_size: Interval
    reach: list[Reach]
    splits: int


class LookalikeUser(BaseModel):
    """One customer of the audience."""

    user_id: str
    user_source: str | None
    one_id: str
    score: float = Field(description="0..1; falls along the list")


class LookalikeResponse(Response):
    """The customers most like the seed, best first, seed and excluded left out."""

    users: list[LookalikeUser]
    known_seeds: int
    evidence: EvidenceEntry | None = Field(description="null when with_evidence is false")
    unknown: list[str] = Field(description="ids of the request that nobody is behind")
    short_reason: str | None = Field(description="why there are fewer customers than asked for, else null")


@dataclass(frozen=True)
class _Rows:
    """Rows of the model's space behind ids, and the ids with none."""

    rows: NDArray[np.int64]
    unknown: list[str]


def handle(champions: Champions, request: LookalikeRequest, now: datetime) -> ResponseBody:
    """The audience and the evidence for it.

    Raises
    ------
    InvalidRequest
        Fewer known seeds than `lookalike.minimum_seed`.
    """
    champion = champions.require(JOB)
    user_ids = champion.bundle.user_ids
    seeds = known_seeds(champions, request)
    left_out = _rows(champions, request.exclude, request.user_source)
    size = request.size if request.size is not None else max(1, round((request.ratio or 0.0) * len(user_ids)))
    # a customer the profiles do not know has no id a caller could use
    nameless = np.flatnonzero(champions.customers.user_map.rows(user_ids) < 0)
    rows, scores = champion.bundle.model.expand(seeds.rows, size, exclude=np.union1d(left_out.rows, nameless))
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
        "evidence": evidence_answer(evidence) if evidence is not None else None,
        "unknown": list(dict.fromkeys([*seeds.unknown, *left_out.unknown])),
        "short_reason": short,
        **model_metadata(JOB)(champions, now),
    }


def known_seeds(champions: Champions, request: LookalikeRequest) -> _Rows:
    """The seed.

    Raises
    ------
    InvalidRequest
        Fewer of it are known than `lookalike.minimum_seed`.
    """
    seeds = _rows(champions, request.seed_user_ids, request.user_source)
    minimum = champions.settings.lookalike.minimum_seed
    if len(seeds.rows) < minimum:
        raise InvalidRequest(
            "too few known seeds to say what they have in common",
            got=f"{len(seeds.rows)} known of {len(request.seed_user_ids)} given",
            allowed=f"at least {minimum}",
            field="seed_user_ids",
            hint="give more customers, or ids of another source with user_source",
        )
    return seeds


def evidence_answer(evidence: SeedEvaluation) -> ResponseBody:
    """The evidence as JSON."""
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
    found = resolve_users(champions, user_ids, user_source)
    known = [one for one in found if one.one_id is not None]
    rows = champions.require(JOB).bundle.user_map.rows([str(one.one_id) for one in known])
    unknown = [one.user_id for one in found if one.one_id is None]
    unknown += [one.user_id for one, row in zip(known, rows.tolist(), strict=True) if row < 0]
    return _Rows(np.unique(rows[rows >= 0]), unknown)


ENDPOINT = Endpoint(
    "/lookalike",
    "More customers like these",
    LookalikeRequest,
    LookalikeResponse,
    handle,
    model_metadata(JOB),
    check=known_seeds,
    runs_in_thread=lambda _: True,
)
