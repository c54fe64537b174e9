"""Ingest raw rows of a source into the canonical tables of the lake; rejected rows are quarantined with a reason."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb

from features.data.identity import GraphResolver
from features.data.identity.resolve import commit
from features.data.ingest.contract import StagedTable, stage
from features.data.ingest.flags import flag_queries
from features.data.ingest.merge import MergedTable, merge
from features.data.ingest.rejected import quarantine, rejected_rows, translate_duckdb_errors
from features.data.ingest.report import IngestReport, TableReport
from features.data.lake import Lake, literal
from features.data.locking import exclusive_writer
from features.data.privacy import PersonalDataHasher, save_key_fingerprint
from features.data.sources.base import RawTable, Source
from qianmian.errors import DataError
from qianmian.schema import TABLES
from qianmian.settings import Settings
from qianmian.workspace import Workspace

__all__ = ["IngestReport", "TableReport", "ingest"]


def ingest(
    workspace: Workspace,
    source: Source,
    settings: Settings,
    progress: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> IngestReport:
    """Read `source` into the lake of `workspace`; all tables change or none does.

    Parameters
    ----------
    workspace : Workspace
        Created if it does not exist.
    source : Source
        From `features.data.sources.SOURCES`.
    settings : Settings
        `settings.identity` declares the identifier types, which of them are hashed, and their link rules.
    progress : callable, optional
        Called with one line of text per step.
    now : datetime, optional
        Current time, naive UTC: `decided_at` of the merge ledger. Rows dated more than a day later are rejected,
        because the clock of their source is wrong. By default every time up to the year 2262 is accepted.

    Returns
    -------
    IngestReport
        Number of rows per table: read = kept + duplicates + quarantined.

    Raises
    ------
    ConfigError
        If the configuration of the source is invalid; nothing was read.
    DataError
        If the input is missing, or every row of a table is rejected. The lake is unchanged.
    WorkspaceError
        If the workspace cannot be written. The lake is unchanged.

    Notes
    -----
    Ingesting the same input again changes nothing: known rows are counted as duplicates.
    """
    begun = time.perf_counter()
    report_progress = progress or (lambda line: None)
    workspace.create()
    lake = Lake(workspace)
    scratch = workspace.root / f".ingest-{uuid.uuid4().hex[:8]}"
    connection = duckdb.connect()
    try:
        with translate_duckdb_errors(workspace.root, source):
            connection.execute(
                f"SET TimeZone='UTC'; SET preserve_insertion_order=true; SET temp_directory={literal(scratch)}"
            )
            # In a notebook without ipywidgets, DuckDB disables its progress bar itself and then rejects this setting.
            if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
                connection.execute("SET enable_progress_bar=false")
            with exclusive_writer(workspace):
                lake.attach(connection, "lake_")
                personal = PersonalDataHasher.of(workspace, settings)
                personal.set_key_variables(connection)
                outcomes = [
                    _ingest_table(connection, workspace, source, raw, personal, now, report_progress)
                    for raw in source.tables(connection)
                ]
                _reject_empty_tables(outcomes)
                queries = {staged.table.name: merged.query for staged, merged, report in outcomes if report.kept}
                if any(staged.personal for staged, _, report in outcomes if report.kept):
                    save_key_fingerprint(workspace, personal.key)
                if queries or "customers" not in lake.states():
                    report_progress("resolving customers and writing the lake")
                    # views of the lake after this ingest: rows and customers change in one commit
                    for name in TABLES:
                        connection.execute(
                            f"CREATE OR REPLACE VIEW {name} AS {queries.get(name, f'SELECT * FROM lake_{name}')}"
                        )
                    new = [merged.new for staged, merged, _ in outcomes if staged.table.name == "identities"]
                    changed = " UNION ".join(
                        f"SELECT source, source_user_id FROM ({rows})"
                        for rows in new or ["SELECT * FROM lake_identities WHERE false"]
                    )
                    commit(lake, connection, queries, GraphResolver(workspace, settings, now), changed)
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)
    tables = {staged.table.name: report for staged, _, report in outcomes}
    for name, stretches in lake.empty_stretches().items():
        for stretch in stretches if name in tables else ():
            report_progress(f"warning: {name}: {stretch.text}; correct their time if a clock was wrong")
    return IngestReport(source.name, tables, time.perf_counter() - begun, lake.digest)


def _ingest_table(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    source: Source,
    raw: RawTable,
    personal: PersonalDataHasher,
    now: datetime | None,
    report_progress: Callable[[str], None],
) -> tuple[StagedTable, MergedTable, TableReport]:
    report_progress(f"{raw.table}: reading {_file_names(raw.files)}")
    staged = stage(connection, raw, source.name, source.timezone, personal, now)
    described = connection.execute(f"DESCRIBE lake_{raw.table}").fetchall()
    merged = merge(connection, staged, {row[0]: str(row[1]) for row in described})
    rejected = rejected_rows(connection, raw, staged, merged, personal)
    reasons = {
        str(reason): int(count)
        for reason, count in connection.execute(
            f"SELECT reason, count(*) FROM {rejected} GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
    }
    quarantined = sum(reasons.values())
    file = quarantine(connection, workspace, source, raw.table, rejected) if quarantined else None
    flags = (
        {name: _count(connection, query) for name, query in flag_queries(staged, merged).items()} if merged.kept else {}
    )
    flags["superseded"] = merged.superseded
    unreadable = _count(connection, f"SELECT count(*) FROM {rejected} WHERE position IS NULL")
    report = TableReport(
        read=staged.read + unreadable,
        kept=merged.kept,
        duplicates=merged.duplicates + merged.superseded,
        quarantined=quarantined,
        updated=merged.updated,
        flags={name: count for name, count in flags.items() if count},
        reasons=reasons,
        quarantine_file=str(file) if file else None,
    )
    report_progress(
        f"{raw.table}: read {report.read:,} = kept {report.kept:,} + duplicates {report.duplicates:,} "
        f"+ quarantined {report.quarantined:,}"
    )
    return staged, merged, report


def _reject_empty_tables(outcomes: list[tuple[StagedTable, MergedTable, TableReport]]) -> None:
    """Fail if a table has no row left: mapping or file must be wrong, and keeping the other tables would hide it."""
    empty_tables = [(staged, report) for staged, _, report in outcomes if not report.kept + report.duplicates]
    if not empty_tables and outcomes:
        return
    parts = []
    for staged, report in empty_tables:
        files = _file_names(staged.files)
        reasons = "; ".join(f"{count:,} × {reason}" for reason, count in list(report.reasons.items())[:3])
        parts.append(
            f"{staged.table.name} from {files}: "
            + (f"{report.read:,} rows read, all rejected: {reasons}" if report.read else "no rows")
        )
    rejected = [report.quarantine_file for _, report in empty_tables if report.quarantine_file]
    fix = "check the file, or leave the table out"
    if rejected:
        fix = f"read the rejected rows in {rejected[0]}, correct the mapping or the file"
    if any("not a time" in reason for _, report in empty_tables for reason in report.reasons):
        fix += " (times are parsed as ISO 8601; for other formats use e.g. strptime(column, '%d/%m/%Y %H:%M'))"
    where = " · ".join(parts) or "the source"
    raise DataError("no row could be kept", where=where, hint=f"{fix}, and ingest again; the lake is unchanged")


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def _file_names(files: tuple[str, ...]) -> str:
    return Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
