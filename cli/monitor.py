"""`qianmian monitor`: whether the models that serve are still right, in words, as a report, and as an exit code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import check_suffix
from cli.options import AsOfOption, JsonOption, Lang, LangOption, WorkspaceOption
from cli.times import as_of_or_default, parse_as_of, utc_now
from cli.train import refusal, show_result
from qianmian.errors import ArtifactError, DataError, QianmianError, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from qianmian.settings import Settings
    from serving.champions import Champions
    from training.monitoring.monitor import Monitor
    from training.monitoring.report import MonitoringReport
    from training.monitoring.texts import Lang as Language

ALARM_EXIT = 5  # a check needs attention; a scheduler may notify somebody, or run it again with --retrain
REPORT_SUFFIXES = (".html",)


def monitor(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="JOB",
            help="Job of the model, such as churn. Default: every champion that can be monitored.",
            show_default=False,
        ),
    ] = None,
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
        bool,
        typer.Option(
            "--retrain",
            help="On an alarm of a model, train it again; the gate decides whether the new one serves. Not while the "
            "data need attention.",
        ),
    ] = False,
    lang: LangOption = Lang.EN,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the champions: drift, calibration on outcomes that have arrived, and freshness. Exit code 5 on an alarm.

    Ages are measured at --as-of if it is given, else now.
    """
    if report_file is not None:
        check_suffix(report_file, REPORT_SUFFIXES)
    if replay and (retrain or report_file is not None):
        raise UsageError("--replay prints a table of the past only", hint="omit --retrain and --report")

    from features.data.lake import Lake
    from features.data.locking import workspace_lock
    from features.definitions.building import make_builder
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from training import JOBS
    from training.monitoring.monitor import Monitor, monitored_jobs
    from training.monitoring.page import write_page

    names = monitored_jobs()
    if model is not None and model not in names:
        raise UsageError("models of this job are not monitored", where="--model", got=model, allowed=", ".join(names))
    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings, lake = load_settings(located.config_file), Lake(located)
    moment, now = as_of_or_default(lake, as_of), parse_as_of(as_of) or utc_now()
    begun = time.process_time()
    said: Language = "zh" if lang is Lang.ZH else "en"
    reports: dict[str, list[MonitoringReport]] = {}
    with output.working(), workspace_lock(located):
        champions = load_from_workspace(located, settings, [model] if model is not None else list(names))
        builder = make_builder(lake, settings)
        failed = {} if model is not None else dict(_broken(champions, names))
        for job in [champions.require(model).job] if model is not None else list(champions.models):
            champion = champions.models[job]
            try:
                one = Monitor(builder, settings, champion.bundle, champion.version, output.step)
                reports[job] = _replayed(one, moment) if replay else [one.report(moment, now)]
            except (ArtifactError, DataError) as error:  # of an earlier version, or trained on later data
                if model is not None:
                    raise
                failed[job] = error
        if not reports:
            raise next(iter(failed.values()))
        found = [every[0] for every in reports.values()]
        if report_file is not None:
            output.step(f"writing {report_file}")
            write_page(found, settings.monitoring, report_file, said)
    left_out = {job: str(error) for job, error in failed.items()}
    if model is None:
        left_out |= {job: "no model is in production" for job in names if job not in reports | left_out}
        left_out |= {
            job: "the job does not declare what of its models can be monitored" for job in JOBS if job not in names
        }
    answer: dict[str, Any] = {
        "workspace": located.root,
        "not_monitored": left_out,
        "cpu_seconds": round(time.process_time() - begun, 2),
    }
    for every in reports.values():
        if replay:
            _show_replay(output, every, said)
        else:
            _show(output, every[0], said)
    for reason in dict.fromkeys(left_out.values()):
        output.say(f"not monitored: {', '.join(job for job, why in left_out.items() if why == reason)}: {reason}")
    if replay:
        output.result(
            {**answer, "replay": {job: [one.as_dict(said) for one in every] for job, every in reports.items()}}
        )
        return
    answer["alarm"] = any(one.alarms for one in found) or _needs_training(failed)
    answer |= {"models": {one.job: one.as_dict(said) for one in found}, "report": report_file}
    if report_file is not None:
        output.say(f"{report_file}: open it in a browser")
    if retrain and (wanting := [one for one in found if one.curable]):
        facts = {one.job: champions.models[one.job].bundle.facts for one in wanting}
        _retrain(output, located, settings, wanting, moment, facts, answer)
        return
    output.result(answer)
    if answer["alarm"]:
        raise typer.Exit(ALARM_EXIT)


