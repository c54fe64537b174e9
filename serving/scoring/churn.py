"""Churn scores: of some rows of the profiles, and of every customer as a table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.spec import UserFeatures
from models.classify.churn import risk_bands
from serving.champions import Champions
from serving.recommending.explain import days_text, score_reasons
from serving.responses import rounded
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, at_moment, blocks, with_identity

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
    champions: Champions, encoded: UserFeatures, rows: NDArray[np.int64], explain: bool
) -> list[dict[str, Any]]:
    """The score of some rows of the profiles (−1 for an unknown customer); `reasons` only with `explain`."""
    champion = champions.require(JOB)
    why_not = no_score_reasons(champions, rows)
    scorable = np.array([position for position, reason in enumerate(why_not) if reason is None], dtype=np.int64)
    values = encoded.values[rows[scorable]]
    found: list[dict[str, Any]] = [
        {
            "churn_probability": None,
            "risk_band": None,
            **({"reasons": []} if explain else {}),
            "no_score_reason": reason,
        }
        for reason in why_not
    ]
    if not len(scorable):
        return found
    probabilities = champion.bundle.model.predict_proba(values)[:, 1]
    bands = risk_bands(probabilities, champions.settings.churn.risk_bands)
    reasons = score_reasons(encoded.spec, values, champion.bundle.model.explain(values)) if explain else None
    for index, position in enumerate(scorable.tolist()):
        found[position]["churn_probability"] = rounded(probabilities[index])
        found[position]["risk_band"] = bands[index]
        if reasons is not None:
            found[position]["reasons"] = reasons[index]
    return found


def no_score_reasons(champions: Champions, rows: NDArray[np.int64]) -> list[str | None]:
    """Why each row is not asked about, None where it is."""
    profiles = champions.customers.features
    active_days = champions.require(JOB).bundle.facts.get("active_days")
    silent = profiles.column("days_since_last_order")[rows]
    orders = profiles.column("orders_total")[rows] if "orders_total" in profiles.spec.names else np.ones(len(rows))
    late = f"no purchase in the last {days_text(active_days)}" if active_days is not None else ""
    return [
        "unknown customer"
        if row < 0
        else "never bought"
        if bought <= 0
        else late
        if active_days is not None and days > active_days
        else None
        for row, bought, days in zip(rows.tolist(), orders.tolist(), silent.tolist(), strict=True)
    ]


def score_churn(
    champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None, explain: bool = True
) -> pa.Table:
    """A churn score, or the reason there is none, for every customer known.

    Parameters
    ----------
    as_of : datetime, optional
        Default: that of the current profiles. Others are built with `builder`.
    explain : bool
        Fill `reasons`.

    Returns
    -------
    pyarrow.Table
        user_id, user_source, one_id, churn_probability, risk_band, reasons, no_score_reason, as_of, model_version.

    Raises
    ------
    DataError
        `as_of` lies before the champion's: it has learnt from later rows.
    """
    champion = champions.require(JOB)
    champions_at = at_moment(champions, champion, as_of, builder)
    encoded = (
        champions_at.customers.encoded(champion.bundle.spec)
        if champion.bundle.spec is not None
        else champions_at.customers.features
    )
    parts = []
    for identity_columns, rows in blocks(champions_at):
        scores = score_rows(champions_at, encoded, rows, explain)
        for score in scores:
            score["reasons"] = [{**reason, "value": _text(reason["value"])} for reason in score.get("reasons", [])]
        parts.append(with_identity(identity_columns, scores, champion, champions_at, CHURN))
    return pa.concat_tables(parts)


def _text(value: float | str | None) -> str | None:
    return f"{value:g}" if isinstance(value, float) else value
