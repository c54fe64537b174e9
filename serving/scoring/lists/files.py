"""Lists as files: CSV that spreadsheets open as it is meant, or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qianmian.workspace import atomic_path
from serving.scoring.lists.columns import NUMERIC_KINDS, ListColumn
from serving.scoring.lists.words import Lang

FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "＝",
    "＋",
    "－",
    "＠",
)  # a spreadsheet computes what begins with these


@dataclass(frozen=True)
class PeopleList:
    """Rows for people.

    Attributes
    ----------
    columns : sequence of ListColumn
        The columns.
    values : mapping of str to sequence
        Key of each column → n values, in the order of the rows.
    lang : str
        Language.
    """

    columns: Sequence[ListColumn]
    values: Mapping[str, Sequence[Any]]
    lang: Lang

    def __len__(self) -> int:
        return len(self.values[self.columns[0].key])

    @property
    def headings(self) -> list[str]:
        """The headings of the columns; two that are equal are told apart by their keys."""
        found = [column.heading(self.lang) for column in self.columns]
        return [
            f"{heading} ({column.key})" if found.count(heading) > 1 else heading
            for heading, column in zip(found, self.columns, strict=True)
        ]

    def cells(self, column: ListColumn) -> list[str]:
        """The values of a column in words."""
        return [column.cell(value, self.lang) for value in self.values[column.key]]


def write_list(people: PeopleList, path: Path, *, bom: bool = False) -> Path:
    """Write a list atomically, with headings in its language.

    Parameters
    ----------
    people : PeopleList
        The list.
    path : Path
        ``.csv`` or ``.parquet``. In Parquet, numbers stay numbers.
    bom : bool
        Begin the CSV with a byte order mark, without which some spreadsheets do not read it as UTF-8.
    """
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(_table(people), temporary, compression="zstd")
            return path
        cells = [
            column if numeric else [without_formula(cell) for cell in column]
            for column, numeric in ((people.cells(one), one.kind in NUMERIC_KINDS) for one in people.columns)
        ]
        with temporary.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow([without_formula(heading) for heading in people.headings])
            writer.writerows(zip(*cells, strict=True))
    return path


def _table(people: PeopleList) -> pa.Table:
    arrays = [
        pa.array(people.values[column.key], pa.float64(), from_pandas=True)
        if column.kind in NUMERIC_KINDS
        else pa.array(people.cells(column), pa.string())
        for column in people.columns
    ]
    return pa.table(dict(zip(people.headings, arrays, strict=True)))


def without_formula(cell: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like a formula gets an apostrophe before it.

    Examples
    --------
    >>> without_formula("=1+1"), without_formula("C-17")
    ("'=1+1", 'C-17')
    """
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell
