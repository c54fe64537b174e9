"""`train value --tune`: the parameters of the trees, on the period on which the recipe is chosen."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.value.value_model import MONEY, ORDERS, TREES
from training.jobs.base import TrainingContext
from training.tuning import Parameters, Values
from training.tuning_trees import tune_trees
from training.value.fitting import TREE_PARAMETERS, ValueFitting, deviances
from training.value.rows import ValueRows


def tune_value(
    context: TrainingContext, fitting: ValueFitting, validation: datetime, validated: ValueRows, test: datetime
) -> dict[str, Parameters]:
    """Tune the trees of money, or of orders if there are no amounts, by their deviance in the validation period.

    Parameters
    ----------
    validation : datetime
        Begin of the validation period; models are fitted on what was known then.
    validated : ValueRows
        Customers then, with their totals in the period.
    test : datetime
        End of the validation period, where the test period begins.
    """
    what = MONEY if MONEY in fitting.whats else ORDERS
    trees_only = replace(fitting, whats=(what,), counts=False, amounts=False)

    def losses(given: Parameters) -> Values:
        model = replace(trees_only, trees=given).fit_at(validation)
        return deviances(validated.totals[what], model.expected(validated.X, what, TREES))

    seconds = context.settings.value.tune_seconds
    return tune_trees(context, "value", TREE_PARAMETERS, losses, validated.owners, test, seconds)
