"""The report of `train recommend`: the home lists beside their baselines, and one line for every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ranked import Ranked
from models.recommend.base import Recommender
from models.recommend.fallback import FallbackChain
from models.recommend.fit_cache import fit_cached
from models.recommend.scene import DEFAULT_SCENE
from training import plots
from training.bootstrap import mean_metric
from training.evaluation.compare import evaluate, metric_means
from training.evaluation.metrics import STANDARD, ranking_metrics
from training.evaluation.slices import activity_slices
from training.evaluation.split import EvaluationSplit
from training.holdout import HoldoutSplit
from training.report import EvalReport, TaskSummary
from training.selection.candidates import TaskSelection
from training.selection.choice import is_ahead
from training.selection.evaluation import Evaluation

HOME = DEFAULT_SCENE  # the task of a scene has its name
SHIPPED_MODEL = "qianmian"  # the home lists as they ship: the winner with its fallback
K = 10
RECALL_KS = (1, 2, 3, 5, 10, 15, 20)


@dataclass(frozen=True)
class HomeLists:
    """The lists of `home` in the test period.

    Attributes
    ----------
    examples : EvaluationSplit
    ranked : mapping of str to Ranked
        Candidate → its lists, after those that ship (`SHIPPED_MODEL`).
    """

    examples: EvaluationSplit
    ranked: Mapping[str, Ranked]

    @classmethod
    def of(
        cls, evaluation: Evaluation, models: Mapping[str, Recommender], winner: str, examples: EvaluationSplit
    ) -> HomeLists:
        """Complete the lists of an evaluation by those that ship, while the fits of its `models` are still cached."""
        parts = [winner, *(name for name in ("popular",) if name in evaluation.values and name != winner)]
        chain = FallbackChain.of([fit_cached(models[name], examples.train) for name in parts])
        shipped = examples.recommend_with(chain, max(RECALL_KS))
        return cls(examples, {SHIPPED_MODEL: shipped, **evaluation.ranked})


def report_of(
    evaluations: Mapping[str, Evaluation],
    home: HomeLists,
    winners: Mapping[str, str],
    selected: Mapping[str, TaskSelection],
    test: HoldoutSplit,
) -> tuple[EvalReport, dict[str, Any]]:
    """The report on the test period, and its figures.

    Parameters
    ----------
    evaluations : mapping of str to Evaluation
        Task → its winner and baselines in the test period.
    home : HomeLists
    winners : mapping of str to str
        Task → the candidate that ships.
    selected : mapping of str to TaskSelection
        Task → how the winner was chosen.
    test : HoldoutSplit
    """
    winner, train, ranked = winners[HOME], test.train, home.ranked
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
    for task, found in evaluations.items():
        last = list(found.values)[-1]
        best, simple = found.values[winners[task]], found.values[last]
        columns = {f"{task}: {name}": values for name, values in found.values.items()}
        if best is not simple:
            columns[f"{task}: {winners[task]} minus {last}"] = {
                metric: best[metric] - simple[metric] for metric in best if metric in simple
            }
        slices |= metric_means({name: _with_k(values, found.task.k) for name, values in columns.items()})
    curves = {
        name: [float(ranking_metrics(lists.ids, truth, k, ("recall",))["recall"].mean()) for k in RECALL_KS]
        for name, lists in ranked.items()
    }
    figures = {"recall_by_k.png": plots.curves(RECALL_KS, curves, "k", "recall", f"Recall by k, {test.period}")}
    # the winner is no baseline of itself
    baselines = {name: found for name, found in compared.models.items() if name not in (SHIPPED_MODEL, winner)}
    tasks = tuple(_summary(found, winners[task], selected.get(task)) for task, found in evaluations.items())
    return EvalReport(compared.models[SHIPPED_MODEL], baselines, compared.differences, slices, tasks=tasks), figures


def _summary(found: Evaluation, winner: str, selection: TaskSelection | None) -> TaskSummary:
    """One line on a task: the winner beside the best and the simplest of the others measured in the test period."""
    task, others = found.task, [name for name in found.values if name != winner]
    other = max(others, key=lambda name: float(np.nan_to_num(found.chosen_by(name)).mean()), default=winner)
    simplest = list(found.values)[-1]
    reason = "too few customers to choose" if selection is None else selection.choice.reason
    if selection is not None and selection.choice.winner != winner:
        reason = f"{selection.choice.winner} could not be fitted on the test period"
    return TaskSummary(
        task.name,
        winner,
        f"{task.metric}@{task.k}",
        mean_metric(found.chosen_by(winner)),
        other,
        mean_metric(found.chosen_by(other)),
        is_ahead(found.chosen_by(winner), found.chosen_by(other)),
        simplest,
        mean_metric(found.chosen_by(simplest)),
        reason,
    )


def _with_k(values: Mapping[str, NDArray[np.float64]], k: int) -> dict[str, NDArray[np.float64]]:
    """The metrics with ``@k`` appended to the names of ranking metrics; a task's extra metrics keep their names."""
    return {f"{metric}@{k}" if metric in STANDARD else metric: column for metric, column in values.items()}
