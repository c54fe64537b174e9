"""`qianmian score churn`: churn probabilities for machines, as a list for people, or as a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import check_suffix
from cli.list_options import (
    BomOption,
    ColumnsOption,
    ListLangOption,
    PeopleListOptions,
    ReportOption,
    Sort,
    SortOption,
    TopOption,
    tag_words,
    write_list,
)
from cli.options import AsOfOption, EngineOption, JsonOption, SparkMasterOption, WorkspaceOption
from cli.scoring import (
    Execution,
    WorkersOption,
    at_published,
    builder_of,
    ensure_champion,
    ensure_profiles,
    report,
    require_customers,
    write_scores,
)
from cli.times import parse_as_of, utc_now
from qianmian.errors import DataError, UsageError
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from datetime import datetime

    from features.compute.builder import Builder
    from qianmian.settings import Settings
    from serving.champions import Champions
    from serving.scoring.blocks import WrittenScores
    from serving.scoring.lists.churn import ChurnScores
    from serving.scoring.lists.churn import Sort as Order

REPORT_SUFFIXES = (".html",)
OptionalOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Output file: .parquet or .csv; with Spark also a folder. May be omitted with --report.",
        show_default=False,
    ),
]


def churn(
    out: OptionalOut = None,
    as_of: AsOfOption = None,
    workers: WorkersOption = 1,
    engine: EngineOption = "duckdb",
    spark_master: SparkMasterOption = None,
    lang: ListLangOption = None,
    columns: ColumnsOption = None,
    top: TopOption = None,
    sort: SortOption = None,
    bom: BomOption = False,
    report_file: ReportOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the churn probability of every customer, with reasons; train the model first if it is missing."""
    moment, execution = parse_as_of(as_of), Execution(engine, spark_master, workers)
    people = PeopleListOptions(lang, columns, top, bom, sort)
    as_list = people.wanted and out is not None  # a report alone has language, number of customers and order, too
    for_people = as_list or report_file is not None
    if out is None and report_file is None:
        raise UsageError("no file is named", where="--out", hint="name --out FILE, --report FILE.html, or both")
    if out is not None:
        execution.check(out)
    if report_file is not None:
        check_suffix(report_file, REPORT_SUFFIXES)
    people.check(out, engine, workers, report_file)

    from features.data.locking import workspace_lock
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.scoring.churn import JOB
    from serving.scoring.lists.churn import jobs

    output, located = Output(as_json), Workspace.locate(workspace).require()
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    written: WrittenScores | None = None
    scores: ChurnScores | None = None
    facts: dict[str, Any] = {}
    with output.working(), workspace_lock(located):
        trained = ensure_champion(output, located, settings, JOB, moment)
        ensure_profiles(output, located, settings, with_tags=for_people)
        champions = load_from_workspace(located, settings, jobs() if for_people else [JOB])
        output.step("scoring churn")
        builder = builder_of(located, settings, champions, moment)
        if out is not None and not as_list:
            written = _write_for_machines(output, located, champions, out, execution, moment, builder)
        if for_people:
            scores = _scores(champions, moment, builder)
            order = _order(scores, sort)
            facts = {"sort": order, "contacts": scores.contacts.counts, "value_basis": scores.value_basis[0] or None}
            if as_list and out is not None:
                listed = scores.people_list(people.language, people.names, scores.order(order)[:top])
                written = write_list(located, listed, out, bom, scores.as_of)
            if report_file is not None:
                output.step(f"writing {report_file}")
                _write_report(located, scores, report_file, people, order)
                facts["report"] = report_file
    version = champions.require(JOB).version
    facts = {"model": JOB, "model_version": version, "trained_first": trained, "engine": engine, **facts}
    if out is not None and written is not None:
        report(output, located, out, written, begun, f"{JOB} version {version}", **facts)
    elif scores is not None:
        seconds = round(time.perf_counter() - begun, 3)
        output.result({"workspace": located.root, "as_of": scores.as_of, **facts, "seconds": seconds})
    if scores is not None:
        if report_file is not None:
            output.say(f"{report_file}: a report of {len(scores):,} customers; open it in a browser")
        say_contacts(output, scores)


def _write_for_machines(
    output: Output,
    located: Workspace,
    champions: Champions,
    out: Path,
    execution: Execution,
    moment: datetime | None,
    builder: Builder | None,
) -> WrittenScores:
    """Write the scores of all customers in blocks, here or on Spark.

    Raises
    ------
    DataError
        There is no customer.
    """
    from serving.scoring.churn import score_churn

    if execution.on_spark:
        from serving.scoring.spark import churn_on_spark

        at_published(champions, moment)
        return execution.write_on_spark(output, located, churn_on_spark(champions), out)
    scores = score_churn(champions, as_of=moment, builder=builder)
    require_customers(scores, moment)
    return write_scores(output, located, scores, out, execution.workers)


def _scores(champions: Champions, moment: datetime | None, builder: Builder | None) -> ChurnScores:
    """The churn of all customers, with what a list needs.

    Raises
    ------
    DataError
        No customer has a score.
    """
    from serving.scoring.lists.churn import churn_scores

    scores = churn_scores(champions, tag_words(champions.settings), as_of=moment, builder=builder)
    if not scores.scored.any():
        active = scores.champion.bundle.facts.get("active_days")
        raise DataError(
            "no customer has a churn score, so there is nothing to list",
            got=", ".join(f"{count:,} {code.replace('_', ' ')}" for code, count in scores.contacts.counts.items())
            or "no customer",
            allowed=f"customers with a purchase in the last {active:g} days" if active is not None else None,
            hint="use the --as-of of the data, or train with longer --active-days",
        )
    return scores


def churn_report(located: Workspace, settings: Settings, path: Path) -> ChurnScores | None:
    """Write the report in English about the published profiles; None if churn has no model or scores nobody.

    The caller holds the lock of the workspace.
    """
    from serving.champions import load_from_workspace
    from serving.scoring.churn import JOB
    from serving.scoring.lists.churn import churn_scores, jobs

    champions = load_from_workspace(located, settings, jobs())
    if JOB not in champions.models:
        return None
    scores = churn_scores(champions, tag_words(settings))
    if not scores.scored.any():
        return None
    _write_report(located, scores, path, PeopleListOptions(), _order(scores, None))
    return scores


def _order(scores: ChurnScores, sort: Sort | None) -> Order:
    """What the customers are sorted by.

    Raises
    ------
    UsageError
        By value at risk, although the data have no amounts.
    """
    if sort is Sort.VALUE_AT_RISK and not scores.value_basis[0]:
        raise UsageError(
            "the data have no amounts, so there is no value at risk", where="--sort", got=sort.value, allowed="risk"
        )
    return sort.value if sort is not None else scores.default_sort


def _write_report(located: Workspace, scores: ChurnScores, path: Path, people: PeopleListOptions, order: Order) -> None:
    """Write the report, and note it in the index of written files."""
    from features.erasure.exports import begin_export, record_export
    from serving.scoring.lists.report.page import write_report

    begin_export(located, path, utc_now())
    write_report(scores, path, people.language, order, people.top)
    record_export(located, path, utc_now())


def say_contacts(output: Output, scores: ChurnScores) -> None:
    """Say how many customers are to be contacted, and why the others are not; they add up to all."""
    from serving.scoring.lists.contact import CONTACT, NOT_CONTACTED

    counts = scores.contacts.counts
    others = ", ".join(f"{NOT_CONTACTED[code][0]} {count:,}" for code, count in counts.items() if code != CONTACT)
    output.say(f"to contact: {counts.get(CONTACT, 0):,} of {len(scores):,} customers; not: {others or 'nobody'}")
    if scores.value_basis[0]:
        output.say(f"expected value: {scores.value_basis[0]}")
    else:
        output.say("the data have no amounts: no value at risk, sorted by probability")
