"""What a source is: it says where raw rows are and how they map onto the canonical columns. Nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb


@dataclass(frozen=True)
class RawTable:
    """One canonical table as a source offers it: raw rows and a SQL expression a column, all still loosely typed.

    Attributes
    ----------
    table : str
        Canonical table name.
    relation : str
        A SELECT that yields the raw rows in file order.
    columns : mapping of str to str
        Canonical column → SQL expression over the columns of `relation`. In an open-ended table other names are attributes.
    files : tuple of str
        Where the rows come from, for messages.
    error_conditions : tuple of (str, str)
        (SQL condition over `relation`, reason): rows to refuse beyond what the contract refuses.
    file_column : str or None
        Column of `relation` that holds the file of each row.
    hashed : bool
        The source says that personal identifiers in it are hashes already: they are kept as they are.
    rejects : str or None
        A SELECT (file, reason, row) of lines that could not even be split into columns; run after `relation` was read.
    """

    table: str
    relation: str
    columns: Mapping[str, str]
    files: tuple[str, ...]
    error_conditions: tuple[tuple[str, str], ...] = field(default=())
    file_column: str | None = None
    rejects: str | None = None
    hashed: bool = False


class Source(ABC):
    """Turns raw input into raw tables. Casting, checking, quarantine and merging are common to all sources.

    Attributes
    ----------
    name : str
        What the `source` column says, and the folder of the quarantine.
    timezone : str
        IANA zone of times written without one.
    """

    name: str
    timezone: str = "UTC"

    @abstractmethod
    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """The raw tables, readable through `connection`.

        Raises
        ------
        ConfigError, DataError
            When the input is not there or cannot be what it is said to be; before any row is read.
        """
