"""`train recommend`: every scene's model beside its baselines on the last horizon before `as_of`; the better one of each ships.

Choices (the half-life; with `--tune` every parameter) are made on the horizon before the one that is measured (`training.holdout` says what
stands for both where nothing is dated). What ships is fitted again on everything before `as_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.bundle import ModelBundle
from models.parallel import run_parallel
from models.ranked import Ranked
from models.recommend.base import Recommender, fit_cached
from models.recommend.fallback import FallbackChain
from models.recommend.scene import DEFAULT_SCENE, SCENES
from models.recommend.scene_models import SceneModels
from qianmian.errors import DataError
from qianmian.settings import RecommendSettings
from training import plots
from training.evaluation.compare import evaluate, metric_means
from training.evaluation.metrics import STANDARD, ranking_metrics
from training.evaluation.slices import activity_slices
from training.evaluation.split import EvaluationSplit
from training.gate import GateRule
from training.holdout import HoldoutSplitter
from training.jobs.base import EvaluatedModel, Job, Progress, TrainingContext
from training.report import EvalReport
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task, check_models, make_recommender, with_parameters
from training.tuning import load_tuned_parameters, tune

T = TypeVar("T")

HOME = DEFAULT_SCENE  # the task of a scene has its name
SHIPPED_MODEL = "qianmian"  # the home lists as they ship, filled where the winner leaves places open
K = 10
RECALL_KS = (1, 2, 3, 5, 10, 15, 20)


@dataclass(frozen=True)
class TaskResult:
    """A task's outcome: which candidate ships, and what each was measured at.

    Attributes
    ----------
    winner : str
        Name of a candidate.
    values : dict
        Candidate → metric → value of each example, (n,).
    ranked : dict
        Candidate → its lists.
    """

    task: Task
    examples: EvaluationSplit
    models: Mapping[str, Recommender]
    winner: str
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    ranked: Mapping[str, Ranked]


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose on validation, measure on test, ship a refit on everything before `as_of`."""
    settings, seed = context.settings.recommend, context.settings.seed
    splitter = HoldoutSplitter(context)
    horizon = splitter.horizon_days
    check_models(settings)
    if horizon is not None:
        settings = with_parameters(settings, {"two_stage": {"horizon_days": float(horizon)}})
    test = splitter.test()
    settings, validation_ndcg = _select_parameters(context, settings, splitter, test.start)
    holdout, train = test.holdout, _shuffled(context, test.train)
    context.progress(f"recommend: measuring {', '.join(TASKS)}")
    found = _run_parallel(
        {
            name: partial(evaluate_task, task, settings, seed, train, holdout, context.progress)
            for name, task in TASKS.items()
        }
    )
    task_results = {name: each for name, each in found.items() if each is not None}
    if HOME not in task_results:
        raise DataError(
            "no model of `home` could be measured",
            where=train.source,
            got=test.period,
            hint="bring more customers or a longer history",
        )
    report, figures = _report(task_results, train, test.period)

    winners = {name: found.winner for name, found in task_results.items()}
    del (
        task_results,
        found,
        test,
        train,
        holdout,
    )  # and with them the models of the measurement, as large as those that ship
    context.progress("recommend: fitting on everything before as_of")
    full = _shuffled(context, context.training_set(context.as_of, min_item_customers=settings.min_item_customers))
    scenes, shipped, left_out = _fit_scenes(winners, settings, seed, full, context.progress)
    parameters = {name: model.get_params() for name, model in (scenes.models or {}).items()}
    config = {
        "models": parameters,
        "shipped": shipped,
        "validation_ndcg@10": {str(key): value for key, value in validation_ndcg.items()},
    }
    bundle = ModelBundle(
        "scenes",
        scenes,
        context.as_of,
        full.user_features.spec if full.user_features else None,
        full.user_ids,
        full.item_ids,
        full.item_attributes,
        config,
        context.facts("recommend", horizon_days=horizon, interactions=full.source, scenes_left_out=left_out),
    )
    rules = [GateRule(f"ndcg@{K}:popular"), GateRule(f"ndcg@{K}:own purchase counts", require_improvement=False)]
    flat = {f"{name}.{key}": str(value)[:250] for name, given in parameters.items() for key, value in given.items()}
    told = {"horizon_days": horizon, **{f"scene.{scene}": name for scene, name in shipped.items()}, **flat}
    return EvaluatedModel(bundle, report, rules, told, figures, pa.table({"one_id": full.user_ids[:5].tolist()}))


