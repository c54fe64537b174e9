"""Order lines whose status changed: a known line that is refunded or cancelled later is replaced by its newer row.

The row with the key of a known line, of the same customer, item and time, and with another status is newer, and takes
its place. A refund of a part is a row of its own beside the sale, as a credit note is; so is a refund with a time of
its own, of which a line may have several. A cancellation takes the place of its sale whatever its time. A row whose
quantity and amount the export emptied keeps the known ones (`features.data.line_states`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from features.data.ingest.columns import column_list
from features.data.ingest.merge_rows import MergeRows
from features.data.ingest.order_lines import MONEY, skeleton
from features.data.line_states import FIRST_REFUND, IN_LAKE, Line, State, follow, refund_number

TURNED, REPLACED, MOVED = "turned_lines", "replaced_lines", "moved_lines"


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
