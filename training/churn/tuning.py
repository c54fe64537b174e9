"""`train churn --tune`: the parameters of the trees, on the dates before the test date on which models are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.classify.churn import ChurnClassifier
from qianmian.errors import DataError
from training.churn.choice import RecipeValidation, log_losses, validate
from training.churn.recipes import Recipe, TrainingRows
from training.churn.snapshots import ChurnRows, Snapshots
from training.jobs.base import TrainingContext
from training.tuning import Parameters, Values
from training.tuning_trees import tune_trees


def tune_churn(
    context: TrainingContext,
    snapshots: Snapshots,
    profiles: Mapping[datetime, ChurnRows],
    base: TrainingRows,
    level: str,
    recipes: Sequence[Recipe],
    prepared: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    test: datetime,
) -> dict[str, Parameters]:
    """Tune the trees of the largest recipe that has some; the arguments are those of `training.churn.choice.validate`.

    Parameters
    ----------
    test : datetime
        Test date; the outcomes of all rows were known at it.

    Raises
    ------
    DataError
        There are too few rows to compare parameters.
    """
    recipe = next((one for one in recipes[::-1] if any(member.kind == "trees" for member in one.members)), None)

    def predict(given: Parameters) -> RecipeValidation:
        found = recipe and validate(
            snapshots, profiles, replace(base, trees=given), level, context.shuffled, [recipe], prepared
        )
        if not recipe or not found:
            raise DataError(
                "there are too few dates or customers to tune churn",
                where=f"before {test:%Y-%m-%d}",
                hint="train without --tune, or ingest a longer history",
            )
        return found

    def losses(given: Parameters) -> Values:
        found = predict(given)
        return log_losses(found.y, found.predictions[next(iter(found.predictions))])

    owners = predict({}).owners
    defaults, seconds = ChurnClassifier().get_params(), context.settings.churn.tune_seconds
    return tune_trees(context, "churn", defaults, losses, owners, test, seconds)
