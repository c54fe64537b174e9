"""Numbers of order lines without a mapped `line_no`: one line in two exports is one line.

A line is known by its order, its content, and how often the same content came before it in the same file. Lines of one
order that come in several files, or in a file and in the lake, are paired by that, so the order holds each content as
often as the file (or the lake) that holds it most often. A pair gets the same number, and the merge of facts counts the
second row as a duplicate. A line without a counterpart is a further line, numbered after those that came first.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import duckdb
import pyarrow as pa

from features.data.ingest.columns import content_hash
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge_rows import MergeRows

MONEY = ("quantity", "amount", "discount", "coupon_discount")
EMPTIED = "coalesce(quantity, 0) = 0 AND coalesce(amount, 0) = 0"
FURTHER, PLACED = "further_lines", "placed_lines"


@dataclass(frozen=True)
class SharedOrders:
    """Orders that occur in several inputs: files, or a file and the lake.

    Attributes
    ----------
    differing : str
        Temp table (source, order_id) of the orders whose lines differ between the inputs; they are numbered anew.
    duplicates : str
        SELECT _row of the rows of all other shared orders that repeat an earlier input.
    further : int
        Number of lines that were added to an order after its first input; they are in the temp table `FURTHER`.
    """

    differing: str
    duplicates: str
    further: int


def skeleton(names: Sequence[str]) -> list[str]:
    """Of the compared columns, those that stay when the status of a line changes."""
    return [name for name in names if name not in ("line_no", "status", *MONEY)]


def number_lines(connection: duckdb.DuckDBPyConnection, rows: MergeRows) -> SharedOrders | None:
    """Number the lines of orders that occur in several inputs; None if there is no such order.

    Changes `line_no` in the staged rows.

    Parameters
    ----------
    rows : MergeRows
        `good` has `_file` and `_negative` too.
    """
    staged, good, known = rows.staged, rows.good, rows.known
    in_lake = connection.execute(f"SELECT 1 FROM ({known}) LIMIT 1").fetchone() is not None
    if len(staged.files) < 2 and not in_lake:
        return None
    told = [name for name in rows.told if name != "line_no"]
    # The lake is the first input (side 0), then each file in the order in which it was read.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE line_files AS SELECT _file, row_number() OVER (ORDER BY min(_row)) AS _side "
        f"FROM {staged.typed} GROUP BY _file"
    )
    new = f"SELECT g.*, f._side FROM ({good}) AS g JOIN line_files AS f USING (_file)"
    old = f"SELECT *, 0 AS _side FROM ({known}) AS k SEMI JOIN ({good}) AS g USING (source, order_id)"
    whole = f"SELECT source, order_id, _side, {content_hash(told)} AS content"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE shared_orders AS "
        "SELECT source, order_id, min(_side) AS first_side, min(lines) <> max(lines) OR min(content) <> max(content) "
        "AS differs FROM (SELECT source, order_id, _side, count(*) AS lines, sum(content) AS content FROM "
        f"({whole} FROM ({new}) UNION ALL {whole} FROM ({old})) GROUP BY ALL) GROUP BY ALL HAVING count(*) > 1"
    )
    if connection.execute("SELECT 1 FROM shared_orders LIMIT 1").fetchone() is None:
        return None
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE differing_orders AS SELECT source, order_id FROM shared_orders WHERE differs"
    )
    duplicates = (
        f"SELECT n._row FROM ({new}) AS n JOIN shared_orders AS o USING (source, order_id) "
        "WHERE NOT o.differs AND n._side > o.first_side"
    )
    further = _number_differing(connection, staged, told, new, old)
    return SharedOrders("differing_orders", duplicates, further)


def _number_differing(
    connection: duckdb.DuckDBPyConnection, staged: StagedTable, told: Sequence[str], new: str, old: str
) -> int:
    """Pair the lines of the orders that differ, number them, and return how many further lines there are."""
    bare = [name for name in told if name != "status"]
    picked = (
        f"source, order_id, line_no, status, {content_hash(bare)} AS bare, "
        f"{content_hash(skeleton(told))} AS skeleton, {EMPTIED} AS emptied, "
        f"{'hash(item_id)' if 'item_id' in staged.mapped else 'NULL::UBIGINT'} AS item, "
        f"{content_hash(name for name in told if name in ('ts', 'quantity', 'amount'))} AS moment"
    )
    of_side = "PARTITION BY source, order_id, bare, _side ORDER BY _row, line_no"
    differing = "SEMI JOIN differing_orders USING (source, order_id)"
    connection.execute(
        # `hard`: the status differs within the group, or the row of a cancelled line was emptied
        "CREATE OR REPLACE TEMP TABLE order_lines AS SELECT *, row_number() OVER () AS _id, "
        f"row_number() OVER ({of_side}) AS slot, "
        "min(status) OVER same <> max(status) OVER same OR (bool_or(emptied AND status <> 'paid') OVER same "
        "AND min(bare) OVER same <> max(bare) OVER same) AS hard FROM ("
        f"SELECT _side, _row, _negative, {picked} FROM ({new}) {differing} UNION ALL "
        f"SELECT _side, -1, false, {picked} FROM ({old}) {differing}) "
        "WINDOW same AS (PARTITION BY source, order_id, skeleton)"
    )
    says_status = "status" in staged.mapped
    # A hard group takes part under the hash of its skeleton, with the places that `_pair` finds.
    _store_places(connection, says_status)
    placed = (
        "SELECT l.* REPLACE (coalesce(p.place, l.slot) AS slot, "
        "CASE WHEN l.hard THEN hash(l.skeleton, 'hard') ELSE l.bare END AS bare) "
        "FROM order_lines AS l LEFT JOIN line_places AS p USING (_id)"
    )
    of_line = "PARTITION BY source, order_id, bare, slot ORDER BY _side, _row, line_no"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {PLACED} AS SELECT *, "
        f"row_number() OVER ({of_line}) = 1 AS is_first, min(_side) OVER (PARTITION BY source, order_id) AS base "
        f"FROM ({placed})"
    )
    # The first input of an order keeps its numbers; further lines follow in the order in which they came.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE numbered_lines AS "
        "SELECT source, order_id, bare, slot, _row, _side, item, moment, _side > base AS is_further, "
        "CASE WHEN _side = base THEN line_no ELSE last_no + "
        "row_number() OVER (PARTITION BY source, order_id, _side > base ORDER BY _side, _row) END AS line_no "
        "FROM (SELECT *, max(line_no) FILTER (_side = base) OVER (PARTITION BY source, order_id) AS last_no "
        f"FROM {PLACED}) WHERE is_first"
    )
    connection.execute(
        f"UPDATE {staged.typed} AS t SET line_no = n.line_no FROM {PLACED} AS p JOIN numbered_lines AS n "
        "USING (source, order_id, bare, slot) WHERE t._row = p._row AND p._row >= 0 AND t.line_no <> n.line_no"
    )
    return _store_further(connection)


def _store_further(connection: duckdb.DuckDBPyConnection) -> int:
    """Store the further lines, and for each whether it may be a changed line.

    It may be if an earlier input holds a line of the same item, or of the same time and amount, in the same order, and
    the input of the further line lacks that line.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE candidate_lines AS SELECT n.*, s.sides FROM numbered_lines AS n "
        "SEMI JOIN (SELECT source, order_id FROM numbered_lines WHERE is_further) USING (source, order_id) "
        f"JOIN (SELECT source, order_id, bare, slot, list(DISTINCT _side) AS sides FROM {PLACED} GROUP BY ALL) AS s "
        "USING (source, order_id, bare, slot)"
    )
    earlier = (
        "EXISTS (SELECT 1 FROM candidate_lines AS e WHERE e.source = f.source AND e.order_id = f.order_id "
        "AND e.{name} = f.{name} AND e._side < f._side AND NOT list_contains(e.sides, f._side))"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {FURTHER} AS SELECT f.source, f.order_id, f.line_no, f._row, "
        f"{earlier.format(name='item')} OR {earlier.format(name='moment')} AS may_be_changed "
        "FROM candidate_lines AS f WHERE f.is_further"
    )
    row = connection.execute(f"SELECT count(*) FROM {FURTHER}").fetchone()
    return int(row[0]) if row else 0


