"""Churn scores of given profile rows, and of all customers as a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import UserFeatures
from models.classify.risk_bands import bands_of_model
from serving.champions import Champions
from serving.recommending.explain import days_text, score_reasons
from serving.responses import NEVER_BOUGHT, UNKNOWN_CUSTOMER, rounded
from serving.scoring.blocks import BlockScores, only_needed, provenance
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, at_moment, identity_columns, with_identity

if TYPE_CHECKING:  # endpoints predict without a database
    from features.compute.builder import Builder

JOB = "churn"
REASON = pa.struct([(name, pa.string()) for name in ("feature", "description", "value", "effect")])
CHURN = pa.schema(
    [
        *IDENTITY_COLUMNS,
        ("churn_probability", pa.float64()),
        ("risk_band", pa.string()),
        ("reasons", pa.list_(REASON)),
        ("no_score_reason", pa.string()),
        *PROVENANCE,
    ]
)


def score_rows(
    champions: Champions,
    encoded: UserFeatures,
    rows: NDArray[np.int64],
    moments: NDArray[np.datetime64] | None = None,
    *,
    explain: bool,
) -> list[dict[str, Any]]:
    """Score rows of the profiles.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    encoded : UserFeatures
        Profiles encoded for the churn model.
    rows : ndarray of int64, shape (n,)
        Rows of the profiles, −1 for an unknown customer.
    moments : ndarray of datetime64, shape (n,), optional
        Moment of the features of each row; default: that of `encoded`.
    explain : bool
        Add `reasons`.

    Returns
    -------
    list of dict
        Per row: churn_probability, risk_band, no_score_reason and optionally reasons.
    """
    champion = champions.require(JOB)
    why_not = no_score_reasons(champions, rows)
    scorable = np.array([position for position, reason in enumerate(why_not) if reason is None], dtype=np.int64)
    values = encoded.values[rows[scorable]]
    scores: list[dict[str, Any]] = [
        {
            "churn_probability": None,
            "risk_band": None,
            **({"reasons": []} if explain else {}),
            "no_score_reason": reason,
        }
        for reason in why_not
    ]
    if not len(scorable):
        return scores
    as_of = encoded.as_of if moments is None else moments[scorable]
    probabilities = champion.bundle.model.predict_proba(values, as_of)[:, 1]
    bands = bands_of_model(champion.bundle.facts, champions.settings.churn.risk_bands).of(probabilities)
    reasons = score_reasons(encoded.spec, values, champion.bundle.model.explain(values, as_of)) if explain else None
    for index, position in enumerate(scorable.tolist()):
        scores[position]["churn_probability"] = rounded(probabilities[index])
        scores[position]["risk_band"] = bands[index]
        if reasons is not None:
            scores[position]["reasons"] = reasons[index]
    return scores


def no_score_reasons(champions: Champions, rows: NDArray[np.int64]) -> list[str | None]:
    """Return why each row gets no score, None if it gets one."""
    profiles, facts = champions.customers.features, champions.require(JOB).bundle.facts
    active_days, shared = facts.get("active_days"), facts.get("shared_accounts", {})
    recency_days = profiles.column("days_since_last_order")[rows]
    orders = profiles.column("orders_total")[rows] if "orders_total" in profiles.spec.names else np.ones(len(rows))
    inactive = f"no purchase in the last {days_text(active_days)}" if active_days is not None else ""

    def reason(row: int, one_id: str, bought: float, days: float) -> str | None:
        if row < 0:
            return UNKNOWN_CUSTOMER
        if one_id in shared:
            return str(shared[one_id])
        if bought <= 0:
            return NEVER_BOUGHT
        return inactive if active_days is not None and days > active_days else None

    columns = rows.tolist(), profiles.one_ids[rows].tolist(), orders.tolist(), recency_days.tolist()
    return [reason(*row) for row in zip(*columns, strict=True)]


def score_churn(
    champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None, explain: bool = True
) -> BlockScores:
    """Prepare a churn score, or the reason why there is none, for every customer of the profiles.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    as_of : datetime, optional
        Date of the profiles; default: that of the current ones.
    builder : Builder, optional
        Builds the profiles of another date.
    explain : bool
        Fill the column `reasons`.

    Returns
    -------
    BlockScores
        user_id, user_source, one_id, churn_probability, risk_band, reasons, no_score_reason, as_of, model_version.

    Raises
    ------
    DataError
        If `as_of` is before the cutoff of the champion, which was trained on later rows.
    UsageError
        If `as_of` is not the date of the current profiles and there is no builder.
    """
    champion = champions.require(JOB)
    champions_at = at_moment(champions, champion, as_of, builder)
    encoded = (
        champions_at.customers.encoded(champion.bundle.spec)
        if champion.bundle.spec is not None
        else champions_at.customers.features
    )
    identity = identity_columns(champions_at)
    block = _ChurnBlock(only_needed(champions_at, [champion]), encoded, identity, explain)
    depends_on = {**provenance(champions_at, champion), "explain": explain}
    return BlockScores(CHURN, identity.num_rows, block, depends_on)


@dataclass(frozen=True)
class _ChurnBlock:
    """Scores the customers of a block."""

    champions: Champions
    encoded: UserFeatures
    identity: pa.Table
    explain: bool

    def __call__(self, start: int, stop: int) -> pa.Table:
        scores = score_rows(self.champions, self.encoded, np.arange(start, stop, dtype=np.int64), explain=self.explain)
        for score in scores:
            score["reasons"] = [{**reason, "value": _text(reason["value"])} for reason in score.get("reasons", [])]
        identity = self.identity.slice(start, stop - start)
        return with_identity(identity, scores, self.champions.require(JOB).version, self.champions, CHURN)


def _text(value: float | str | None) -> str | None:
    return f"{value:g}" if isinstance(value, float) else value
