"""`qianmian score`: files with a row per customer or score; missing models and profiles are built first."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from cli.console import Output
from cli.features import SUFFIXES, check_suffix
from cli.options import AsOfOption, EngineOption, JsonOption, SparkMasterOption, WorkspaceOption
from cli.score_classify import classify
from cli.score_lookalike import lookalike
from cli.score_predictions import predictions
from cli.score_recommend import recommend
from cli.scoring import (
    Execution,
    OutOption,
    WorkersOption,
    at_published,
    ensure_champion,
    ensure_profiles,
    report,
    write_scores,
)
from cli.times import parse_as_of
from qianmian.errors import DataError
from qianmian.workspace import Workspace

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
    moment, execution = parse_as_of(as_of), Execution(engine, spark_master, workers)
    execution.check(out)

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.scoring.churn import JOB, score_churn

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, JOB, moment)
        ensure_profiles(output, located, settings)
        champions = load_from_workspace(located, settings, [JOB])
        output.step("scoring churn")
        if execution.on_spark:
            from serving.scoring.spark import churn_on_spark

            at_published(champions, moment)
            written = execution.write_on_spark(output, located, churn_on_spark(champions), out)
        else:
            # profiles of another date are built, and not published
            other = moment is not None and moment != champions.customers.as_of
            builder = make_builder(Lake(located), settings) if other else None
            scores = score_churn(champions, as_of=moment, builder=builder)
            if not scores.customers:
                raise DataError("no customer is known before the cutoff", got=str(moment), hint="use a later --as-of")
            written = write_scores(output, located, scores, out, execution.workers)
    version = champions.require(JOB).version
    facts = {"model": JOB, "model_version": version, "trained_first": trained, "engine": execution.engine}
    report(output, located, out, written, begun, f"{JOB} version {version}", **facts)


score.command("predictions")(predictions)


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
