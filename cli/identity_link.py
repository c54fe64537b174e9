"""`qianmian identity link`: record linkage of store records that share no identifier."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Output
from cli.features import check_suffix, write_table
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import UsageError
from qianmian.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

    from features.data.identity.probabilistic import LinkageResult

REVIEW_SUFFIXES = (".csv", ".parquet")
CHART_SUFFIXES = (".html",)
MAX_PAIRS_SHOWN = 10


def link(
    config: Annotated[
        Path,
        typer.Option(
            "--config", metavar="FILE", help="The records.yaml that describes the records; see docs/linking.md."
        ),
    ],
    review: Annotated[
        Path | None,
        typer.Option(
            "--review", metavar="FILE", help="Write the pairs for manual review to this file: .csv or .parquet."
        ),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            "--chart", metavar="FILE", help="Write a chart of the match weights to this file: .html, needs no network."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, without changing the workspace.")
    ] = False,
    backend: Annotated[
        str, typer.Option("--backend", metavar="duckdb|spark", help="Engine that compares the records.")
    ] = "duckdb",
    between_sources: Annotated[
        bool,
        typer.Option(
            "--between-sources", help="Compare only records of different systems, if no system has duplicates."
        ),
    ] = False,
    show_values: Annotated[
        bool,
        typer.Option("--show-values", help="Include names, addresses and numbers in the review file."),
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Link records by name, birth date, address, phone and email.

    Links are stored in the workspace; uncertain pairs go to the review file.
    """
    from features.data.identity.probabilistic import BACKENDS, LINKS_SCHEMA, merged, write_links
    from features.data.identity.probabilistic import link as link_records
    from features.data.identity.records import RecordFiles
    from features.data.identity.tables import links_path
    from features.data.locking import workspace_lock
    from features.erasure.sql import without_erased
    from qianmian.config import load_settings

    output = Output(as_json)
    located = Workspace.locate(workspace)
    if backend not in BACKENDS:
        raise UsageError(
            "unknown backend",
            where="--backend",
            got=backend,
            allowed=", ".join(BACKENDS),
            hint="omit --backend",
        )
    for file, suffixes, option in ((review, REVIEW_SUFFIXES, "--review"), (chart, CHART_SUFFIXES, "--chart")):
        _check_file(file, suffixes, option)
    if show_values:
        _check_values_may_be_shown(located, review)
    settings = load_settings(located.config_file)
    begun = time.perf_counter()
    with output.working(), workspace_lock(located):
        output.step(f"reading the records of {config}")
        found = RecordFiles(config).read()
        records = without_erased(located, found.table)
        output.step(f"linking {records.num_rows:,} records on {backend}")
        links = link_records(
            records, settings.linking, seed=settings.seed, backend=backend, within_sources=not between_sources
        )
        now = utc_now()
        table = merged(located, links, now)
        new = _count_new_links(links_path(located), table)
        if review is not None:
            output.step(f"writing {review}")
            write_table(located, _with_values(links.review, records) if show_values else links.review, review)
        if chart is not None and links.chart:
            output.step(f"writing {chart}")
            with atomic_path(chart) as temporary:
                temporary.write_text(links.chart, encoding="utf-8")
        if not dry_run:
            write_links(located.create(), links, now)
    seconds = time.perf_counter() - begun
    output.result(
        {
            "workspace": located.root,
            "sources": list(links.sources),
            "records": links.records,
            "skipped": found.skipped,
            "compared": links.compared,
            "crowded": links.oversized_blocks,
            "placeholders": links.placeholders,
            "links": links.pairs.num_rows,
            "new_links": new,
            "review": links.review.num_rows,
            "untrained": list(links.untrained),
            "threshold": settings.linking.threshold,
            "review_low": settings.linking.review_low,
            "links_file": None if dry_run else links_path(located),
            "review_file": review,
            "chart_file": chart if links.chart else None,
            "columns": LINKS_SCHEMA.names,
            "dry_run": dry_run,
            "seconds": round(seconds, 3),
        }
    )
    _print_summary(output, links, found.skipped, new, dry_run)
    for file, what in ((review, "pairs for review"), (chart if links.chart else None, "match weights")):
        if file is not None:
            output.say(f"{what}: {file}")
    if show_values:
        output.err.print(
            f"{review} contains names, addresses and numbers in clear text: protect the file, and delete it after use."
        )
    if not dry_run:
        output.say(f"written: {links_path(located)}, {seconds:.1f} s. Next: qianmian identity resolve")


