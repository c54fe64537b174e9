"""`qianmian ingest`: reads the raw rows of a source into the lake and reports where every row went."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.ingest_events import OnlineStoreOption, compact_log, log_location, show_log
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import DataError, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.data.ingest import IngestReport
    from features.data.sources import Source
    from qianmian.packs import Pack

OPTION_NAMES = {
    "config_path": "--config",
    "gap_days": "--gap-days",
    "season_strength": "--season-strength",
    "promotions_days_ahead": "--promotions-days-ahead",
    "online_store": "--online-store",
}  # parameter of a source → command-line option, if the names differ


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="completejourney|synthetic|files|init|events",
            help="Source of the rows; init proposes a sources.yaml for files; events are those that were accepted.",
        ),
    ],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="init: CSV or Parquet files.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="files: the sources.yaml that describes the files.")
    ] = None,
    customers: Annotated[
        int | None,
        typer.Option(
            "--customers",
            metavar="N",
            help="synthetic: number of persons (default 1000); completejourney: read only so many households.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            "--days", metavar="N", help="synthetic: number of days of history. Default: 365.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="synthetic: seed of the random rows. Default: 0.", show_default=False),
    ] = None,
    gap_days: Annotated[
        float | None,
        typer.Option(
            "--gap-days",
            metavar="DAYS",
            help="synthetic: median days between the orders of a person. Default: 9.",
            show_default=False,
        ),
    ] = None,
    season_strength: Annotated[
        float | None,
        typer.Option(
            "--season-strength",
            metavar="X",
            help="synthetic: surplus of orders in November and December; 2: three times those of a quiet month. "
            "Default: 0.",
            show_default=False,
        ),
    ] = None,
    intent: Annotated[
        bool,
        typer.Option(
            "--intent",
            help="synthetic: views, carts and favourites come from needs that last minutes to days; with strangers.",
        ),
    ] = False,
    demand_types: Annotated[
        bool,
        typer.Option(
            "--demand-types", help="synthetic: people buy and read by price, quality or content, and look accordingly."
        ),
    ] = False,
    promotions_days_ahead: Annotated[
        int | None,
        typer.Option(
            "--promotions-days-ahead",
            metavar="DAYS",
            help="completejourney: read the promotions too, as if known so many days before their week; 0 is what the "
            "data support. Default: they are not read.",
            show_default=False,
        ),
    ] = None,
    online_store: OnlineStoreOption = None,
    keep_days: Annotated[
        float | None,
        typer.Option(
            "--keep-days",
            metavar="DAYS",
            min=0,
            help="events: what the published profiles know, and is older than they and the recommenders by so many "
            "days, is removed from the log. Default: 7.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read the first rows, report what ingest would do, and write nothing.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a source into the lake.

    Ingesting the same rows twice changes nothing. Rejected rows go to quarantine with a reason. For your own files:
    `qianmian ingest init FILE…` proposes a sources.yaml, `--check` shows what an ingest with it would do. `events`
    takes the events that the server has accepted into the lake, and removes from their log what the profiles know.
    """
    from features.data.ingest import ingest as run_ingest
    from features.data.ingest import preview
    from features.definitions.pack_features import pack_of
    from qianmian.config import load_settings

    output = Output(as_json)
    if source == "init":
        propose_config(output, files or [], config or Path("sources.yaml"))
        return
    if files:
        raise UsageError(
            f"the source '{source}' takes no files as arguments",
            where="qianmian ingest",
            got=" ".join(map(str, files)),
            hint="name the files in a sources.yaml; `qianmian ingest init FILE…` writes one",
        )
    located = Workspace.locate(workspace)
    settings = load_settings(located.config_file)
    store = log_location(located, settings, online_store) if source == "events" else online_store
    options = {
        "config_path": config,
        "customers": customers,
        "days": days,
        "seed": seed,
        "gap_days": gap_days,
        "season_strength": season_strength,
        "intent": intent or None,
        "demand_types": demand_types or None,
        "promotions_days_ahead": promotions_days_ahead,
        "online_store": store,
    }
    if keep_days is not None and source != "events":
        raise UsageError(f"'{source}' has no event log", where="qianmian ingest", got="--keep-days", hint="omit it")
    rows = make_source(source, options, pack_of(settings))
    if check:
        with output.working():
            report = preview(located, rows, settings, output.step, utc_now())
        show_preview(output, located, report)
        return
    with output.working():
        report = run_ingest(located, rows, settings, output.step, utc_now())
        log = compact_log(output, located, settings, store, keep_days) if store else {}
    output.result({"workspace": located.root, **report.as_dict(), **log})
    show_report(output, report)
    if log:
        show_log(output, log)
    if rows.customers_timezone and settings.timezone is None:
        output.say(
            f"{rows.name}: days and hours of the customers are those of {rows.customers_timezone}; "
            f"add the line `timezone: {rows.customers_timezone}` to {located.config_file}"
        )
    output.say(
        f"{located.root}: lake {report.digest}, {report.seconds:.1f} s. Next: qianmian features, or qianmian train all"
    )


