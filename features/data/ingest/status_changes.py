"""Order lines whose status changed: a known line that is refunded or cancelled later is replaced by its newer row.

The row with the key of a known line, of the same customer, item and time, and with another status is newer, and takes
its place. A refund of a part is a row of its own beside the sale, as a credit note is. A row whose quantity and amount
the export emptied keeps the known ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from features.data.ingest.columns import column_list
from features.data.ingest.merge_rows import MergeRows
from features.data.ingest.order_lines import MONEY, skeleton

TOLERANCE = 1e-6  # of quantities and amounts, absolute
IN_LAKE = -1  # `row` of a line of the lake
TURNED, REPLACED = "turned_lines", "replaced_lines"


@dataclass(frozen=True)
class Line:
    """One state of an order line.

    Attributes
    ----------
    row : int
        `_row` of the staged row, or `IN_LAKE`.
    status : str
        Its status; "" if the source has no status.
    negative : bool
        Quantity or amount was negative, so the row is a credit note.
    skeleton : int
        Hash of all that a change of the status leaves: customer, item, time …
    money : tuple of float or None
        The columns `MONEY`.
    """

    row: int
    status: str
    negative: bool
    skeleton: int
    money: tuple[float | None, ...]

    @property
    def emptied(self) -> bool:
        """Whether a refund or cancellation no longer says how much it was."""
        return self.status not in ("paid", "") and not (self.money[0] or self.money[1])

    def equals(self, other: Line) -> bool:
        """Whether the rows have the same content; a row without a status says nothing about it."""
        return self.money == other.money and (self.status == other.status or not self.status)


@dataclass(frozen=True)
class State:
    """An order line, and the refund of a part of it; either may be missing."""

    line: Line | None = None
    part: Line | None = None

    def equals(self, other: State) -> bool:
        pairs = ((self.line, other.line), (self.part, other.part))
        return all(a is b or (a is not None and b is not None and a.equals(b)) for a, b in pairs)


@dataclass(frozen=True)
class StatusChanges:
    """Number of lines whose status changed, and of lake rows that kept rows replace."""

    changed: int = 0
    updated: int = 0


def part_number(line_no: str) -> str:
    """SQL of the line number of the refund of a part: negative, so that it differs from those of the source."""
    return f"(-1 - {line_no})"


def follow(state: State, row: Line) -> State | None:
    """The state after a newer row with the same key; None if the row conflicts with it.

    Examples
    --------
    >>> sale = State(Line(IN_LAKE, "paid", False, 7, (3.0, 300.0, None, None)))
    >>> follow(sale, Line(0, "refunded", False, 7, (3.0, 300.0, None, None))).line.status
    'refunded'
    >>> after = follow(sale, Line(0, "refunded", False, 7, (1.0, 100.0, None, None)))
    >>> after.line.money[:2], after.part.money[:2]
    ((3.0, 300.0), (1.0, 100.0))
    """
    line = state.line
    if line is None:
        return State(row)
    if row.skeleton != line.skeleton:
        return None
    if row.equals(line) or (state.part is not None and row.equals(state.part)):
        return state
    if row.status in (line.status, ""):
        return state if row.emptied else None
    if row.status == "paid":  # sold after all, or the sale that belongs to a credit note
        return State(row, line if line.negative else None)
    if row.negative or (row.status == "refunded" and line.status == "paid" and _is_part(row, line)):
        return State(line, _with_amount(row, line))
    if not row.emptied and any(_exceeds(*pair) for pair in zip(row.money[:2], line.money[:2], strict=True)):
        return None
    return State(replace(row, money=line.money) if row.emptied else row)


def _exceeds(new: float | None, known: float | None) -> bool:
    return (new or 0.0) > (known or 0.0) + TOLERANCE


def _is_part(row: Line, line: Line) -> bool:
    return not row.emptied and any(
        _exceeds(known, new) for new, known in zip(row.money[:2], line.money[:2], strict=True) if new is not None
    )


def _with_amount(row: Line, line: Line) -> Line:
    """A refund that says how many units came back, but not for how much, gets its share of the amount."""
    quantity, amount = row.money[:2]
    if quantity and not amount and line.money[0] and line.money[1]:
        amount = round(line.money[1] * min(quantity / line.money[0], 1.0), 2)
    return replace(row, money=(quantity, amount, *row.money[2:]))


def settle_status(connection: duckdb.DuckDBPyConnection, rows: MergeRows) -> StatusChanges:
    """Find status changes among the conflicting rows, and correct the verdicts of the rows of their keys.

    Creates the temp tables `TURNED` (_row, line_no, `MONEY`) of the kept rows, and `REPLACED` (source, order_id,
    line_no) of the lake's rows that they replace.

    Parameters
    ----------
    rows : MergeRows
        `good` has `_negative` too; in `verdicts`, all rows with the key of another row and different content are
        conflicts.
    """
    good, known, verdicts = rows.good, rows.known, rows.verdicts
    numbers = ", ".join(f"{name} DOUBLE" for name in MONEY)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {TURNED} (_row BIGINT, line_no BIGINT, {numbers})")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {REPLACED} (source VARCHAR, order_id VARCHAR, line_no BIGINT)")
    keys = column_list(rows.table.key)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE conflict_keys AS SELECT DISTINCT {keys} FROM ({good}) "
        f"WHERE _row IN (SELECT _row FROM {verdicts} WHERE verdict = 'conflict')"
    )
    stays = column_list(skeleton(rows.told))
    status = "status" if "status" in rows.staged.mapped else "CASE WHEN _negative THEN status ELSE '' END"
    money = column_list(MONEY)
    parts = f"SELECT source, order_id, {part_number('line_no')} AS line_no FROM conflict_keys"
    found = connection.execute(
        f"SELECT {keys}, false AS is_part, _row, {status} AS status, _negative, hash({stays}) AS skeleton, {money} "
        f"FROM ({good}) SEMI JOIN conflict_keys USING ({keys}) UNION ALL "
        f"SELECT {keys}, false, {IN_LAKE}, status, false, hash({stays}), {money} "
        f"FROM ({known}) SEMI JOIN conflict_keys USING ({keys}) UNION ALL "
        f"SELECT source, order_id, {part_number('line_no')}, true, {IN_LAKE}, status, false, hash({stays}), {money} "
        f"FROM ({known}) SEMI JOIN ({parts}) USING ({keys}) ORDER BY {keys}, _row, is_part"
    )
    settled = _Settled()
    for key, members in groupby(_stream(found), key=lambda row: row[:3]):
        lines = list(members)
        if any(row[5] not in ("paid", "") for row in lines):
            settled.settle(key, lines)
    settled.store(connection, verdicts)
    return StatusChanges(settled.changed, settled.updated)


def _stream(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while chunk := result.fetchmany(10_000):
        yield from chunk


class _Settled:
    """The verdicts of the rows of all keys with a changed status."""

    def __init__(self) -> None:
        self.verdicts: list[tuple[int, str | None]] = []
        self.turned: list[tuple[Any, ...]] = []
        self.replaced: list[tuple[Any, ...]] = []
        self.changed = self.updated = 0

    def settle(self, key: tuple[Any, ...], members: Sequence[tuple[Any, ...]]) -> None:
        lines = [(row[3], Line(row[4], row[5], row[6], row[7], tuple(row[8:]))) for row in members]
        known = State(
            next((line for is_part, line in lines if line.row == IN_LAKE and not is_part), None),
            next((line for is_part, line in lines if is_part), None),
        )
        state = known
        applied: list[tuple[Line, State]] = []
        for _, line in lines:
            if line.row == IN_LAKE:
                continue
            after = follow(state, line)
            if after is None:
                self.verdicts.append((line.row, "conflict"))
            else:
                state = after
                applied.append((line, after))
        if known.line is not None and state.equals(known):
            state = known
        elif known.line is not None and state.line is not None and state.line.equals(known.line):
            state = State(known.line, state.part)
        kept = {line.row for line in (state.line, state.part) if line is not None and line.row != IN_LAKE}
        for line, after in applied:
            stays = after.equals(state) or any(part and line.equals(part) for part in (state.line, state.part))
            verdict = "duplicate" if stays else "superseded"
            self.verdicts.append((line.row, None if line.row in kept else verdict))
        source, order_id, line_no = key
        for before, after_line, number in (
            (known.line, state.line, line_no),
            (known.part, state.part, -1 - line_no),
        ):
            if before is not None and before is not after_line:
                self.replaced.append((source, order_id, number))
                self.updated += after_line is not None
            if after_line is not None and after_line.row != IN_LAKE:
                self.turned.append((after_line.row, number, *after_line.money))
        self.changed += bool(kept) and len({line.status for _, line in lines}) > 1

    def store(self, connection: duckdb.DuckDBPyConnection, verdicts: str) -> None:
        """Replace the verdicts of the settled rows, and store which rows are turned and replaced."""
        if not self.verdicts:
            return
        _insert(connection, "settled_rows", self.verdicts, {"_row": pa.int64(), "verdict": pa.string()})
        connection.execute(f"DELETE FROM {verdicts} WHERE _row IN (SELECT _row FROM settled_rows)")
        connection.execute(f"INSERT INTO {verdicts} SELECT _row, verdict FROM settled_rows WHERE verdict IS NOT NULL")
        if self.turned:
            types = {"_row": pa.int64(), "line_no": pa.int64(), **dict.fromkeys(MONEY, pa.float64())}
            _insert(connection, TURNED, self.turned, types)
        if self.replaced:
            types = {"source": pa.string(), "order_id": pa.string(), "line_no": pa.int64()}
            _insert(connection, REPLACED, self.replaced, types)


def _insert(
    connection: duckdb.DuckDBPyConnection, name: str, rows: Sequence[tuple[Any, ...]], types: dict[str, pa.DataType]
) -> None:
    columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types.values(), strict=True)]
    connection.register("inserted_rows", pa.table(dict(zip(types, columns, strict=True))))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM inserted_rows")
    connection.unregister("inserted_rows")
