"""`qianmian train`: one job or all of them; the report beside its baselines, and what the gate said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.options import AsOfOption, JsonOption, WorkspaceOption
from cli.times import as_of_or_default, note_empty_days, utc_now
from qianmian.errors import DataError, GateRefused, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training import JobResult
    from training.report import EvalReport

ALL_JOBS = "all"
STATUSES = ("registered", "refused", "skipped")


def train(
    job: Annotated[
        str, typer.Argument(metavar="recommend|churn|lifecycle|lookalike|content|all", help="What to train.")
    ],
    as_of: AsOfOption = None,
    horizon_days: Annotated[
        int | None,
        typer.Option(
            "--horizon-days",
            min=1,
            max=365,
            metavar="N",
            help="How far ahead is asked. Default: settings, 28.",
            show_default=False,
        ),
    ] = None,
    active_days: Annotated[
        int | None,
        typer.Option(
            "--active-days",
            min=1,
            metavar="N",
            help="churn: who bought this lately is asked about. Default: twice the horizon.",
            show_default=False,
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="recommend: search parameters on the validation window first; every trial a run in MLflow."
        ),
    ] = False,
    tune_seconds: Annotated[
        int | None,
        typer.Option(
            "--tune-seconds",
            min=10,
            metavar="N",
            help="Time budget of --tune. Default: settings, 600.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train, evaluate against baselines, pass the gate, register in MLflow as champion. `all` does what the data allows."""
    from features.data.lake import Lake
    from qianmian.config import load_settings
    from training import JOBS
    from training import train as run_jobs

    names = [ALL_JOBS] if job == ALL_JOBS else [JOBS[job].name]
    output = Output(as_json)
    located = Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    if tune_seconds is not None:
        if not tune:
            raise UsageError("--tune-seconds says how long --tune may take", hint="give --tune too, or leave it out")
        settings = settings.model_copy(
            update={"recommend": settings.recommend.model_copy(update={"tune_seconds": tune_seconds})}
        )
    lake = Lake(located)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
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
            progress=lambda line: report_progress(output, line, list(JOBS)),
        )
    for result in results:
        show_result(output, result)
    answer: dict[str, Any] = {
        "workspace": located.root,
        "as_of": moment,
        "results": [result.as_dict() for result in results],
    }
    if all(result.status == "skipped" for result in results):
        raise DataError(
            "the data can support none of the jobs; each says above why",
            where=str(located.root),
            hint="docs/mlflow.md says what each job needs",
        )
    refused = [result for result in results if result.status == "refused"]
    if refused:
        error = GateRefused(
            f"the gate refused {', '.join(result.job for result in refused)}",
            got="; ".join(str(result.reason) for result in refused),
            hint="bring more data, ask for another horizon, or look at the run in MLflow; the champion before, if any, still serves",
        )
        output.result({"error": error.as_dict(), **answer})
        if as_json:
            raise typer.Exit(error.exit_code)
        raise error
    if job != ALL_JOBS and results[0].status == "skipped":
        raise DataError(
            f"the data cannot support {job}",
            got=str(results[0].reason),
            hint="bring the data it needs; docs/mlflow.md says which",
        )
    output.result(answer)
    output.say("next: qianmian serve, qianmian score, or qianmian models list")


def report_progress(output: Output, line: str, jobs: list[str]) -> None:
    """Pass a step on; one that closes a job moves the bar."""
    output.step(line)
    if line.startswith(tuple(f"{job}: {status} in" for job in jobs for status in STATUSES)):
        output.advance()


def show_result(output: Output, result: JobResult) -> None:
    """One job's outcome, and its report where it got that far."""
    words = {
        "registered": f"registered as version {result.version}",
        "refused": "refused by the gate",
        "skipped": "skipped",
    }
    reason = f": {result.reason}" if result.reason else ""
    if result.report is not None:
        show_report(output, result.job, result.report)
    output.say(f"{result.job}: {words.get(result.status, result.status)}{reason} ({result.seconds:.1f} s)")


def show_report(output: Output, title: str, report: EvalReport) -> None:
    """Metric, value, its 95 % interval, and each baseline's value of the same metric."""
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


def format_number(value: float) -> str:
    """Three digits that mean something.

    Examples
    --------
    >>> format_number(0.41234), format_number(123.4)
    ('0.412', '123')
    """
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
