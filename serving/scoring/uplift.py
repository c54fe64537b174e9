"""Uplift of customers, and whom to contact at a budget: for single requests and for all customers as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.definitions.recency import NEVER
from models.uplift.uplift_model import decile_of
from qianmian.schema import CONSENT_CHANNELS
from serving.champions import Champions
from serving.predictions.base import PredictedCustomers, ToldConsents
from serving.responses import UNKNOWN_CUSTOMER, ResponseBody, rounded
from serving.scoring.blocks import BlockScores, provenance
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, at_moment, identity_columns, with_identity

if TYPE_CHECKING:  # endpoints predict without a database
    from features.compute.builder import Builder

JOB = "uplift"
NO_HISTORY = "no order or event"
CONSENTS = tuple(f"consent_{channel}" for channel in CONSENT_CHANNELS)
# why a customer is not contacted, in the order in which the reasons are looked for
SHARED_ACCOUNT, NO_SCORE, NO_CONSENT = "shared_account", "no_score", "no_consent"
NO_UPLIFT, BEYOND_BUDGET = "no_uplift", "beyond_budget"
DO_NOT_CONTACT = (SHARED_ACCOUNT, NO_SCORE, NO_CONSENT, NO_UPLIFT, BEYOND_BUDGET)
UPLIFT = pa.schema(
    [
        *IDENTITY_COLUMNS,
        ("uplift", pa.float64()),
        ("uplift_decile", pa.int32()),
        ("contact", pa.bool_()),
        ("do_not_contact_reason", pa.string()),
        ("no_score_reason", pa.string()),
        *PROVENANCE,
    ]
)


def score_rows(
    champions: Champions,
    rows: NDArray[np.int64],
    moments: NDArray[np.datetime64] | None = None,
    told: ToldConsents | None = None,
) -> list[ResponseBody]:
    """Uplift, decile and reasons of rows of the profiles; who is contacted is decided among all of them (`allocate`).

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    rows : ndarray of int64, shape (n,)
        Rows of the profiles, −1 for an unknown customer.
    moments : ndarray of datetime64, shape (n,), optional
        Moment of the features of each row; default: that of the profiles.
    told : callable, optional
        one_id → consents that accepted events of the customer give or withdraw.

    Returns
    -------
    list of dict
        Per row: uplift, uplift_decile, do_not_contact_reason (None for who may be contacted) and no_score_reason.
    """
    unknown = _row(None, None, NO_SCORE, UNKNOWN_CUSTOMER)
    scores = [dict(unknown) for _ in range(len(rows))]
    places = np.flatnonzero(rows >= 0)
    if not len(places):
        return scores
    if moments is None:
        moments = np.full(len(rows), np.datetime64(champions.customers.as_of, "us"))
    customers = PredictedCustomers(champions, rows[places], moments[places], told)
    facts = champions.require(JOB).bundle.facts
    uplift = champions.require(JOB).bundle.model.predict(customers.values(JOB))
    deciles = decile_of(uplift, facts["decile_edges"])
    refused = _refused(customers, facts.get("channel"))
    shared = customers.shared_accounts(JOB)
    columns = places.tolist(), uplift.tolist(), deciles.tolist(), shared, _has_history(customers).tolist(), refused
    for place, value, decile, account, has_history, is_refused in zip(*columns, strict=True):
        if account is not None:
            scores[place] = _row(None, None, SHARED_ACCOUNT, account)
        elif not has_history:
            scores[place] = _row(None, None, NO_SCORE, NO_HISTORY)
        else:
            reason = NO_CONSENT if is_refused else NO_UPLIFT if value <= 0 else None
            scores[place] = _row(rounded(value), decile, reason, None)
    return scores


def _row(uplift: float | None, decile: int | None, reason: str | None, no_score: str | None) -> ResponseBody:
    return {
        "uplift": uplift,
        "uplift_decile": decile,
        "do_not_contact_reason": reason,
        "no_score_reason": no_score,
    }


def _has_history(customers: PredictedCustomers) -> NDArray[np.bool_]:
    """Whether each customer has an order or an event, as those that the model has learnt from, (n,)."""
    has_history = np.zeros(len(customers), dtype=bool)
    if (orders := customers.column("orders_total")) is not None:
        has_history |= orders > 0
    if (days := customers.column("days_since_last_event")) is not None:
        has_history |= days < NEVER
    return has_history


def _refused(customers: PredictedCustomers, channel: str | None) -> list[bool]:
    """Whether each customer refuses the channel of the campaign, or, where it is not told, all that are known."""
    names = [f"consent_{channel}"] if channel in CONSENT_CHANNELS else CONSENTS
    told = [customers.consents(name) for name in names]
    return [False in values and True not in values for values in zip(*told, strict=True)]


def allocate(scores: Sequence[ResponseBody], one_ids: Sequence[str | None], budget: int | None) -> None:
    """Set `contact` of each row: of those who may be contacted, the `budget` with the highest uplift.

    Parameters
    ----------
    scores : sequence of dict
        Of `score_rows`; changed in place.
    one_ids : sequence of str or None
        Customer of each row, None if unknown. Rows of the same customer count once, and have the same answer; of equal
        uplifts those with the first ids are contacted, in a file as in an answer.
    budget : int, optional
        Number of customers; default: everybody who may be contacted.
    """
    pairs = list(zip(scores, one_ids, strict=True))
    allowed = {one_id: row["uplift"] for row, one_id in pairs if row["do_not_contact_reason"] is None}
    ranked = sorted(allowed, key=lambda one_id: (-allowed[one_id], str(one_id)))
    chosen = set(ranked if budget is None else ranked[:budget])
    for row, one_id in pairs:
        may = row["do_not_contact_reason"] is None
        row["contact"] = may and one_id in chosen
        if may and not row["contact"]:
            row["do_not_contact_reason"] = BEYOND_BUDGET


def budget_of(n: int, share: float | None, number: int | None) -> int | None:
    """Number of customers that a budget allows, of n; None without a budget."""
    return number if share is None else round(share * n)


def reason_counts(scores: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of rows of each reason not to contact that occurs."""
    found = Counter(row["do_not_contact_reason"] for row in scores)
    return {reason: found[reason] for reason in DO_NOT_CONTACT if found[reason]}


