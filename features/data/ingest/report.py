"""Row counts of an ingest; they must add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from features.data.ingest.checks import IngestWarning
from features.data.ingest.contract import StagedTable
from features.data.lake import quote

EXAMPLES = 3  # values of each column that a preview shows
EXAMPLE_ROWS = 1000


@dataclass(frozen=True)
class TableReport:
    """Row counts of one table.

    Attributes
    ----------
    read : int
        Rows of the input; always kept + duplicates + quarantined + erased.
    kept : int
        Rows that are new, or newer than those of the lake.
    duplicates : int
        Rows that the lake has already, or that a later row of the input replaces.
    quarantined : int
        Rejected rows, written to the quarantine folder with a reason.
    updated : int
        Kept rows that replaced an older row with the same key.
    flags : mapping of str to int
        Kept rows with an unusual property, by the name of the flag.
    reasons : mapping of str to int
        Quarantined rows by reason.
    erased : int
        Rows of users who were erased, which were dropped.
    quarantine_file : str or None
        File with the quarantined rows.
    hashed, readable : tuple of str
        Attributes that the source adds to a profile: stored as hashes, and as they are.
    """

    read: int
    kept: int
    duplicates: int
    quarantined: int
    updated: int = 0
    flags: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    erased: int = 0
    quarantine_file: str | None = None
    hashed: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.read != self.accepted + self.quarantined or sum(self.reasons.values()) != self.quarantined:
            raise AssertionError(f"rows do not add up: {self}")  # a bug in this package, not a user error

    @property
    def accepted(self) -> int:
        """Rows that were read as they should be, whether or not they are new."""
        return self.kept + self.duplicates + self.erased

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "flags": dict(self.flags), "reasons": dict(self.reasons)}


@dataclass(frozen=True)
class IngestReport:
    """What one ingest did, or would do.

    Attributes
    ----------
    source : str
        Name of the source.
    tables : mapping of str to TableReport
        Row counts by table.
    seconds : float
        Duration.
    digest : str
        Digest of the lake after it.
    warnings : tuple of IngestWarning
        What looks wrong in rows that are valid.
    errors : tuple of str
        Preview only: what would make the ingest fail.
    examples : mapping of str to mapping
        Preview only: table → column → some of its values.

    Examples
    --------
    >>> items = TableReport(read=3, kept=2, duplicates=1, quarantined=0)
    >>> report = IngestReport("shop", {"items": items}, 0.5, "0" * 16)
    >>> report.read, report.kept
    (3, 2)
    """

    source: str
    tables: Mapping[str, TableReport]
    seconds: float
    digest: str
    warnings: tuple[IngestWarning, ...] = ()
    errors: tuple[str, ...] = ()
    examples: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)

    @property
    def read(self) -> int:
        return sum(table.read for table in self.tables.values())

    @property
    def kept(self) -> int:
        return sum(table.kept for table in self.tables.values())

    @property
    def duplicates(self) -> int:
        return sum(table.duplicates for table in self.tables.values())

    @property
    def quarantined(self) -> int:
        return sum(table.quarantined for table in self.tables.values())

    @property
    def erased(self) -> int:
        return sum(table.erased for table in self.tables.values())

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "digest": self.digest,
            "read": self.read,
            "kept": self.kept,
            "duplicates": self.duplicates,
            "quarantined": self.quarantined,
            "erased": self.erased,
            "tables": {name: table.as_dict() for name, table in self.tables.items()},
            "warnings": [warning.as_dict() for warning in self.warnings],
        }


def mapped_examples(connection: duckdb.DuckDBPyConnection, staged: StagedTable) -> dict[str, list[str]]:
    """Up to `EXAMPLES` different values of each mapped column in the order of the rows, as they would be stored."""
    names = [name for name in staged.columns if name in staged.mapped]
    picked = ", ".join(f"{quote(name)}::VARCHAR" for name in names)
    rows = connection.execute(
        f"SELECT {picked} FROM {staged.typed} WHERE _reason IS NULL ORDER BY _row LIMIT {EXAMPLE_ROWS}"
    ).fetchall()
    values = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {
        name: list(dict.fromkeys(value for value in column if value is not None))[:EXAMPLES]
        for name, column in zip(names, values, strict=True)
    }
