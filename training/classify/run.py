"""`train classify`: a calibrated classifier of the label of a snapshot table, evaluated by cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.snapshot_table import file_digest, read_snapshot_table, require_column
from models.bundle import ModelBundle
from models.classify.risk_bands import FACT, RiskBands
from models.classify.snapshot_model import SnapshotColumn, SnapshotModel, encoded
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training import plots
from training.arguments import TableArguments
from training.bootstrap import CLASSIFICATION
from training.classify.choice import fit_best
from training.classify.columns import Label, choose_columns, read_label
from training.classify.evaluation import (
    BASE_RATE,
    FOLDS,
    PLAIN,
    SINGLE_COLUMN,
    CrossValidation,
    cross_validate,
    gains,
    measure,
)
from training.gate import GateRule
from training.jobs.base import EvaluatedModel, Progress
from training.run import Clock, JobResult
from training.table_training import table_job_name, train_table_job

KIND = "classify"
LEAKAGE_AUC = 0.98  # of a single column: no honest column of a customer says so much


@dataclass(frozen=True)
class SnapshotTask:
    """What is learnt from which file.

    Attributes
    ----------
    data : Path
        CSV or Parquet file with one row a customer.
    label : str
        Column that is predicted.
    id_column : str or None
        Column that names the customers; it is not learnt from.
    positive : str or None
        The value of the label whose probability is predicted.
    name : str or None
        Further part of the name of the registered model.
    excluded : collection of str
        Columns that are not learnt from.
    """

    data: Path
    label: str
    id_column: str | None = None
    positive: str | None = None
    name: str | None = None
    excluded: Collection[str] = ()

    @property
    def job(self) -> str:
        """``classify``, or ``classify-NAME``: the name of the registered model without its prefix."""
        return job_name(self.name)


def job_name(name: str | None) -> str:
    """Return ``classify`` or ``classify-NAME``.

    Raises
    ------
    UsageError
        The name has other characters than small letters, digits and single hyphens.
    """
    return table_job_name(KIND, name, unnamed=KIND, example="bank-deposit")


def train_classify(
    workspace: Workspace,
    task: SnapshotTask,
    *,
    settings: Settings,
    clock: Clock,
    progress: Progress = lambda line: None,
    shuffle_labels: bool = False,
    promote: bool | None = None,
) -> JobResult:
    """Train, evaluate and register a classifier of a snapshot table; the workspace is made if it is missing.

    Parameters
    ----------
    workspace : Workspace
        For its model registry; its lake is not read.
    task : SnapshotTask
    settings : Settings
        For the seed and the gate.
    clock : callable
        Returns the current time.
    progress : callable, optional
        Called with a line of text at each step.
    shuffle_labels : bool
        Learn from permuted labels, which the gate must refuse. For tests.
    promote : bool, optional
        As of `training.run.train`.

    Raises
    ------
    DataError
        The table does not support a classifier; the error says what would be enough.
    UsageError
        A column that is named is not there.
    """
    return train_table_job(
        workspace,
        task.job,
        task.data,
        lambda now: evaluate(task, settings.seed, now, progress, shuffle_labels),
        clock,
        progress,
        settings.gate,
        promote,
    )


def evaluate(
    task: SnapshotTask, seed: int, now: datetime, progress: Progress, shuffle_labels: bool = False
) -> EvaluatedModel:
    """Cross-validate and fit the classifier of a table; see `train_classify`."""
    table = read_snapshot_table(task.data)
    ids = require_column(table, task.id_column, "--id", task.data) if task.id_column else None
    for name in task.excluded:
        require_column(table, name, "--exclude", task.data)
    label = read_label(require_column(table, task.label, "--label", task.data), task.label, task.positive)
    if ids is not None:
        require_one_row_a_customer(ids, task.id_column)
    rows = table.take(pa.array(label.rows))
    columns, column_notes = choose_columns(rows, {task.label, *task.excluded, *filter(None, [task.id_column])})
    X = encoded(rows, columns)
    categorical = [column.kind == "category" for column in columns]
    learnt = np.random.default_rng(seed).permutation(label.y) if shuffle_labels else label.y
    progress(f"{task.job}: {len(label.y):,} customers, {len(columns)} columns, {label.positive}: {label.y.mean():.1%}")
    found = cross_validate(X, label.y, categorical, seed, learnt)
    report = measure(label.y, found.p, found.baselines, seed)
    progress(f"{task.job}: fitting on all rows")
    chosen, classifier = fit_best(X, learnt, None, categorical, seed)
    model = SnapshotModel(columns, classifier, task.label, label.positive)
    p = found.p[:, 0]
    bands = RiskBands.relative(p)
    facts = {
        "job": task.job,
        "data_digest": file_digest(task.data),
        "seed": seed,
        "rows": len(label.y),
        "base_rate": float(label.y.mean()),
        "label": task.label,
        "positive": label.positive,
        "id_column": task.id_column or "",
        "model": chosen,
        FACT: [bands.medium_from, bands.high_from],
    }
    names = [column.name for column in columns]
    as_of = now.replace(tzinfo=None, minute=0, second=0, microsecond=0)
    contributions = model.explain(X)
    importance = np.abs(contributions).mean(axis=0).tolist()
    return EvaluatedModel(
        ModelBundle(KIND, model, as_of, facts=facts),
        replace(report, notes=_notes(task, table.num_rows, label, columns, column_notes, chosen, found)),
        [
            GateRule(f"log_loss:{BASE_RATE}", higher_is_better=False),
            GateRule(f"auc:{SINGLE_COLUMN}", require_improvement=False),
            GateRule(f"auc:{PLAIN}", require_improvement=False),
        ],
        {
            **{name: facts[name] for name in ("label", "positive", "model", "rows")},
            "columns": len(columns),
            "file": task.data.name,
            "excluded": list(task.excluded),
        },
        {
            "calibration.png": plots.calibration_curve(label.y, p, f"{task.label}: calibration, out of fold"),
            "gains.png": gains(
                label.y, {"model": p, SINGLE_COLUMN: found.baselines[SINGLE_COLUMN][:, 0]}, f"{task.label}: gains"
            ),
            "importance.png": plots.bars(
                dict(zip(names, importance, strict=True)),
                "mean |contribution| (log-odds)",
                f"{task.label}: importance of the columns",
            ),
            "beeswarm.png": plots.beeswarm(contributions, X, names, f"{task.label}: contributions", seed),
        },
        rows.select(names).slice(0, 5),
        comparison="a table has no later rows than those that it has learnt from",
        arguments=TableArguments.of_task(task, task.job, seed),
    )


def require_one_row_a_customer(ids: pa.ChunkedArray, id_column: str | None) -> None:
    """Check that a table has one row a customer.

    Raises
    ------
    DataError
        An id occurs twice, or is missing.
    """
    distinct = pc.count_distinct(ids, mode="all").as_py()
    if ids.null_count or distinct < len(ids):
        raise DataError(
            "a snapshot table has one row a customer",
            where=f"--id {id_column}",
            got=f"{len(ids):,} rows, {distinct:,} distinct ids, {ids.null_count:,} rows without an id",
            hint="keep one row of each customer; for rows over time, `qianmian ingest` reads the history",
        )


def _notes(
    task: SnapshotTask,
    n_rows: int,
    label: Label,
    columns: tuple[SnapshotColumn, ...],
    column_notes: list[str],
    chosen: str,
    found: CrossValidation,
) -> tuple[str, ...]:
    """What a reader must know: leaks first."""
    leaks = [
        f"LEAKAGE? {column.name} alone tells the label (AUC {auc:.3f}): was it known before the answer was? "
        f"If not, train again with --exclude {column.name}"
        for column, rates in zip(columns, found.columns.T, strict=True)
        if (auc := CLASSIFICATION["auc"](label.y, rates)) >= LEAKAGE_AUC
    ]
    folds, repetitions = FOLDS, found.p.shape[1]
    counts = Counter(found.chosen)
    return (
        *leaks,
        f"the table has no time: {repetitions} × {folds} stratified folds, each row predicted by models that have not "
        "seen it; a later period can differ",
        f"ships: {chosen}, the simplest candidate that is not worse by out-of-fold log loss (in the folds: "
        f"{', '.join(f'{name} {count}×' for name, count in counts.items())})",
        *([f"{n_rows - len(label.y):,} rows without a label are left out"] if n_rows > len(label.y) else []),
        *column_notes,
    )
