"""`train`: run training jobs one after the other, apply the gate to each model, and register those that pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from features.data.lake import Lake
from features.data.locking import workspace_lock
from features.data.sources.event_log import lake_position
from features.definitions.building import make_builder
from features.profiles import snapshot
from features.profiles.building import ensure_snapshot
from features.profiles.tags.published import publish
from models.parallel import one_blas_thread, return_freed_memory
from qianmian import model_store
from qianmian.errors import DataError, UsageError
from qianmian.schema import CHAMPION, registered_name
from qianmian.settings import Settings
from qianmian.times import not_in_the_future
from qianmian.workspace import Workspace
from training.gate import apply_gate
from training.jobs import JOBS
from training.jobs.base import EvaluatedModel, Job, Progress, TrainingContext
from training.monitoring.rows import with_reference
from training.report import EvalReport

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class JobResult:
    """The outcome of one job.

    Attributes
    ----------
    job : str
        Name in `JOBS`.
    status : str
        `registered`, `refused` (by the gate) or `skipped` (the data do not support the job).
    reason : str
        The reasons of the gate, or why the job was skipped, in one line.
    version : int or None
        Version in the MLflow registry.
    run_id : str or None
        MLflow run.
    report : EvalReport or None
    seconds : float
        Wall time.
    """

    job: str
    status: str
    reason: str
    version: int | None = None
    run_id: str | None = None
    report: EvalReport | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values for JSON."""
        return {**self.__dict__, "report": self.report.as_dict() if self.report else None}


def train(
    workspace: Workspace,
    jobs: Sequence[str],
    *,
    settings: Settings,
    clock: Clock,
    as_of: datetime | None = None,
    horizon_days: int | None = None,
    active_days: int | None = None,
    progress: Progress = lambda line: None,
    shuffle_labels: bool = False,
    tune: bool = False,
) -> list[JobResult]:
    """Train the named jobs on the data before `as_of`, register the models that pass the gate, and publish profiles.

    Parameters
    ----------
    workspace : Workspace
    jobs : sequence of str
        Names in `JOBS`, or `all`. With `all`, jobs that the data do not support are skipped.
    settings : Settings
    clock : callable
        Returns the current time, which the registry records for each registered version.
    as_of : datetime, optional
        Cutoff, naive UTC; default the midnight after the last row, or the last full hour if it is in the future.
    horizon_days : int, optional
        Prediction horizon in days; default that of the settings.
    active_days : int, optional
        Churn only: days since the last order within which a customer counts as active.
    progress : callable, optional
        Called with a line of text at each step.
    shuffle_labels : bool
        Train on permuted labels, which the gate must refuse. For tests.
    tune : bool
        Search parameters before training (`training.tuning`); jobs without tuning ignore it.

    Returns
    -------
    list of JobResult

    Raises
    ------
    DataError
        If `as_of` is outside the data, or the data do not support a job that was named (not `all`).
    UsageError
        If no job is named, or none of the named jobs can be tuned.
    WorkspaceError
        If the workspace was copied or moved, and its model store cannot be changed.
    """
    workspace.require()
    model_store.adopt(workspace, required=True)  # before the hours of a training whose model could not be stored
    lake = Lake(workspace)
    cutoff = _resolve_as_of(lake, as_of, clock)
    every = "all" in jobs
    names = list(JOBS) if every else list(dict.fromkeys(jobs))
    chosen = [JOBS[name] for name in names]
    if not chosen:
        raise UsageError("name a job to train", allowed=", ".join([*JOBS, "all"]))
    if tune and not any(job.can_tune for job in chosen):
        raise UsageError(
            "this job has no parameters to tune",
            got=", ".join(names),
            allowed=", ".join(job.name for job in JOBS.values() if job.can_tune),
        )
    # until the end, so that no model and no profiles appear with a customer who was erased meanwhile
    with workspace_lock(workspace):
        context = TrainingContext(
            workspace,
            cutoff,
            settings,
            progress,
            horizon_days,
            active_days,
            shuffle_labels,
            tune,
            _event_log=lake_position(lake),  # before anything else is read: what is ingested meanwhile may be missing
            _builder=make_builder(lake, settings),
        )
        with one_blas_thread():
            results = [_run_job(context, job, clock, may_skip=every) for job in chosen]
            del context  # publishing needs the memory of its profiles
            return_freed_memory()
            _publish_profiles(workspace, cutoff, settings, progress)
    return results


