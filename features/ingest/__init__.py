"""Ingest: raw rows of any source → canonical tables of the lake; what breaks the contract → quarantine, with its reason."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import duckdb

from features.identity import SingleSourceResolver
from features.ingest.contract import Staged, stage
from features.ingest.merge import CONFLICT, Merged, flag_queries, merge
from features.ingest.report import IngestReport, TableReport
from features.lake import Lake, literal, quote
from features.sources.base import RawTable, Source
from qianmian.errors import DataError, WorkspaceError
from qianmian.schema import TABLES
from qianmian.workspace import Workspace, atomic_path, explain_os_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["IngestReport", "TableReport", "ingest"]


def ingest(workspace: Workspace, source: Source, progress: Callable[[str], None] | None = None) -> IngestReport:
    """Read `source` into the lake of `workspace`; all tables change together or none does.

    Parameters
    ----------
    workspace : Workspace
        Made if it is not there yet.
    source : Source
        From `features.sources.SOURCES`.
    progress : callable, optional
        Called with one line a step.

    Returns
    -------
    IngestReport
        Where every row that was read went: read = kept + duplicates + quarantined, table by table.

    Raises
    ------
    ConfigError
        The source's configuration is wrong; nothing was read.
    DataError
        The input is missing or of a table nothing could be kept. The lake is as it was.
    WorkspaceError
        Nothing could be written. The lake is as it was.

    Notes
    -----
    Ingesting the same input twice changes nothing: known rows are counted as duplicates.
    """
    begun = time.perf_counter()
    say = progress or (lambda line: None)
    workspace.create()
    lake = Lake(workspace)
    scratch = workspace.root / f".ingest-{uuid.uuid4().hex[:8]}"
    connection = duckdb.connect()
    try:
        with _explain(workspace.root, source):
            connection.execute(f"SET TimeZone='UTC'; SET preserve_insertion_order=true; SET temp_directory={literal(scratch)}")
            # in a notebook without ipywidgets DuckDB has switched its bar off itself and refuses to be told anything about it
            if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
                connection.execute("SET enable_progress_bar=false")
            with _only_writer(workspace):
                lake.attach(connection, "lake_")
                outcomes = [_one_table(connection, workspace, source, raw, say) for raw in source.tables(connection)]
                _refuse_lost_tables(outcomes)
                queries = {staged.table.name: merged.query for staged, merged, report in outcomes if report.kept}
                if queries or "customers" not in lake.states():
                    say("writing the lake")
                    lake.commit(connection, {**queries, "customers": _customers(connection, lake, queries)})
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)
    tables = {staged.table.name: report for staged, _, report in outcomes}
    return IngestReport(source.name, tables, time.perf_counter() - begun, lake.digest)


def _customers(connection: duckdb.DuckDBPyConnection, lake: Lake, queries: Mapping[str, str]) -> str:
    """The query of the `customers` table over what the lake is about to be: rows and customers change in one commit."""
    for name in TABLES:
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {queries.get(name, f'SELECT * FROM lake_{name}')}")
    return SingleSourceResolver().query(lake)


def _one_table(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, source: Source, raw: RawTable, say: Callable[[str], None]
) -> tuple[Staged, Merged, TableReport]:
    say(f"{raw.table}: reading {_named(raw.files)}")
    staged = stage(connection, raw, source.name, source.timezone)
    described = connection.execute(f"DESCRIBE lake_{raw.table}").fetchall()
    merged = merge(connection, staged, {row[0]: str(row[1]) for row in described})
    refused = _refused(connection, raw, staged, merged)
    reasons = {
        str(reason): int(count)
        for reason, count in connection.execute(f"SELECT reason, count(*) FROM {refused} GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    }
    quarantined = sum(reasons.values())
    file = _quarantine(connection, workspace, source, raw.table, refused) if quarantined else None
    flags = {name: _count(connection, query) for name, query in flag_queries(staged, merged).items()} if merged.kept else {}
    flags["superseded"] = merged.superseded
    unreadable = _count(connection, f"SELECT count(*) FROM {refused} WHERE position IS NULL")
    report = TableReport(
        read=staged.read + unreadable, kept=merged.kept, duplicates=merged.duplicates + merged.superseded, quarantined=quarantined,
        updated=merged.updated, flags={name: count for name, count in flags.items() if count}, reasons=reasons,
        quarantine_file=str(file) if file else None,
    )  # fmt: skip
    say(f"{raw.table}: read {report.read:,} = kept {report.kept:,} + duplicates {report.duplicates:,} + quarantined {report.quarantined:,}")
    return staged, merged, report


def _refused(connection: duckdb.DuckDBPyConnection, raw: RawTable, staged: Staged, merged: Merged) -> str:
    """Temp table of the refused rows of one table, as they were read: file, position (1 = the file's first row), reason, row (JSON)."""
    name = f"refused_{raw.table}"
    described = connection.execute(f"DESCRIBE {staged.raw}").fetchall()
    fields = ", ".join(f"{literal(row[0])}: {quote(row[0])}" for row in described if row[0] != raw.file_column)
    file = f"{quote(raw.file_column)}::VARCHAR" if raw.file_column else literal(raw.files[0])
    conflicts = f" UNION ALL SELECT _row, {literal(CONFLICT)} FROM {merged.verdicts} WHERE verdict = 'conflict'"
    unreadable = f" UNION ALL SELECT file, NULL, reason, row FROM ({raw.rejects})" if raw.rejects else ""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE bad_{raw.table} AS SELECT _row, _reason FROM {staged.typed} WHERE _reason IS NOT NULL{conflicts}"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS "
        # only bad rows are worth turning into JSON
        f"WITH rows AS (SELECT rowid AS _row, {file} AS file, to_json({{{fields}}})::VARCHAR AS row FROM {staged.raw} "
        f"WHERE rowid IN (SELECT _row FROM bad_{raw.table})), "
        f"starts AS (SELECT {file} AS file, min(rowid) AS start FROM {staged.raw} GROUP BY 1) "
        f"SELECT file, _row - start + 1 AS position, _reason AS reason, row "
        f"FROM bad_{raw.table} JOIN rows USING (_row) JOIN starts USING (file){unreadable}"
    )
    connection.execute(f"DROP TABLE {staged.raw}")
    return name


