"""Predictions of all customers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from serving.champions import Champions
from serving.predictions import PREDICTIONS
from serving.predictions.base import Prediction, available, predict_rows
from serving.scoring.blocks import BlockScores, only_needed, provenance
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, at_moment, identity_columns, with_identity

if TYPE_CHECKING:  # endpoints predict without a database
    from features.compute.builder import Builder


def score_predictions(
    champions: Champions,
    *,
    names: Sequence[str] = tuple(PREDICTIONS),
    as_of: datetime | None = None,
    builder: Builder | None = None,
) -> BlockScores:
    """Prepare the predictions of every customer of the profiles.

    Parameters
    ----------
    names : sequence of str
        Names in `PREDICTIONS`; those without a model are left out.
    as_of, builder
        As in `score_churn`.

    Returns
    -------
    BlockScores
        user_id, user_source, one_id, the columns of each prediction, no_score_reason, no_score_reasons (a struct with a
        field for each of several predictions), as_of, model_version.

    Raises
    ------
    NotReady
        None of the predictions has a model.
    DataError, UsageError
        As `score_churn`.
    """
    found = available(champions, [PREDICTIONS[name] for name in names])
    models = [champions.require(one.job) for one in found]
    champions_at = predictions_at(champions, names, as_of, builder)
    needed = only_needed(champions_at, models, {tag for one in found for tag in (*one.tags, *one.built_tags)})
    for one in found:
        needed.encoded(one.job)  # here once instead of in every process
    schema = schema_of(champions, found)
    identity = identity_columns(champions_at)
    version = models[0].version if len(models) == 1 else ", ".join(f"{model.job} {model.version}" for model in models)
    block = _PredictionBlock(needed, identity, schema, tuple(one.name for one in found), version)
    depends_on = {**provenance(champions_at, *models), "predictions": [one.name for one in found]}
    return BlockScores(schema, identity.num_rows, block, depends_on)


def predictions_at(
    champions: Champions, names: Sequence[str], as_of: datetime | None, builder: Builder | None
) -> Champions:
    """The champions with the profiles at `as_of`; parameters and errors are those of `score_predictions`."""
    at = champions
    for one in available(champions, [PREDICTIONS[name] for name in names]):  # none may have learnt from later rows
        at = at_moment(at, champions.require(one.job), as_of, builder)
    return at


def schema_of(champions: Champions, predictions: Sequence[Prediction]) -> pa.Schema:
    """Columns of the file of these predictions, each of which has a model."""
    fields = [field for one in predictions for field in one.columns(champions.require(one.job))]
    reasons = [pa.field("no_score_reason", pa.string())]
    if len(predictions) > 1:
        reasons.append(pa.field("no_score_reasons", pa.struct([(one.name, pa.string()) for one in predictions])))
    return pa.schema([*IDENTITY_COLUMNS, *fields, *reasons, *PROVENANCE])


@dataclass(frozen=True)
class _PredictionBlock:
    """Predicts the customers of a block."""

    champions: Champions
    identity: pa.Table
    schema: pa.Schema
    names: tuple[str, ...]
    version: str

    def __call__(self, start: int, stop: int) -> pa.Table:
        rows = np.arange(start, stop, dtype=np.int64)
        scores = predict_rows(self.champions, rows, None, [PREDICTIONS[name] for name in self.names])
        identity = self.identity.slice(start, stop - start)
        return with_identity(identity, scores, self.version, self.champions, self.schema)
