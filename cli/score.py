"""`qianmian score`: files with a row per customer or score; missing models and profiles are built first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.options import AsOfOption, EngineOption, JsonOption, SparkMasterOption, WorkspaceOption
from cli.score_classify import classify
from cli.score_lookalike import lookalike
from cli.score_recommend import recommend
from cli.scoring import Execution, OutOption, WorkersOption, ensure_champion, ensure_profiles, report, write_scores
from cli.times import parse_as_of
from qianmian.errors import DataError, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from datetime import datetime

    from serving.champions import Champions
    from serving.scoring.spark import SparkScores

score = typer.Typer(
    help="Score all customers into a file: recommend, churn, predictions, tags or lookalike. An interrupted run "
    "continues after its last block; recommend, churn and predictions take --workers and --engine spark.",
    no_args_is_help=True,
)
score.command("recommend")(recommend)
score.command("classify")(classify)


@score.command()
def churn(
    out: OutOption,
    as_of: AsOfOption = None,
    workers: WorkersOption = 1,
    engine: EngineOption = "duckdb",
    spark_master: SparkMasterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the churn probability of every customer, with reasons; train the model first if it is missing."""
    _score_profiles("churn", out, as_of, Execution(engine, spark_master, workers), workspace, as_json)


@score.command()
def predictions(
    out: OutOption,
    as_of: AsOfOption = None,
    workers: WorkersOption = 1,
    engine: EngineOption = "duckdb",
    spark_master: SparkMasterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the lifecycle stage of every customer and the next one; train the model first if it is missing."""
    _score_profiles("predictions", out, as_of, Execution(engine, spark_master, workers), workspace, as_json)


@score.command()
def tags(
    out: OutOption, as_of: AsOfOption = None, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Write all tags of every customer, one row per customer; no model is needed."""
    moment = parse_as_of(as_of)
    check_suffix(out, SUFFIXES)

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from features.profiles.building import snapshot_at
    from features.profiles.snapshot import Snapshot, current_snapshot_name
    from qianmian.config import load_settings
    from serving.scoring.tables import IDENTITY_COLUMNS
    from serving.scoring.tags import score_tags

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        profiles: Snapshot | Path
        if moment is None:
            ensure_profiles(output, located, settings, with_tags=True)
            profiles = located.online / str(current_snapshot_name(located))
        else:
            output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
            profiles = snapshot_at(make_builder(Lake(located), settings), moment, settings)
        output.step(f"writing {out}")
        scores = score_tags(profiles)
        written = write_scores(output, located, scores, out)
    n_tags = len(written.columns) - len(IDENTITY_COLUMNS) - len(scores.depends_on["tags"])  # without the moments
    report(output, located, out, written, begun, f"{n_tags} tags as of {written.as_of}")


score.command("lookalike")(lookalike)


def _score_profiles(
    what: str, out: Path, as_of: str | None, execution: Execution, workspace: Path | None, as_json: bool
) -> None:
    """Score the profiles with the champion of a job and write the table."""
    moment = parse_as_of(as_of)
    execution.check(out)

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.scoring import churn, lifecycle

    scored = {"churn": (churn.JOB, churn.score_churn), "predictions": (lifecycle.JOB, lifecycle.score_predictions)}
    job, prepare = scored[what]
    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, job, moment)
        ensure_profiles(output, located, settings)
        champions = load_from_workspace(located, settings, [job])
        output.step(f"scoring {what}")
        # profiles of another date are built, and not published
        other = moment is not None and moment != champions.customers.as_of
        if execution.on_spark:
            written = execution.write_on_spark(output, located, _spark_scores(what, champions, moment), out)
        else:
            scores = prepare(champions, as_of=moment, builder=make_builder(Lake(located), settings) if other else None)
            if not scores.customers:
                raise DataError("no customer is known before the cutoff", got=str(moment), hint="use a later --as-of")
            written = write_scores(output, located, scores, out, execution.workers)
    version = champions.require(job).version
    facts = {"model": job, "model_version": version, "trained_first": trained, "engine": execution.engine}
    report(output, located, out, written, begun, f"{job} version {version}", **facts)


def _spark_scores(what: str, champions: Champions, moment: datetime | None) -> SparkScores:
    """Prepare the scores of Spark, which reads the published profiles.

    Raises
    ------
    UsageError
        The profiles are of another moment.
    """
    from serving.scoring.spark import churn_on_spark, predictions_on_spark

    published = champions.customers.as_of
    if moment not in (None, published):
        raise UsageError(
            "Spark scores the published profiles",
            where="--as-of",
            got=str(moment),
            allowed=str(published),
            hint="run `qianmian features --as-of` with this date first, or omit --engine spark",
        )
    return churn_on_spark(champions) if what == "churn" else predictions_on_spark(champions)
