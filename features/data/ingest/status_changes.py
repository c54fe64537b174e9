"""Order lines whose status changed: a known line that is refunded or cancelled later is replaced by its newer row.

The row with the key of a known line, of the same customer, item and time, and with another status is newer, and takes
its place. A refund of a part is a row of its own beside the sale, as a credit note is; so is a refund with a time of
its own, of which a line may have several. A row whose quantity and amount the export emptied keeps the known ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from features.data.ingest.columns import column_list
from features.data.ingest.merge_rows import MergeRows
from features.data.ingest.order_lines import MONEY, skeleton

TOLERANCE = 1e-6  # of quantities and amounts, absolute
IN_LAKE = -1  # `row` of a line of the lake
SAME_DAY = timedelta(days=1)  # a refund that is dated without a clock time may seem to lie before its sale
SALE = ("paid", "")  # a row without a status is a sale, unless its numbers are negative
TURNED, REPLACED, MOVED = "turned_lines", "replaced_lines", "moved_lines"
FIRST_REFUND = -(1 << 60)  # the line numbers of refunds with a time of their own lie below it


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
        Hash of all but the time that a change of the status leaves: customer, item …
    ts : datetime or None
        Its time; None if the source has none.
    money : tuple of float or None
        The columns `MONEY`.
    """

    row: int
    status: str
    negative: bool
    skeleton: int
    ts: datetime | None
    money: tuple[float | None, ...]

    @property
    def emptied(self) -> bool:
        """Whether a refund or cancellation no longer says how much it was."""
        return self.status not in ("paid", "") and not (self.money[0] or self.money[1])

    def equals(self, other: Line) -> bool:
        """Whether the rows have the same content; a row without a status says nothing about it."""
        same_status = self.status == other.status or not self.status
        return self.ts == other.ts and self.money == other.money and same_status


@dataclass(frozen=True)
class State:
    """An order line, the refund of a part of it, and its refunds with another time; each may be missing.

    Without a sale, the earliest refund is the line.
    """

    line: Line | None = None
    part: Line | None = None
    refunds: Mapping[datetime, Line] = field(default_factory=dict)

    def by_number(self, line_no: int) -> dict[int, Line]:
        """The rows by the line numbers under which the lake holds them."""
        rows = {line_no: self.line, -1 - line_no: self.part}
        rows |= {refund_number(line_no, ts): refund for ts, refund in self.refunds.items()}
        return {number: row for number, row in rows.items() if row is not None}

    def equals(self, other: State) -> bool:
        mine, others = self.by_number(0), other.by_number(0)
        return mine.keys() == others.keys() and all(row.equals(others[number]) for number, row in mine.items())


@dataclass(frozen=True)
class StatusChanges:
    """Number of lines whose status changed, and of lake rows that kept rows replace.

    `applied` says whether rows were turned, replaced or moved: `changed_rows` then differs from the rows as they came.
    """

    changed: int = 0
    updated: int = 0
    applied: bool = False


def part_number(line_no: str) -> str:
    """SQL of the line number of the refund of a part: negative, so that it differs from those of the source."""
    return f"(-1 - {line_no})"


def refund_number(line_no: int, ts: datetime) -> int:
    """The line number of a refund with a time of its own: the same for the same line and time in every ingest."""
    digest = hashlib.blake2b(f"{line_no} {ts.isoformat()}".encode(), digest_size=7).digest()
    return FIRST_REFUND - int.from_bytes(digest, "big")


def follow(state: State, row: Line) -> State | None:
    """The state after a newer row with the same key; None if the row conflicts with it.

    Examples
    --------
    >>> sale = State(Line(IN_LAKE, "paid", False, 7, None, (3.0, 300.0, None, None)))
    >>> follow(sale, Line(0, "refunded", False, 7, None, (3.0, 300.0, None, None))).line.status
    'refunded'
    >>> after = follow(sale, Line(0, "refunded", False, 7, None, (1.0, 100.0, None, None)))
    >>> after.line.money[:2], after.part.money[:2]
    ((3.0, 300.0), (1.0, 100.0))
    """
    line = state.line
    if line is None:
        return State(row)
    if row.skeleton != line.skeleton:
        return None
    if row.ts != line.ts:
        return _beside(state, line, row)
    if row.equals(line) or (state.part is not None and row.equals(state.part)):
        return state
    if row.status in (line.status, ""):
        return state if row.emptied else None
    if row.status == "paid":  # sold after all, or the sale that belongs to a credit note
        return replace(state, line=row, part=line if line.negative else None)
    if row.negative or (row.status == "refunded" and line.status == "paid" and _is_part(row, line)):
        return replace(state, part=_with_amount(row, line))
    if not row.emptied and any(_exceeds(*pair) for pair in zip(row.money[:2], line.money[:2], strict=True)):
        return None
    return replace(state, line=replace(row, money=line.money) if row.emptied else row, part=None)


def _beside(state: State, line: Line, row: Line) -> State | None:
    """The state after a row with another time than the known line: a refund of it, or the sale of known refunds."""
    if row.ts is None or line.ts is None or row.emptied or line.emptied:
        return None
    known = state.refunds.get(row.ts)
    if known is not None:
        return state if row.equals(known) else None
    if row.status == "refunded" and line.status == "refunded":
        first, second = (row, line) if row.ts < line.ts else (line, row)
        return replace(state, line=first, refunds={**state.refunds, **_by_time(second)})
    if row.status == "refunded" and line.status in SALE and row.ts > line.ts - SAME_DAY:
        return replace(state, refunds={**state.refunds, **_by_time(row)})
    if row.status in SALE and line.status == "refunded" and line.ts > row.ts - SAME_DAY:
        return replace(state, line=row, refunds={**state.refunds, **_by_time(line)})
    return None


