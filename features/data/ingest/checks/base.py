"""What a check of the ingested rows is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple

import duckdb

from features.data.ingest.catalogue import CatalogueChange
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge import MergedTable
from features.data.sources.base import RawTable, Source
from qianmian.settings import Settings


@dataclass(frozen=True)
class IngestWarning:
    """Something in the rows that would make profiles wrong although every row can be read.

    Attributes
    ----------
    table : str
        Canonical table.
    code : str
        Name of the check, for programs.
    message : str
        What is odd, with counts and an example that is no personal data.
    fix : str
        What to change, as a line of `sources.yaml` where there is one.
    rows : int
        Number of rows concerned.
    """

    table: str
    code: str
    message: str
    fix: str
    rows: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The warning as JSON-ready values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class CheckInput:
    """The rows of one ingest, after the merge with the lake and before the commit.

    Attributes
    ----------
    connection : DuckDBPyConnection
        Connection that holds the staged rows. The view ``lake_<table>`` is the table before this ingest.
    source : Source
        The source that is read.
    settings : Settings
        Settings of the workspace.
    staged : mapping of str to StagedTable
        Table name → cast and checked rows of this ingest, those that are rejected included.
    merged : mapping of str to MergedTable
        Table name → `new`, the rows that are kept, and `rows`, the complete table after this ingest.
    raw : mapping of str to RawTable
        Table name → how the source declares the table.
    catalogue : CatalogueChange
        The items of the source, compared with those of the lake.
    prepared : set of str
        Names of the temporary tables that several checks share.
    """

    connection: duckdb.DuckDBPyConnection
    source: Source
    settings: Settings
    staged: Mapping[str, StagedTable]
    merged: Mapping[str, MergedTable]
    raw: Mapping[str, RawTable] = field(default_factory=dict)
    catalogue: CatalogueChange = field(default_factory=CatalogueChange)
    prepared: set[str] = field(default_factory=set)

    def new(self, table: str) -> str:
        """SELECT of the rows of `table`, which this ingest reads, that it adds."""
        return self.merged[table].new

    def after(self, table: str) -> str:
        """SELECT of the complete content of `table` after this ingest, in no order."""
        return self.merged[table].rows if table in self.merged else f"SELECT * FROM lake_{table}"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.connection.execute(query).fetchall()


Check = Callable[[CheckInput], Iterable[IngestWarning]]


class TableFinding(NamedTuple):
    """What is odd in one table: the parts of a warning that its check has to say."""

    message: str
    fix: str
    rows: int = 0


def per_table(*tables: str) -> Callable[[Callable[[CheckInput, str], Iterable[TableFinding]]], Check]:
    """Make a check of a function that looks at one table: its name is the code of the warnings.

    Parameters
    ----------
    tables : str
        Tables that are looked at, if this ingest reads them; none: all that it reads.
    """

    def decorate(look: Callable[[CheckInput, str], Iterable[TableFinding]]) -> Check:
        @wraps(look)
        def check(found: CheckInput) -> Iterable[IngestWarning]:
            for table in tables or found.staged:
                if table in found.staged:
                    for finding in look(found, table):
                        yield IngestWarning(table, look.__name__, *finding)

        return check

    return decorate
