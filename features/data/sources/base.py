"""Base class of sources: a source locates raw rows and maps them onto canonical columns, nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import duckdb

from features.data.sources.currencies import CurrencyRule
from features.data.sources.watermarks import Watermark


@dataclass(frozen=True)
class ValueRules:
    """How the values of one raw table are read, beyond what their columns say.

    Attributes
    ----------
    decimal : str or None
        Decimal separator of numbers in text, ``.`` or ``,``. None: the values of each column tell it.
    number_columns : tuple of str
        Text columns of the relation that expressions cast to numbers.
    edited_columns : mapping of str to tuple of str
        Canonical column → text columns of the relation whose characters its expression replaces.
    currency : CurrencyRule or None
        Currency of the amounts.
    private, readable : tuple of str
        Attributes that are stored as hashes, or as they are, whatever their names and values look like.
    """

    decimal: str | None = None
    number_columns: tuple[str, ...] = ()
    edited_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    currency: CurrencyRule | None = None
    private: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawTable:
    """Raw rows for one canonical table, with one SQL expression per column; types are not yet checked.

    Attributes
    ----------
    table : str
        Canonical table name.
    relation : str
        SELECT that yields the raw rows in file order.
    columns : mapping of str to str
        Canonical column → SQL expression over the columns of `relation`. In a table that keeps extra columns, other
        names are attributes.
    files : tuple of str
        Input files, for messages.
    error_conditions : tuple of (str, str)
        (SQL condition over `relation`, reason) of rows to reject, in addition to the checks of the contract.
    file_column : str or None
        Column of `relation` that holds the file of each row.
    rejects : str or None
        SELECT (file, reason, row) of lines that could not be split into columns; run after `relation` was read.
    hashed : bool
        Whether the source already hashed the personal identifiers; they are then stored unchanged.
    max_rejected : float
        Ingest fails if a larger share of the rows is rejected.
    values : ValueRules
        How its values are read.
    """

    table: str
    relation: str
    columns: Mapping[str, str]
    files: tuple[str, ...]
    error_conditions: tuple[tuple[str, str], ...] = field(default=())
    file_column: str | None = None
    rejects: str | None = None
    hashed: bool = False
    max_rejected: float = 0.5
    values: ValueRules = field(default_factory=ValueRules)


class Source(ABC):
    """Maps raw input onto raw tables. Casts, checks, quarantine and merging are common to all sources.

    Attributes
    ----------
    name : str
        Value of the column `source`, and name of the quarantine folder.
    timezone : str
        IANA time zone of timestamps without an offset.
    declares_timezone : bool
        Whether the source names its time zone; otherwise UTC is an assumption.
    scratch : Path or None
        Folder for temporary files of one ingest, set by it and removed after it; it need not exist yet.
    limit : int or None
        Set by a preview: only so many rows of each table are needed.
    watermarks : mapping of str to Watermark
        Set by an ingest: table → last value read, for sources that read only what is new.
    reached : mapping of str to Watermark
        Table → last value read by `tables`; the ingest saves them in its commit.
    """

    name: str
    timezone: str = "UTC"
    declares_timezone: bool = True
    scratch: Path | None = None
    limit: int | None = None
    watermarks: Mapping[str, Watermark] = MappingProxyType({})
    reached: Mapping[str, Watermark] = MappingProxyType({})

    @abstractmethod
    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """Return the raw tables, readable through `connection`.

        Raises
        ------
        ConfigError, DataError
            If the input is missing or does not match its description; raised before any row is read.
        """
