"""`train recommend`: choose a model for every scene on validation periods, evaluate it, and ship it.

Parameters and candidates are chosen on the periods before the test period (`training.selection`; `training.holdout`
describes the split of undated data). The test period measures the chosen models and their baselines, once. The models
that ship are fitted on all data before `as_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from features.interactions import EarlierCutoff, TrainingSet
from features.purchases import not_merchandise
from models.bundle import ModelBundle
from models.parallel import return_freed_memory
from models.recommend.base import Recommender
from models.recommend.ranking.two_stage import SHARED_BY_RANKERS
from qianmian.errors import DataError
from qianmian.model_settings import RecommendSettings
from training.attributes import left_out_notes
from training.gate import GateRule
from training.holdout import NO_START, HoldoutSplit, HoldoutSplitter
from training.jobs.base import EvaluatedModel, Job, TrainingContext
from training.planned_promotions import promotion_notes
from training.selection.candidates import TaskSelection, run_named, select_candidates
from training.selection.comparison import home_comparison
from training.selection.evaluation import BLEND, Evaluation, evaluate_candidates, sampled
from training.selection.final_fit import fit_scenes
from training.selection.fits import SharedFits
from training.selection.parameters import best_half_life, short_search
from training.selection.report import HOME, RECALL_KS, HomeLists, K, report_of
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task, check_models, with_parameters
from training.tuning import tuned_parameters
from training.tuning_recommend import existing_only, tune

NOT_COMPARED = "the data have no dates, so no rows are later than those of both"  # said of the champion
SEARCH_SHARE = 0.1  # of the budget, for the short search of the parameters of one model


def run(context: TrainingContext) -> EvaluatedModel:
    """Choose on the validation periods, evaluate on the test period, and ship a fit on all data before `as_of`."""
    settings, seed = context.settings.recommend, context.settings.seed
    check_models(settings)
    splitter = HoldoutSplitter(context)
    horizon = splitter.horizon_days
    if horizon is not None:
        settings = with_parameters(settings, {"two_stage": {"horizon_days": float(horizon)}})
    test = splitter.test()
    if horizon is not None:  # rankers share their earlier cutoffs
        validation = splitter.validation()
        test.train.remember_earlier(EarlierCutoff(horizon, validation.train, validation.holdout))
        del validation
    of_promotions = promotion_notes(context.builder, test, horizon) if horizon is not None else ()
    for note in of_promotions:
        context.progress(note)
    settings, validation_ndcg = _select_parameters(context, settings, splitter, test)
    selected, too_expensive = select_candidates(settings, seed, splitter, context.progress)
    _free(test.train)
    evaluations, home = _evaluate_on_test(context, settings, selected, test)
    if home is None:
        raise DataError(
            "no model of `home` can be evaluated",
            where=test.train.source,
            got=test.period,
            hint="ingest more customers or a longer history",
        )
    # the test period may refuse a winner that the validation period accepted; then the runner-up ships, if it can
    winners = {name: _winner(selected.get(name), found) for name, found in evaluations.items()}
    report, figures = report_of(evaluations, home, winners, selected, test)
    evaluated_at = None if test.start == NO_START else test.start
    comparison = NOT_COMPARED if evaluated_at is None else home_comparison(home, evaluated_at)
    notes = (*context.target.notes, *of_promotions, *_budget_notes(too_expensive, settings))
    if evaluated_at is not None:
        notes = (*left_out_notes(context.unknown_attributes(evaluated_at), evaluated_at), *notes)
    report = replace(report, notes=notes)
    unfitted = {name: _unfitted(selected.get(name), winners[name], settings, seed, name) for name in evaluations}
    del evaluations, home
    _free(test.train)
    context.progress("recommend: fitting on all data before as_of")
    full = _shuffled(
        context,
        context.training_set(context.as_of, min_item_customers=splitter.min_item_customers, evaluated_at=evaluated_at),
    )
    if horizon is not None:
        full.remember_earlier(EarlierCutoff(horizon, test.train, test.holdout))
    del test
    scenes, shipped, left_out = fit_scenes(unfitted, winners, settings, seed, full, context.progress)
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
            min_item_customers=splitter.min_item_customers,
            target=full.target,
            scenes_left_out=left_out,
            not_merchandise=not_merchandise(context.builder),
        ),
    )
    rules = [GateRule(f"ndcg@{K}:popular"), GateRule(f"ndcg@{K}:own purchase counts", require_improvement=False)]
    flat = {f"{name}.{key}": str(value)[:250] for name, given in parameters.items() for key, value in given.items()}
    logged = {"horizon_days": horizon, **{f"scene.{scene}": name for scene, name in shipped.items()}, **flat}
    example = pa.table({"one_id": full.user_ids[:5].tolist()})
    return EvaluatedModel(bundle, report, rules, logged, figures, example, comparison=comparison)


def _select_parameters(
    context: TrainingContext, settings: RecommendSettings, splitter: HoldoutSplitter, test: HoldoutSplit
) -> tuple[RecommendSettings, dict[int | None, float]]:
    """Settings with the parameters chosen on the validation period, and the NDCG there of each half-life.

    With `--tune` all parameters are searched. Without it, parameters saved by an earlier tuning are used; those that it
    does not contain are chosen by the short search.
    """
    seed = context.settings.seed

    def search() -> dict[str, dict[str, Any]]:
        validation = splitter.validation()
        context.progress(f"recommend: tuning on {validation.period}, {settings.tune_seconds} s")
        window_end = test.start if splitter.horizon_days is not None else context.as_of
        return tune(
            context.workspace, settings, seed, validation.train, validation.holdout, window_end, context.progress
        )

    settings = with_parameters(settings, existing_only(tuned_parameters(context, "recommend", test.start, search)))
    if context.tune:
        return settings, {}
    context.progress("recommend: choosing parameters on the validation period")
    validation, budget = splitter.validation(), SEARCH_SHARE * settings.budget_cpu_seconds
    settings = with_parameters(settings, short_search(settings, seed, validation, budget, context.progress))
    if "half_life_days" in settings.models.get("repeat", {}):
        return settings, {}
    if splitter.horizon_days is None:  # undated interactions do not decay
        return with_parameters(settings, {"repeat": {"half_life_days": None}}), {}
    return best_half_life(settings, seed, validation)


def _evaluate_on_test(
    context: TrainingContext, settings: RecommendSettings, selected: Mapping[str, TaskSelection], test: HoldoutSplit
) -> tuple[dict[str, Evaluation], HomeLists | None]:
    """The winner of each task and its baselines, measured on the test period; and the lists of `home`."""
    train, seed = _shuffled(context, test.train), context.settings.seed
    context.progress(f"recommend: evaluating {', '.join(TASKS)} on {test.period}")
    candidates = {name: _to_measure(task, settings, seed, selected.get(name)) for name, task in TASKS.items()}
    fits, home = SharedFits(train, candidates), list[HomeLists]()  # the lists of `home`, once they are made

    def measure(name: str) -> Evaluation | None:
        task, models = TASKS[name], candidates[name]
        examples = sampled(task.examples(train, test.holdout, seed), seed)
        if len(examples) < MIN_EXAMPLES:
            if len(examples):  # a scene without any is left out, and the final fit says why
                count = f"{len(examples)} examples, and {MIN_EXAMPLES} are needed"
                context.progress(f"recommend: {name} is not evaluated ({count}), so its simplest baseline ships")
            return None
        length = max(task.k, *RECALL_KS)
        evaluation = evaluate_candidates(task, models, examples, test.holdout, length, context.progress, fits)
        if not evaluation.values:
            return None
        if name == HOME:
            home.append(HomeLists.of(evaluation, models, _winner(selected.get(name), evaluation), examples))
        fits.free_on(examples.train, models)
        return evaluation

    def measure_and_free(name: str) -> Evaluation | None:
        evaluation = measure(name)
        fits.free(name)
        return evaluation

    found = run_named({name: partial(measure_and_free, name) for name in TASKS})
    return {name: each for name, each in found.items() if each is not None}, next(iter(home), None)


def _to_measure(
    task: Task, settings: RecommendSettings, seed: int, selection: TaskSelection | None
) -> dict[str, Recommender]:
    """The candidates of a task that are measured on the test period: the chosen one and its baselines."""
    candidates = task.candidates(settings, seed)
    wanted = {name: candidates[name] for name in candidates if name in (*task.baselines, list(candidates)[-1])}
    if selection is not None:
        chosen = {selection.choice.winner: selection.model, selection.runner_up: candidates[selection.runner_up]}
        wanted = {**chosen, **wanted}
    # from the most complex to the simplest, as the candidates; a blend is the most complex
    return {name: wanted[name] for name in (BLEND, *candidates) if name in wanted}


def _winner(selection: TaskSelection | None, evaluation: Evaluation) -> str:
    """The candidate of a task that ships: the chosen one, the runner-up, or the simplest that could be fitted."""
    wanted = [] if selection is None else [selection.choice.winner, selection.runner_up]
    return next((name for name in wanted if name in evaluation.values), list(evaluation.values)[-1])


def _unfitted(
    selection: TaskSelection | None, winner: str, settings: RecommendSettings, seed: int, name: str
) -> Recommender:
    if selection is not None and winner == selection.choice.winner:
        return type(selection.model)(**selection.model.get_params())
    return TASKS[name].candidates(settings, seed)[winner]


def _free(train: TrainingSet) -> None:
    """Free the models fitted on a training set and on its earlier cutoffs, except what rankers read of them."""
    train.forget(SHARED_BY_RANKERS)
    if train.earlier is not None:
        train.earlier.train.forget(SHARED_BY_RANKERS)
    return_freed_memory()


def _budget_notes(too_expensive: Mapping[str, float], settings: RecommendSettings) -> tuple[str, ...]:
    if not too_expensive:
        return ()
    named = ", ".join(f"{name} (about {seconds:,.0f} s)" for name, seconds in too_expensive.items())
    return (
        f"not among the candidates, because of recommend.budget_cpu_seconds {settings.budget_cpu_seconds:g}: {named}",
    )


def _shuffled(context: TrainingContext, train: TrainingSet) -> TrainingSet:
    if not context.shuffle_labels:
        return train
    data = train.interactions
    return train.with_interactions(replace(data, items=context.shuffled(data.items)))


JOB = Job(
    "recommend",
    "what to recommend to each customer in each scene: the best of a two-stage ranker and simpler models",
    run,
    can_tune=True,
    fits_horizon=True,
)
