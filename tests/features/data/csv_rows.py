"""Read CSV bytes as an ingest reads them, without an ingest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from features.data.sources.base import InputWarning
from features.data.sources.files.csv_files import CsvInput
from features.data.sources.files.input_files import ReadRequest
from features.data.sources.files.settings import TableSettings


@dataclass(frozen=True)
class Read:
    """Rows with their columns and `_file`, refused lines as (line, reason, text), and warnings."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    refused: list[tuple[int, str, str]]
    warnings: tuple[InputWarning, ...]
    copies: list[str]


def read_csv(folder: Path, *contents: bytes, **settings: Any) -> Read:
    """The files 0.csv, 1.csv … with these contents, read by one entry with these keys."""
    files = [folder / f"{number}.csv" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    found = CsvInput(files, TableSettings(path="*.csv", columns={"item_id": "a"}, **settings), "items", [("a", ["a"])])
    with duckdb.connect() as connection:
        read = found.read(ReadRequest(connection, folder / "scratch"))
        # the file of each row is its name here
        rows = connection.execute(
            f"SELECT * REPLACE (parse_filename(_file) AS _file) FROM ({read.relation})"
        ).fetchall()
        rejects = connection.execute(str(read.rejects)).fetchall()
    refused = [(row["line"], reason.removeprefix("line cannot be read: "), row["text"])
               for row, reason in sorted(((json.loads(row), reason) for _, reason, row in rejects), key=lambda pair: pair[0]["line"])]  # fmt: skip
    scratch = folder / "scratch"
    copies = sorted(path.name for path in scratch.glob("*.csv")) if scratch.exists() else []
    return Read(list(found.columns), rows, refused, read.warnings, copies)
