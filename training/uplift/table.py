"""`train uplift --data`: an uplift model of the table of a randomised test, evaluated on repeated held-out splits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from features.snapshot_table import file_digest, read_snapshot_table, require_column
from models.bundle import ModelBundle
from models.uplift.table_model import UpliftTableModel
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.arguments import TableArguments
from training.classify.run import require_one_row_a_customer
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Progress
from training.report import EvalReport, Metric
from training.run import Clock, JobResult
from training.table_training import table_job_name, train_table_job
from training.uplift.choice import AT_RANDOM, GAIN, RESPONSE, SHIPS, UpliftEvaluation, choose
from training.uplift.figures import figures
from training.uplift.table_trial import read_trial

KIND, JOB = "uplift_table", "uplift-table"


@dataclass(frozen=True)
class UpliftTask:
    """What is learnt from which file.

    Attributes
    ----------
    data : Path
        CSV or Parquet file with one row a customer.
    treatment, outcome : str
        Columns: who was contacted, and what came of it.
    control : str or None
        The value of the treatment that means no contact.
    id_column : str or None
        Column that names the customers; it is not learnt from.
    name : str or None
        The model is registered as ``uplift-NAME``.
    excluded : collection of str
        Columns that are not learnt from.
    """

    data: Path
    treatment: str
    outcome: str
    control: str | None = None
    id_column: str | None = None
    name: str | None = None
    excluded: Collection[str] = ()

    @property
    def job(self) -> str:
        """``uplift-table``, or ``uplift-NAME`` (`job_name`)."""
        return job_name(self.name)


def job_name(name: str | None) -> str:
    """``uplift-table``, or ``uplift-NAME``: the name of the registered model without its prefix.

    Raises
    ------
    UsageError
        The name has other characters than small letters, digits and single hyphens.
    """
    return table_job_name("uplift", name, unnamed=JOB, example="spring-mail")


def train_uplift_table(
    workspace: Workspace,
    task: UpliftTask,
    *,
    settings: Settings,
    clock: Clock,
    progress: Progress = lambda line: None,
    promote: bool | None = None,
) -> JobResult:
    """Train, evaluate and register an uplift model of a table; the workspace is made if it is missing.

    Parameters
    ----------
    workspace : Workspace
        For its model registry; its lake is not read.
    task : UpliftTask
    settings : Settings
        For the seed and the gate.
    clock : callable
        Returns the current time.
    progress : callable, optional
        Called with a line of text at each step.
    promote : bool, optional
        As of `training.run.train`.

    Raises
    ------
    DataError
        The table does not support an uplift model; the error says what would be enough.
    UsageError
        A column that is named is not there.
    """
    return train_table_job(
        workspace,
        task.job,
        task.data,
        lambda now: evaluate(task, settings.seed, now, progress),
        clock,
        progress,
        settings.gate,
        promote,
    )


def evaluate(task: UpliftTask, seed: int, now: datetime, progress: Progress) -> EvaluatedModel:
    """Evaluate and fit the uplift model of a table; see `train_uplift_table`."""
    table = read_snapshot_table(task.data)
    require_column(table, task.treatment, "--treatment", task.data)
    require_column(table, task.outcome, "--outcome", task.data)
    for name in task.excluded:
        require_column(table, name, "--exclude", task.data)
    if task.id_column:
        ids = require_column(table, task.id_column, "--id", task.data)
        require_one_row_a_customer(ids, task.id_column)
    excluded = {*task.excluded, *filter(None, [task.id_column])}
    found = read_trial(table, task.treatment, task.outcome, task.control, excluded)
    trial = found.trial
    progress(f"{task.job}: {len(trial):,} customers, {trial.treated.sum():,} contacted, {len(trial.names)} columns")
    chosen = choose(trial, seed, progress)
    model = UpliftTableModel(found.columns, chosen.model, task.treatment, task.outcome)
    effect = chosen.evaluation.effect
    facts = {
        "job": task.job,
        "data_digest": file_digest(task.data),
        "seed": seed,
        "rows": len(trial),
        "treatment": task.treatment,
        "control": found.control,
        "outcome": task.outcome,
        "id_column": task.id_column or "",
        "model": chosen.model.learner,
        "average_effect": effect.as_dict(),
        "usable": chosen.evaluation.usable,
    }
    as_of = now.replace(tzinfo=None, minute=0, second=0, microsecond=0)
    return EvaluatedModel(
        ModelBundle(KIND, model, as_of, facts=facts),
        replace(report_of(chosen.evaluation), notes=_notes(chosen.evaluation, found.notes)),
        [GateRule(f"{GAIN}:{AT_RANDOM}"), GateRule(f"{GAIN}:{RESPONSE}", require_improvement=False)],
        {
            **{name: facts[name] for name in ("treatment", "control", "outcome", "model", "rows")},
            "file": task.data.name,
            "excluded": list(task.excluded),
        },
        figures(chosen.evaluation, task.outcome),
        table.select(trial.names).slice(0, 5),
        comparison="a table has no later rows than those that it has learnt from",
        arguments=TableArguments.of_task(task, task.job, seed),
    )


def report_of(evaluation: UpliftEvaluation) -> EvalReport:
    """The evaluation of what ships beside contacting at random, the response model, and all learners as slices."""
    effect, learners = evaluation.effect, evaluation.learners
    return EvalReport(
        {**learners[SHIPS], "average_effect": Metric(effect.value, effect.low, effect.high, effect.n)},
        {name: learners[name] for name in (AT_RANDOM, RESPONSE)},
        {f"{GAIN}:{AT_RANDOM}": learners[SHIPS][GAIN], f"{GAIN}:{RESPONSE}": evaluation.gain_over_response},
        {name: metrics for name, metrics in learners.items() if name not in (SHIPS, AT_RANDOM, RESPONSE)},
    )


def _notes(evaluation: UpliftEvaluation, of_table: list[str]) -> tuple[str, ...]:
    """What a reader must know: first whether the model is of use."""
    effect = evaluation.effect
    counts = ", ".join(f"{name} {count}×" for name, count in evaluation.chosen_in_splits.items())
    return (
        *filter(None, [evaluation.reason]),
        f"average effect of the contact on {effect.n:,} customers: {effect.value:+.4g} "
        f"[{effect.low:+.4g}, {effect.high:+.4g}]",
        f"ships: {evaluation.chosen}, the simplest learner within noise of the best (in the splits: {counts})",
        f"{evaluation.harmed_share:.0%} of the customers have a negative predicted uplift",
        *of_table,
    )
