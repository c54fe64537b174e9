"""`qianmian demo`: the whole way on a real grocer's year, from raw files to HTTP answers."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from cli.console import Output
from cli.demo_calls import Call, call_endpoints, choose_customers, show_calls
from cli.ingest import make_source, show_report
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from cli.train import format_number
from qianmian.errors import GateRefused, NotReady
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from training import JobResult

SOURCE = "completejourney"
LOG_LINES = 15  # of the server's own output, shown when it does not come up


class StageTimer:
    """Times each stage of the way."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage; its time is kept, the bar moves on."""
        begun = time.perf_counter()
        self.output.step(name)
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 2)
        self.output.advance()


def demo(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Complete Journey from raw files to HTTP answers: ingest, features, train all, serve, ask, stop. Running it again changes nothing."""
    from features.data.ingest import ingest
    from features.data.lake import Lake
    from features.profiles.snapshot import ensure_snapshot
    from qianmian.config import load_settings
    from training import train

    output = Output(as_json)
    located = Workspace.locate(workspace)
    settings = load_settings(located.config_file)
    stage_timer = StageTimer(output)
    with output.working(total=5, what="demo"):
        with stage_timer.stage("ingest"):
            report = ingest(located, make_source(SOURCE, {}), settings, output.step)
        lake = Lake(located)
        with stage_timer.stage("features"):
            snapshot = ensure_snapshot(located, lake.default_as_of, settings)
        with stage_timer.stage("train, evaluate, gate, register"):
            results = train(
                located, ["all"], clock=utc_now, as_of=snapshot.as_of, settings=settings, progress=output.step
            )
        with _server(stage_timer, located, output) as url, stage_timer.stage("HTTP calls"):
            demo_customers = choose_customers(snapshot, lake)
            calls = call_endpoints(url, demo_customers)
    show_report(output, report)
    output.say(
        f"{snapshot.table.num_rows:,} customers, {len(snapshot.spec.names)} features, {len(snapshot.tags)} tags as of {snapshot.as_of}\n"
    )
    show_results(output, results)
    show_calls(output, calls, demo_customers, lake)
    output.table(
        "time of each stage",
        ["stage", "seconds"],
        [[name, f"{seconds:.1f}"] for name, seconds in stage_timer.seconds.items()],
        ["seconds"],
    )
    steps = ["serve", "train churn --horizon-days 14", "score churn --out churn.csv", "models list", "doctor"]
    known = f' --workspace "{workspace}"' if workspace else ""
    following = [f"qianmian {step}{known}" for step in steps] + [
        f"mlflow ui --backend-store-uri '{located.tracking_uri}'"
    ]
    output.say(
        f"{sum(stage_timer.seconds.values()):.0f} s in total. Next (in the virtual environment: . .venv/bin/activate):"
    )
    for line in following:
        output.say(f"  {line}")
    refused = [result.job for result in results if result.status == "refused"]
    output.result(
        {
            "workspace": located.root,
            "stages": stage_timer.seconds,
            "ingest": report,
            "results": results,
            "calls": [call.as_dict() for call in calls],
            "next": following,
            "refused": refused,
        }
    )
    if refused:
        raise typer.Exit(GateRefused.exit_code)


@contextlib.contextmanager
def _server(stage_timer: StageTimer, located: Workspace, output: Output) -> Iterator[str]:
    """The real server on a free port; what it printed is shown when it does not come up."""
    from serving.server import running

    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as open_servers:
        with stage_timer.stage("start the server"):
            try:
                url = open_servers.enter_context(running(located, log=log))
            except NotReady as error:
                log.seek(0)
                for line in log.read().decode(errors="replace").splitlines()[-LOG_LINES:]:
                    output.step(f"server: {line}")
                raise NotReady(
                    error.message, where=error.where, got=error.got, hint="qianmian doctor says what is wrong"
                ) from error
        yield url


def show_results(output: Output, results: list[JobResult]) -> None:
    """Every metric of every job with its interval, and the baselines it had to beat."""
    rows: list[list[Any]] = []
    for result in results:
        if result.report is None:
            rows.append([result.job, result.status, "", "", result.reason])
            continue
        verdict = f"{result.job} v{result.version}" if result.version is not None else f"{result.job} ({result.status})"
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