def _by_time(refund: Line) -> dict[datetime, Line]:
    return {refund.ts: refund} if refund.ts is not None else {}


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

    Creates the temp tables `TURNED` (_row, line_no, `MONEY`) of the kept rows, `REPLACED` (source, order_id, line_no)
    of the lake's rows that they replace, and `MOVED` (the same, and `number`) of those that get another line number.

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
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {MOVED} (source VARCHAR, order_id VARCHAR, line_no BIGINT, number BIGINT)"
    )
    keys = column_list(rows.table.key)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE conflict_keys AS SELECT DISTINCT {keys} FROM ({good}) "
        f"WHERE _row IN (SELECT _row FROM {verdicts} WHERE verdict = 'conflict')"
    )
    stays = column_list(name for name in skeleton(rows.told) if name != "ts")
    ts = "ts" if "ts" in rows.told else "NULL::TIMESTAMP AS ts"
    rest = f"hash({stays}) AS skeleton, {ts}, {column_list(MONEY)}"
    status = "status" if "status" in rows.staged.mapped else "CASE WHEN _negative THEN status ELSE '' END"
    parts = f"SELECT source, order_id, {part_number('line_no')} AS line_no FROM conflict_keys"
    refunds: dict[tuple[str, str, int], Line] = {}
    if ts == "ts":
        own = connection.execute(
            f"SELECT {keys}, status, {rest} FROM ({known}) SEMI JOIN conflict_keys "
            f"USING (source, order_id) WHERE line_no < {FIRST_REFUND}"
        ).fetchall()
        refunds = {row[:3]: Line(IN_LAKE, row[3], False, row[4], row[5], row[6:]) for row in own}
    found = connection.execute(
        f"SELECT {keys}, false AS is_part, _row, {status} AS status, _negative, {rest} "
        f"FROM ({good}) SEMI JOIN conflict_keys USING ({keys}) UNION ALL "
        f"SELECT {keys}, false, {IN_LAKE}, status, false, {rest} "
        f"FROM ({known}) SEMI JOIN conflict_keys USING ({keys}) UNION ALL "
        f"SELECT source, order_id, {part_number('line_no')}, true, {IN_LAKE}, status, false, {rest} "
        f"FROM ({known}) SEMI JOIN ({parts}) USING ({keys}) ORDER BY {keys}, _row, is_part"
    )
    settled = _Settled(refunds)
    for key, members in groupby(_stream(found), key=lambda row: row[:3]):
        lines = list(members)
        if any(row[5] not in ("paid", "") for row in lines):
            settled.settle(key, lines)
    settled.store(connection, verdicts)
    return StatusChanges(settled.changed, settled.updated, bool(settled.turned or settled.replaced or settled.moved))


def _stream(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while chunk := result.fetchmany(10_000):
        yield from chunk


class _Settled:
    """The verdicts of the rows of all keys with a changed status.

    `refunds` are the rows of the lake with a time of their own, by source, order and line number.
    """

    def __init__(self, refunds: Mapping[tuple[str, str, int], Line]) -> None:
        self.refunds: dict[tuple[str, str], dict[int, Line]] = {}
        for (source, order_id, number), refund in refunds.items():
            self.refunds.setdefault((source, order_id), {})[number] = refund
        self.verdicts: list[tuple[int, str | None]] = []
        self.turned: list[tuple[Any, ...]] = []
        self.replaced: list[tuple[Any, ...]] = []
        self.moved: list[tuple[Any, ...]] = []
        self.changed = self.updated = 0

    def settle(self, key: tuple[Any, ...], members: Sequence[tuple[Any, ...]]) -> None:
        source, order_id, line_no = key
        lines = [(row[3], Line(row[4], row[5], row[6], row[7], row[8], tuple(row[9:]))) for row in members]
        of_order = self.refunds.get((source, order_id), {})
        known = State(
            next((line for is_part, line in lines if line.row == IN_LAKE and not is_part), None),
            next((line for is_part, line in lines if is_part), None),
            {row.ts: row for number, row in of_order.items() if row.ts and refund_number(line_no, row.ts) == number},
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
            state = replace(state, line=known.line)
        before, now = known.by_number(line_no), state.by_number(line_no)
        kept = {line.row for line in now.values() if line.row != IN_LAKE}
        for line, after in applied:
            stays = after.equals(state) or any(line.equals(other) for other in now.values())
            verdict = "duplicate" if stays else "superseded"
            self.verdicts.append((line.row, None if line.row in kept else verdict))
        for number, line in before.items():
            if now.get(number) is line:
                continue
            moved = next((other for other, row in now.items() if row is line), None)
            if moved is None:
                self.replaced.append((source, order_id, number))
                self.updated += number in now
            else:
                self.moved.append((source, order_id, number, moved))
        self.turned += [(line.row, number, *line.money) for number, line in now.items() if line.row != IN_LAKE]
        at = state.line.ts if state.line else None
        changes = kept & {line.row for line in (state.line, state.part) if line is not None}
        self.changed += bool(changes) and len({line.status for _, line in lines if line.ts == at}) > 1

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
        if self.moved:
            types = {"source": pa.string(), "order_id": pa.string(), "line_no": pa.int64(), "number": pa.int64()}
            _insert(connection, MOVED, self.moved, types)
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