def _check_file(file: Path | None, suffixes: tuple[str, ...], option: str) -> None:
    try:
        check_suffix(file, suffixes)
    except UsageError as error:
        raise UsageError(error.message, where=option, got=error.got, allowed=error.allowed, hint=error.hint) from error


def _check_values_may_be_shown(located: Workspace, review: Path | None) -> None:
    if review is None:
        raise UsageError("--show-values needs a review file", where="--show-values", hint="add --review FILE.csv")
    if review.expanduser().absolute().resolve().is_relative_to(located.root.resolve()):
        raise UsageError(
            "personal data may not be written into the workspace",
            where="--review",
            got=str(review),
            hint="choose a file outside the workspace, or omit --show-values",
        )


def _count_new_links(path: Path, table: pa.Table) -> int:
    """Number of links in `table` that the file does not contain yet."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.exists():
        return int(table.num_rows)
    known = pq.read_table(path, columns=["link_id"])["link_id"].combine_chunks()
    return int(pc.sum(pc.invert(pc.is_in(table["link_id"], known))).as_py() or 0)


def _with_values(review: pa.Table, records: pa.Table) -> pa.Table:
    """Join both records to each pair, in the order of `review`."""
    import duckdb

    from features.data.identity.records import RECORD_KEY
    from features.data.lake import quote

    values = [name for name in records.column_names if name not in RECORD_KEY]
    listed = "".join(
        f", {side}.{quote(name)} AS {quote(f'{full}_{name}')}"
        for name in values
        for side, full in (("l", "left"), ("r", "right"))
    )
    with duckdb.connect(config={"temp_directory": ""}) as connection:
        connection.register("review", review)
        connection.register("records", records)
        keys = " ".join(
            f"JOIN records AS {side} ON {side}.source = v.{full}_source "
            f"AND {side}.source_user_id = v.{full}_source_user_id"
            for side, full in (("l", "left"), ("r", "right"))
        )
        return connection.execute(
            f"SELECT v.*{listed} FROM review AS v {keys} ORDER BY v.probability DESC, v.link_id"
        ).to_arrow_table()


def _print_summary(output: Output, links: LinkageResult, skipped: dict[str, int], new: int, dry_run: bool) -> None:
    """Print the result without any personal data."""
    for reason, count in skipped.items():
        output.say(f"skipped: {count:,} row(s), {reason}")
    would = "would be " if dry_run else ""
    output.say(
        f"{links.records:,} records of {', '.join(links.sources)}: "
        f"{links.compared:,} pairs compared, {links.pairs.num_rows:,} linked"
    )
    output.say(f"{new:,} link(s) {would}new; {links.review.num_rows:,} pair(s) for review")
    for field, count in links.placeholders.items():
        output.say(f"{count:,} record(s) have a placeholder in {field}, which is not compared")
    if links.oversized_blocks:
        output.say(
            f"{links.oversized_blocks:,} value(s) are not used for blocking, because too many records share them "
            "(linking.max_block_records)"
        )
    if links.untrained:
        output.say(f"too few records to learn the weights of {', '.join(links.untrained)}: default weights are used")
    first: list[dict[str, Any]] = links.review.slice(0, MAX_PAIRS_SHOWN).to_pylist()
    if first:
        rows = [
            (
                f"{row['left_source']} {row['left_source_user_id']}",
                f"{row['right_source']} {row['right_source_user_id']}",
                row["probability"],
                row["reason"],
            )
            for row in first
        ]
        output.table(
            "first pairs for review", ["record", "record", "probability", "reason"], rows, right=["probability"]
        )
