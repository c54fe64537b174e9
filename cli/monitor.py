"""`qianmian monitor`: whether the model that serves is still right, in words, as a report, and as an exit code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import check_suffix
from cli.options import AsOfOption, JsonOption, Lang, LangOption, WorkspaceOption
from cli.times import as_of_or_default, parse_as_of, utc_now
from cli.train import conclude, show_result
from qianmian.errors import UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from datetime import datetime

    from qianmian.settings import Settings
    from training.monitoring.report import MonitoringReport
    from training.monitoring.texts import Lang as Language

MONITORED = ("churn",)
ALARM_EXIT = 5  # a check needs attention; a scheduler may notify somebody, or run it again with --retrain
REPORT_SUFFIXES = (".html",)
COLOURS = {"fine": "green", "alarm": "bold red", "unknown": "dim"}


def monitor(
    model: Annotated[
        str, typer.Option("--model", metavar="JOB", help=f"Job of the model: {', '.join(MONITORED)}.")
    ] = "churn",
    as_of: AsOfOption = None,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="Also write a report with pictures as one file.", show_default=False
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Look at every horizon from the training to --as-of, a row each.")
    ] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="On an alarm, train again; the gate decides whether the new model serves.")
    ] = False,
    lang: LangOption = Lang.EN,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the champion: drift, calibration on outcomes that have arrived, and freshness. Exit code 5 on an alarm.

    Ages are measured at --as-of if it is given, else now.
    """
    if model not in MONITORED:
        raise UsageError("this model is not monitored", where="--model", got=model, allowed=", ".join(MONITORED))
    if report_file is not None:
        check_suffix(report_file, REPORT_SUFFIXES)
    if replay and (retrain or report_file is not None):
        raise UsageError("--replay prints a table of the past only", hint="omit --retrain and --report")

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from training.monitoring.monitor import Monitor
    from training.monitoring.page import write_page

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings, lake = load_settings(located.config_file), Lake(located)
    moment, now = as_of_or_default(lake, as_of), parse_as_of(as_of) or utc_now()
    begun = time.process_time()
    said: Language = "zh" if lang is Lang.ZH else "en"
    with output.working(), workspace_lock(located):
        champion = load_from_workspace(located, settings, [model]).require(model)
        monitored = Monitor(make_builder(lake, settings), settings, champion.bundle, champion.version, output.step)
        if replay:
            reports = list(monitored.replay(moment))
            _show_replay(output, reports, champion.bundle.as_of, said)
            output.result({"workspace": located.root, "replay": [one.as_dict(said) for one in reports]})
            return
        found = monitored.report(moment, now)
        if report_file is not None:
            output.step(f"writing {report_file}")
            write_page(found, settings.monitoring, report_file, said)
    answer: dict[str, Any] = {
        "workspace": located.root,
        **found.as_dict(said),
        "report": report_file,
        "cpu_seconds": round(time.process_time() - begun, 2),
    }
    _show(output, found, said)
    if report_file is not None:
        output.say(f"{report_file}: open it in a browser")
    if found.alarms and retrain:
        _retrain(output, located, settings, model, moment, champion.bundle.facts, answer)
        return
    output.result(answer)
    if found.alarms:
        raise typer.Exit(ALARM_EXIT)


def _show(output: Output, found: MonitoringReport, said: Language) -> None:
    """Print a row for each check, the alarms first, and the verdict."""
    from training.monitoring.texts import word

    order = sorted(found.checks, key=lambda check: ("alarm", "fine", "unknown").index(check.status))
    rows = [[word(check.name, said), word(check.status, said), check.statement.say(said)] for check in order]
    title = found.subtitle(said)
    output.table(title, [word(name, said) for name in ("check", "result", "details")], rows)
    output.say(word("stored" if found.reference_stored else "recomputed", said))
    output.say(found.verdict(said))


def _show_replay(output: Output, reports: list[MonitoringReport], first: datetime, said: Language) -> None:
    """Print a row for each moment.

    Raises
    ------
    UsageError
        No horizon has passed after the training.
    """
    from training.monitoring.texts import word

    if not reports:
        raise UsageError(
            "no horizon has passed after the training of the model",
            where="--replay",
            got=f"trained as of {first:%Y-%m-%d}",
            hint="name a later --as-of, or leave out --replay",
        )
    kinds = ["features", "scores", "outcomes", "calibration", "discrimination"]
    rows = []
    for one in reports:
        status = {check.name: word(check.status, said) for check in one.checks}
        details = [check.statement.say(said) for check in one.alarms if check.name in kinds]
        rows.append([f"{one.as_of:%Y-%m-%d}", *(status[kind] for kind in kinds), " · ".join(details)])
    output.table("", ["", *(word(kind, said) for kind in kinds), word("details", said)], rows)


def _retrain(
    output: Output,
    located: Workspace,
    settings: Settings,
    model: str,
    moment: datetime,
    facts: dict[str, Any],
    answer: dict[str, Any],
) -> None:
    """Train the model again as it was trained; the gate decides.

    Raises
    ------
    GateRefused
        The gate refused the new model; the champion stays.
    """
    from training import train

    results = train(
        located,
        [model],
        clock=utc_now,
        as_of=moment,
        settings=settings,
        horizon_days=int(facts["horizon_days"]),
        active_days=int(facts["active_days"]),
        progress=output.step,
    )
    for result in results:
        show_result(output, result)
    conclude(output, model, results, {**answer, "results": [result.as_dict() for result in results]})
