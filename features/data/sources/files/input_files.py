"""What the reader of one kind of input gives to the mapping: rows with named columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.data.sources.base import InputWarning
from features.data.sources.files.csv_format import Wanted
from features.data.sources.watermarks import Watermark


@dataclass(frozen=True)
class InputFiles:
    """Rows that are ready to be read.

    Attributes
    ----------
    relation : str
        SELECT of the rows in their order, with the column `_file`.
    rejects : str or None
        SELECT (file, reason, row) of what could not be split into columns; run after `relation` was read.
    warnings : tuple of InputWarning
        What is odd in the input.
    reached : Watermark or None
        Last value read, for an input that reads only what is new.
    """

    relation: str
    rejects: str | None = None
    warnings: tuple[InputWarning, ...] = ()
    reached: Watermark | None = None


@dataclass(frozen=True)
class ReadRequest:
    """How the rows of an input are to be read.

    Attributes
    ----------
    connection : DuckDBPyConnection
        Connection that reads the relation afterwards.
    scratch : Path
        Folder for temporary files of this input; it need not exist.
    limit : int or None
        Only so many rows are needed.
    watermark : Watermark or None
        Last value of the previous ingest.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    limit: int | None = None
    watermark: Watermark | None = None


class TableInput(ABC):
    """Input of one entry of `tables`: its columns are known when the YAML file is checked, its rows are read later.

    Attributes
    ----------
    columns : dict of str to str
        Column name → SQL type, over all files.
    files : tuple of str
        Names of the files, for messages, in the order in which they are read.
    columns_of_file : mapping of str to frozenset of str
        File → its columns; a column that a file lacks is null in its rows.
    """

    columns: dict[str, str]
    files: tuple[str, ...]
    columns_of_file: Mapping[str, frozenset[str]]

    @abstractmethod
    def count_rows(self, file: str) -> int:
        """Number of rows of one file, for messages."""

    @abstractmethod
    def read(self, request: ReadRequest) -> InputFiles:
        """Prepare the rows for reading.

        Raises
        ------
        DataError
            A file cannot be read as it is described.
        """

    def missing_column_hint(self, wanted: Wanted) -> str:
        """What to add to the YAML file when no file has most of the `wanted` columns; empty if nothing helps."""
        del wanted
        return ""


def name_clash(names: Iterable[str]) -> str | None:
    """Problem with column names: DuckDB ignores case, and two names are reserved. None if there is no problem."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in ("rowid", "_file"):
            return f"the column name {name} is reserved: rename the column"
        if name.lower() in seen:
            return f"two columns have the same name: {seen[name.lower()]!r} and {name!r} (case is ignored): rename one"
        seen[name.lower()] = name
    return None
