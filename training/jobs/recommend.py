"""`train recommend`: compare the candidates of every scene on the last horizon before `as_of` and ship the best.

Parameters (the half-life; all parameters with `--tune`) are chosen on the validation period before the test period
(`training.holdout` describes the split of undated data). The models that ship are fitted on all data before `as_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from features.purchases import not_merchandise
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
from training.attributes import left_out_notes
from training.evaluation.compare import evaluate, metric_means
from training.evaluation.metrics import STANDARD, ranking_metrics
from training.evaluation.slices import activity_slices
from training.evaluation.split import EvaluationSplit
from training.gate import GateRule
from training.holdout import NO_START, HoldoutSplitter
from training.jobs.base import EvaluatedModel, Job, Progress, TrainingContext
from training.report import EvalReport
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task, check_models, make_recommender, with_parameters
from training.tuning import load_tuned_parameters, tune

T = TypeVar("T")

HOME = DEFAULT_SCENE  # the task of a scene has its name
SHIPPED_MODEL = "qianmian"  # the home lists as they ship: the winner with its fallback
K = 10
RECALL_KS = (1, 2, 3, 5, 10, 15, 20)


@dataclass(frozen=True)
class TaskResult:
    """The result of an evaluation task: the candidate that ships and the metrics of all candidates.

    Attributes
    ----------
    task : Task
    examples : EvaluationSplit
    models : mapping of str to Recommender
        Candidate → fitted model.
    winner : str
        Name of the best candidate.
    values : mapping of str to mapping of str to ndarray, shape (n,)
        Candidate → metric → value of each example.
    ranked : mapping of str to Ranked
        Candidate → its lists.
    """

    task: Task
    examples: EvaluationSplit
    models: Mapping[str, Recommender]
    winner: str
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    ranked: Mapping[str, Ranked]


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose on the validation period, evaluate on the test period, and ship a fit on all data before `as_of`."""
    settings, seed = context.settings.recommend, context.settings.seed
    splitter = HoldoutSplitter(context)
    horizon = splitter.horizon_days
    check_models(settings)
    if horizon is not None:
        settings = with_parameters(settings, {"two_stage": {"horizon_days": float(horizon)}})
    test = splitter.test()
    settings, validation_ndcg = _select_parameters(context, settings, splitter, test.start)
    holdout, train = test.holdout, _shuffled(context, test.train)
    context.progress(f"recommend: evaluating {', '.join(TASKS)}")
    found = _run_parallel(
        {
            name: partial(evaluate_task, task, settings, seed, train, holdout, context.progress)
            for name, task in TASKS.items()
        }
    )
    task_results = {name: each for name, each in found.items() if each is not None}
    if HOME not in task_results:
        raise DataError(
            "no model of `home` can be evaluated",
            where=train.source,
            got=test.period,
            hint="ingest more customers or a longer history",
        )
    report, figures = _report(task_results, train, test.period)
    evaluated_at = None if test.start == NO_START else test.start
    if evaluated_at is not None:
        unknown = context.unknown_attributes(evaluated_at)
        report = replace(report, notes=left_out_notes(unknown, evaluated_at))

    winners = {name: found.winner for name, found in task_results.items()}
    # frees the evaluated models, which are as large as those that ship
    del task_results, found, test, train, holdout
    context.progress("recommend: fitting on all data before as_of")
    full = _shuffled(
        context,
        context.training_set(context.as_of, min_item_customers=settings.min_item_customers, evaluated_at=evaluated_at),
    )
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
        context.facts(
            "recommend",
            horizon_days=horizon,
            interactions=full.source,
            target=full.target,
            scenes_left_out=left_out,
            not_merchandise=not_merchandise(context.builder),
        ),
    )
    rules = [GateRule(f"ndcg@{K}:popular"), GateRule(f"ndcg@{K}:own purchase counts", require_improvement=False)]
    flat = {f"{name}.{key}": str(value)[:250] for name, given in parameters.items() for key, value in given.items()}
    logged = {"horizon_days": horizon, **{f"scene.{scene}": name for scene, name in shipped.items()}, **flat}
    return EvaluatedModel(bundle, report, rules, logged, figures, pa.table({"one_id": full.user_ids[:5].tolist()}))


