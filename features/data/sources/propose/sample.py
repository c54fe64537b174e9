"""The first rows of a file, and how it must be read: encoding, separator, lines before the header."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from features.data.lake import literal
from features.data.sources.files.csv_blocks import is_utf8
from features.data.sources.files.csv_format import (
    DELIMITERS,
    CsvFormat,
    UnreadableFile,
    Wanted,
    describe_csv,
    lines_before_header,
    open_binary,
    read_head,
    split_record,
)
from features.data.sources.files.file_kinds import other_kind
from features.data.sources.files.parquet_files import is_parquet
from features.data.sources.files.settings import TableSettings
from features.data.sources.files.text_encodings import bom_of, likely_encodings
from features.data.sources.propose.names import is_known
from qianmian.errors import DataError
from qianmian.paths import exact_pattern

QUOTE = TableSettings.model_fields["quote"].default
SAMPLE_BYTES = 1_000_000
SAMPLE_ROWS = 1_000
MAX_PREFACE = 30  # lines before the header


@dataclass(frozen=True)
class Sample:
    """The first rows of a file.

    Attributes
    ----------
    file : Path
    names : tuple of str
        Column names; ``column1`` … if the file has no header line.
    columns : tuple of tuple of str
        Up to `SAMPLE_ROWS` values of each column, as text.
    encoding, delimiter : str or None
        Keys of `sources.yaml` where they differ from what ingest finds by itself.
    other_encodings : tuple of str
        Encodings in which the text would be one of another language.
    skip : int
        Number of lines before the header.
    has_header : bool
    """

    file: Path
    names: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    encoding: str | None = None
    delimiter: str | None = None
    skip: int = 0
    has_header: bool = True
    other_encodings: tuple[str, ...] = ()

    def values(self, name: str) -> tuple[str, ...]:
        """The values of one column that are not blank."""
        return tuple(value for value in self.columns[self.names.index(name)] if value.strip())


def read_sample(file: Path) -> Sample:
    """Read the first rows of a CSV or Parquet file.

    Raises
    ------
    DataError
        The file is missing, empty, or no table.
    """
    if not file.is_file():
        raise DataError("there is no such file", where=str(file), hint="name CSV or Parquet files")
    if is_parquet(file):
        return _parquet_sample(file)
    try:
        return _csv_sample(file)
    except UnreadableFile as error:
        raise DataError(str(error), where=str(file), hint="export the file again") from error


def _csv_sample(file: Path) -> Sample:
    """Find the keys that the file needs, and read its first rows as ingest reads them with these keys."""
    encodings = _likely_encodings(file)
    encoding = next(iter(encodings), None)
    head = read_head(file, encoding, SAMPLE_BYTES)
    start, delimiter = lines_before_header(head.lines)
    if start == len(head.lines):
        raise DataError("the file is empty", where=str(file), hint="export it again")
    delimiter, preface = _shape(head.lines[start:], delimiter)
    first, _ = split_record(head.lines[start + preface :], delimiter, QUOTE)
    has_header = _known_names(first) > 1 or not any(cell.strip()[:1].isdigit() for cell in first)
    keys: dict[str, Any] = {
        "encoding": encoding,
        "skip": start + preface if preface else 0,
        "header": None if has_header else [f"column{place + 1}" for place in range(len(first))],
    }
    wanted = [(cell, (cell,)) for cell in first] if has_header else []
    found = _describe(file, keys, wanted)
    if found.delimiter != delimiter:
        keys["delimiter"] = delimiter
        found = _describe(file, keys, wanted)
    body = "\n".join(head.lines[found.skipped + found.header_lines :])
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=found.delimiter, quotechar=found.quote)
    rows = list(itertools.islice((row for row in reader if len(row) == len(found.names)), SAMPLE_ROWS))
    names = tuple(" ".join(name.split()) for name in found.names)
    columns = tuple(zip(*rows, strict=True)) if rows else ((),) * len(names)
    return Sample(file, names, columns, encoding, keys.get("delimiter"), keys["skip"], has_header, tuple(encodings[1:]))


def _describe(file: Path, keys: Mapping[str, Any], wanted: Wanted) -> CsvFormat:
    """The format that ingest finds with these keys and a mapping of the wanted columns."""
    return describe_csv(file, TableSettings(path=str(file), columns={"order_id": "?"}, **keys), wanted)


def _parquet_sample(file: Path) -> Sample:
    try:
        with duckdb.connect() as connection:
            parquet = f"read_parquet({literal(exact_pattern(file))}, hive_partitioning=false)"
            found = connection.execute(f"SELECT * FROM {parquet} LIMIT {SAMPLE_ROWS}")
            names = tuple(str(column[0]) for column in found.description or ())
            rows = found.fetchall()
    except duckdb.Error as error:
        raise DataError("the file cannot be read as Parquet", where=str(file), got=str(error).split("\n")[0]) from None
    texts = [tuple("" if value is None else str(value) for value in row) for row in rows]
    return Sample(file, names, tuple(zip(*texts, strict=True)) if texts else ((),) * len(names))


def _likely_encodings(file: Path) -> list[str]:
    """Encodings that the key `encoding` may name; none for UTF-8 and for a file with a byte order mark."""
    with open_binary(file) as handle:
        data = handle.read(SAMPLE_BYTES)
    mark, _ = bom_of(data)
    kind = other_kind(data[len(mark) :])
    if kind:
        raise UnreadableFile(kind)
    whole = data[: data.rfind(b"\n") + 1] or data  # the last line of the sample may be cut within a character
    if mark or (is_utf8(whole) and b"\0" not in whole):
        return []
    return likely_encodings(whole) or ["windows-1252"]


def _shape(lines: Sequence[str], declared: str | None) -> tuple[str, int]:
    """Separator of a CSV file and the number of lines before its header.

    The header is the first line that is as wide as those below it and has more than one filled cell, or a line near
    the top with more names of known columns.
    """
    best, found = (-1, 0), (declared or DELIMITERS[0], 0)
    for delimiter in (declared,) if declared else DELIMITERS:
        # a separator within quotes is none
        rows = [
            next(csv.reader([line], delimiter=delimiter, quotechar=QUOTE), []) if line.strip() else []
            for line in lines[: MAX_PREFACE + 50]
        ]
        body = Counter(len(row) for row in rows if row).most_common(1)[0][0]
        header = next(
            (at for at, row in enumerate(rows) if len(row) >= body and (body < 3 or sum(map(bool, row)) > 1)), 0
        )
        named = [_known_names(row) for row in rows[:MAX_PREFACE]]
        if max(named) > max(1, named[header] if header < len(named) else 0):
            header = named.index(max(named))
        rank = (_known_names(rows[header]), body)
        if rank > best:
            best, found = rank, (delimiter, header)
    return found


def _known_names(cells: Sequence[str]) -> int:
    """Number of cells that are names of known columns."""
    return sum(is_known(cell.strip()) for cell in cells)