def contacted_deciles(scores: Sequence[Mapping[str, Any]], one_ids: Sequence[str | None]) -> list[int]:
    """The decile of each contacted customer; rows of the same customer count once."""
    found = {one_id: row["uplift_decile"] for row, one_id in zip(scores, one_ids, strict=True) if row["contact"]}
    return list(found.values())


def policy_of(facts: Mapping[str, Any], deciles: Sequence[int], n: int) -> ResponseBody:
    """What contacting these customers is worth, by the evaluation of the model.

    The evaluation tells what each tenth of the customers adds if it is contacted. Consents, and which customers a
    request names, decide who is contacted of each tenth, so that the gain is not that of the best ones of as many.

    Parameters
    ----------
    facts : mapping
        Of the bundle: `policy` has the expected gain at budgets of 10, 20 … 100 %.
    deciles : sequence of int
        Decile of each contacted customer (`contacted_deciles`).
    n : int
        Customers with a score.
    """
    contacted = len(deciles)
    gains = np.array([0.0, *(point["gain"] for point in facts["policy"])])
    widths = np.array([0.0, *((point["high"] - point["low"]) / 2.0 for point in facts["policy"])])
    # customers are independent: squared widths add up over the tenths
    of_tenth, squared_width = np.diff(gains), np.maximum(np.diff(widths**2), 0.0)
    reached = np.bincount(deciles, minlength=11)[1:] * (10.0 / n) if contacted else np.zeros(10)
    gain, width = float(reached @ of_tenth), float(np.sqrt(reached**2 @ squared_width))
    return {
        "budget_share": rounded(contacted / n if n else 0.0, 4),
        "contacted": contacted,
        "expected_gain": rounded(gain),
        "expected_gain_low": rounded(gain - width),
        "expected_gain_high": rounded(gain + width),
    }


def about(facts: Mapping[str, Any]) -> ResponseBody:
    """What an answer says of the campaign that the model has learnt from."""
    effect = facts["effect"]
    return {
        "campaign": facts["campaign"],
        "outcome": facts["outcome"],
        "horizon_days": facts["horizon_days"],
        "effect": {name: rounded(effect[name]) for name in ("value", "low", "high")},
        "randomised": facts["randomised"],
        "placebo_passed": facts["placebo"]["passed"],
    }


@dataclass(frozen=True)
class ScoredUplift:
    """The uplift of all customers of the profiles, and whom to contact.

    Attributes
    ----------
    champions : Champions
        With the profiles of the moment.
    scores : list of dict
        A row for each customer, in the order of the profiles.
    """

    champions: Champions
    scores: list[ResponseBody]

    @property
    def policy(self) -> ResponseBody:
        """What contacting them is worth."""
        scored = sum(row["no_score_reason"] is None for row in self.scores)
        return policy_of(
            self.champions.require(JOB).bundle.facts,
            contacted_deciles(self.scores, self.champions.customers.one_ids),
            scored,
        )

    def blocks(self) -> BlockScores:
        """The columns of `UPLIFT`, by blocks of customers."""
        champion = self.champions.require(JOB)
        identity = identity_columns(self.champions)
        contacted = [index for index, row in enumerate(self.scores) if row["contact"]]
        depends_on = {**provenance(self.champions, champion), "contacted": contacted}
        return BlockScores(UPLIFT, identity.num_rows, _UpliftBlock(self, identity), depends_on)


@dataclass(frozen=True)
class _UpliftBlock:
    """Writes the uplift of a block of customers."""

    scored: ScoredUplift
    identity: pa.Table

    def __call__(self, start: int, stop: int) -> pa.Table:
        champions = self.scored.champions
        identity = self.identity.slice(start, stop - start)
        return with_identity(
            identity, self.scored.scores[start:stop], champions.require(JOB).version, champions, UPLIFT
        )


def score_uplift(
    champions: Champions,
    *,
    budget_share: float | None = None,
    as_of: datetime | None = None,
    builder: Builder | None = None,
) -> ScoredUplift:
    """The uplift of every customer of the profiles, and whom to contact.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    budget_share : float, optional
        Share of the customers with a score that may be contacted; default: all with a positive uplift.
    as_of, builder
        As in `score_churn`.

    Raises
    ------
    DataError, UsageError
        As `score_churn`.
    """
    champions_at = at_moment(champions, champions.require(JOB), as_of, builder)
    one_ids = champions_at.customers.one_ids
    scores = score_rows(champions_at, np.arange(len(one_ids), dtype=np.int64))
    allocate(scores, one_ids, budget_of(sum(row["no_score_reason"] is None for row in scores), budget_share, None))
    return ScoredUplift(champions_at, scores)
