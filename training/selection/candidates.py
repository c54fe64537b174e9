"""Choose the candidate of each task on the validation periods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from models.parallel import run_parallel
from models.recommend.base import Recommender
from models.recommend.blend import COMPONENTS, BlendRecommender
from models.recommend.scene import SCENES
from qianmian.model_settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.holdout import HoldoutSplit, HoldoutSplitter
from training.jobs.base import Progress
from training.selection.budget import Candidates, within_budget
from training.selection.choice import CandidateChoice, choose
from training.selection.evaluation import BLEND, Evaluation, evaluate_candidates, sampled
from training.selection.fits import SharedFits
from training.selection.fusion import BlendWeights, Fusion, cross_fitted_weights
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task

T = TypeVar("T")

WITH_RANKER = ("home", "discover")  # the tasks whose candidates include a ranker
LIST_LENGTH = 50  # of the lists that are fused
MAX_PERIODS = 3
ENOUGH_CUSTOMERS = 300  # with fewer, earlier periods are added until the choice is beyond noise


@dataclass(frozen=True)
class TaskSelection:
    """The candidate of a task that ships.

    Attributes
    ----------
    task : Task
    model : Recommender
        The unfitted winner.
    choice : CandidateChoice
    customers : int
        Distinct customers on whom the choice was made.
    periods : int
        Validation periods that were pooled.
    compared : int
        Candidates that were compared on the last of them.
    """

    task: Task
    model: Recommender
    choice: CandidateChoice
    customers: int
    periods: int
    compared: int

    @property
    def runner_up(self) -> str:
        """The best of the other candidates, blends aside; the simplest candidate if there is no other."""
        others = [name for name in self.choice.values if name not in (self.choice.winner, BLEND)]
        return max(others, key=lambda name: self.choice.values[name].value, default=next(iter(self.choice.values)))


@dataclass
class _Pooled:
    """Values of the candidates of a task by customer, over several periods."""

    models: dict[str, Recommender]
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    periods_of: dict[str, int] = field(default_factory=dict)
    periods: int = 0

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        """Add the evaluations of a period, one for each draw of the examples."""
        for evaluation in evaluations:
            for name in evaluation.values:
                per_customer = self.values.setdefault(name, {})
                values = np.nan_to_num(evaluation.chosen_by(name)).tolist()
                for customer, value in zip(evaluation.customers.tolist(), values, strict=True):
                    per_customer.setdefault(customer, []).append(value)
        for name in evaluations[0].values:
            in_all = all(name in evaluation.values for evaluation in evaluations)
            self.periods_of[name] = self.periods_of.get(name, 0) + in_all
        self.periods += 1

    def choice(self, seed: int) -> tuple[CandidateChoice, int]:
        """The choice among the candidates of all periods, and the number of distinct customers."""
        full = {name: found for name, found in self.values.items() if self.periods_of.get(name, 0) == self.periods}
        columns = {name: np.array([np.mean(found[one]) for one in sorted(found)]) for name, found in full.items()}
        return choose(columns, seed=seed), len(next(iter(columns.values())))


def select_candidates(
    settings: RecommendSettings, seed: int, splitter: HoldoutSplitter, progress: Progress
) -> tuple[dict[str, TaskSelection], dict[str, float]]:
    """Choose the candidate of each task: the simplest that is not behind the best beyond noise.

    All candidates are fitted on the data before the validation period and measured on it. The blend of their lists is
    one more candidate, with cross-fitted weights. Where few customers decide, the contenders are also measured on
    earlier periods, and a customer counts once, with the mean of the periods.

    Returns
    -------
    dict of str to TaskSelection
        Task → its selection; a task with too few examples, or without a candidate that can be fitted, has none.
    dict of str to float
        Models left out by `recommend.budget_cpu_seconds`, with their estimated CPU seconds.
    """
    pooled: dict[str, _Pooled] = {}
    selected: dict[str, TaskSelection] = {}
    left_out: dict[str, float] = {}
    wanted: Candidates = {name: task.candidates(settings, seed) for name, task in TASKS.items()}
    for back in range(1, 1 + min(MAX_PERIODS, splitter.validation_periods)):
        split = splitter.validation(back, with_features=back == 1 or any(TASKS[name].reads_profiles for name in wanted))
        if back == 1:
            wanted, left_out = within_budget(wanted, split.train, settings.budget_cpu_seconds)
        for name, evaluations in _evaluate_split(split, wanted, seed, progress, first=back == 1).items():
            found = pooled.setdefault(name, _Pooled(dict(wanted[name])))
            if evaluations[0].blend is not None:
                found.models[BLEND] = evaluations[0].blend
            # where an earlier period lacks a contender, it needs a longer history
            if back == 1 or all(one.values.keys() == wanted[name].keys() for one in evaluations):
                found.add(evaluations)
        wanted = {}
        for name, found in pooled.items():
            if found.periods < back:
                continue
            choice, customers = found.choice(seed)
            selected[name] = TaskSelection(
                TASKS[name], found.models[choice.winner], choice, customers, found.periods, len(found.values)
            )
            contenders = {one for one, behind in choice.behind.items() if behind.low <= 0}
            if customers < ENOUGH_CUSTOMERS and len(contenders) > 1:
                wanted[name] = {one: found.models[one] for one in choice.values if one in contenders}
        del split
        splitter.free(back)
        if not wanted:
            break
    for name, found_selection in selected.items():
        progress(f"recommend: {name}: {_said(found_selection)}")
    return selected, left_out


def run_named(work: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Run named functions in parallel: those of `WITH_RANKER` first, one after the other, then the others.

    Their rankers share candidate models and data at earlier cutoffs, which the second reuses instead of waiting for
    them, and which are freed after it.
    """
    together = [name for name in WITH_RANKER if name in work]
    others = [name for name in reversed(list(work)) if name not in together]

    def in_turn(names: Sequence[str]) -> list[tuple[str, T]]:
        return [(name, work[name]()) for name in names]

    pieces = [names for names in (together, *([name] for name in others)) if names]
    found = dict(pair for part in run_parallel([partial(in_turn, names) for names in pieces]) for pair in part)
    return {name: found[name] for name in work}