def _store_places(connection: duckdb.DuckDBPyConnection, says_status: bool) -> None:
    ids: list[int] = []
    places: list[int] = []
    for rows in _groups(
        connection.execute(
            "SELECT source, order_id, skeleton, _side, _id, bare, status, _negative, emptied FROM order_lines "
            "WHERE hard ORDER BY source, order_id, skeleton, _side, _row, line_no"
        ),
        3,
    ):
        ids += [row[4] for row in rows]
        places += _pair([row[3:] for row in rows], says_status)
    found = pa.table({"_id": pa.array(ids, pa.int64()), "place": pa.array(places, pa.int64())})
    connection.register("found_places", found)
    connection.execute("CREATE OR REPLACE TEMP TABLE line_places AS SELECT * FROM found_places")
    connection.unregister("found_places")


def _groups(result: duckdb.DuckDBPyConnection, width: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of an ordered result, one list for each value of its first `width` columns."""

    def rows() -> Iterator[tuple[Any, ...]]:
        while chunk := result.fetchmany(10_000):
            yield from chunk

    for _, members in groupby(rows(), key=itemgetter(*range(width))):
        yield list(members)


def _pair(rows: Sequence[tuple[Any, ...]], says_status: bool) -> list[int]:
    """Place of each line of one group, so that the rows of one line in several inputs have the same place.

    Equal lines are paired first, then lines that differ in their status only, then cancelled or refunded lines whose
    quantity and amount the export emptied.

    Parameters
    ----------
    rows : sequence of tuple
        (side, id, content without status, status, negative, emptied), ordered by side.
    says_status : bool
        Whether the source has a status. A row with negative numbers is a refund of its own, and no changed line.

    Examples
    --------
    >>> sold, refunded = (0, 1, 7, "paid", False, False), (1, 2, 7, "refunded", False, False)
    >>> _pair([sold, refunded], True), _pair([sold, (*refunded[:4], True, False)], True)
    ([1, 1], [1, 2])
    """
    lines: dict[int, tuple[Any, str]] = {}  # place → content and status of its latest row
    places = [0] * len(rows)
    for _, members in groupby(range(len(rows)), key=lambda at: rows[at][0]):
        free: defaultdict[tuple[Any, str], deque[int]] = defaultdict(deque)
        for place, line in lines.items():
            free[line].append(place)
        unpaired = []
        for at in members:
            _, _, content, status, _, _ = rows[at]
            equal = free.get((content, status))
            if equal:
                places[at] = equal.popleft()
            else:
                unpaired.append(at)
        for at in unpaired:
            _, _, content, status, negative, emptied = rows[at]
            candidates: list[deque[int]] = []
            if not negative:
                candidates = [queue for line, queue in free.items() if queue and line[0] == content]
                if not candidates and emptied and status != "paid":
                    candidates = [queue for queue in free.values() if queue]
            if candidates:
                place = candidates[0].popleft()
                if says_status:
                    lines[place] = (lines[place][0], status)
            else:
                place = len(lines) + 1
                lines[place] = (content, status)
            places[at] = place
    return places
