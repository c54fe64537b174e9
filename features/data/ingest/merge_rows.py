"""The rows that one merge compares: those of the input, and those of the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.data.ingest.columns import cast_columns, common_columns, told_columns
from features.data.ingest.compared_rows import TELLING
from features.data.ingest.contract import StagedTable
from features.data.ingest.logged_rows import are_replaced
from features.data.tables import LOGGED, TOLD
from qianmian.schema import Table


@dataclass(frozen=True)
class MergeRows:
    """The rows of the input and of the lake, with the same columns.

    Attributes
    ----------
    staged : StagedTable
        The input.
    columns : mapping of str to str
        Columns of both relations: name → SQL type.
    good, known : str
        SELECT of the valid staged rows, with `_row`, and of the lake's rows.
    replaced : str or None
        SELECT of the rows of the lake that are not `known`, because the input tells in their place.
    verdicts : str
        Name of the temp table (_row, verdict) that the merge creates.
    """

    staged: StagedTable
    columns: Mapping[str, str]
    good: str
    known: str
    replaced: str | None
    verdicts: str

    @classmethod
    def of(cls, staged: StagedTable, lake_columns: Mapping[str, str]) -> MergeRows:
        """The valid rows of `staged`, and those of the view ``lake_<table>`` with these columns."""
        columns = common_columns(staged.columns, lake_columns)
        if staged.table.name in TELLING:
            columns[TOLD] = "VARCHAR"
        lake, stays, replaced = f"lake_{staged.table.name}", "", None
        if LOGGED in lake_columns and LOGGED not in staged.columns:
            condition = are_replaced(staged, lake)
            stays, replaced = f" WHERE NOT {condition}", f"SELECT * FROM {lake} WHERE {condition}"
        return cls(
            staged,
            columns,
            f"SELECT _row, {cast_columns(columns, staged.columns)} FROM {staged.typed} WHERE _reason IS NULL",
            f"SELECT {cast_columns(columns, lake_columns)} FROM {lake}{stays}",
            replaced,
            f"verdicts_{staged.table.name}",
        )

    @property
    def table(self) -> Table:
        """The canonical table."""
        return self.staged.table

    @property
    def told(self) -> list[str]:
        """The columns by which rows of a fact are compared."""
        return told_columns(self.table, self.columns, self.staged.mapped)
