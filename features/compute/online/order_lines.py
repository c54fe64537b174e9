"""Order lines whose status changes after the build: their rows become those that the lake would hold.

A refund with the time of its sale takes its place, one with a time of its own is a row beside it, and a cancelled line
is none (`features.data.line_states`). So lines of the tail may go, and leave their orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.compute.online.state import CustomerState
from features.data.line_states import FIRST_REFUND, IN_LAKE, SALE, Line, State, follow, refund_number
from qianmian.times import moment_of

MONEY = ("quantity", "amount", "discount", "coupon_discount")
OF_ORDER = dict(zip(("units", *MONEY[1:]), MONEY, strict=True))  # column of an order → of its lines
NOT_SKELETON = frozenset({"line_no", "status", "ts", *MONEY})
Key = tuple[str, str, int]  # source, order_id, line_no
Row = dict[str, Any]


def settle_lines(customer: CustomerState, rows: list[Row]) -> tuple[CustomerState, list[Row]]:
    """The state without the lines that rows have taken the place of, and the rows that are there beside it.

    Parameters
    ----------
    customer : CustomerState
    rows : list of dict
        New rows of `transactions`, in the order in which they were accepted; `ts` in microseconds since 1970.
    """
    if all(_status(row) in SALE for row in rows):  # nearly always
        return customer, rows
    by_key: dict[Key, list[Row]] = {}
    for row in rows:
        by_key.setdefault((row["source"], row["order_id"], row["line_no"]), []).append(row)
    changed = {key: members for key, members in by_key.items() if any(_status(row) not in SALE for row in members)}
    stored = _StoredLines(customer, {key[1] for key in changed})
    settled = [row for key, members in by_key.items() if key not in changed for row in members]
    gone: list[tuple[Key, Line]] = []
    for key, members in changed.items():
        known = state = stored.state(key, members)
        for place, row in enumerate(members):
            state = follow(state, _line(place, row)) or state  # what the lake would refuse changes nothing
        now = state.by_number(key[2])
        for number, line in known.by_number(key[2]).items():
            if not any(line is other for other in now.values()):
                gone.append(((*key[:2], number), line))
        for number, line in now.items():
            if line.row != IN_LAKE:
                money = dict(zip(MONEY, line.money, strict=True))
                settled.append({**members[line.row], "line_no": number, **money})
    return _without(customer, gone), settled


def _status(row: Row) -> str:
    return row.get("status") or "paid"


def _line(place: int, row: Row) -> Line:
    skeleton = hash(tuple(sorted((name, value) for name, value in row.items() if name not in NOT_SKELETON and value)))
    money = tuple(None if row.get(name) is None else float(row[name]) for name in MONEY)
    return Line(place, _status(row), False, skeleton, moment_of(row["ts"]), money)


class _StoredLines:
    """The lines and refunds of some orders in the tail of a customer."""

    def __init__(self, customer: CustomerState, order_ids: set[str]) -> None:
        self._found: dict[tuple[str, str], list[tuple[int, str, str | None, Any, Mapping[str, float]]]] = {}
        for view, status in (("lines", "paid"), ("refunds", "refunded")):
            keys = customer.keys(view) if view in customer.tails else pa.table({})
            if not keys.num_rows:
                continue
            among = pa.array(sorted(order_ids), pa.string())
            places = np.flatnonzero(pc.is_in(keys["order_id"], value_set=among).to_numpy())
            tail = customer.tails[view]
            for place, row in zip(places.tolist(), keys.take(places).to_pylist(), strict=True):
                money = {name: float(tail[name][place]) for name in MONEY if name in tail}
                moment = moment_of(int(tail["ts"][place]))
                line = row["line_no"], status, row["item_id"], moment, money
                self._found.setdefault((row["source"], row["order_id"]), []).append(line)

    def state(self, key: Key, members: Sequence[Row]) -> State:
        """What the tail has of a line; of columns that it does not store, what the first new row says."""
        source, order_id, line_no = key
        said = _line(0, members[0])
        state = State()
        for number, status, item_id, moment, stored in self._found.get((source, order_id), ()):
            money = tuple(
                (None if np.isnan(stored[name]) else stored[name]) if name in stored else value
                for name, value in zip(MONEY, said.money, strict=True)
            )
            skeleton = said.skeleton if item_id == members[0].get("item_id") else hash(item_id)
            line = Line(IN_LAKE, status, False, skeleton, moment, money)
            if number == line_no:
                state = State(line, state.part, state.refunds)
            elif number == -1 - line_no:
                state = State(state.line, line, state.refunds)
            elif number < FIRST_REFUND and number == refund_number(line_no, moment):
                state = State(state.line, state.part, {**state.refunds, moment: line})
        return state


def _without(customer: CustomerState, gone: Sequence[tuple[Key, Line]]) -> CustomerState:
    """The state without some lines and refunds, and with what is left of their orders."""
    for view, sold in (("lines", True), ("refunds", False)):
        of_view = {key: line for key, line in gone if (line.status in SALE) == sold}
        if not of_view:
            continue
        keys = customer.keys(view).select(["source", "order_id", "line_no"]).to_pylist()
        stays = [tuple(row.values()) not in of_view for row in keys]
        customer = customer.with_tail(view, customer.tails[view], np.flatnonzero(stays))
        if sold and "orders" in customer.tails:
            customer = _without_in_orders(customer, of_view)
    return customer


def _without_in_orders(customer: CustomerState, gone: Mapping[Key, Line]) -> CustomerState:
    tail = {name: values.copy() for name, values in customer.tails["orders"].items()}
    orders = {(row["source"], row["order_id"]): at for at, row in enumerate(customer.keys("orders").to_pylist())}
    for (source, order_id, _), line in gone.items():
        at = orders.get((source, order_id))
        if at is None:
            continue
        tail["lines"][at] -= 1.0
        for column, name in OF_ORDER.items():
            amount = line.money[MONEY.index(name)]
            if amount is not None:
                tail[column][at] -= amount
    return customer.with_tail("orders", tail, _places(customer, tail, orders, gone))


def _places(
    customer: CustomerState,
    tail: Mapping[str, NDArray[Any]],
    orders: Mapping[tuple[str, str], int],
    gone: Mapping[Key, Line],
) -> NDArray[np.intp]:
    """The orders that have lines left, by time: an order begins with the first line that is left."""
    first: dict[tuple[str, str], int] = {}
    changed = {key[:2] for key in gone}
    for row, ts in zip(customer.keys("lines").to_pylist(), customer.tails["lines"]["ts"].tolist(), strict=True):
        key = row["source"], row["order_id"]
        if key in changed:
            first[key] = min(ts, first.get(key, ts))
    for key, ts in first.items():
        if key in orders:
            tail["ts"][orders[key]] = ts
    order = np.argsort(tail["ts"], kind="stable")
    return order[tail["lines"][order] > 0.0]