def _run_job(context: TrainingContext, job: Job, clock: Clock, *, may_skip: bool) -> JobResult:
    """Train, evaluate and register one kind of model."""
    started = time.perf_counter()
    try:
        evaluated_model = with_reference(context, job.name, job.run(context))
    except DataError as error:
        if not may_skip:
            raise
        result = JobResult(job.name, "skipped", str(error))
    else:
        result = gate_and_register(
            context.workspace, job.name, evaluated_model, clock, context.progress, context.lake.digest
        )
    result = replace(result, seconds=round(time.perf_counter() - started, 2))
    context.progress(f"{job.name}: {result.status} in {result.seconds:.1f} s")
    return result


def _publish_profiles(workspace: Workspace, cutoff: datetime, settings: Settings, progress: Progress) -> None:
    """Publish the profiles at the cutoff of this training, unless later ones are published already."""
    published = snapshot.published_as_of(workspace)
    if published is not None and cutoff < published:
        published_day, cutoff_day = f"{published:%Y-%m-%d}", f"{cutoff:%Y-%m-%d}"
        progress(f"profiles: those of {published_day} stay published, because this training is as of {cutoff_day}")
        return
    ensure_snapshot(workspace, cutoff, settings)
    progress(f"profiles: published as of {cutoff:%Y-%m-%d}")


def _resolve_as_of(lake: Lake, as_of: datetime | None, clock: Clock) -> datetime:
    if as_of is None:
        now = clock()
        return not_in_the_future(lake.default_as_of, now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now)
    last = lake.last
    if last is not None and as_of > last + timedelta(days=366):
        raise DataError(
            "as_of is more than a year after the last row",
            got=f"{as_of:%Y-%m-%d}",
            allowed=f"up to {last + timedelta(days=366):%Y-%m-%d}",
            hint="correct the date",
        )
    return as_of


def gate_and_register(
    workspace: Workspace,
    name: str,
    evaluated_model: EvaluatedModel,
    clock: Clock,
    progress: Progress,
    data_digest: str,
) -> JobResult:
    """Apply the gate, log the run to MLflow, and register the model and publish its tags if it passes."""
    as_of = evaluated_model.bundle.as_of
    report = apply_gate(evaluated_model.report, evaluated_model.rules)
    # imported here because importing MLflow is slow and `train` may fail before this point
    from training import promotion, tracking

    progress(f"{name}: writing to MLflow")
    with tracking.run(workspace, name) as active:
        logged = tracking.log(evaluated_model, report)
        import mlflow

        mlflow.set_tag("qianmian.gate", "passed" if report.passed else "refused")
        mlflow.set_tag("qianmian.gate_reasons", " | ".join(report.reasons)[:4900])
        mlflow.set_tag("qianmian.notes", " | ".join(report.notes)[:4900])
        run_id = active.info.run_id
    reason = "; ".join(report.reasons)
    if not report.passed:
        logger.warning("gate_refused job=%s", name)
        return JobResult(name, "refused", reason, None, run_id, report)
    now = clock()
    stamp = now.astimezone(UTC) if now.tzinfo else now
    tags = {"as_of": f"{as_of:%Y-%m-%d}", "data_digest": data_digest}
    event = promotion.register(workspace, name, run_id, logged.model_uri, stamp, tags)
    logger.info("registered job=%s version=%s alias=%s", name, event["version"], CHAMPION)
    for tag, (one_ids, values) in evaluated_model.tags.items():
        publish(
            workspace,
            tag,
            one_ids,
            values,
            as_of=as_of,
            model_name=registered_name(name),
            model_version=str(event["version"]),
        )
    return JobResult(name, "registered", reason, event["version"], run_id, report)
