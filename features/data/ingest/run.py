"""Ingest raw rows of a source into the canonical tables of the lake; rejected rows are quarantined with a reason."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from features.data.identity import GraphResolver
from features.data.identity.resolve import commit
from features.data.ingest.catalogue import CatalogueChange, compare_catalogue
from features.data.ingest.checks import CheckInput, IngestWarning, run_checks
from features.data.ingest.checks.input_files import odd_input
from features.data.ingest.contract import StagedTable, stage
from features.data.ingest.erased import drop_erased_rejects, drop_erased_rows, load_tombstones
from features.data.ingest.flags import flags as count_flags
from features.data.ingest.merge import MergedTable, merge
from features.data.ingest.own_items import with_own_items
from features.data.ingest.profile_history import history_query
from features.data.ingest.rejected import quarantine, rejected_rows, translate_duckdb_errors
from features.data.ingest.report import IngestReport, TableReport, mapped_examples
from features.data.lake import Lake
from features.data.locking import exclusive_writer
from features.data.memory import bounded_memory, spill_to
from features.data.pii_key import save_key_fingerprint
from features.data.privacy import PersonalDataHasher
from features.data.progress_bar import hide_progress_bar
from features.data.sources.base import RawTable, Source
from features.data.sources.watermarks import Watermark
from features.data.tables import PROFILE_HISTORY
from qianmian.errors import DataError
from qianmian.schema import TABLES
from qianmian.settings import Settings
from qianmian.workspace import Workspace

PREVIEW_ROWS = 100_000  # rows of each table that a preview reads


@dataclass(frozen=True)
class _Outcome:
    """One table after the merge with the lake."""

    staged: StagedTable
    merged: MergedTable
    report: TableReport
    raw: RawTable
    catalogue: CatalogueChange = field(default_factory=CatalogueChange)

    @property
    def mostly_rejected(self) -> bool:
        return self.report.quarantined > self.raw.max_rejected * self.report.read

    @property
    def changes(self) -> bool:
        """Whether the table of the lake changes."""
        return bool(self.merged.changed or self.catalogue.vanished or self.catalogue.back)


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
        Current time, naive UTC: `decided_at` of the merge ledger, and the moment from which attributes of profiles
        without a date are known. Rows dated more than a day later are rejected, because the clock of their source is
        wrong. By default every time up to the year 2262 is accepted, and attributes without a date are of no past
        moment.

    Returns
    -------
    IngestReport
        Number of rows per table: read = kept + duplicates + quarantined + erased; and what looks wrong in the rows.

    Raises
    ------
    ConfigError
        If the configuration of the source is invalid; nothing was read.
    DataError
        If the input is missing, or too many rows of a table are rejected. The lake is unchanged.
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
    with _connection(workspace, source, settings, scratch) as connection, exclusive_writer(workspace):
        lake.attach(connection, "lake_")
        source.watermarks = _last_watermarks(lake, source)
        personal = PersonalDataHasher.of(workspace, settings)
        personal.set_key_variables(connection)
        has_erased = load_tombstones(connection, workspace)
        outcomes = [
            _ingest_table(connection, source, raw, personal, now, report_progress, None, workspace, has_erased)
            for raw in with_own_items(connection, source.name, source.tables(connection))
        ]
        if source.correctable:
            _refuse_rejected_tables(outcomes)
        warnings = _checked(_check_input(connection, source, settings, outcomes))
        queries = {found.staged.table.name: found.merged.query for found in outcomes if found.changes}
        for found in outcomes:
            is_profiles = found.staged.table.name == "profiles"
            history = history_query(connection, lake, found.staged, now) if is_profiles else None
            if history is not None:
                queries[PROFILE_HISTORY.name] = history
        if any(found.staged.personal for found in outcomes if found.report.kept):
            save_key_fingerprint(workspace, personal.key)
        notes = _notes(lake, source, outcomes)
        if queries or "customers" not in lake.states():
            report_progress("resolving customers and writing the lake")
            # views of the lake after this ingest: rows and customers change in one commit
            for name in TABLES:
                connection.execute(
                    f"CREATE OR REPLACE VIEW {name} AS {queries.get(name, f'SELECT * FROM lake_{name}')}"
                )
            new = [found.merged.new for found in outcomes if found.staged.table.name == "identities"]
            changed = " UNION ".join(
                f"SELECT source, source_user_id FROM ({rows})"
                for rows in new or ["SELECT * FROM lake_identities WHERE false"]
            )
            commit(lake, connection, queries, GraphResolver(workspace, settings, now), changed, notes)
        elif notes != lake.notes():
            lake.commit(connection, {}, notes)
    tables = {found.staged.table.name: found.report for found in outcomes}
    return IngestReport(source.name, tables, time.perf_counter() - begun, lake.digest, warnings)


def preview(
    workspace: Workspace,
    source: Source,
    settings: Settings,
    progress: Callable[[str], None] | None = None,
    now: datetime | None = None,
    rows: int = PREVIEW_ROWS,
) -> IngestReport:
    """Read the first rows of each table of `source` and report what `ingest` would do with them; write nothing.

    Parameters
    ----------
    workspace : Workspace
        The rows are compared with its lake. It need not exist and is not created.
    rows : int
        Number of rows of each table to read.

    Returns
    -------
    IngestReport
        Row counts, warnings, examples of the mapped values, and in `errors` what would make `ingest` fail.

    Raises
    ------
    ConfigError
        If the configuration of the source is invalid.
    """
    begun = time.perf_counter()
    report_progress = progress or (lambda line: None)
    lake = Lake(workspace)
    outcomes: list[_Outcome] = []
    errors: list[str] = []
    examples: dict[str, dict[str, list[str]]] = {}
    scratch = Path(tempfile.gettempdir()) / f"qianmian-preview-{uuid.uuid4().hex[:8]}"
    warnings: tuple[IngestWarning, ...] = ()
    with _connection(workspace, source, settings, scratch) as connection:
        lake.attach(connection, "lake_")
        source.limit = rows
        source.watermarks = _last_watermarks(lake, source)
        personal = PersonalDataHasher.for_preview(workspace, settings)
        personal.set_key_variables(connection)
        has_erased = load_tombstones(connection, workspace)
        try:
            raw_tables = with_own_items(connection, source.name, source.tables(connection))
        except DataError as error:
            raw_tables = []
            errors.append(str(error))
        for raw in raw_tables:
            try:
                found = _ingest_table(connection, source, raw, personal, now, report_progress, rows, None, has_erased)
                outcomes.append(found)
                examples[raw.table] = mapped_examples(connection, found.staged)
                if source.correctable:
                    _refuse_rejected_tables([found])
            except DataError as error:
                errors.append(f"{raw.table}: {error}")
        try:
            warnings = _checked(_check_input(connection, source, settings, outcomes))
        except DataError as error:
            errors.append(str(error))
    tables = {found.staged.table.name: found.report for found in outcomes}
    seconds = time.perf_counter() - begun
    return IngestReport(source.name, tables, seconds, lake.digest, warnings, tuple(errors), examples)


@contextlib.contextmanager
def _connection(
    workspace: Workspace, source: Source, settings: Settings, scratch: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection that spills to `scratch`, with readable errors; the folder is removed at the end."""
    connection = duckdb.connect()
    try:
        with translate_duckdb_errors(workspace.root, source):
            connection.execute(
                "SET TimeZone='UTC'; SET preserve_insertion_order=true; "
                + bounded_memory(settings.database_memory_gb)
                + spill_to(scratch)
            )
            hide_progress_bar(connection)
            source.scratch = scratch
            yield connection
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _last_watermarks(lake: Lake, source: Source) -> dict[str, Watermark]:
    saved = lake.notes()["watermarks"].get(source.name, {})
    return {name: Watermark.of(mark) for name, mark in saved.items()}


