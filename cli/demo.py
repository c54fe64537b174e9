"""`qianmian demo`: the whole pipeline on one year of a real grocer, from raw files to HTTP responses."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.demo_calls import Call, call_endpoints, choose_customers, show_calls
from cli.demo_loop import close_loop, show_loop
from cli.ingest import make_source, show_report
from cli.options import JsonOption, WorkspaceOption
from cli.score_churn import churn_report, say_contacts
from cli.times import note_missing_timezone, utc_now
from cli.train import format_number
from qianmian.errors import GateRefused, NotReady, UsageError
from qianmian.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    from training import JobResult

SOURCE = "completejourney"
QUICK_CUSTOMERS = 800
REPORT = "churn.html"  # in the workspace
LOG_LINES = 15  # last lines of the server's log, shown if it does not start


class StageTimer:
    """Measures the seconds of each stage."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage and advance the progress bar."""
        begun = time.perf_counter()
        self.output.step(name)
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 2)
        self.output.advance()


def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Only {QUICK_CUSTOMERS} households: a sample, with other figures.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline on Complete Journey: ingest, features, train all, churn report, HTTP calls, next basket.

    The next basket of a customer is sent as events, to an event log of the demo's own, and the answers before and after
    are shown. A new workspace gets the time zone of the shop's days and hours. Running it again changes nothing. With
    --quick, the default workspace is a folder of its own, ./workspace-quick.
    """
    from features.data.ingest import ingest
    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.profiles.building import ensure_snapshot
    from qianmian.config import load_settings
    from training import train

    output = Output(as_json)
    workspace = demo_workspace(workspace, quick)
    located = Workspace.locate(workspace)
    source = make_source(SOURCE, {"customers": QUICK_CUSTOMERS if quick else None})
    if not located.config_file.exists() and not Lake(located).states():
        write_timezone(located, str(source.customers_timezone))
    settings = load_settings(located.config_file)
    if quick:
        output.say(f"a sample of {QUICK_CUSTOMERS} of 2,469 households: all figures below are those of the sample")
    stage_timer = StageTimer(output)
    with output.working(total=7, what="demo"):
        with stage_timer.stage("ingest"):
            report = ingest(located, source, settings, output.step)
        lake = Lake(located)
        note_missing_timezone(output, lake, settings)
        with stage_timer.stage("features"):
            snapshot = ensure_snapshot(located, lake.default_as_of, settings)
            if quick:
                check_sample(located, snapshot.table.num_rows)
        with stage_timer.stage("train, evaluate, gate, register"):
            results = train(
                located, ["all"], clock=utc_now, as_of=snapshot.as_of, settings=settings, progress=output.step
            )
        with stage_timer.stage("churn report"), workspace_lock(located):
            churn_scores = churn_report(located, settings, located.root / REPORT)
        with _server(stage_timer, located, output) as url:
            with stage_timer.stage("HTTP calls"):
                demo_customers = choose_customers(snapshot, lake)
                calls = call_endpoints(url, demo_customers)
            with stage_timer.stage("next basket"):
                user = {"user_id": demo_customers.regular, "user_source": SOURCE}
                loop = close_loop(url, user, snapshot.as_of, lake, settings.serving.fresh_profiles)
    show_report(output, report)
    output.say(
        f"{snapshot.table.num_rows:,} customers, {len(snapshot.spec.names)} features, "
        f"{len(snapshot.tags)} tags as of {snapshot.as_of}\n"
    )
    show_results(output, results)
    if churn_scores is not None:
        output.say(f"who may churn, why, what is at stake, and whom not to contact: {located.root / REPORT}")
        say_contacts(output, churn_scores)
        output.say()
    show_calls(output, calls, demo_customers, lake)
    show_loop(output, loop)
    output.table(
        "time of each stage",
        ["stage", "seconds"],
        [[name, f"{seconds:.1f}"] for name, seconds in stage_timer.seconds.items()],
        ["seconds"],
    )
    steps = [
        "serve",
        "train churn --horizon-days 14",  # a challenger: the champion answers another question, and stays
        "models compare churn",
        "score churn --out churn.csv --lang en --top 100",
        "models list",
        "doctor",
    ]
    workspace_option = f' --workspace "{workspace}"' if workspace else ""
    next_commands = [f"qianmian {step}{workspace_option}" for step in steps]
    store = '"$MLFLOW_TRACKING_URI"' if os.environ.get("MLFLOW_TRACKING_URI") else f"'{located.tracking_uri}'"
    next_commands.append(f"mlflow ui --backend-store-uri {store}")  # a URL in the environment may hold a password
    total = sum(stage_timer.seconds.values())
    output.say(f"{total:.0f} s in total. Next (in the virtual environment: . .venv/bin/activate):")
    for line in next_commands:
        output.say(f"  {line}")
    refused = [result.job for result in results if result.status == "refused"]
    output.result(
        {
            "workspace": located.root,
            "stages": stage_timer.seconds,
            "ingest": report,
            "results": results,
            "calls": [call.as_dict() for call in calls],
            "loop": loop.as_dict(),
            "report": located.root / REPORT if churn_scores is not None else None,
            "next": next_commands,
            "refused": refused,
        }
    )
    if refused:
        raise typer.Exit(GateRefused.exit_code)


def demo_workspace(given: Path | None, quick: bool) -> Path | None:
    """Return the given workspace; without one, a sample gets a folder beside the default one."""
    if given is not None or not quick:
        return given
    usual = Workspace.locate().root
    return usual.with_name(f"{usual.name}-quick")


def check_sample(located: Workspace, customers: int) -> None:
    """Check that a workspace holds no more customers than the sample, whose figures would else be those of all.

    Raises
    ------
    UsageError
        It holds more.
    """
    if customers > QUICK_CUSTOMERS:
        raise UsageError(
            "the workspace holds more households than the sample, so the figures would not be those of the sample",
            where=str(located.root),
            got=f"{customers:,} customers",
            allowed=f"at most {QUICK_CUSTOMERS}",
            hint="give another folder with --workspace, or leave --quick out",
        )


def write_timezone(located: Workspace, timezone: str) -> None:
    """Write the settings file of a new workspace."""
    text = f"timezone: {timezone}  # of the customers' days and hours; the moments in the data are UTC\n"
    with atomic_path(located.config_file) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _server(stage_timer: StageTimer, located: Workspace, output: Output) -> Iterator[str]:
    """Run the real server on a free port; show the last lines of its log if it does not start.

    Its event log is a temporary one, so that the events of the demo do not stay in the workspace.
    """
    from serving.server import running

    with (
        tempfile.TemporaryFile() as log,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as open_servers,
    ):
        store = str(Path(folder, "events.db"))
        with stage_timer.stage("start the server"):
            try:
                url = open_servers.enter_context(running(located, log=log, online_store=store))
            except NotReady as error:
                log.seek(0)
                for line in log.read().decode(errors="replace").splitlines()[-LOG_LINES:]:
                    output.step(f"server: {line}")
                raise NotReady(error.message, where=error.where, got=error.got, hint="run `qianmian doctor`") from error
        yield url


def show_results(output: Output, results: list[JobResult]) -> None:
    """Print every metric of every job with its interval and the same metric of the baselines."""
    rows: list[list[Any]] = []
    for result in results:
        if result.report is None:
            rows.append([result.job, result.status, "", "", result.reason])
            continue
        verdict = (
            f"{result.job} v{result.version}" if result.status == "registered" else f"{result.job} ({result.status})"
        )
        for name, metric in result.report.metrics.items():
            others = {
                baseline: metrics[name] for baseline, metrics in result.report.baselines.items() if name in metrics
            }
            beside = " · ".join(f"{baseline} {format_number(other.value)}" for baseline, other in others.items())
            rows.append(
                [
                    verdict,
                    name,
                    format_number(metric.value),
                    f"{format_number(metric.low)} – {format_number(metric.high)}",
                    beside,
                ]
            )
            verdict = ""
    columns = ["model", "metric", "value", "95 % interval", "the same metric of its baselines"]
    output.table(
        "evaluated on a held-out test period; registered in MLflow as champion",
        columns,
        rows,
        ["value", "95 % interval"],
    )


__all__ = ["Call", "demo"]