def evaluate_task(
    task: Task, settings: RecommendSettings, seed: int, train: TrainingSet, holdout: Interactions, progress: Progress
) -> TaskResult | None:
    """Fit a task's candidates and compare them on its examples; None where there are too few examples, or the data support no candidate."""
    examples = task.examples(train, holdout, seed)
    if len(examples) < MIN_EXAMPLES:
        progress(
            f"recommend: {task.name}: nothing could be measured ({MIN_EXAMPLES} examples are needed), so its simplest baseline ships"
        )
        return None
    models, values, ranked = {}, {}, {}
    for name, model in task.candidates(settings, seed).items():
        try:
            models[name] = fit_cached(model, examples.train)
        except DataError as error:
            progress(f"recommend: {task.name}: {name} is no candidate: {error}")
            continue
        ranked[name] = examples.recommend_with(models[name], max(task.k, *RECALL_KS))
        values[name] = ranking_metrics(ranked[name].ids, examples.truth, task.k)
        if task.extra_metrics is not None:
            values[name] = {**values[name], **task.extra_metrics(models[name], examples, holdout)}
    if not values:
        progress(f"recommend: {task.name}: nothing could be measured, so its simplest baseline ships")
        return None
    winner = max(values, key=lambda name: float(values[name][task.metric].mean()))
    progress(f"recommend: {task.name}: {winner} is best of {len(values)} on {len(examples):,} examples")
    return TaskResult(task, examples, models, winner, values, ranked)


def _select_parameters(
    context: TrainingContext, settings: RecommendSettings, splitter: HoldoutSplitter, test_start: datetime
) -> tuple[RecommendSettings, dict[int | None, float]]:
    """The settings with what the validation part chose: every parameter when tuning, else what was tuned earlier, else the half-life."""
    if not context.tune:
        settings = with_parameters(settings, load_tuned_parameters(context.workspace, test_start, context.progress))
        if "half_life_days" in settings.models.get("repeat", {}):
            return settings, {}
        if splitter.horizon_days is None:  # nothing is old
            return with_parameters(settings, {"repeat": {"half_life_days": None}}), {}
    validation, seed = splitter.validation(with_features=context.tune), context.settings.seed
    if context.tune:
        context.progress(f"recommend: tuning on {validation.period}, {settings.tune_seconds} s")
        window_end = test_start if splitter.horizon_days is not None else context.as_of
        return with_parameters(
            settings,
            tune(context.workspace, settings, seed, validation.train, validation.holdout, window_end, context.progress),
        ), {}
    context.progress("recommend: choosing the half-life on the validation window")
    examples, validation_ndcg = TASKS[HOME].examples(validation.train, validation.holdout, seed), {}
    for half_life in (*settings.half_life_days, None):
        model = make_recommender("repeat", settings, seed, half_life_days=half_life).fit(validation.train)
        validation_ndcg[half_life] = float(
            ranking_metrics(examples.recommend_with(model, K).ids, examples.truth, K)["ndcg"].mean()
        )
    best = max(validation_ndcg, key=lambda key: validation_ndcg[key])
    return with_parameters(settings, {"repeat": {"half_life_days": best}}), validation_ndcg


