"""`--tune`: search parameters on the validation period with Optuna; every trial is a nested MLflow run.

What is found is kept in ``tuned/JOB.json`` of the workspace. Later trainings use it if their test period begins after
the end of the validation period of the search.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.persist import load_json
from models.search_space import Choice, Range
from qianmian.errors import QianmianError
from qianmian.workspace import Workspace, write_json
from training import tracking
from training.jobs.base import Progress, TrainingContext

MAX_TRIALS = 200  # of a search
Parameters = dict[str, Any]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """The best trial of a search, beside the first one, which has the parameters without tuning.

    Attributes
    ----------
    parameters : dict
        Of the best trial.
    values, first_values : ndarray of float64, (n,)
        What each trial scored on each example of the validation period; empty if the first trial failed.
    trials : int
    """

    parameters: Parameters
    values: Values
    first_values: Values
    trials: int


def tuned_parameters(
    context: TrainingContext, job: str, test_start: datetime, search: Callable[[], dict[str, Parameters]]
) -> dict[str, Parameters]:
    """Parameters found by tuning, by model: those of the run that is reproduced, of a search now, or of an earlier one.

    Parameters
    ----------
    job : str
    test_start : datetime
        Those of an earlier search are used only if its validation period ended by then.
    search : callable
        Searches and saves, for `context.tune`.
    """
    if job not in context.inherited:
        found = (
            search() if context.tune else load_tuned_parameters(context.workspace, job, test_start, context.progress)
        )
        context.inherited[job] = found
    return context.inherited[job]


def save_tuned_parameters(
    workspace: Workspace, job: str, window_end: datetime, run_id: str, found: dict[str, Parameters], progress: Progress
) -> None:
    """Keep parameters by model in the workspace, with the end of the validation period on which they were found."""
    file = tuned_file(workspace, job)
    write_json(file, {"until": window_end.isoformat(), "run_id": run_id, "models": found})
    progress(f"{job}: the tuned parameters are saved in {file}; delete the file to use the defaults")


def load_tuned_parameters(
    workspace: Workspace, job: str, test_start: datetime, progress: Progress
) -> dict[str, Parameters]:
    """Parameters kept by an earlier tuning, or {} if there are none or they were tuned on data after `test_start`."""
    file = tuned_file(workspace, job)
    if not file.exists():
        return {}
    kept = load_json(file)
    if datetime.fromisoformat(kept["until"]) > test_start:
        until = kept["until"][:10]
        progress(f"{job}: the defaults are used, because {file} was tuned on test days (data up to {until})")
        return {}
    progress(f"{job}: the tuned parameters of {file} are used; delete the file to use the defaults")
    return dict(kept["models"])


def tuned_file(workspace: Workspace, job: str) -> Path:
    """The file in which tuned parameters of a job are kept."""
    return workspace.root / "tuned" / f"{job}.json"


def search_parameters(
    workspace: Workspace,
    name: str,
    space: Mapping[str, Range | Choice],
    defaults: Parameters,
    score: Callable[[Parameters], tuple[Values, dict[str, float]]],
    *,
    maximize: bool,
    described: Mapping[str, Any],
    seed: int,
    seconds: float,
) -> Search | None:
    """Search parameters with Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    The first trial has the defaults, so that the best is never worse than they are on the examples.

    Parameters
    ----------
    name : str
        Of the model; the nested runs are named after it.
    space : mapping of str to Range or Choice
        By parameter.
    defaults : dict
        By parameter; one that is None is left to the search.
    score : callable
        Parameters → the score of each example, and metrics for the run. A `QianmianError` ends the trial.
    maximize : bool
        Whether a higher mean score is better.
    described : mapping of str to any
        Further parameters of the nested runs.
    seed : int
    seconds : float
        After which no further trial begins; the first is always made.

    Returns
    -------
    Search or None
        None if no trial could be completed.
    """
    import mlflow
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize" if maximize else "minimize", sampler=sampler)
    study.enqueue_trial({key: defaults[key] for key in space if defaults[key] is not None})
    scored: dict[int, Values] = {}

    def objective(trial: optuna.Trial) -> float:
        given = {key: _suggest(trial, key, one) for key, one in space.items()}
        with tracking.run(workspace, f"{name} {trial.number}"):
            mlflow.log_params({"model": name, **described, **given})
            begun = time.perf_counter()
            try:
                scored[trial.number], figures = score(given)
            except QianmianError as error:
                mlflow.set_tag("qianmian.refused", str(error)[:500])
                raise optuna.TrialPruned from error
            mlflow.log_metrics({**figures, "seconds": time.perf_counter() - begun})
        return float(np.mean(scored[trial.number]))

    deadline = time.monotonic() + seconds

    def stop_in_time(study: optuna.Study, _trial: optuna.trial.FrozenTrial) -> None:
        if time.monotonic() >= deadline:
            study.stop()

    # Optuna's own timeout is not used, because it could stop before the trial of the default parameters
    study.optimize(objective, n_trials=MAX_TRIALS, callbacks=[stop_in_time], catch=())
    if not scored:
        return None
    best = study.best_trial
    return Search(dict(best.params), scored[best.number], scored.get(0, np.empty(0)), len(study.trials))


def _suggest(trial: Any, key: str, space: Range | Choice) -> Any:
    if isinstance(space, Choice):
        return trial.suggest_categorical(key, list(space.values))
    suggest: Callable[..., Any] = (
        trial.suggest_int if isinstance(space.low, int) and isinstance(space.high, int) else trial.suggest_float
    )
    return suggest(key, space.low, space.high, log=space.log)
