"""CSV files of one table: their encoding, delimiter and header, and the relation of their rows."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from features.data.lake import literal
from features.data.personal_values import EMAIL_PATTERN, PHONE_PATTERN
from features.data.sources.files.input_files import InputFiles, name_clash
from features.data.sources.files.settings import TableSettings
from qianmian.paths import exact_pattern

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
CONTACT_PATTERN = re.compile(f"{EMAIL_PATTERN}|{PHONE_PATTERN}")


def read_csv_files(files: Sequence[Path], settings: TableSettings, table: str) -> InputFiles | str:
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for file in files:
        try:
            names, delimiter = _header(file, settings)
        except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
            return f"{file.name}: the first line cannot be read: {error}"
        clash = name_clash(names)
        if clash:
            return f"{file.name}: {clash}"
        # checked here, so that no message about missing columns quotes personal data
        if any(CONTACT_PATTERN.search(name) for name in names):
            return (
                f"{file.name}: the first line contains an e-mail address or a telephone number: "
                "name the columns with `header: [...]`"
            )
        groups.setdefault((names, delimiter), []).append(str(file))
    relations, rejects = [], []
    for number, ((names, delimiter), members) in enumerate(groups.items()):
        rejected = f"rejected_{table}_{number}"
        relations.append(
            csv_relation(members, list(names), delimiter, settings.encoding, settings.header is None, rejected)
        )
        rejects.append(csv_rejects(rejected))
    columns = {name: "VARCHAR" for names, _ in groups for name in names}
    return InputFiles(
        " UNION ALL BY NAME ".join(f"({relation})" for relation in relations), columns, " UNION ALL ".join(rejects)
    )


def _header(file: Path, settings: TableSettings) -> tuple[tuple[str, ...], str]:
    """Column names and delimiter of a CSV file, from its first line."""
    with contextlib.ExitStack() as stack:
        if file.name.lower().endswith(".gz"):
            handle: IO[bytes] = cast(IO[bytes], stack.enter_context(gzip.open(file, "rb")))
        else:
            handle = stack.enter_context(file.open("rb"))
        # only the first line must be valid text; an invalid line further down is rejected on its own
        first = handle.readline().decode("utf-8-sig" if settings.encoding == "utf-8" else settings.encoding)
        delimiter = settings.delimiter or max((",", ";", "\t", "|"), key=first.count)
        if settings.header is not None:
            return tuple(settings.header), delimiter
        row = (
            next(csv.reader([first], delimiter=delimiter), [])
            if len(delimiter) == 1
            else first.strip("\r\n").split(delimiter)
        )
    return tuple(name.strip() or f"column{position}" for position, name in enumerate(row)), delimiter


def csv_relation(
    files: list[str], columns: list[str], delimiter: str, encoding: str, header: bool, rejects: str
) -> str:
    """SELECT over CSV files with the same columns, every value as text; malformed lines go to the table `rejects`."""
    named = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
    listed = ", ".join(literal(exact_pattern(file)) for file in files)
    # no type detection: its result depends on the first rows of the file, and ids would lose their leading zeros
    return (
        f"SELECT * FROM read_csv([{listed}], columns={{{named}}}, auto_detect=false, header={str(header).lower()}, "
        f"delim={literal(delimiter)}, quote='\"', escape='\"', encoding={literal(encoding)}, filename='_file', "
        # a folder such as `item_id=5` in the path would replace a column of the file
        "hive_partitioning=false, "
        f"store_rejects=true, rejects_limit=0, rejects_table={literal(rejects)}, "
        f"rejects_scan={literal(rejects + '_scan')})"
    )


def csv_rejects(rejects: str) -> str:
    """SELECT (file, reason, row) of the lines that `csv_relation` could not split; one row per line."""
    error = "lower(replace(any_value(error_type::VARCHAR), '_', ' '))"
    return (
        f"SELECT file_path AS file, 'line cannot be read: ' || {error} AS reason, "
        f"json_object('line', line, 'text', any_value(csv_line))::VARCHAR AS row "
        f"FROM {rejects} JOIN {rejects}_scan USING (scan_id, file_id) GROUP BY file_path, line"
    )
