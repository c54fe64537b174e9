"""`--tune`: search parameters of recommenders on the validation period with Optuna; every trial is a nested MLflow run.

The best parameters are saved in the workspace. Later trainings use them if their test period begins after the end of
the validation period of the search.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.persist import load_json
from models.recommend import RECOMMENDERS
from models.recommend.base import Choice, Recommender
from qianmian.errors import QianmianError
from qianmian.model_settings import RecommendSettings
from qianmian.workspace import Workspace, write_json
from training import tracking
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.jobs.base import Progress
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task, make_recommender, parameters_of, with_parameters

TUNED_FILE = "recommend.json"
MAX_TRIALS = 200  # per model
# share of the time per model, default 1: a trial of a ranker takes longer, because it also fits its candidate models
TIME_WEIGHTS = {"two_stage": 4.0}


def tune(
    workspace: Workspace,
    settings: RecommendSettings,
    seed: int,
    train: TrainingSet,
    holdout: Interactions,
    window_end: datetime,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Search the parameters of every model that a task tunes, within `settings.tune_seconds`, and save the best.

    Parameters
    ----------
    workspace : Workspace
    settings : RecommendSettings
    seed : int
    train : TrainingSet
        Data before the validation period.
    holdout : Interactions
        Interactions in the validation period.
    window_end : datetime
        End of the validation period, saved with the parameters.
    progress : callable

    Returns
    -------
    dict of str to dict
        Best parameters of each model. The first trial of a model uses its parameters without tuning, so no model gets
        worse on the validation period.
    """
    todo = sorted(
        ((name, task) for task in TASKS.values() for name in task.tuned_models),
        key=lambda pair: TIME_WEIGHTS.get(pair[0], 1.0),
    )
    found: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + settings.tune_seconds
    left = sum(TIME_WEIGHTS.get(name, 1.0) for name, _ in todo)
    with tracking.run(workspace, "recommend", "recommend tune") as parent:
        import mlflow

        for name, task in todo:
            share = TIME_WEIGHTS.get(name, 1.0)
            seconds = (deadline - time.monotonic()) * share / left
            left -= share
            examples = task.examples(train, holdout, seed)
            if len(examples) < MIN_EXAMPLES:
                reason = f"{task.name} has {len(examples)} examples, and {MIN_EXAMPLES} are needed"
                progress(f"recommend: {name} is not tuned, because {reason}")
                continue
            best = _search(
                workspace, name, task, examples, with_parameters(settings, found), seed, max(seconds, 0.0), progress
            )
            if best:
                found[name] = best
        mlflow.log_params({f"{name}.{key}": value for name, given in found.items() for key, value in given.items()})
        run_id = parent.info.run_id
    write_json(_file(workspace), {"until": window_end.isoformat(), "run_id": run_id, "models": found})
    progress(f"recommend: the tuned parameters are saved in {_file(workspace)}; delete the file to use the defaults")
    return found


def load_tuned_parameters(workspace: Workspace, test_start: datetime, progress: Progress) -> dict[str, dict[str, Any]]:
    """Parameters saved by an earlier tuning, or {} if there are none or they were tuned on data after `test_start`."""
    path = _file(workspace)
    if not path.exists():
        return {}
    kept = load_json(path)
    if datetime.fromisoformat(kept["until"]) > test_start:
        until = kept["until"][:10]
        progress(f"recommend: the defaults are used, because {path} was tuned on test days (data up to {until})")
        return {}
    progress(f"recommend: the tuned parameters of {path} are used; delete the file to use the defaults")
    # models and parameters that no longer exist are ignored
    return {
        name: {key: value for key, value in given.items() if key in parameters_of(RECOMMENDERS[name])}
        for name, given in kept["models"].items()
        if name in RECOMMENDERS
    }


def _file(workspace: Workspace) -> Any:
    return workspace.root / "tuned" / TUNED_FILE


def _search(
    workspace: Workspace,
    name: str,
    task: Task,
    examples: EvaluationSplit,
    settings: RecommendSettings,
    seed: int,
    seconds: float,
    progress: Progress,
) -> dict[str, Any]:
    import mlflow
    import optuna

    kind = RECOMMENDERS[name]
    mine = {key: space for key, space in kind.search_space.items() if key not in settings.models.get(name, {})}
    optuna.logging.set_verbosity(logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    default_params = _model(name, task, settings, seed, {}).get_params()
    study.enqueue_trial({key: default_params[key] for key in mine if default_params[key] is not None})

    def objective(trial: optuna.Trial) -> float:
        given = {key: _suggest(trial, key, space) for key, space in mine.items()}
        with tracking.run(workspace, "recommend", f"{name} {trial.number}"):
            mlflow.log_params({"model": name, "task": task.name, **given})
            begun = time.perf_counter()
            try:
                model = _model(name, task, settings, seed, given).fit(examples.train)
            except QianmianError as error:
                mlflow.set_tag("qianmian.refused", str(error)[:500])
                raise optuna.TrialPruned from error
            values = ranking_metrics(examples.recommend_with(model, task.k).ids, examples.truth, task.k)
            figures = {f"{metric}_at_{task.k}": float(np.mean(found)) for metric, found in values.items()}
            mlflow.log_metrics({**figures, "seconds": time.perf_counter() - begun})
        return float(np.mean(values[task.metric]))

    if not mine:
        return {}
    deadline = time.monotonic() + seconds

    def stop_in_time(study: optuna.Study, _trial: optuna.trial.FrozenTrial) -> None:
        if time.monotonic() >= deadline:
            study.stop()

    try:  # Optuna's own timeout is not used, because it could stop before the trial of the default parameters
        study.optimize(objective, n_trials=MAX_TRIALS, callbacks=[stop_in_time], catch=())
        best = study.best_trial
    except ValueError:  # Optuna raises it when no trial was completed
        progress(f"recommend: {name}: no trial was completed")
        return {}
    first = next(trial for trial in study.trials if trial.number == 0)
    default_value = f"{first.value:.4f}" if first.value is not None else "failed"
    gain = f"{task.metric}@{task.k} {default_value} → {best.value:.4f}"
    progress(f"recommend: {name}: {len(study.trials)} trials on {task.name}, {gain}")
    return dict(best.params)


def _model(name: str, task: Task, settings: RecommendSettings, seed: int, given: Mapping[str, Any]) -> Recommender:
    """The candidate of the task with the given parameters, so that parameters fixed by the task stay fixed."""
    candidates = task.candidates(with_parameters(settings, {name: given}), seed).values()
    return next((model for model in candidates if model.name == name), None) or make_recommender(
        name, settings, seed, **given
    )


def _suggest(trial: Any, key: str, space: Any) -> Any:
    if isinstance(space, Choice):
        return trial.suggest_categorical(key, list(space.values))
    suggest: Callable[..., Any] = (
        trial.suggest_int if isinstance(space.low, int) and isinstance(space.high, int) else trial.suggest_float
    )
    return suggest(key, space.low, space.high, log=space.log)
