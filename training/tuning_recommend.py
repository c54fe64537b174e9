"""`train recommend --tune`: the parameters of each model on the task that it is made for (`training.tuning`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.recommend import RECOMMENDERS
from models.recommend.base import Recommender
from qianmian.model_settings import RecommendSettings
from qianmian.workspace import Workspace
from training import tracking
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.jobs.base import Progress
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task, make_recommender, parameters_of, with_parameters
from training.tuning import save_tuned_parameters, search_parameters

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
    save_tuned_parameters(workspace, "recommend", window_end, run_id, found, progress)
    return found


def existing_only(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tuned parameters without those of models and parameters that no longer exist."""
    return {
        name: {key: value for key, value in given.items() if key in parameters_of(RECOMMENDERS[name])}
        for name, given in found.items()
        if name in RECOMMENDERS
    }


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
    space = RECOMMENDERS[name].search_space
    mine = {key: space[key] for key in space if key not in settings.models.get(name, {})}
    if not mine:
        return {}

    def score(given: dict[str, Any]) -> tuple[NDArray[np.float64], dict[str, float]]:
        model = _model(name, task, settings, seed, given).fit(examples.train)
        values = ranking_metrics(examples.recommend_with(model, task.k).ids, examples.truth, task.k)
        return values[task.metric], {f"{metric}_at_{task.k}": float(np.mean(of)) for metric, of in values.items()}

    found = search_parameters(
        workspace,
        name,
        mine,
        _model(name, task, settings, seed, {}).get_params(),
        score,
        maximize=True,
        described={"task": task.name},
        seed=seed,
        seconds=seconds,
    )
    if found is None:
        progress(f"recommend: {name}: no trial was completed")
        return {}
    default_value = f"{found.first_values.mean():.4f}" if len(found.first_values) else "failed"
    gain = f"{task.metric}@{task.k} {default_value} → {found.values.mean():.4f}"
    progress(f"recommend: {name}: {found.trials} trials on {task.name}, {gain}")
    return found.parameters


def _model(name: str, task: Task, settings: RecommendSettings, seed: int, given: Mapping[str, Any]) -> Recommender:
    """The candidate of the task with the given parameters, so that parameters fixed by the task stay fixed."""
    candidates = task.candidates(with_parameters(settings, {name: given}), seed).values()
    return next((model for model in candidates if model.name == name), None) or make_recommender(
        name, settings, seed, **given
    )