def evaluate_task(
    task: Task, settings: RecommendSettings, seed: int, train: TrainingSet, holdout: Interactions, progress: Progress
) -> TaskResult | None:
    """Fit a task's candidates and compare them; None if there are too few examples or no candidate can be fitted."""
    examples = task.examples(train, holdout, seed)
    if len(examples) < MIN_EXAMPLES:
        count = f"{len(examples)} examples, and {MIN_EXAMPLES} are needed"
        progress(f"recommend: {task.name} is not evaluated ({count}), so its simplest baseline ships")
        return None
    models, values, ranked = {}, {}, {}
    for name, model in task.candidates(settings, seed).items():
        try:
            models[name] = fit_cached(model, examples.train)
        except DataError as error:
            progress(f"recommend: {task.name}: {name} cannot be fitted: {error}")
            continue
        ranked[name] = examples.recommend_with(models[name], max(task.k, *RECALL_KS))
        values[name] = ranking_metrics(ranked[name].ids, examples.truth, task.k)
        if task.extra_metrics is not None:
            values[name] = {**values[name], **task.extra_metrics(models[name], examples, holdout)}
    if not values:
        progress(f"recommend: {task.name} is not evaluated, because no candidate can be fitted")
        return None
    winner = max(values, key=lambda name: float(values[name][task.metric].mean()))
    progress(f"recommend: {task.name}: {winner} is the best of {len(values)} candidates on {len(examples):,} examples")
    return TaskResult(task, examples, models, winner, values, ranked)


def _select_parameters(
    context: TrainingContext, settings: RecommendSettings, splitter: HoldoutSplitter, test_start: datetime
) -> tuple[RecommendSettings, dict[int | None, float]]:
    """Settings with the parameters chosen on the validation period, and the validation NDCG of each half-life.

    With `--tune` all parameters are searched. Without it, parameters saved by an earlier tuning are used; if they do
    not contain the half-life of `repeat`, it is chosen here.
    """
    if not context.tune:
        settings = with_parameters(settings, load_tuned_parameters(context.workspace, test_start, context.progress))
        if "half_life_days" in settings.models.get("repeat", {}):
            return settings, {}
        if splitter.horizon_days is None:  # undated interactions do not decay
            return with_parameters(settings, {"repeat": {"half_life_days": None}}), {}
    validation, seed = splitter.validation(with_features=context.tune), context.settings.seed
    if context.tune:
        context.progress(f"recommend: tuning on {validation.period}, {settings.tune_seconds} s")
        window_end = test_start if splitter.horizon_days is not None else context.as_of
        return with_parameters(
            settings,
            tune(context.workspace, settings, seed, validation.train, validation.holdout, window_end, context.progress),
        ), {}
    context.progress("recommend: choosing the half-life on the validation period")
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
    scenes = {
        scene.name: (scene.task, *TASKS[scene.task].fallbacks) for scene in SCENES.values() if scene.task is not None
    }
    # models that score unseen items are needed by serving, even if their task is not a scene
    others = {
        name: (name,) for name in winners if name not in scenes and candidates[name][chosen[name]].supports_score_unseen
    }
    models_by_use = {**scenes, **others}
    wanted = dict.fromkeys(name for names in models_by_use.values() for name in names)

    def fit_or_error(name: str) -> Recommender | DataError:
        """The fitted model of a task, or of a model name; or the error of the fit."""
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


def _run_parallel(work: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Run named functions in parallel: the first one first, then the others from the last to the second.

    The first two tasks have rankers with the same candidate models. The second starts late, so that it reuses the
    models that the first has fitted instead of waiting for them.
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
        columns = {f"{task}: {name}": values for name, values in found.values.items()}
        if best is not simple:
            columns[f"{task}: {found.winner} minus {last}"] = {
                metric: best[metric] - simple[metric] for metric in best if metric in simple
            }
        slices |= metric_means({name: _with_k(values, TASKS[task].k) for name, values in columns.items()})
    curves = {
        name: [float(ranking_metrics(lists.ids, truth, k, ("recall",))["recall"].mean()) for k in RECALL_KS]
        for name, lists in ranked.items()
    }
    figures = {"recall_by_k.png": plots.curves(RECALL_KS, curves, "k", "recall", f"Recall by k, {period}")}
    # the winner is no baseline of itself
    baselines = {name: found for name, found in compared.models.items() if name not in (SHIPPED_MODEL, home.winner)}
    return EvalReport(compared.models[SHIPPED_MODEL], baselines, compared.differences, slices), figures


def _with_k(values: Mapping[str, NDArray[np.float64]], k: int) -> dict[str, NDArray[np.float64]]:
    """The metrics with ``@k`` appended to the names of ranking metrics; a task's extra metrics keep their names."""
    return {f"{metric}@{k}" if metric in STANDARD else metric: column for metric, column in values.items()}


def _shuffled(context: TrainingContext, train: TrainingSet) -> TrainingSet:
    if not context.shuffle_labels:
        return train
    data = train.interactions
    mixed = Interactions(data.users, context.shuffled(data.items), data.age_days, data.weights, data.shape, data.orders)
    return train.with_interactions(mixed)


JOB = Job(
    "recommend",
    "what to recommend to each customer in each scene: the best of a two-stage ranker and simpler models",
    run,
    can_tune=True,
)
