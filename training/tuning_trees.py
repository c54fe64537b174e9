"""`--tune` of boosted trees, for the jobs that predict one outcome of each customer: churn, propensity and value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.search_space import TREE_SPACE
from training import tracking
from training.bootstrap import mean_metric
from training.jobs.base import TrainingContext
from training.tuning import Parameters, Values, save_tuned_parameters, search_parameters

TREES = "trees"  # the model whose parameters are kept


def tune_trees(
    context: TrainingContext,
    job: str,
    defaults: Parameters,
    losses: Callable[[Parameters], Values],
    owners: NDArray[Any],
    window_end: datetime,
    seconds: float,
) -> dict[str, Parameters]:
    """Search the parameters of trees on the validation period; the defaults stay unless the best is beyond noise.

    Parameters
    ----------
    job : str
    defaults : dict
        Of the parameters in `TREE_SPACE`.
    losses : callable
        Parameters → the loss of each row of the validation period, (n,).
    owners : ndarray, (n,)
        Customer of each row: the rows of a customer are one observation.
    window_end : datetime
        End of the validation period.
    seconds : float

    Returns
    -------
    dict of str to dict
        ``{"trees": parameters}``, or {} for the defaults.
    """
    seed = context.settings.seed
    context.progress(f"{job}: tuning the trees on the days before {window_end:%Y-%m-%d}, {seconds:g} s")

    def score(given: Parameters) -> tuple[Values, dict[str, float]]:
        values = losses(given)
        return values, {"loss": float(values.mean())}

    with tracking.run(context.workspace, job, f"{job} tune") as parent:
        import mlflow

        found = search_parameters(
            context.workspace,
            TREES,
            TREE_SPACE,
            defaults,
            score,
            maximize=False,
            described={"job": job},
            seed=seed,
            seconds=seconds,
        )
        kept: dict[str, Parameters] = {}
        if found is None or not len(found.first_values):
            context.progress(f"{job}: the trees are not tuned, because those without tuning cannot be fitted")
        else:
            ahead = mean_metric(by_owner(found.first_values - found.values, owners), seed)
            kept = {TREES: found.parameters} if ahead.low > 0 else {}
            context.progress(
                f"{job}: {found.trials} trials, loss {found.first_values.mean():.4f} → {found.values.mean():.4f}, "
                f"{'beyond noise' if kept else 'within noise, so the defaults stay'} ({ahead} for each customer)"
            )
        mlflow.log_params(kept.get(TREES, {}))
        run_id = parent.info.run_id
    save_tuned_parameters(context.workspace, job, window_end, run_id, kept, context.progress)
    return kept


def by_owner(values: Values, owners: NDArray[Any]) -> Values:
    """Sum of the values of each customer.

    Examples
    --------
    >>> by_owner(np.array([1.0, 2.0, 4.0]), np.array(["b", "a", "b"])).tolist()
    [2.0, 5.0]
    """
    return np.bincount(np.unique(owners, return_inverse=True)[1], weights=values).astype(np.float64)
