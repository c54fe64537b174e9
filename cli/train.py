"""`qianmian train`: trains one job or all, and prints the evaluation beside the baselines and the gate's decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, note_empty_days, note_missing_timezone, utc_now
from cli.train_campaigns import CampaignOption, with_campaigns
from cli.train_table import (
    CLASSIFY,
    DataOption,
    ExcludeOption,
    IdOption,
    LabelOption,
    NameOption,
    PositiveOption,
    TableOptions,
    train_table,
)
from cli.train_targets import PROPENSITY, RemoveTargetOption, TargetOption, change_targets
from cli.train_uplift_table import (
    UPLIFT,
    ControlOption,
    OutcomeOption,
    TreatmentOption,
    UpliftTableOptions,
    train_uplift_of_table,
)
from qianmian.errors import DataError, GateRefused, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training import JobResult
    from training.report import EvalReport, TaskSummary

ALL_JOBS = "all"
STATUSES = ("registered", "challenger", "refused", "skipped")


def train(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="Job to train: recommend, churn, left, lifecycle, lookalike, content, contact, demand, value, "
            "propensity, clusters, uplift, classify, or all.",
        ),
    ],
    as_of: AsOfOption = None,
    horizon_days: Annotated[
        int | None,
        typer.Option(
            "--horizon-days",
            min=1,
            max=365,
            metavar="N",
            help="Number of days to predict. Default: from the settings (28; value: 90).",
            show_default=False,
        ),
    ] = None,
    active_days: Annotated[
        int | None,
        typer.Option(
            "--active-days",
            min=1,
            metavar="N",
            help="churn: predict for customers with an order in the last N days. Default: twice the horizon.",
            show_default=False,
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="recommend, churn, propensity, value: search parameters on the validation period first; each trial is "
            "an MLflow run.",
        ),
    ] = False,
    tune_seconds: Annotated[
        int | None,
        typer.Option(
            "--tune-seconds",
            min=10,
            metavar="N",
            help="Time budget of --tune for each job. Default: from the settings (recommend: 600, others: 120).",
            show_default=False,
        ),
    ] = None,
    promote: Annotated[
        bool | None,
        typer.Option(
            "--promote/--no-promote",
            help="Make the model that the gate accepts the champion, or leave it as challenger. Default: promote it, "
            "unless its data end before those of the champion or it answers another question.",
            show_default=False,
        ),
    ] = None,
    target: TargetOption = None,
    remove_target: RemoveTargetOption = None,
    campaign: CampaignOption = None,
    data: DataOption = None,
    label: LabelOption = None,
    id_column: IdOption = None,
    positive: PositiveOption = None,
    exclude: ExcludeOption = None,
    name: NameOption = None,
    treatment: TreatmentOption = None,
    control: ControlOption = None,
    outcome: OutcomeOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a job, compare it with baselines and the champion, and register it in MLflow.

    It becomes the champion if the gate accepts it, unless its data end earlier or it answers another question (horizon,
    label, outcome): then it waits as the challenger. Exit code 4: the gate refused it, and the champion stays.
    `all` trains every job that the data supports. `classify` and `uplift --data` read a table with one row a customer
    instead of the lake.
    """
    output = Output(as_json)
    table = TableOptions(data, label, id_column, positive, exclude, name)
    of_the_lake = {"--as-of": as_of, "--horizon-days": horizon_days, "--active-days": active_days, "--tune": tune}
    targets = {"--target": target, "--remove-target": remove_target}
    others = {**of_the_lake, "--tune-seconds": tune_seconds, **targets, "--campaign": campaign}
    test = UpliftTableOptions(data, treatment, outcome, control, id_column, exclude, name)
    if test.is_wanted(job):
        test.check({**others, "--label": label, "--positive": positive})
        of_test, about = train_uplift_of_table(output, workspace, test, promote)
        show_result(output, of_test)
        conclude(output, job, [of_test], about)
        return
    table.check(job, {**others, "--outcome": outcome})
    if job == CLASSIFY:
        of_table, about = train_table(output, workspace, table, promote)
        show_result(output, of_table)
        conclude(output, job, [of_table], about)
        return
    if job != PROPENSITY and (target or remove_target):
        raise UsageError("targets are those of the job propensity", where="--target", got=job, allowed=PROPENSITY)
    if job != UPLIFT and (campaign or outcome):
        where = "--campaign" if campaign else "--outcome"
        raise UsageError("campaigns and outcomes are those of the job uplift", where=where, got=job, allowed=UPLIFT)
    from features.data.lake import Lake
    from qianmian.config import load_settings
    from qianmian.settings import with_tune_seconds
    from training import JOBS
    from training import train as run_jobs

    names = [ALL_JOBS] if job == ALL_JOBS else [JOBS[job].name]
    located = Workspace.locate(workspace).require()
    if target or remove_target:
        change_targets(output, located, target or [], remove_target or [])
    settings = with_campaigns(load_settings(located.config_file), campaign, outcome)
    if tune_seconds is not None:
        if not tune:
            raise UsageError("--tune-seconds has no effect without --tune", hint="add --tune, or omit --tune-seconds")
        settings = with_tune_seconds(settings, tune_seconds)
    lake = Lake(located)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    note_missing_timezone(output, lake, settings)
    with output.working(total=len(JOBS) if job == ALL_JOBS else 1):
        results = run_jobs(
            located,
            names,
            clock=utc_now,
            as_of=moment,
            horizon_days=horizon_days,
            active_days=active_days,
            settings=settings,
            tune=tune,
            promote=promote,
            progress=lambda line: report_progress(output, line, list(JOBS)),
        )
    for result in results:
        show_result(output, result)
    answer: dict[str, Any] = {
        "workspace": located.root,
        "as_of": moment,
        "results": [result.as_dict() for result in results],
    }
    conclude(output, job, results, answer)


