"""`/v1/uplift`: how much more a customer does because of a contact, and whom to contact at a budget."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from serving import costs
from serving.champions import Champions
from serving.counting import counted_scores
from serving.endpoints.base import Endpoint
from serving.predictions.base import ToldConsents
from serving.requests import MAX_IDS, UsersRequest
from serving.responses import Response, ResponseBody, UserScore, profile_metadata
from serving.scoring.fresh import any_fresh, score_users
from serving.scoring.uplift import (
    JOB,
    about,
    allocate,
    budget_of,
    contacted_deciles,
    policy_of,
    reason_counts,
    score_rows,
)
from serving.users import resolve_users


class UpliftRequest(UsersRequest):
    """Estimate what a contact changes, and choose whom of these customers to contact. At most one budget is given."""

    budget_share: float | None = Field(None, gt=0, le=1, description="share of the customers with a score to contact")
    budget: int | None = Field(None, ge=0, le=MAX_IDS, description="number of customers to contact")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.budget_share is not None and self.budget is not None:
            raise ValueError("give at most one of budget_share and budget")
        return self


class UpliftScore(UserScore):
    """Uplift of one customer."""

    uplift: float | None = Field(
        description="expected outcome if contacted minus that if not, within horizon_days; null with a no_score_reason"
    )
    uplift_decile: int | None = Field(description="tenth of all customers by uplift, 1 for the highest")
    contact: bool = Field(description="whether to contact the customer at this budget; by default if uplift is above 0")
    do_not_contact_reason: str | None = Field(
        description="why not: shared_account, no_score, no_consent (for the channel of the campaign, or for all), "
        "no_uplift (expected to do no more, or less, if contacted) or beyond_budget"
    )
    no_score_reason: str | None = Field(description="why there is no uplift, else null")


class Policy(BaseModel):
    """What contacting these customers is worth, by the evaluation of the model."""

    budget_share: float = Field(description="share of the customers with a score who are contacted")
    contacted: int
    expected_gain: float = Field(
        description="further outcome per customer (of all with a score) if these are contacted, by what their tenths "
        "of the customers by uplift did in the campaign; multiply it by their number"
    )
    expected_gain_low: float = Field(description="lower end of its 95 % interval")
    expected_gain_high: float = Field(description="upper end of its 95 % interval")


class AverageEffect(BaseModel):
    """Average effect of the contact on the customers of the campaign, with its 95 % interval."""

    value: float
    low: float
    high: float


class UpliftResponse(Response):
    """One row per id, in the order of the request; an id that is named twice is contacted once."""

    scores: list[UpliftScore]
    policy: Policy
    do_not_contact: dict[str, int] = Field(description="number of rows by do_not_contact_reason")
    campaign: list[str] = Field(description="campaigns that the model has learnt from")
    outcome: str = Field(description="order, orders, amount, or a target such as category=NAME")
    horizon_days: float = Field(description="outcomes count for so many days after the contact")
    effect: AverageEffect
    randomised: bool = Field(
        description="whether customers were held out at random; else the effect is one only if nothing unknown decided "
        "who was contacted"
    )
    placebo_passed: bool | None = Field(
        description="whether the contact has no effect on the time before it; false: do not trust the estimates; null: "
        "the history is too short to tell"
    )


def handle(champions: Champions, request: UpliftRequest, now: datetime) -> ResponseBody:
    """Return the uplift of each id, whom to contact, and what that is worth."""
    users = list(resolve_users(champions, request.user_ids, request.user_source))
    told = champions.live.consents if champions.live is not None else None
    scores = score_users(champions, users, now, partial(_score, told))
    one_ids = [row["one_id"] for row in scores]
    scored = len({row["one_id"] for row in scores if row["no_score_reason"] is None})
    allocate(scores, one_ids, budget_of(scored, request.budget_share, request.budget))
    facts = champions.require(JOB).bundle.facts
    return {
        "scores": scores,
        "policy": policy_of(facts, contacted_deciles(scores, one_ids), scored),
        "do_not_contact": reason_counts(scores),
        **about(facts),
        **profile_metadata(JOB)(champions, now),
    }


def _score(
    told: ToldConsents | None,
    champions: Champions,
    rows: NDArray[np.int64],
    moments: NDArray[np.datetime64] | None,
) -> list[ResponseBody]:
    return score_rows(champions, rows, moments, told)


def estimated_ms(request: UpliftRequest) -> float:
    """Cost of a request: it grows with the customers."""
    return costs.UPLIFT_MS + costs.UPLIFT_USER_MS * len(request.user_ids)


ENDPOINT = Endpoint(
    "/uplift",
    "What a contact changes, and whom to contact at a budget",
    UpliftRequest,
    UpliftResponse,
    handle,
    profile_metadata(JOB),
    estimated_ms,
    is_heavy=any_fresh,
    counted=partial(counted_scores, "/uplift"),
)
