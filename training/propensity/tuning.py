"""`train propensity --tune`: the parameters of the trees of all targets, on the last date before the test date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from models.classify.calibrated import MIN_OUTCOMES, TREES, TreesMember
from models.classify.column_encoding import ColumnEncoding
from qianmian.errors import DataError
from training.classify.choice import platt_losses
from training.jobs.base import TrainingContext
from training.propensity.rows import TargetRows, stacked
from training.tuning import Parameters, Values
from training.tuning_trees import tune_trees


def tune_propensity(
    context: TrainingContext, parts: Sequence[Sequence[TargetRows]], test: datetime
) -> dict[str, Parameters]:
    """Tune the trees on the dates before the last one, of all targets together, and measure them on that date.

    Parameters
    ----------
    parts : sequence of sequence of TargetRows
        For each target, its rows at each date whose outcomes were known at the test date, oldest first.
    test : datetime
        Test date.

    Raises
    ------
    DataError
        No target has two dates with enough rows of both outcomes.
    """
    splits = [(stacked(dates[:-1]), dates[-1]) for dates in parts if len(dates) > 1]
    splits = [
        (before, last)
        for before, last in splits
        if min(min(int(rows.y.sum()), int((1 - rows.y).sum())) for rows in (before, last)) >= MIN_OUTCOMES
    ]
    if not splits:
        raise DataError(
            "there are too few dates or outcomes to tune propensity",
            where=f"before {test:%Y-%m-%d}",
            allowed=f"a target with two dates of {MIN_OUTCOMES} customers of each outcome",
            hint="train without --tune, or ingest a longer history",
        )
    encodings = [ColumnEncoding.of(before.X, (False,) * before.X.shape[1]) for before, _ in splits]

    def losses(given: Parameters) -> Values:
        found = []
        for encoding, (before, last) in zip(encodings, splits, strict=True):
            y = context.shuffled(before.y)
            trees = TreesMember.fit(encoding, before.X, y, context.settings.seed, given)
            found.append(platt_losses(trees.log_odds(last.X), last.y))
        return np.concatenate(found)

    owners = np.concatenate([last.owners for _, last in splits])
    return tune_trees(
        context, "propensity", dict(TREES), losses, owners, test, context.settings.propensity.tune_seconds
    )