def conclude(output: Output, job: str, results: Sequence[JobResult], answer: dict[str, Any]) -> None:
    """Print the results as JSON, and fail if none could be trained or the gate refused one."""
    if all(result.status == "skipped" for result in results):
        raise DataError(
            "the data supports none of the jobs; the reasons are printed above",
            where=str(answer["workspace"]),
            hint="add the data that the jobs need; see docs/mlflow.md",
        )
    refused = [result for result in results if result.status == "refused"]
    if refused:
        refusal(output, refused, answer)
    if job != ALL_JOBS and results[0].status == "skipped":
        raise DataError(
            f"the data does not support {job}",
            got=str(results[0].reason),
            hint="add the data that the job needs; see docs/mlflow.md",
        )
    output.result(answer)
    output.say("Next: qianmian serve, qianmian score, or qianmian models list")


def refusal(output: Output, refused: Sequence[JobResult], answer: dict[str, Any]) -> NoReturn:
    """Print the results as JSON, and fail because the gate refused some.

    Raises
    ------
    GateRefused
    """
    error = GateRefused(
        f"the gate refused {', '.join(result.job for result in refused)}",
        got="; ".join(str(result.reason) for result in refused),
        hint=f"see `qianmian models show {refused[0].job}` and docs/mlflow.md; an existing champion is still served",
    )
    output.result({"error": error.as_dict(), **answer})
    if output.as_json:
        raise typer.Exit(error.exit_code)
    raise error


def report_progress(output: Output, line: str, jobs: list[str]) -> None:
    """Print a step, and advance the bar if it ends a job."""
    output.step(line)
    if line.startswith(tuple(f"{job}: {status} in" for job in jobs for status in STATUSES)):
        output.advance()


def show_result(output: Output, result: JobResult) -> None:
    """Print the result of one job, after its evaluation report if there is one."""
    labels = {
        "registered": f"registered as version {result.version}",
        "challenger": f"version {result.version} is the challenger, and the champion stays",
        "refused": f"refused by the gate (version {result.version})",
        "skipped": "skipped",
    }
    reason = f": {result.reason}" if result.reason else ""
    if result.report is not None:
        show_report(output, result.job, result.report)
        for note in result.report.notes:
            output.say(f"{result.job}: {note}")
    output.say(f"{result.job}: {labels.get(result.status, result.status)}{reason} ({result.seconds:.1f} s)")
    if result.status == "challenger":
        output.say(
            f"{result.job}: compare the two with `qianmian models compare {result.job}`, and promote it with "
            f"`qianmian models promote {result.job} {result.version}`, or train with --promote"
        )


def show_report(output: Output, title: str, report: EvalReport) -> None:
    """Print each metric with its 95 % interval and its value for each baseline."""
    baselines = list(report.baselines)
    rows: list[list[object]] = []
    for name, metric in report.metrics.items():
        beside = [report.baselines[baseline].get(name) for baseline in baselines]
        rows.append(
            [
                name,
                format_number(metric.value),
                f"{format_number(metric.low)} – {format_number(metric.high)}",
                metric.n,
                *(format_number(other.value) if other else "" for other in beside),
            ]
        )
    columns = ["metric", "value", "95 % interval", "n", *baselines]
    output.table(title, columns, rows, right=columns[1:])
    if report.tasks:
        show_tasks(output, title, report.tasks)


def show_tasks(output: Output, title: str, tasks: Sequence[TaskSummary]) -> None:
    """Print one row for each scene or cold start: what ships, its value, and how far it is ahead of the next best."""
    columns = ["scene", "ships", "metric", "value", "95 % interval", "n", "next best", "ahead of it", "simplest", "why"]
    rows: list[list[object]] = [
        [
            task.task,
            task.model,
            task.metric,
            format_number(task.value.value),
            f"{format_number(task.value.low)} – {format_number(task.value.high)}",
            task.value.n,
            f"{task.other} {format_number(task.other_value.value)}" if task.other != task.model else "",
            f"{task.ahead_of_other.value:+.3f} [{task.ahead_of_other.low:+.3f}, {task.ahead_of_other.high:+.3f}]"
            if task.other != task.model
            else "",
            f"{task.simplest} {format_number(task.simplest_value.value)}" if task.simplest != task.model else "",
            task.reason,
        ]
        for task in tasks
    ]
    output.table(f"{title}: what ships in every scene", columns, rows, right=["value", "n"])


def format_number(value: float) -> str:
    """Format a metric: three decimals below 10, else none.

    Examples
    --------
    >>> format_number(0.41234), format_number(123.4)
    ('0.412', '123')
    """
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