def _fit_scenes(
    winners: Mapping[str, str], settings: RecommendSettings, seed: int, full: TrainingSet, progress: Progress
) -> tuple[SceneModels, dict[str, str], dict[str, str]]:
    """Refit what ships: the winner of every task (the simplest baseline of one that could not be measured), and what fills its scene's lists.

    Returns
    -------
    SceneModels
    dict
        Task → the candidate that ships.
    dict
        Scene → why it is left out.
    """
    candidates = {name: task.candidates(settings, seed) for name, task in TASKS.items()}
    chosen = {name: winners.get(name, list(models)[-1]) for name, models in candidates.items()}
    scenes = {
        scene.name: (scene.task, *TASKS[scene.task].fallbacks) for scene in SCENES.values() if scene.task is not None
    }
    # what can score items that are in no training set is asked for that, scene or not
    others = {
        name: (name,) for name in winners if name not in scenes and candidates[name][chosen[name]].supports_score_unseen
    }
    models_by_use = {**scenes, **others}
    wanted = dict.fromkeys(name for names in models_by_use.values() for name in names)

    def fit_or_error(name: str) -> Recommender | DataError:
        """The model that stands for a task, or a model by its own name; or why there is none."""
        try:
            return fit_cached(
                candidates[name][chosen[name]] if name in TASKS else make_recommender(name, settings, seed), full
            )
        except DataError as error:
            return error

    made, key_of, left_out = dict[str, Recommender](), dict[str, str](), dict[str, str]()
    for name, model in _run_parallel({name: partial(fit_or_error, name) for name in wanted}).items():
        if isinstance(model, DataError):
            left_out |= {use: str(model) for use, names in models_by_use.items() if name in names}
        else:
            key_of[name] = next(
                (key for key, other in made.items() if other is model), name
            )  # one model may stand for several
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


def _run_parallel(work: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Work by name, beside each other: the first one first, then from the last on.

    The first two rankers are fed by the same models, so the second comes late and finds what the first has fitted, instead of waiting for it.
    """
    first, *others = work
    order = [first, *reversed(others)]
    found = dict(zip(order, run_parallel([work[name] for name in order]), strict=True))
    return {name: found[name] for name in work}


def _report(
    task_results: Mapping[str, TaskResult], train: TrainingSet, period: str
) -> tuple[EvalReport, dict[str, Any]]:
    home = task_results[HOME]
    fallbacks = [model for name in ("popular",) if (model := home.models.get(name)) is not None and name != home.winner]
    chain = FallbackChain.of([home.models[home.winner], *fallbacks])
    ranked = {SHIPPED_MODEL: home.examples.recommend_with(chain, max(RECALL_KS)), **home.ranked}
    truth, users = home.examples.truth, home.examples.users
    compared = evaluate(
        ranked,
        truth,
        K,
        history=home.examples.history(),
        item_customers=train.item_customers,
        n_customers=train.n_users,
        categories=train.item_attributes["category"],
        slices=activity_slices(train.interactions, users),
        reference=SHIPPED_MODEL,
    )
    slices = {name: {f"ndcg@{K}": found[SHIPPED_MODEL][f"ndcg@{K}"]} for name, found in compared.slices.items()}
    for task, found in task_results.items():
        last = list(found.values)[-1]
        best, simple = found.values[found.winner], found.values[last]
        told = {f"{task}: {name}": values for name, values in found.values.items()}
        if best is not simple:
            told[f"{task}: {found.winner} minus {last}"] = {
                metric: best[metric] - simple[metric] for metric in best if metric in simple
            }
        slices |= metric_means({what: _with_k(values, TASKS[task].k) for what, values in told.items()})
    curves = {
        name: [float(ranking_metrics(answer.ids, truth, k, ("recall",))["recall"].mean()) for k in RECALL_KS]
        for name, answer in ranked.items()
    }
    figures = {"recall_by_k.png": plots.curves(RECALL_KS, curves, "k", "recall", f"Recall by k, {period}")}
    baselines = {name: found for name, found in compared.models.items() if name != SHIPPED_MODEL}
    return EvalReport(compared.models[SHIPPED_MODEL], baselines, compared.differences, slices), figures


def _with_k(values: Mapping[str, NDArray[np.float64]], k: int) -> dict[str, NDArray[np.float64]]:
    """A metric of lists is named with its k, a task's own metric as it is."""
    return {f"{metric}@{k}" if metric in STANDARD else metric: column for metric, column in values.items()}


def _shuffled(context: TrainingContext, train: TrainingSet) -> TrainingSet:
    if not context.shuffle_labels:
        return train
    data = train.interactions
    mixed = Interactions(data.users, context.shuffled(data.items), data.age_days, data.weights, data.shape, data.orders)
    return train.with_interactions(mixed)


JOB = Job(
    "recommend",
    "what to show each customer, scene by scene: a ranker over the candidates of many models, or what beats it",
    run,
    can_tune=True,
)
