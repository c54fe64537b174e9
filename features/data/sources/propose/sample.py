"""The first rows of a file, and how it must be read: encoding, separator, lines before the header."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.data.lake import literal
from features.data.sources.files.parquet_files import is_parquet
from features.data.sources.files.text_encodings import bom_of, guess_encoding
from qianmian.errors import DataError
from qianmian.paths import exact_pattern

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
    opener = gzip.open if file.name.lower().endswith(".gz") else open
    with opener(file, "rb") as handle:
        head = handle.read(SAMPLE_BYTES)
    mark, named = bom_of(head)
    encoding = named or _encoding(head)
    text = head.removeprefix(mark).decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")
    if len(head) == SAMPLE_BYTES:
        text = text.rpartition("\n")[0]
    if not text.strip():
        raise DataError("the file is empty", where=str(file), hint="export it again")
    declared = text.startswith("sep=")
    body = text.partition("\n")[2] if declared else text
    delimiter, skip = _shape(body.split("\n"))
    rows = list(csv.reader(io.StringIO("\n".join(body.split("\n")[skip:])), delimiter=delimiter))
    rows = [row for row in rows if any(cell.strip() for cell in row)][: SAMPLE_ROWS + 1]
    has_header = _is_header(rows)
    width = len(rows[0])
    names = tuple(
        " ".join(cell.split()) if has_header and cell.strip() else f"column{place + 1}"
        for place, cell in enumerate(rows[0])
    )
    data = [row for row in rows[1 if has_header else 0 :] if len(row) == width]
    columns = tuple(zip(*data, strict=True)) if data else ((),) * width
    found = max((",", ";", "\t", "|"), key=body.split("\n")[0].count)
    return Sample(
        file,
        names,
        columns,
        None if named or encoding == "utf-8" else encoding,
        None if declared or found == delimiter or skip else delimiter,
        skip,
        has_header,
    )


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


def _encoding(head: bytes) -> str:
    """Encoding of a file without a byte order mark, from its first bytes."""
    whole = head[: head.rfind(b"\n") + 1] or head  # the last line of the sample may be cut within a character
    try:
        whole.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        return guess_encoding(whole) or "windows-1252"


def _shape(lines: Sequence[str]) -> tuple[str, int]:
    """Separator of a CSV file and the number of lines before its header: the first line as wide as those below it."""
    best = (",", 0, 1)
    for delimiter in (",", ";", "\t", "|"):
        # a separator within quotes is none
        widths = [
            len(next(csv.reader([line], delimiter=delimiter), [])) if line.strip() else 0
            for line in lines[: MAX_PREFACE + 50]
        ]
        body = Counter(width for width in widths if width).most_common(1)[0][0] if any(widths) else 1
        if body > best[2]:
            best = (delimiter, next(at for at, width in enumerate(widths) if width >= body), body)
    return best[0], best[1]


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds names: no cell is a number, a date or empty throughout."""
    return bool(rows) and not any(cell.strip()[:1].isdigit() for cell in rows[0])