def _notes(lake: Lake, source: Source, outcomes: list[_Outcome]) -> dict[str, dict[str, Any]]:
    """What the lake remembers of its sources after this ingest."""
    notes = lake.notes()
    if source.reached:
        marks = {name: mark.as_dict() for name, mark in source.reached.items()}
        notes["watermarks"][source.name] = {**notes["watermarks"].get(source.name, {}), **marks}
    for raw in (found.raw for found in outcomes if found.raw.table == "transactions"):
        notes["refunds"].pop(source.name, None)
        if raw.refunds is not None:
            notes["refunds"][source.name] = raw.refunds
    for staged in (found.staged for found in outcomes if found.raw.table == "profiles"):
        notes["hash_types"] = {**notes["hash_types"], **staged.personal}
    return notes


def _check_input(
    connection: duckdb.DuckDBPyConnection, source: Source, settings: Settings, outcomes: list[_Outcome]
) -> CheckInput:
    staged = {found.staged.table.name: found.staged for found in outcomes}
    merged = {found.staged.table.name: found.merged for found in outcomes}
    raw = {found.raw.table: found.raw for found in outcomes}
    catalogue = next((found.catalogue for found in outcomes if found.raw.table == "items"), CatalogueChange())
    return CheckInput(connection, source, settings, staged, merged, raw, catalogue)


def _checked(found: CheckInput) -> tuple[IngestWarning, ...]:
    return run_checks(found) if found.source.correctable else tuple(odd_input(found))