def propose_config(output: Output, files: list[Path], target: Path) -> None:
    """Write a proposed `sources.yaml` for files, with the questions that the files leave open.

    Raises
    ------
    UsageError
        No file is named, or the target exists.
    DataError
        A file is missing, empty or no table.
    """
    from features.data.sources.propose import propose, read_sample

    if not files:
        raise UsageError(
            "no file is named", where="qianmian ingest init", hint="run `qianmian ingest init orders.csv customers.csv`"
        )
    if target.exists():
        raise UsageError(
            "the file exists and is not overwritten",
            where=str(target),
            hint="name another one with --config, or delete it",
        )
    samples = [read_sample(file.expanduser().absolute()) for file in files]
    text, questions = propose(samples, target.absolute().parent)
    target.write_text(text, encoding="utf-8")
    output.result({"config": target, "questions": questions})
    output.say(text)
    output.say(f"{target} was written with {questions} question(s) in its comments. Next: answer them, then")
    output.say(f"  qianmian ingest files --config {target} --check")


def make_source(name: str, option_values: dict[str, Any], pack: Pack | None = None) -> Source:
    """Create a source from its name and options, with the industry pack if the source reads one.

    Parameters
    ----------
    name : str
        Name in `SOURCES`.
    option_values : dict
        Values of the command-line options by parameter name; None for options that are not set.
    pack : Pack, optional
        The selected industry pack.

    Raises
    ------
    UsageError
        The source is unknown, does not accept one of the options, or lacks a required one.
    """
    from features.data.sources import SOURCES

    factory = SOURCES[name]
    accepted = dict(inspect.signature(factory).parameters)
    reads_pack = accepted.pop("pack", None) is not None
    options = {key: value for key, value in option_values.items() if value is not None}
    wrong = [OPTION_NAMES.get(key, f"--{key}") for key in options if key not in accepted]
    if wrong:
        raise UsageError(
            f"the source '{name}' does not accept {', '.join(wrong)}",
            where="qianmian ingest",
            allowed=", ".join(OPTION_NAMES.get(key, f"--{key}") for key in accepted) or "no options",
            hint="omit it",
        )
    missing = [
        OPTION_NAMES.get(key, f"--{key}")
        for key, parameter in accepted.items()
        if parameter.default is parameter.empty and key not in options
    ]
    if missing:
        raise UsageError(
            f"the source '{name}' needs {', '.join(missing)}",
            where="qianmian ingest",
            hint=f"run `qianmian ingest {name} {missing[0]} FILE`",
        )
    return factory(**options, pack=pack) if reads_pack else factory(**options)


def show_report(output: Output, report: IngestReport) -> None:
    """Print the row counts of an ingest, then the reasons for rejected and flagged rows."""
    if not report.tables and not report.errors:
        output.say(f"{report.source}: nothing new")
        return
    summands = ("kept", "duplicates", "quarantined", *(("erased",) if report.erased else ()))
    numbers = ("read", *summands, "updated")
    rows: list[list[object]] = [
        [name, *(getattr(table, number) for number in numbers)] for name, table in report.tables.items()
    ]
    output.table(f"{report.source}: read = {' + '.join(summands)}", ["table", *numbers], rows, right=numbers)
    for name, table in report.tables.items():
        for reason, count in table.reasons.items():
            output.say(f"  {name}: {count:,} quarantined: {reason}")
        if table.quarantine_file:
            output.say(f"  {name}: the rejected rows are in {table.quarantine_file}")
        for flag, count in table.flags.items():
            output.say(f"  {name}: {count:,} flagged: {flag.replace('_', ' ')}")
        if table.hashed or table.readable:
            readable = ", ".join(table.readable) or "none"
            output.say(f"  {name}: own attributes stored as they are: {readable}. If one is personal data, add it to")
            output.say(f"  {name}: `private: [COLUMN]`. Stored as hashes: {', '.join(table.hashed) or 'none'}")
    for warning in report.warnings:
        output.say(f"warning: {warning.table}: {warning.message}. Fix: {warning.fix}")


def show_preview(output: Output, workspace: Workspace, report: IngestReport) -> None:
    """Print what an ingest would do: examples of the mapped values, row counts, warnings and errors.

    Raises
    ------
    DataError
        The ingest would fail.
    """
    output.result(
        {"workspace": workspace.root, **report.as_dict(), "errors": report.errors, "examples": report.examples}
    )
    for name, columns in report.examples.items():
        shown: list[list[object]] = [[column, ", ".join(values)] for column, values in columns.items()]
        output.say(f"{name}: first values, as they would be stored (times in UTC)")
        output.table("", ["column", "values"], shown)
    show_report(output, report)
    if report.errors:
        raise DataError(
            "this ingest would fail",
            where=f"source {report.source}",
            got=" · ".join(report.errors),
            hint="correct it and check again; nothing was written",
        )
    output.say("Nothing was written. Next: the same command without --check")
