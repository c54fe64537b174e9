"""What every job that learns from a table, instead of the lake, has in common: the name of its model, and its run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from features.data.locking import workspace_lock
from models.parallel import one_blas_thread
from qianmian import model_store
from qianmian.errors import UsageError
from qianmian.model_settings import GateSettings
from qianmian.workspace import Workspace
from training.decision import TrainingCall
from training.jobs.base import EvaluatedModel, Progress
from training.run import Clock, JobResult, gate_and_register

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def table_job_name(prefix: str, name: str | None, *, unnamed: str, example: str) -> str:
    """Return ``PREFIX-NAME``, or `unnamed` without a name: the name of the registered model without its prefix.

    Raises
    ------
    UsageError
        The name has other characters than small letters, digits and single hyphens.
    """
    if name is None:
        return unnamed
    if not NAME.fullmatch(name):
        raise UsageError(
            "the name of the model is not valid",
            where="--name",
            got=name,
            allowed=f"small letters, digits and hyphens, such as {example}",
        )
    return f"{prefix}-{name}"


def train_table_job(
    workspace: Workspace,
    job: str,
    data: Path,
    evaluate: Callable[[datetime], EvaluatedModel],
    clock: Clock,
    progress: Progress,
    settings: GateSettings,
    promote: bool | None,
) -> JobResult:
    """Evaluate a model of a table, apply the gate and register it; the workspace is made if it is missing.

    Parameters
    ----------
    workspace : Workspace
        For its model registry; its lake is not read.
    job : str
        `table_job_name` of the model.
    data : Path
        The table.
    evaluate : callable
        Reads the table at the current time and returns the evaluated model, whose facts hold ``data_digest``.
    clock : callable
        Returns the current time.
    progress : callable
        Called with a line of text at each step.
    settings : GateSettings
    promote : bool or None
        As of `training.run.train`.
    """
    started = time.perf_counter()
    workspace.create()
    model_store.adopt(workspace, required=True)
    model_store.check_experiments(workspace, [job], os.environ.get("MLFLOW_RUN_ID"))
    with workspace_lock(workspace), one_blas_thread():
        progress(f"{job}: reading {data}")
        evaluated = evaluate(clock())
        digest = str(evaluated.bundle.facts["data_digest"])
        result = gate_and_register(
            workspace,
            job,
            evaluated,
            clock,
            progress,
            digest,
            settings=settings,
            call=TrainingCall(promote),
        )
    result = replace(result, seconds=round(time.perf_counter() - started, 2))
    progress(f"{job}: {result.status} in {result.seconds:.1f} s")
    return result