def _ingest_table(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    raw: RawTable,
    personal: PersonalDataHasher,
    now: datetime | None,
    report_progress: Callable[[str], None],
    limit: int | None,
    workspace: Workspace | None,
    has_erased: bool,
) -> _Outcome:
    """Stage, check and merge one table; without `workspace` the rejected rows are counted and not written."""
    report_progress(f"{raw.table}: reading {_file_names(raw.files)}")
    staged = stage(connection, raw, source.name, source.timezone, personal, now, limit)
    erased = drop_erased_rows(connection, staged) if has_erased else 0
    described = connection.execute(f"DESCRIBE lake_{raw.table}").fetchall()
    merged = merge(connection, staged, {row[0]: str(row[1]) for row in described}, now)
    catalogue = CatalogueChange()
    if raw.table == "items" and not (limit and staged.read >= limit):  # a sample says nothing about what is missing
        merged, catalogue = compare_catalogue(connection, raw, source.name, staged, merged)
    rejected = rejected_rows(connection, raw, staged, merged, personal)
    erased_rejects, erased_lines = (
        drop_erased_rejects(connection, rejected, staged, source.name) if has_erased else (0, 0)
    )
    reasons = {
        str(reason): int(count)
        for reason, count in connection.execute(
            f"SELECT reason, count(*) FROM {rejected} GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
    }
    quarantined = sum(reasons.values())
    file = quarantine(connection, workspace, source, raw.table, rejected) if quarantined and workspace else None
    flags = count_flags(connection, staged, merged) if merged.kept else {}
    flags |= {
        "superseded": merged.superseded,
        "status_changed": merged.status_changed,
        "further_lines": merged.further_lines,
        "vanished": catalogue.vanished,
        "back": catalogue.back,
    }
    unreadable = _count(connection, f"SELECT count(*) FROM {rejected} WHERE position IS NULL")
    attributes = [name for name in staged.mapped if staged.table.name == "profiles" and not staged.table.column(name)]
    report = TableReport(
        read=staged.read + unreadable + erased_lines,
        kept=merged.kept,
        duplicates=merged.duplicates + merged.superseded,
        quarantined=quarantined,
        erased=erased + erased_rejects,
        updated=merged.updated,
        flags={name: count for name, count in flags.items() if count},
        reasons=reasons,
        quarantine_file=str(file) if file else None,
        hashed=tuple(sorted(set(attributes) & set(staged.personal))),
        readable=tuple(sorted(set(attributes) - set(staged.personal))),
    )
    report_progress(
        f"{raw.table}: read {report.read:,} = kept {report.kept:,} + duplicates {report.duplicates:,} "
        f"+ quarantined {report.quarantined:,}" + (f" + erased {report.erased:,}" if report.erased else "")
    )
    return _Outcome(staged, merged, report, raw, catalogue)


def _refuse_rejected_tables(outcomes: list[_Outcome]) -> None:
    """Fail if a table has no row left, or if more of its rows are rejected than the source allows.

    Mapping or file must be wrong then, and keeping the rest would hide it.
    """
    refused = [found for found in outcomes if not found.report.accepted or found.mostly_rejected]
    if not refused and outcomes:
        return
    parts = []
    for found in refused:
        report = found.report
        reasons = "; ".join(f"{count:,} × {reason}" for reason, count in list(report.reasons.items())[:3])
        share = "all" if report.quarantined == report.read else f"{report.quarantined:,}"
        parts.append(
            f"{found.staged.table.name} from {_file_names(found.staged.files)}: "
            + (f"{report.read:,} rows read, {share} rejected: {reasons}" if report.read else "no rows")
        )
    rejected = [found.report.quarantine_file for found in refused if found.report.quarantine_file]
    fix = "check the file, or leave the table out"
    if rejected:
        fix = f"read the rejected rows in {rejected[0]}, correct the mapping or the file"
    unread = [times for found in refused for times in found.staged.unread_times]
    known = [f"{times.column} looks like {times.looks_like}: {times.fix}" for times in unread]
    known += [f"{values.message}: {values.fix}" for found in refused for values in found.staged.unread_values]
    if known:
        fix += "; " + "; ".join(known)
    elif any("not a time" in reason for found in refused for reason in found.report.reasons):
        fix += " (times are parsed as ISO 8601; for other formats use e.g. strptime(column, '%d/%m/%Y %H:%M'))"
    partly = any(found.report.accepted for found in refused)
    if partly:
        fix += ", or allow a larger share with `max_rejected: 1` beside `path`"
    raise DataError(
        "most rows were rejected" if partly else "no row could be kept",
        where=" · ".join(parts) or "the source",
        hint=f"{fix}, and ingest again; the lake is unchanged",
    )


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def _file_names(files: tuple[str, ...]) -> str:
    return Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
