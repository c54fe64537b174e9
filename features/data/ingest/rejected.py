"""Quarantine and messages for rejected rows and unreadable input: enough to fix the data, without personal data."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb

from features.data.ingest.contract import StagedTable
from features.data.ingest.merge import CONFLICT_REASON, MergedTable
from features.data.ingest.personal_columns import CONTACT_AS_ID_REASON, PERSONAL_AS_ID_REASON
from features.data.lake import literal, quote
from features.data.personal_names import personal_data_type
from features.data.personal_values import EMAIL_PATTERN, PHONE_PATTERN
from features.data.privacy import PersonalDataHasher
from features.data.sources.base import RawTable, Source
from qianmian.errors import DataError, WorkspaceError
from qianmian.workspace import Workspace, atomic_path, explain_os_errors

NON_PERSONAL_TABLES = (
    "items",
    "contents",
    "campaigns",
    "promotions",
)  # a column "name" of these is not a person's name
PERSONAL_TABLES = ("identities", "profiles")


def rejected_rows(
    connection: duckdb.DuckDBPyConnection,
    raw: RawTable,
    staged: StagedTable,
    merged: MergedTable,
    personal: PersonalDataHasher,
) -> str:
    """Create a temp table of the rejected rows of one table, as they were read, and return its name.

    Its columns are file, position (1 is the first row of the file), reason and row (JSON). Columns whose names indicate
    personal data, and columns that a hashed column is computed from, are hashed. E-mail addresses and telephone numbers
    in other columns are replaced.
    """
    name = f"rejected_{raw.table}"
    conflicts = f" UNION ALL SELECT _row, {literal(CONFLICT_REASON)} FROM {merged.verdicts} WHERE verdict = 'conflict'"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE bad_{raw.table} AS "
        f"SELECT _row, _reason FROM {staged.typed} WHERE _reason IS NOT NULL{conflicts}"
    )
    described = [str(row[0]) for row in connection.execute(f"DESCRIBE {staged.raw}").fetchall()]
    secret = _personal_columns(raw, staged, described)
    shown = {column: personal.masked(quote(column)) if column in secret else quote(column) for column in described}
    reasons = ", ".join(map(literal, (CONTACT_AS_ID_REASON, PERSONAL_AS_ID_REASON)))
    personal_ids = f"SELECT _row FROM bad_{raw.table} WHERE _reason IN ({reasons})"
    if connection.execute(f"{personal_ids} LIMIT 1").fetchone():
        for column in _used_in([raw.columns["source_user_id"]], described) - secret:
            text = f"{quote(column)}::VARCHAR"
            shown[column] = f"CASE WHEN rowid IN ({personal_ids}) THEN {personal.masked(text)} ELSE {text} END"
    fields = ", ".join(f"{literal(column)}: {value}" for column, value in shown.items() if column != raw.file_column)
    row = personal.redacted(f"to_json({{{fields}}})::VARCHAR")
    file = f"{quote(raw.file_column)}::VARCHAR" if raw.file_column else literal(raw.files[0])
    unreadable = ""
    if raw.rejects:
        kept = personal.redacted("row")
        if secret or raw.table in PERSONAL_TABLES:
            # The line could not be split into columns, so any part of it may be personal data: hash all of it.
            text = personal.masked("json_extract_string(row, '$.text')")
            kept = f"json_object('line', json_extract(row, '$.line'), 'text', {text})::VARCHAR"
        unreadable = f" UNION ALL SELECT file, NULL, reason, {kept} FROM ({raw.rejects})"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS "
        # only the rejected rows are converted to JSON, which is slow
        f"WITH rows AS (SELECT rowid AS _row, {file} AS file, {row} AS row FROM {staged.raw} "
        f"WHERE rowid IN (SELECT _row FROM bad_{raw.table})), "
        f"starts AS (SELECT {file} AS file, min(rowid) AS start FROM {staged.raw} GROUP BY 1) "
        f"SELECT file, _row - start + 1 AS position, _reason AS reason, row "
        f"FROM bad_{raw.table} JOIN rows USING (_row) JOIN starts USING (file){unreadable}"
    )
    connection.execute(f"DROP TABLE {staged.raw}")
    return name


def _personal_columns(raw: RawTable, staged: StagedTable, columns: list[str]) -> set[str]:
    expressions = [raw.columns[name] for name in staged.personal]
    if raw.table == "identities":  # type and value are easily swapped, so the type may hold the value
        expressions.append(raw.columns["id_type"])
    by_name = {column for column in columns if raw.table not in NON_PERSONAL_TABLES and personal_data_type(column)}
    return by_name | _used_in(expressions, columns)


def _used_in(expressions: list[str], columns: list[str]) -> set[str]:
    return {column for column in columns if any(column.lower() in expression.lower() for expression in expressions)}


def quarantine(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, source: Source, table: str, rejected: str
) -> Path:
    """Write rejected rows to a file named by their content: rejecting the same rows again writes no second file."""
    row = connection.execute(f"SELECT bit_xor(hash(file, position, reason, row)) FROM {rejected}").fetchone()
    target = workspace.quarantine / source.name / f"{table}-{int(row[0]) if row else 0:016x}.parquet"
    with atomic_path(target) as temporary:
        connection.execute(
            f'COPY (SELECT {literal(source.name)} AS source, {literal(table)} AS "table", reason, file, position, row '
            f"FROM {rejected} ORDER BY file, position, row) TO {literal(temporary)} (FORMAT parquet, COMPRESSION zstd)"
        )
    return target


def redact_values(text: str) -> str:
    """Remove the quoted values from a message of DuckDB, so that no personal data is logged. File names stay.

    Examples
    --------
    >>> redact_values("Could not convert string 'ann@shop.com' to INT64, file '/data/a.csv' Original Line: ann,3")
    "Could not convert string '…' to INT64, file '/data/a.csv'"
    """
    text = " ".join(text.split("Original Line", 1)[0].split())
    text = re.sub(r"'[^'/][^']*'|\"[^\"/][^\"]*\"", "'…'", text)
    return re.sub(f"{EMAIL_PATTERN}|{PHONE_PATTERN}", "…", text)[:400]


@contextlib.contextmanager
def translate_duckdb_errors(root: Path, source: Source) -> Iterator[None]:
    """Translate DuckDB's errors about disk, memory and unreadable files; the lake is unchanged after each of them."""
    with explain_os_errors(root):
        try:
            yield
        except duckdb.Error as error:
            text = redact_values(str(error))
            # `from None`, because the original message quotes values and --debug prints the whole chain
            if "No space left" in text or "max_temp_directory_size" in text:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            if isinstance(error, duckdb.OutOfMemoryException):
                raise WorkspaceError(
                    "not enough memory for this input",
                    got=text,
                    hint="free some memory, or ingest the files in several parts",
                ) from None
            if isinstance(
                error,
                duckdb.IOException
                | duckdb.InvalidInputException
                | duckdb.ConversionException
                | duckdb.OutOfRangeException,
            ):
                raise DataError(
                    "the input cannot be read",
                    where=f"source {source.name}",
                    got=text,
                    hint="check that the file is complete and readable, or export it again; the lake is unchanged",
                ) from None
            raise type(error)(text) from None
