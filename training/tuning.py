"""`--tune`: search the parameters of the recommenders on the validation window (Optuna), every trial a nested MLflow run.

What is found is kept in the workspace and used by later trainings whose measurement begins after the days it was found on.
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
from qianmian.settings import RecommendSettings
from qianmian.workspace import Workspace, write_json
from training import tracking
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.jobs.base import Progress
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task, make_recommender, parameters_of, with_parameters

TUNED_FILE = "recommend.json"
MAX_TRIALS = 200  # of one model: a small search space is exhausted long before
TIME_WEIGHTS = {
    "two_stage": 4.0
}  # of the time; 1 for the others. A ranker is fitted on top of the others, a trial takes longer


def tune(
    workspace: Workspace,
    settings: RecommendSettings,
    seed: int,
    train: TrainingSet,
    holdout: Interactions,
    window_end: datetime,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """The best parameters found for each model a task tunes, within `settings.tune_seconds`.

    Parameters
    ----------
    train, after
        Customers before the validation window, and what they did in it.
    window_end : datetime
        End of that window; kept beside what is found.

    Returns
    -------
    dict of str to dict
        Model → parameters. The first trial of a model is what it would be without tuning, so on the window none is worse.
    """
    todo = sorted(
        ((name, task) for task in TASKS.values() for name in task.tuned_models),
        key=lambda pair: TIME_WEIGHTS.get(pair[0], 1.0),
    )
    found: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + settings.tune_seconds
    left = sum(TIME_WEIGHTS.get(name, 1.0) for name, _ in todo)
    with tracking.run(workspace, "recommend tune") as parent:
        import mlflow

        for name, task in todo:
            share = TIME_WEIGHTS.get(name, 1.0)
            seconds = (deadline - time.monotonic()) * share / left
            left -= share
            examples = task.examples(train, holdout, seed)
            if len(examples) < MIN_EXAMPLES:
                progress(
                    f"recommend: {name} is not tuned: {task.name} has {len(examples)} examples, {MIN_EXAMPLES} are needed"
                )
                continue
            best = _search(
                workspace, name, task, examples, with_parameters(settings, found), seed, max(seconds, 0.0), progress
            )
            if best:
                found[name] = best
        mlflow.log_params({f"{name}.{key}": value for name, given in found.items() for key, value in given.items()})
        run_id = parent.info.run_id
    write_json(_file(workspace), {"until": window_end.isoformat(), "run_id": run_id, "models": found})
    progress(f"recommend: what was found is kept in {_file(workspace)}; delete the file for the defaults")
    return found


def load_tuned_parameters(workspace: Workspace, test_start: datetime, progress: Progress) -> dict[str, dict[str, Any]]:
    """What an earlier tuning found, for a measurement that begins at `test_start`; nothing where there was none, or where it has seen later days."""
    path = _file(workspace)
    if not path.exists():
        return {}
    kept = load_json(path)
    if datetime.fromisoformat(kept["until"]) > test_start:
        progress(
            f"recommend: {path} was found on days up to {kept['until'][:10]}, which are measured here: the defaults are used"
        )
        return {}
    progress(f"recommend: with the parameters of {path}; delete the file for the defaults")
    # a parameter that has gone since is no reason to stop
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
        with tracking.run(workspace, f"{name} {trial.number}"):
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

    try:  # not Optuna's own timeout: however short the time, the usual parameters are tried
        study.optimize(objective, n_trials=MAX_TRIALS, callbacks=[stop_in_time], catch=())
        best = study.best_trial
    except ValueError:  # Optuna's word for: no trial was completed
        progress(f"recommend: {name}: no trial could be completed")
        return {}
    first = next(trial for trial in study.trials if trial.number == 0)
    usual_value = f"{first.value:.4f}" if first.value is not None else "nothing"
    progress(
        f"recommend: {name}: {len(study.trials)} trials on {task.name}, {task.metric}@{task.k} {usual_value} → {best.value:.4f}"
    )
    return dict(best.params)


def _model(name: str, task: Task, settings: RecommendSettings, seed: int, given: Mapping[str, Any]) -> Recommender:
    """The model as its task makes it, so that what the task fixes is fixed here too, with the given parameters over it."""
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