def _evaluate_split(
    split: HoldoutSplit, wanted: Candidates, seed: int, progress: Progress, *, first: bool
) -> dict[str, list[Evaluation]]:
    """The candidates of each task, measured on each draw of its examples; on the first period with a blend of them."""
    progress(f"recommend: comparing the candidates of {', '.join(wanted)} on {split.period}")
    fits = SharedFits(split.train, wanted)

    def evaluate_draws(name: str) -> list[Evaluation]:
        found = [evaluate(name, seed + draw) for draw in range(TASKS[name].draws)]
        fits.free(name)
        return [one for one in found if one is not None]

    def evaluate(name: str, seed: int) -> Evaluation | None:
        task = TASKS[name]
        examples = sampled(task.examples(split.train, split.holdout, seed), seed)
        if len(examples) < (MIN_EXAMPLES if first else 1):
            if first and len(examples):
                progress(
                    f"recommend: {name} cannot be compared ({len(examples)} examples, and {MIN_EXAMPLES} are needed), "
                    "so its simplest baseline ships"
                )
            return None
        plain = replace(task, extra_metrics=None)
        length = max(task.k, LIST_LENGTH) if _is_scene(name) else task.k
        found = evaluate_candidates(plain, wanted[name], examples, split.holdout, length, progress, fits)
        if first and _is_scene(name):
            found = _with_blend(wanted[name], found, examples, seed)
        fits.free_on(examples.train, wanted[name])
        return found if found.values else None

    found = run_named({name: partial(evaluate_draws, name) for name in wanted})
    return {name: each for name, each in found.items() if each}


def _is_scene(name: str) -> bool:
    return any(scene.task == name for scene in SCENES.values())


def _with_blend(
    models: Mapping[str, Recommender], evaluation: Evaluation, examples: EvaluationSplit, seed: int
) -> Evaluation:
    """Add the blend of the candidates' lists and its values; nothing where it is no better than one of them.

    The value of an example is that of a blend whose weights were chosen on other customers.
    """
    lists = {name: ranked for name, ranked in evaluation.ranked.items() if models[name].name in COMPONENTS}
    if len(lists) < 2:
        return evaluation
    task = evaluation.task
    fused = Fusion.of(lists, examples.truth, task.k, task.metric)
    weights, folds = cross_fitted_weights(fused, examples.users, seed)
    if len(weights.weights) < 2:
        return evaluation

    def blend_of(given: BlendWeights) -> BlendRecommender:
        components = [(models[name].name, models[name].get_params(), share) for name, share in given.weights.items()]
        return BlendRecommender(components, given.rank_offset, LIST_LENGTH, examples.exclude_purchased)

    has_filters = any(one is not None for one in (examples.exclude, examples.allowed, examples.candidates))
    values = np.full(len(examples), np.nan)
    for rows, given in folds:
        if not len(rows):
            continue
        if has_filters:  # the ranks of a blend are those before the filters
            part = examples.take(rows)
            ids = part.recommend_with(blend_of(given).fit(examples.train), task.k).ids
            values[rows] = ranking_metrics(ids, part.truth, task.k, (task.metric,))[task.metric]
        else:
            values[rows] = fused.take(rows).values(given)
    with_blend = {BLEND: {task.metric: values}, **evaluation.values}
    return replace(evaluation, values=with_blend, blend=blend_of(weights))


def _said(selection: TaskSelection) -> str:
    choice = selection.choice
    periods = f" in {selection.periods} periods" if selection.periods > 1 else ""
    return (
        f"{choice.winner} is {choice.reason} of {selection.compared} candidates "
        f"on {selection.customers:,} customers{periods}"
    )
