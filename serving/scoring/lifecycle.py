"""Lifecycle predictions for given profile rows, and for all customers as a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.spec import UserFeatures
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES
from serving.champions import Champion, Champions
from serving.responses import rounded
from serving.scoring.blocks import BlockScores, only_needed, provenance
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, at_moment, identity_columns, with_identity

if TYPE_CHECKING:  # endpoints predict without a database
    from features.compute.builder import Builder

JOB = "lifecycle"
STAGE_TAG = "lifecycle_stage"
PROSPECT = LIFECYCLE_STAGES[0]


def predict_rows(champions: Champions, encoded: UserFeatures, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Predict rows of the profiles, −1 for an unknown customer; a dict per row as in `/v1/predictions`."""
    known = np.flatnonzero(rows >= 0)
    profiles = champions.customers.features.take(rows[known])
    stages = _stages(champions, rows[known])
    predictions: list[dict[str, Any]] = [_unknown_customer() for _ in rows]
    orders = profiles.column("orders_total")
    gaps, values = profiles.column("gap_days_mean"), _column(profiles, "order_value_mean")
    for index, position in enumerate(known.tolist()):
        n_orders = orders[index]
        predictions[position] = {
            "lifecycle_stage": str(stages[index]),
            "next_stage": None,
            "average_days_between_orders": rounded(gaps[index], 4) if n_orders > 1 else None,
            "average_order_value": rounded(values[index], 4) if n_orders > 0 and values is not None else None,
            "no_score_reason": "never bought" if stages[index] == PROSPECT else None,
        }
    buyers = np.flatnonzero(stages != PROSPECT)  # the model is trained on buyers only
    if len(buyers):
        model = champions.require(JOB).bundle.model
        probabilities = model.predict_proba(encoded.values[rows[known[buyers]]], stages[buyers])
        names = model.classes_.tolist()
        for position, row in zip(known[buyers].tolist(), probabilities.tolist(), strict=True):
            predictions[position]["next_stage"] = {name: rounded(value) for name, value in zip(names, row, strict=True)}
    return predictions


def score_predictions(
    champions: Champions, *, as_of: datetime | None = None, builder: Builder | None = None
) -> BlockScores:
    """Prepare lifecycle stage, next stage and averages of every customer of the profiles.

    Parameters and errors are those of `score_churn`.

    Returns
    -------
    BlockScores
        user_id, user_source, one_id, lifecycle_stage, next_stage (a struct with one field per stage),
        average_days_between_orders, average_order_value, no_score_reason, as_of, model_version.
    """
    champion = champions.require(JOB)
    champions_at = at_moment(champions, champion, as_of, builder)
    encoded = (
        champions_at.customers.encoded(champion.bundle.spec)
        if champion.bundle.spec is not None
        else champions_at.customers.features
    )
    schema = schema_of(champion)
    identity = identity_columns(champions_at)
    block = _LifecycleBlock(only_needed(champions_at, champion, [STAGE_TAG]), encoded, identity, schema)
    return BlockScores(schema, identity.num_rows, block, provenance(champions_at, champion))


def schema_of(champion: Champion) -> pa.Schema:
    """Columns of the predictions of a model, which names the stages."""
    stages = pa.struct([(name, pa.float64()) for name in champion.bundle.model.classes_.tolist()])
    return pa.schema(
        [
            *IDENTITY_COLUMNS,
            ("lifecycle_stage", pa.string()),
            ("next_stage", stages),
            ("average_days_between_orders", pa.float64()),
            ("average_order_value", pa.float64()),
            ("no_score_reason", pa.string()),
            *PROVENANCE,
        ]
    )


@dataclass(frozen=True)
class _LifecycleBlock:
    """Predicts the customers of a block."""

    champions: Champions
    encoded: UserFeatures
    identity: pa.Table
    schema: pa.Schema

    def __call__(self, start: int, stop: int) -> pa.Table:
        scores = predict_rows(self.champions, self.encoded, np.arange(start, stop, dtype=np.int64))
        identity = self.identity.slice(start, stop - start)
        return with_identity(identity, scores, self.champions.require(JOB), self.champions, self.schema)


def check_stages(champions: Champions) -> None:
    """Refuse profiles without lifecycle stages.

    Raises
    ------
    DataError
        The profiles have no such tag, because orders have no times.
    """
    if STAGE_TAG not in champions.customers.tags:
        raise DataError(
            "lifecycle stages require orders with times",
            got=f"profiles without the tag {STAGE_TAG}",
            hint="map the column `ts` of transactions in sources.yaml, then ingest and run `qianmian features`",
        )


def _stages(champions: Champions, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """Lifecycle stage of rows of the profiles: the value of the tag."""
    check_stages(champions)
    values = champions.customers.tags[STAGE_TAG]
    return np.asarray([values[row] for row in rows.tolist()], dtype=np.str_)


def _column(profiles: UserFeatures, name: str) -> NDArray[np.float32] | None:
    return profiles.column(name) if name in profiles.spec.names else None


def _unknown_customer() -> dict[str, Any]:
    return {
        "lifecycle_stage": None,
        "next_stage": None,
        "average_days_between_orders": None,
        "average_order_value": None,
        "no_score_reason": "unknown customer",
    }
