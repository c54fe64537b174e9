"""The merge ledger: the append-only list of all decisions about which records are one customer.

It is a folder of numbered Parquet files under ``identity/ledger/`` of the workspace, outside the lake, so that
decisions by people survive when the lake is deleted and ingested again. A file is written to a temporary name and
renamed. `ledger_id` is a digest of the decision: the same decision always has the same id, and of several entries with
one id the last is in force.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from features.data.lake import literal
from qianmian.errors import DataError
from qianmian.paths import exact_pattern
from qianmian.workspace import Workspace, atomic_path

LEDGER_COLUMNS = {
    "sequence": "BIGINT",
    "ledger_id": "VARCHAR",
    "action": "VARCHAR",
    "left_source": "VARCHAR",
    "left_source_user_id": "VARCHAR",
    "right_source": "VARCHAR",
    "right_source_user_id": "VARCHAR",
    "id_type": "VARCHAR",
    "id_value": "VARCHAR",
    "observed_at": "TIMESTAMP",
    "decided_at": "TIMESTAMP",
    "rule": "VARCHAR",
    "reason": "VARCHAR",
    "source": "VARCHAR",
    "refers_to": "VARCHAR",
}
MERGE, CONFLICT, SHARED, WITHDRAW, UNMERGE, REMERGE = "merge", "conflict", "shared", "withdraw", "unmerge", "remerge"
RESOLVER_ACTIONS = (MERGE, CONFLICT, SHARED)  # decisions of a resolution; the other actions undo one
RecordKey = tuple[str, str]


@dataclass(frozen=True)
class LedgerEntry:
    """One entry of the ledger.

    Attributes
    ----------
    action : str
        ``merge``, ``conflict`` or ``shared`` (decisions of a resolution), ``withdraw`` (such a decision ended),
        ``unmerge`` or ``remerge`` (decisions of a person).
    left, right : (source, source_user_id) or None
        Records of the decision.
    observed_at : datetime or None
        Time from which the decision holds; None for always.
    refers_to : str or None
        Decision that an unmerge or remerge undoes.
    """

    sequence: int
    ledger_id: str
    action: str
    left: RecordKey | None
    right: RecordKey | None
    id_type: str | None
    id_value: str | None
    observed_at: datetime | None
    decided_at: datetime | None
    rule: str | None
    reason: str | None
    source: str | None
    refers_to: str | None

    def as_dict(self) -> dict[str, object]:
        return dict(self.__dict__)


class Ledger:
    """The merge ledger of one workspace; its methods write entries or return SQL for a DuckDB connection."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.root / "identity" / "ledger"

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def relation(self) -> str:
        """SELECT of all entries."""
        files = ", ".join(literal(exact_pattern(path)) for path in self.files())
        if files:
            return f"SELECT {', '.join(LEDGER_COLUMNS)} FROM read_parquet([{files}], hive_partitioning=false)"
        return f"SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in LEDGER_COLUMNS.items())} WHERE false"

    def active_decisions(self) -> str:
        """SELECT of the last entry of each decision of a resolution, including those that are withdrawn."""
        found = ", ".join(literal(action) for action in RESOLVER_ACTIONS)
        return (
            f"SELECT * FROM ({self.relation()}) WHERE action IN ({found}, {literal(WITHDRAW)}) "
            f"QUALIFY row_number() OVER (PARTITION BY ledger_id ORDER BY sequence DESC) = 1"
        )

    def unmerged_pairs(self) -> str:
        """SELECT of the unmerges in force, that is, not undone by a later remerge."""
        return (
            f"SELECT * FROM ({self.relation()}) AS u WHERE action = {literal(UNMERGE)} "
            f"AND NOT EXISTS (SELECT 1 FROM ({self.relation()}) AS r WHERE r.action = {literal(REMERGE)} "
            "AND r.refers_to = u.ledger_id AND r.sequence > u.sequence)"
        )

    def append(self, connection: duckdb.DuckDBPyConnection, entries: str) -> int:
        """Append the rows of a SELECT and return their number; it has all columns of the ledger except `sequence`."""
        last = connection.execute(
            f"SELECT coalesce(max(sequence), 0), (SELECT count(*) FROM ({entries})) FROM ({self.relation()})"
        ).fetchone()
        before, count = last or (0, 0)
        if not count:
            return 0
        files = self.files()
        number = int(files[-1].stem) + 1 if files else 1
        names = ", ".join(f"{name}::{kind} AS {name}" for name, kind in LEDGER_COLUMNS.items() if name != "sequence")
        with atomic_path(self.folder / f"{number:08d}.parquet") as temporary:
            connection.execute(
                f"COPY (SELECT {int(before)} + row_number() OVER () AS sequence, * "
                f"FROM (SELECT {names} FROM ({entries}) ORDER BY ledger_id)) "
                f"TO {literal(temporary)} (FORMAT parquet, COMPRESSION zstd)"
            )
        return int(count)

    def entries(self, condition: str = "true", limit: int | None = None) -> list[LedgerEntry]:
        """Entries that satisfy a SQL condition, oldest first."""
        names = ", ".join(LEDGER_COLUMNS)
        with duckdb.connect() as connection:
            query = f"SELECT {names} FROM ({self.relation()}) WHERE {condition} ORDER BY sequence" + (
                f" LIMIT {limit}" if limit else ""
            )
            return [_entry(row) for row in connection.execute(query).fetchall()]

    def digest(self) -> str:
        """Digest of all unmerges and remerges."""
        decided = self.entries(f"action IN ({literal(UNMERGE)}, {literal(REMERGE)})")
        return hashlib.sha256(
            repr([(entry.sequence, entry.ledger_id, entry.refers_to) for entry in decided]).encode()
        ).hexdigest()[:16]

    def unmerge(
        self, left: RecordKey, right: RecordKey, reason: str, decided_at: datetime | None, refers_to: str | None
    ) -> LedgerEntry:
        """Append an unmerge: the two records must never be one customer again."""
        return self._append_decision(UNMERGE, left, right, reason, decided_at, refers_to, "must never be one customer")

    def remerge(self, unmerge: LedgerEntry, reason: str, decided_at: datetime | None) -> LedgerEntry:
        """Append a remerge: `unmerge` is no longer in force."""
        if unmerge.left is None or unmerge.right is None:
            raise DataError("the unmerge in the ledger has no records", where=str(self.folder), got=unmerge.ledger_id)
        return self._append_decision(
            REMERGE,
            unmerge.left,
            unmerge.right,
            reason,
            decided_at,
            unmerge.ledger_id,
            "the unmerge is no longer in force",
        )

    def _append_decision(
        self,
        action: str,
        left: RecordKey,
        right: RecordKey,
        reason: str,
        decided_at: datetime | None,
        refers_to: str | None,
        rule: str,
    ) -> LedgerEntry:
        number = 1 + (self.entries()[-1].sequence if self.files() else 0)
        # not "u", because a one_id begins with it
        ledger_id = {UNMERGE: "x", REMERGE: "r"}[action] + hashlib.sha256(
            "\x1f".join([action, *left, *right, str(number)]).encode()
        ).hexdigest()[:16]
        values = [ledger_id, action, *left, *right, None, None, None, decided_at, rule, reason, "person", refers_to]
        with duckdb.connect() as connection:
            columns = ", ".join(f"{name} {kind}" for name, kind in LEDGER_COLUMNS.items() if name != "sequence")
            connection.execute(f"CREATE TEMP TABLE decision ({columns})")
            connection.execute(f"INSERT INTO decision VALUES ({', '.join('?' for _ in values)})", values)
            self.append(connection, "SELECT * FROM decision")
        return self.entries(f"ledger_id = {literal(ledger_id)}")[-1]


def _entry(row: tuple[object, ...]) -> LedgerEntry:
    values: dict[str, Any] = dict(zip(LEDGER_COLUMNS, row, strict=True))
    left, right = ((values.pop(f"{side}_source"), values.pop(f"{side}_source_user_id")) for side in ("left", "right"))
    return LedgerEntry(
        left=left if left[1] is not None else None, right=right if right[1] is not None else None, **values
    )
