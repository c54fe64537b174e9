"""Fit the models that ship: the winner of every task and the fallbacks of its scene."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from features.interactions import TrainingSet
from models.parallel import return_freed_memory
from models.recommend.base import Recommender
from models.recommend.scene import SCENES
from models.recommend.scene_models import SceneModels
from qianmian.errors import DataError
from qianmian.model_settings import RecommendSettings
from training.jobs.base import Progress
from training.selection.candidates import run_named
from training.selection.fits import SharedFits
from training.tasks import TASKS
from training.tasks.base import make_recommender


def fit_scenes(
    unfitted: Mapping[str, Recommender],
    winners: Mapping[str, str],
    settings: RecommendSettings,
    seed: int,
    full: TrainingSet,
    progress: Progress,
) -> tuple[SceneModels, dict[str, str], dict[str, str]]:
    """Fit the models that ship: the winner of every task and the fallbacks of its scene.

    The simplest baseline ships for a task that was not evaluated.

    Returns
    -------
    SceneModels
    dict of str to str
        Task → candidate that ships.
    dict of str to str
        Scene → why it is left out.
    """
    candidates = {name: task.candidates(settings, seed) for name, task in TASKS.items()}
    chosen = {name: winners.get(name, list(models)[-1]) for name, models in candidates.items()}
    models_of = {name: unfitted[name] if name in unfitted else candidates[name][chosen[name]] for name in TASKS}
    scenes = {
        scene.name: (scene.task, *TASKS[scene.task].fallbacks) for scene in SCENES.values() if scene.task is not None
    }
    # models that score unseen items are needed by serving, even if their task is not a scene
    others = {name: (name,) for name in winners if name not in scenes and models_of[name].supports_score_unseen}
    models_by_use = {**scenes, **others}
    wanted = dict.fromkeys(name for names in models_by_use.values() for name in names)
    to_fit = {name: models_of[name] if name in TASKS else make_recommender(name, settings, seed) for name in wanted}
    fits = SharedFits(full, {name: {name: model} for name, model in to_fit.items()}, is_last=True)

    def fit_or_error(name: str) -> Recommender | DataError:
        """The fitted model of a task, or of a model name; or the error of the fit."""
        try:
            return fits.fit(to_fit[name], full, name)
        except DataError as error:
            return error
        finally:
            return_freed_memory()

    made, key_of, left_out = dict[str, Recommender](), dict[str, str](), dict[str, str]()
    for name, model in run_named({name: partial(fit_or_error, name) for name in wanted}).items():
        if isinstance(model, DataError):
            left_out |= {use: str(model) for use, names in models_by_use.items() if name in names}
        else:
            # several tasks may share one model, which is saved once
            key_of[name] = next((key for key, other in made.items() if other is model), name)
            made[key_of[name]] = model
    for use, reason in left_out.items():
        progress(f"recommend: {use} is left out: {reason}")
    keys = {
        use: list(dict.fromkeys(key_of[name] for name in names))
        for use, names in models_by_use.items()
        if use not in left_out
    }
    used = {key for of_use in keys.values() for key in of_use}
    shipped = {name: chosen[name] for name in TASKS if key_of.get(name) in used}
    models = {key: model for key, model in made.items() if key in used}
    return SceneModels(models, {scene: keys[scene] for scene in scenes if scene in keys}), shipped, left_out
