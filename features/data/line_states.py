"""The states of an order line: what a newer row with the key of a known line says about it.

Neither this module nor what it imports needs a database, because a server follows the lines of accepted events by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

TOLERANCE = 1e-6  # of quantities and amounts, absolute
IN_LAKE = -1  # `row` of a line of the lake
SAME_DAY = timedelta(days=1)  # a refund that is dated without a clock time may seem to lie before its sale
SALE = ("paid", "")  # a row without a status is a sale, unless its numbers are negative
CANCELLED = "cancelled"
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
    now = replace(row, money=line.money) if row.emptied else row
    return State(now) if row.status == CANCELLED else replace(state, line=now, part=None)


def _beside(state: State, line: Line, row: Line) -> State | None:
    """The state after a row with another time than the known line: a refund of it, or the sale of known refunds."""
    if row.ts is None or line.ts is None:
        return None
    if (row.emptied and row.status != CANCELLED) or (line.emptied and line.status != CANCELLED):
        return None
    if CANCELLED in (row.status, line.status):  # a sale that did not happen has no other time than its cancellation
        return _cancelled(state, line, row)
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


def _cancelled(state: State, line: Line, row: Line) -> State | None:
    """The state after a cancellation with a time of its own, or the sale or a refund of one that is known.

    A cancelled line has no refunds, because they would be of a sale that did not happen.
    """
    assert row.ts is not None
    assert line.ts is not None
    if row.status == line.status:
        return State(row if row.ts < line.ts else line)
    if "refunded" in (row.status, line.status):
        return State(row) if row.status == CANCELLED else state
    if row.status == CANCELLED and row.ts > line.ts - SAME_DAY:
        if any(_exceeds(*pair) for pair in zip(row.money[:2], line.money[:2], strict=True)):
            return None
        return State(replace(row, money=line.money) if row.emptied else row)
    return state if line.status == CANCELLED and line.ts > row.ts - SAME_DAY else None


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