def _quarantine(connection: duckdb.DuckDBPyConnection, workspace: Workspace, source: Source, table: str, refused: str) -> Path:
    """Write refused rows to a file named by their content, so that refusing the same rows again changes nothing."""
    digest = _count(connection, f"SELECT bit_xor(hash(file, position, reason, row)) FROM {refused}")
    target = workspace.quarantine / source.name / f"{table}-{digest:016x}.parquet"
    with atomic_path(target) as temporary:
        connection.execute(
            f'COPY (SELECT {literal(source.name)} AS source, {literal(table)} AS "table", reason, file, position, row FROM {refused} '
            f"ORDER BY file, position, row) TO {literal(temporary)} (FORMAT parquet, COMPRESSION zstd)"
        )
    return target


def _refuse_lost_tables(outcomes: list[tuple[Staged, Merged, TableReport]]) -> None:
    """A table of which nothing is left is a wrong mapping or a wrong file; keeping the other tables would hide it."""
    lost = [(staged, report) for staged, _, report in outcomes if not report.kept + report.duplicates]
    if not lost and outcomes:
        return
    parts = []
    for staged, report in lost:
        files = _named(staged.files)
        reasons = "; ".join(f"{count:,} × {reason}" for reason, count in list(report.reasons.items())[:3])
        parts.append(
            f"{staged.table.name} from {files}: " + (f"{report.read:,} rows read, all refused: {reasons}" if report.read else "no rows")
        )
    refused = [report.quarantine_file for _, report in lost if report.quarantine_file]
    look = "check the file, or leave the table out"
    if refused:
        look = f"look at the refused rows in {refused[0]}, correct the mapping or the file"
    if any("not a time" in reason for _, report in lost for reason in report.reasons):
        look += " (times are read as ISO 8601; for others write e.g. strptime(column, '%d/%m/%Y %H:%M'))"
    where = " · ".join(parts) or "the source"
    raise DataError("nothing could be kept", where=where, hint=f"{look}, and ingest again; the lake is as it was")


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def _named(files: tuple[str, ...]) -> str:
    return Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")


@contextlib.contextmanager
def _only_writer(workspace: Workspace) -> Iterator[None]:
    """One ingest at a time: two would each merge with the lake as it was, and the second would undo the first."""
    with (workspace.lake / ".lock").open("a") as handle:
        if fcntl is not None:  # not on Windows
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WorkspaceError(
                    "another ingest is writing this lake",
                    where=str(workspace.lake),
                    hint="wait until it has ended and run the command again",
                ) from error
        for left_behind in workspace.root.glob(".ingest-*"):  # by an ingest that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        yield


@contextlib.contextmanager
def _explain(root: Path, source: Source) -> Iterator[None]:
    """DuckDB's errors about disks, memory and unreadable files, in this project's words; the lake is untouched by all of them."""
    with explain_os_errors(root):
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.InvalidInputException, duckdb.ConversionException) as error:
            text = " ".join(str(error).split())[:400]
            if "No space left" in text or "max_temp_directory_size" in text:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            if isinstance(error, duckdb.OutOfMemoryException):
                raise WorkspaceError(
                    "not enough memory for this input", got=text, hint="free some memory, or ingest the files in several parts"
                ) from error
            raise DataError(
                "the input cannot be read", where=f"source {source.name}", got=text,
                hint="check that the file is whole and readable, export it again if it is not; the lake is as it was",
            ) from error  # fmt: skip
