"""What an ingest did, in numbers that must add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TableReport:
    """The account of one table.

    Attributes
    ----------
    read : int
        Rows found in the input; always kept + duplicates + quarantined.
    kept : int
        Rows that were new, or newer than what the lake had.
    duplicates : int
        Rows whose key and content were already there.
    quarantined : int
        Rows refused, each with a reason, in the quarantine folder.
    updated : int
        The part of `kept` that replaced an older row of the same key.
    flags : mapping of str to int
        Rows kept although something about them is odd.
    reasons : mapping of str to int
        Why rows were quarantined.
    quarantine_file : str or None
        Where they are.
    """

    read: int
    kept: int
    duplicates: int
    quarantined: int
    updated: int = 0
    flags: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    quarantine_file: str | None = None

    def __post_init__(self) -> None:
        if (
            self.read != self.kept + self.duplicates + self.quarantined
            or sum(self.reasons.values()) != self.quarantined
        ):
            raise AssertionError(f"rows do not add up: {self}")  # a bug here, never the user's fault

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "flags": dict(self.flags), "reasons": dict(self.reasons)}


@dataclass(frozen=True)
class IngestReport:
    """The account of one ingest, table by table.

    Examples
    --------
    >>> report = IngestReport("shop", {"items": TableReport(read=3, kept=2, duplicates=1, quarantined=0)}, 0.5, "0" * 16)
    >>> report.read, report.kept
    (3, 2)
    """

    source: str
    tables: Mapping[str, TableReport]
    seconds: float
    digest: str

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
            "tables": {name: table.as_dict() for name, table in self.tables.items()},
        }
