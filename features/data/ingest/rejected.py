"""What is said of refused rows and of input that cannot be read: enough to mend it, and nobody's personal data."""

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
from features.data.lake import literal, quote
from features.data.privacy import EMAIL_PATTERN, PHONE_PATTERN, PersonalDataHasher, personal_data_type
from features.data.sources.base import RawTable, Source
from qianmian.errors import DataError, WorkspaceError
from qianmian.workspace import Workspace, atomic_path, explain_os_errors

NON_PERSONAL_TABLES = ("items", "contents", "campaigns")  # a "name" in these is nobody's
PERSONAL_TABLES = ("identities", "profiles")


def rejected_rows(
    connection: duckdb.DuckDBPyConnection,
    raw: RawTable,
    staged: StagedTable,
    merged: MergedTable,
    personal: PersonalDataHasher,
) -> str:
    """Temp table of the refused rows of one table, as they were read: file, position (1 = the file's first row), reason, row (JSON).

    Columns called like personal data, or that a hashed column is made of, show a hash; addresses and numbers elsewhere are cut out.
    """
    name = f"refused_{raw.table}"
    described = [str(row[0]) for row in connection.execute(f"DESCRIBE {staged.raw}").fetchall()]
    secret = _personal_columns(raw, staged, described)
    shown = {column: personal.masked(quote(column)) if column in secret else quote(column) for column in described}
    fields = ", ".join(f"{literal(column)}: {value}" for column, value in shown.items() if column != raw.file_column)
    row = personal.redacted(f"to_json({{{fields}}})::VARCHAR")
    file = f"{quote(raw.file_column)}::VARCHAR" if raw.file_column else literal(raw.files[0])
    conflicts = f" UNION ALL SELECT _row, {literal(CONFLICT_REASON)} FROM {merged.verdicts} WHERE verdict = 'conflict'"
    unreadable = ""
    if raw.rejects:
        line = "json_extract_string(row, '$.text')"  # of a line that could not be split nobody knows where in it the personal data is
        text = (
            personal.masked(line) if secret or raw.table in PERSONAL_TABLES else personal.redacted(f"({line})::VARCHAR")
        )
        kept = (
            f"json_object('line', json_extract(row, '$.line'), 'text', {text})::VARCHAR"
            if secret or raw.table in PERSONAL_TABLES
            else personal.redacted("row")
        )
        unreadable = f" UNION ALL SELECT file, NULL, reason, {kept} FROM ({raw.rejects})"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE bad_{raw.table} AS SELECT _row, _reason FROM {staged.typed} WHERE _reason IS NOT NULL{conflicts}"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS "
        # only bad rows are worth turning into JSON
        f"WITH rows AS (SELECT rowid AS _row, {file} AS file, {row} AS row FROM {staged.raw} "
        f"WHERE rowid IN (SELECT _row FROM bad_{raw.table})), "
        f"starts AS (SELECT {file} AS file, min(rowid) AS start FROM {staged.raw} GROUP BY 1) "
        f"SELECT file, _row - start + 1 AS position, _reason AS reason, row "
        f"FROM bad_{raw.table} JOIN rows USING (_row) JOIN starts USING (file){unreadable}"
    )
    connection.execute(f"DROP TABLE {staged.raw}")
    return name


def _personal_columns(raw: RawTable, staged: StagedTable, columns: list[str]) -> set[str]:
    made_of = [raw.columns[name].lower() for name in staged.personal]
    if raw.table == "identities":  # a swapped type and value is the usual mistake
        made_of.append(raw.columns["id_type"].lower())
    called = {column for column in columns if raw.table not in NON_PERSONAL_TABLES and personal_data_type(column)}
    return called | {column for column in columns if any(column.lower() in expression for expression in made_of)}


def quarantine(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, source: Source, table: str, rejected: str
) -> Path:
    """Write refused rows to a file named by their content, so that refusing the same rows again changes nothing."""
    row = connection.execute(f"SELECT bit_xor(hash(file, position, reason, row)) FROM {rejected}").fetchone()
    target = workspace.quarantine / source.name / f"{table}-{int(row[0]) if row else 0:016x}.parquet"
    with atomic_path(target) as temporary:
        connection.execute(
            f'COPY (SELECT {literal(source.name)} AS source, {literal(table)} AS "table", reason, file, position, row FROM {rejected} '
            f"ORDER BY file, position, row) TO {literal(temporary)} (FORMAT parquet, COMPRESSION zstd)"
        )
    return target


def redact_values(text: str) -> str:
    """A message of DuckDB without the values it quotes: a telephone number that is no number must not end in a log. File names stay.

    Examples
    --------
    >>> redact_values("Could not convert string 'ann@shop.com' to INT64, file '/data/a.csv' Original Line: ann@shop.com,3")
    "Could not convert string '…' to INT64, file '/data/a.csv'"
    """
    text = " ".join(text.split("Original Line", 1)[0].split())
    text = re.sub(r"'[^'/][^']*'|\"[^\"/][^\"]*\"", "'…'", text)
    return re.sub(f"{EMAIL_PATTERN}|{PHONE_PATTERN}", "…", text)[:400]


@contextlib.contextmanager
def translate_duckdb_errors(root: Path, source: Source) -> Iterator[None]:
    """DuckDB's errors about disks, memory and unreadable files, in this project's words; the lake is untouched by all of them."""
    with explain_os_errors(root):
        try:
            yield
        except duckdb.Error as error:
            text = redact_values(str(error))
            # `from None`: the original message quotes values, and --debug prints the whole chain
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
                    hint="check that the file is whole and readable, export it again if it is not; the lake is as it was",
                ) from None
            raise type(error)(text) from None
