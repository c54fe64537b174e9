"""Choose the candidate of each task on the validation periods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.parallel import run_parallel
from models.recommend.base import Recommender
from models.recommend.blend import COMPONENTS, BlendRecommender
from models.recommend.ranking.two_stage import SHARED_BY_RANKERS
from models.recommend.scene import SCENES
from qianmian.settings import RecommendSettings
from training.holdout import HoldoutSplit, HoldoutSplitter
from training.jobs.base import Progress
from training.selection.budget import Candidates, within_budget
from training.selection.choice import CandidateChoice, choose
from training.selection.evaluation import Evaluation, evaluate_candidates, sampled
from training.selection.fusion import cross_fitted_blend
from training.tasks import TASKS
from training.tasks.base import MIN_EXAMPLES, Task

T = TypeVar("T")

BLEND = "blend"
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
        """The best of the other candidates, blends aside; the winner itself if there is no other."""
        others = [name for name in self.choice.values if name not in (self.choice.winner, BLEND)]
        return max(others, key=lambda name: self.choice.values[name].value, default=self.choice.winner)


@dataclass
class _Pooled:
    """Values of the candidates of a task by customer, over several periods."""

    models: dict[str, Recommender]
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    periods_of: dict[str, int] = field(default_factory=dict)
    periods: int = 0

    def add(self, evaluation: Evaluation, more: Mapping[str, NDArray[np.float64]]) -> None:
        customers = evaluation.examples.train.user_ids[evaluation.examples.users].tolist()
        for name in (*more, *evaluation.values):
            found = more[name] if name in more else evaluation.chosen_by(name)
            per_customer = self.values.setdefault(name, {})
            for customer, value in zip(customers, np.nan_to_num(found).tolist(), strict=True):
                per_customer.setdefault(customer, []).append(value)
            self.periods_of[name] = self.periods_of.get(name, 0) + 1
        self.periods += 1

    def choice(self, seed: int) -> tuple[CandidateChoice, int]:
        """The choice among the candidates of all periods, and the number of distinct customers."""
        full = {name: found for name, found in self.values.items() if self.periods_of[name] == self.periods}
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
        _add_period(pooled, split, wanted, seed, progress, first=back == 1)
        split.train.forget(SHARED_BY_RANKERS)  # the fitted models are not needed beside those of the next period
        wanted = {}
        for name, found in pooled.items():
            if found.periods < back:
                continue
            choice, customers = found.choice(seed)
            selected[name] = TaskSelection(
                TASKS[name], found.models[choice.winner], choice, customers, found.periods, len(found.values)
            )
            contenders = {one for one, behind in choice.behind.items() if behind.low <= 0}
            if back < TASKS[name].periods:
                wanted[name] = {one: found.models[one] for one in choice.values if one != BLEND}
            elif customers < ENOUGH_CUSTOMERS and len(contenders) > 1:
                wanted[name] = {one: found.models[one] for one in choice.values if one in contenders}
        del split
        if not wanted:
            break
    for name, found_selection in selected.items():
        progress(f"recommend: {name}: {_said(found_selection)}")
    return selected, left_out


def _add_period(
    pooled: dict[str, _Pooled],
    split: HoldoutSplit,
    wanted: Candidates,
    seed: int,
    progress: Progress,
    *,
    first: bool,
) -> None:
    """Measure the candidates on one period and add their values to `pooled`."""
    for name, evaluation in _evaluate_split(split, wanted, seed, progress, first=first).items():
        found = pooled.setdefault(name, _Pooled(dict(wanted[name])))
        if first:
            found.add(evaluation, _with_blend(found, evaluation, seed) if _is_scene(name) else {})
        elif evaluation.values.keys() == wanted[name].keys():  # else a contender needs a longer history
            found.add(evaluation, {})


def run_named(work: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Run named functions in parallel: the first one first, then the others from the last to the second.

    The first two tasks have rankers with the same candidate models. The second starts late, so that it reuses the
    models that the first has fitted instead of waiting for them.
    """
    if not work:
        return {}
    first, *others = work
    order = [first, *reversed(others)]
    found = dict(zip(order, run_parallel([work[name] for name in order]), strict=True))
    return {name: found[name] for name in work}


def _evaluate_split(
    split: HoldoutSplit, wanted: Candidates, seed: int, progress: Progress, *, first: bool
) -> dict[str, Evaluation]:
    progress(f"recommend: comparing the candidates of {', '.join(wanted)} on {split.period}")

    def evaluate(name: str) -> Evaluation | None:
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
        found = evaluate_candidates(plain, wanted[name], examples, split.holdout, length, progress)
        return found if found.values else None

    found = run_named({name: partial(evaluate, name) for name in wanted})
    return {name: each for name, each in found.items() if each is not None}


def _is_scene(name: str) -> bool:
    return any(scene.task == name for scene in SCENES.values())


def _with_blend(found: _Pooled, evaluation: Evaluation, seed: int) -> dict[str, NDArray[np.float64]]:
    """Values of the blend of the candidates' lists, whose model is added to `found`; {} where no blend is better."""
    lists = {name: ranked for name, ranked in evaluation.ranked.items() if evaluation.models[name].name in COMPONENTS}
    if len(lists) < 2:
        return {}
    task, examples = evaluation.task, evaluation.examples
    weights, values = cross_fitted_blend(lists, examples.truth, task.k, task.metric, examples.users, seed)
    if len(weights.weights) < 2:
        return {}
    components = [
        (found.models[name].name, found.models[name].get_params(), share) for name, share in weights.weights.items()
    ]
    found.models[BLEND] = BlendRecommender(components, weights.rank_offset, LIST_LENGTH)
    return {BLEND: values}


def _said(selection: TaskSelection) -> str:
    choice = selection.choice
    periods = f" in {selection.periods} periods" if selection.periods > 1 else ""
    return (
        f"{choice.winner} is {choice.reason} of {selection.compared} candidates "
        f"on {selection.customers:,} customers{periods}"
    )
