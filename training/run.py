"""`train`: run training jobs one after the other, apply the gate to each model, and register those that pass."""

from __future__ import annotations

import logging
import os
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
from features.profiles.tags.published import keep_version
from models.parallel import one_blas_thread, return_freed_memory
from qianmian import model_store
from qianmian.errors import DataError, UsageError
from qianmian.model_settings import GateSettings
from qianmian.schema import CHALLENGER, CHAMPION, DECISION_TAG, GATE_TAG, registered_name
from qianmian.settings import Settings
from qianmian.times import not_in_the_future
from qianmian.workspace import Workspace
from training.comparison import HORIZONS
from training.decision import (
    CHOSEN,
    NAMED,
    TrainingCall,
    judged,
    reasons_to_wait,
    version_in_production,
    with_test_start,
)
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
        `registered` (as the champion), `challenger` (registered, and the champion stays), `refused` (by the gate;
        registered, and the champion stays) or `skipped` (the data do not support the job).
    reason : str
        The reasons of the gate, why the model waits, or why the job was skipped, in one line.
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
    promote: bool | None = None,
) -> list[JobResult]:
    """Train the named jobs on the data before `as_of`, register the models, and publish profiles.

    A model that passes the gate becomes the champion, unless its data end before those of the champion or its horizon,
    outcome or label is another one; then it is the challenger.

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
    promote : bool, optional
        True: also promote a model that passes the gate with earlier data or another horizon. False: promote none.

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
        If the workspace was copied or moved, and its model store cannot be changed, or its runs cannot be written
        (`model_store.check_experiments`).
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
    model_store.check_experiments(workspace, names, os.environ.get("MLFLOW_RUN_ID"))
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
            results = [_run_job(context, job, clock, promote, may_skip=every) for job in chosen]
            del context  # publishing needs the memory of its profiles
            return_freed_memory()
            _publish_profiles(workspace, cutoff, settings, progress)
    return results


def _run_job(context: TrainingContext, job: Job, clock: Clock, promote: bool | None, *, may_skip: bool) -> JobResult:
    """Train, evaluate and register one kind of model."""
    started = time.perf_counter()
    try:
        evaluated_model = with_reference(context, job, job.run(context))
        evaluated_model = replace(evaluated_model, arguments=context.arguments(job.name))
    except DataError as error:
        if not may_skip:
            raise
        result = JobResult(job.name, "skipped", str(error))
    else:
        features, unsupported = context.builder.supported(as_of=context.as_of)
        call = TrainingCall(
            promote,
            horizon_named=context.horizon_days is not None,
            fits_horizon=job.fits_horizon,
            computed={*(feature.name for feature in features), *unsupported},
        )
        result = gate_and_register(
            context.workspace,
            job.name,
            evaluated_model,
            clock,
            context.progress,
            context.lake.digest,
            settings=context.settings.gate,
            call=call,
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
    *,
    settings: GateSettings,
    call: TrainingCall,
) -> JobResult:
    """Apply the gate, log the run to MLflow, register the version, and make it the champion if nothing forbids it.

    The order: rules and bounds, comparison with the champion, MLflow run, version, alias `challenger`, promotion. A
    kill in between leaves the champion that was there, or, from the promotion on, what `promotion.mend` finishes.
    """
    # imported here because importing MLflow is slow and `train` may fail before this point
    from training import descriptions, promotion, provenance, tracking

    promotion.mend(workspace)
    evaluated_model = with_test_start(evaluated_model)
    with version_in_production(workspace, name) as champion:
        report = judged(evaluated_model, champion, settings, call)
        waits = reasons_to_wait(evaluated_model, champion, call) if report.passed else ()
        compared_with = champion.version if champion is not None else None
    gate = "passed" if report.passed else promotion.REFUSED
    decision = "refused" if not report.passed else f"challenger: {'; '.join(waits)}" if waits else "accepted"
    progress(f"{name}: writing to MLflow")
    with tracking.run(workspace, name, descriptions.run_name(evaluated_model)) as active:
        logged = tracking.log(evaluated_model, report)
        origin = provenance.record(workspace, evaluated_model)
        import mlflow

        mlflow.set_tag("qianmian.gate", gate)
        mlflow.set_tag("qianmian.gate_reasons", " | ".join(report.reasons)[:4900])
        mlflow.set_tag("qianmian.decision", decision[:4900])
        mlflow.set_tag("qianmian.notes", " | ".join(report.notes)[:4900])
        mlflow.set_tag("mlflow.note.content", descriptions.of_version(evaluated_model, report, origin))
        run_id = active.info.run_id
    facts = evaluated_model.bundle.facts
    tags = {
        "as_of": f"{evaluated_model.bundle.as_of:%Y-%m-%d}",
        "data_digest": data_digest,
        **{fact: str(facts[fact]) for fact in (*CHOSEN, *HORIZONS) if facts.get(fact) is not None},
        NAMED: "true" if call.horizon_named else "false",
        GATE_TAG: gate,
        "gate_reasons": " | ".join(report.reasons),
        DECISION_TAG: decision,
        **origin,
    }
    version = promotion.register(workspace, name, run_id, logged.model_uri, tags)
    about = JOBS[name].description if name in JOBS else ""
    tracking.describe(workspace, evaluated_model, report, origin, version, about)
    reason = "; ".join(report.reasons)
    keep_version(
        workspace,
        evaluated_model.tags,
        as_of=evaluated_model.bundle.as_of,
        model_name=registered_name(name),
        model_version=str(version),
    )
    promotion.challenge(workspace, name, version)
    if not report.passed:
        logger.warning("gate_refused job=%s version=%s", name, version)
        return JobResult(name, "refused", reason, version, run_id, report)
    if waits:
        logger.info("registered job=%s version=%s alias=%s", name, version, CHALLENGER)
        return JobResult(name, "challenger", "; ".join(waits), version, run_id, report)
    now = clock()
    stamp = now.astimezone(UTC) if now.tzinfo else now
    event = promotion.promote(
        workspace, name, version, stamp, action="register", reason=reason, compared_with=compared_with
    )
    if event is None:  # two trainings of a job at the same time
        moved = f"another version than {compared_with} has become the champion since they were compared"
        return JobResult(name, "challenger", moved, version, run_id, report)
    logger.info("registered job=%s version=%s alias=%s", name, version, CHAMPION)
    return JobResult(name, "registered", reason, version, run_id, report)