def _broken(champions: Champions, names: Iterable[str]) -> Iterable[tuple[str, QianmianError]]:
    """The jobs whose champion cannot be loaded, and why."""
    return ((job, error) for job, error in champions.failures.items() if job in names)


def _needs_training(failed: Mapping[str, QianmianError]) -> bool:
    """Whether a champion cannot be looked at until it is trained again, which needs attention like an alarm."""
    return any(isinstance(error, ArtifactError) for error in failed.values())


def _replayed(one: Monitor, moment: datetime) -> list[MonitoringReport]:
    """The reports of a replay.

    Raises
    ------
    DataError
        No horizon has passed after the training.
    """
    if found := list(one.replay(moment)):
        return found
    raise DataError(
        "no horizon has passed after the training of the model",
        where="--replay",
        got=f"trained as of {one.bundle.as_of:%Y-%m-%d}",
        hint="name a later --as-of, or leave out --replay",
    )


def _show(output: Output, found: MonitoringReport, said: Language) -> None:
    """Print a row for each check, the alarms first, and the verdict."""
    from training.monitoring.texts import word

    order = sorted(found.checks, key=lambda check: ("alarm", "fine", "unknown").index(check.status))
    rows = [[word(check.name, said), word(check.status, said), check.statement.say(said)] for check in order]
    title = found.subtitle(said)
    output.table(title, [word(name, said) for name in ("check", "result", "details")], rows)
    output.say(word("stored" if found.reference_stored else "recomputed", said))
    output.say(f"{found.job}: {found.verdict(said)}")


def _show_replay(output: Output, reports: list[MonitoringReport], said: Language) -> None:
    """Print a row for each moment."""
    from training.monitoring.texts import word

    kinds = ["features", "scores", "outcomes", "calibration", "discrimination"]
    rows = []
    for one in reports:
        status = {check.name: word(check.status, said) for check in one.checks}
        details = [check.statement.say(said) for check in one.alarms if check.name in kinds]
        rows.append([f"{one.as_of:%Y-%m-%d}", *(status.get(kind, "–") for kind in kinds), " · ".join(details)])
    output.table(reports[0].job, ["", *(word(kind, said) for kind in kinds), word("details", said)], rows)


def _retrain(
    output: Output,
    located: Workspace,
    settings: Settings,
    reports: list[MonitoringReport],
    moment: datetime,
    facts: Mapping[str, Mapping[str, Any]],
    answer: dict[str, Any],
) -> None:
    """Train models again as they were trained; the gate decides.

    Raises
    ------
    GateRefused
        The gate refused a new model; its champion stays.
    Exit
        With `ALARM_EXIT` if an alarm stays: a new model waits as challenger, or there are alarms without a cure.
    """
    from training import train

    results = []
    for one in reports:
        horizon, active = facts[one.job].get("horizon_days"), facts[one.job].get("active_days")
        with output.working():
            results += train(
                located,
                [one.job],
                clock=utc_now,
                as_of=moment,
                settings=settings,
                horizon_days=int(horizon) if horizon is not None else None,
                active_days=int(active) if active is not None else None,
                progress=output.step,
            )
    for result in results:
        show_result(output, result)
    answer["results"] = [result.as_dict() for result in results]
    refused = [result for result in results if result.status == "refused"]
    if refused:
        refusal(output, refused, answer)
    output.result(answer)
    cured = {result.job for result in results if result.status == "registered"}
    rest = [job for job, found in answer["models"].items() if found["alarm"] and job not in cured]
    if rest:
        output.say(f"the alarm of {', '.join(rest)} stays: its champion still serves")
        raise typer.Exit(ALARM_EXIT)
