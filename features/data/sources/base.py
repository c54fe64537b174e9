"""Base class of sources: a source locates raw rows and maps them onto canonical columns, nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import duckdb

from features.data.sources.currencies import CurrencyRule
from features.data.sources.watermarks import Watermark

Refunds = Literal["in_place", "separate"]


@dataclass(frozen=True)
class InputWarning:
    """Something odd that a source found in its input before any row was cast.

    Attributes
    ----------
    code : str
        Name of the circumstance, for programs.
    message, fix : str
        What is odd, with file and count; and what to change.
    rows : int
        Number of rows concerned.
    """

    code: str
    message: str
    fix: str
    rows: int = 0


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
    naive_conditions : mapping of str to str
        Canonical column → SQL condition over `relation` of rows whose times have no offset, although the expression of
        the column gives an instant.
    max_rejected : float
        Ingest fails if a larger share of the rows is rejected.
    fixed : frozenset of str or "all"
        Attributes of `profiles` that never change, so that one value holds at every moment.
    absent : mapping of str to frozenset of str
        File (a value of `file_column`) → canonical columns that it says nothing about, because it lacks a column that
        their expressions read. A cell without a value in any other column says that there is no value.
    warnings : tuple of InputWarning
        What is odd in the input.
    shared : bool or None
        `items`: whether the source shares the item ids of other sources. False: its goods are its own.
    complete : bool or None
        `items`: whether the rows are the full catalogue, so that items that it lacks are no longer offered.
    max_vanished : float
        `items`: ingest fails if a complete catalogue lacks a larger share of the items of this source.
    item_prefix : str
        What ingest puts before the item ids, so that they do not meet those of another source.
    refunds : "in_place", "separate" or None
        `transactions`: whether a refund is the row of its sale, which was marked as refunded, or a row beside the sale.
        None: the rows tell it (`features.returns.are_credit_notes`).
    values : ValueRules
        How its values are read.
    common : tuple of str
        SQL expressions over `relation` that occur, in these words, in several of `columns`, `error_conditions` and each
        other. Ingest computes each of them once a row, so none may raise an error.
    logged : bool
        Whether the rows are accepted events: what the source itself tells of the same order or event counts instead
        (`features.data.ingest.logged_rows`).
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
    fixed: frozenset[str] | Literal["all"] = frozenset()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    warnings: tuple[InputWarning, ...] = ()
    naive_conditions: Mapping[str, str] = field(default_factory=dict)
    shared: bool | None = None
    complete: bool | None = None
    max_vanished: float = 0.5
    item_prefix: str = ""
    refunds: Refunds | None = None
    values: ValueRules = field(default_factory=ValueRules)
    common: tuple[str, ...] = ()
    logged: bool = False


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
    customers_timezone : str or None
        IANA time zone of the customers' days and hours, if the source knows it: the value for `timezone` in
        qianmian.yaml.
    scratch : Path or None
        Folder for temporary files of one ingest, set by it and removed after it; it need not exist yet.
    correctable : bool
        Whether the input can be corrected and read again, so that an ingest refuses it where it looks wrong. Otherwise
        rejected rows go to quarantine, and nothing else stops the ingest.
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
    customers_timezone: str | None = None
    correctable: bool = True
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
