"""The recent rows of one customer at one moment: the tail of the state, and the rows that came since the build.

One thing is not as a build would have it: a line that comes for an order begun before the tail (longer ago than the longest
window) opens an order of its own until the next build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.online.state import MISSING, Array, Customer, OnlineState, microseconds

SECOND, DAY = 1_000_000, 86_400_000_000  # microseconds
SESSION_GAP_SECONDS = 1_800
VIEW_OF = {("transactions", "paid"): "lines", ("transactions", "refunded"): "refunds"}
TIES = {  # order of rows of one moment, as in features.views.ORDER
    "lines": ("order_id", "line_no", "item_id", "source"), "refunds": ("order_id", "line_no", "item_id", "source"),
    "orders": ("order_id", "source"), "events": ("event_id", "source"), "touches": ("touch_id", "source"),
}  # fmt: skip
NewRows = Mapping[str, Sequence[Mapping[str, Any]]]


class Rows:
    """The rows of one view, in order of time.

    Attributes
    ----------
    ts : ndarray of int64, (rows,)
        Microseconds since 1970.
    """

    def __init__(self, columns: Mapping[str, Array], last_before: int | None = None) -> None:
        self.ts: NDArray[np.int64] = columns["ts"]
        self._columns = dict(columns)
        self._last_before = last_before

    def column(self, name: str) -> Array:
        """A column by name: float64, NaN where null; int32 codes for text."""
        if name not in self._columns:
            self._columns[name] = self._made(name)
        return self._columns[name]

    def _made(self, name: str) -> Array:
        seconds = self.ts // SECOND
        day = seconds // 86_400
        if name == "day":
            return day.astype(np.float64)
        if name == "weekday":
            return ((day + 3) % 7).astype(np.float64)  # 1970-01-01 was a Thursday
        if name == "week":
            return (day - (day + 3) % 7).astype(np.float64)
        if name == "hour":
            return (seconds % 86_400 // 3_600).astype(np.float64)
        if name == "gap_days":
            gaps = np.full(len(seconds), np.nan)
            gaps[1:] = np.diff(seconds) / 86_400.0
            if len(seconds) and self._last_before is not None:
                gaps[0] = (seconds[0] - self._last_before // SECOND) / 86_400.0
            return gaps
        if name == "full_amount":
            return np.asarray(self.column("amount") + self.column("discount") + self.column("coupon_discount"))
        raise KeyError(name)


def rows_now(customer: Customer, now: int, new_rows: NewRows) -> dict[str, Rows]:
    """The rows of every view in ``[tail_start, now)``."""
    state = customer.state
    since: dict[str, list[dict[str, Any]]] = {}
    start = microseconds(state.tail_start)
    for table, rows in new_rows.items():
        for row in rows:
            moment = microseconds(row["ts"]) if isinstance(row["ts"], datetime) else int(row["ts"])
            view = VIEW_OF.get((table, row.get("status") or "paid"), "" if table == "transactions" else table)
            if view and start <= moment < now:
                since.setdefault(view, []).append({**row, "ts": moment})
    found = {}
    for view in state.plan.views:
        columns = customer.tails[view]
        if view == "orders":
            columns = _with_lines(customer, since.get("lines", []))
        elif since.get(view):
            columns = _with_rows(customer, view, since[view])
        last = int(state.last_order[customer.row]) if view == "orders" and customer.row >= 0 else None
        found[view] = Rows(columns, None if last == np.iinfo(np.int64).min else last)
    return found


def _traits(state: OnlineState, view: str, row: dict[str, Any]) -> None:
    category, brand = state.items.get(row.get("item_id") or "", (None, None))
    category = (row.get("category") if view == "events" else None) or category
    row.update(category=category, category_top=category.split("/")[0] if category else None, brand=brand)
    if view == "events":
        row["topic"] = state.contents.get(row.get("content_id") or "")


def _with_rows(customer: Customer, view: str, new: list[dict[str, Any]]) -> dict[str, Array]:
    """The tail of a view with new rows, put into order."""
    state, tail, keys = customer.state, customer.tails[view], customer.keys(view)
    known = {_key(view, row) for row in keys}
    new = [row for row in new if _key(view, row) not in known]  # told twice
    for row in new:
        _traits(state, view, row)
    order = _order([*zip(tail["ts"].tolist(), keys, strict=True), *((row["ts"], row) for row in new)], TIES[view])
    columns = {}
    for name, old in tail.items():
        if name == "session_id":
            continue
        columns[name] = np.concatenate([old, _encoded(state, name, old.dtype, new)])[order]
    if "session_id" in tail:
        columns["session_id"] = _sessions(customer, tail, keys, new)[order]
    return columns


def _key(view: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in TIES[view] if name != "item_id")


def _order(rows: list[tuple[int, Mapping[str, Any]]], ties: tuple[str, ...]) -> list[int]:
    sortable = [(ts, *("" if (value := row.get(name)) is None else value for name in ties)) for ts, row in rows]
    return sorted(range(len(rows)), key=lambda at: sortable[at])


def _encoded(state: OnlineState, name: str, dtype: Any, rows: Sequence[Mapping[str, Any]]) -> Array:
    if name == "ts":
        return np.asarray([row["ts"] for row in rows], dtype=np.int64)
    if dtype == np.int32:
        return np.asarray([state.code(name, row.get(name)) for row in rows], dtype=np.int32)
    return np.asarray([np.nan if row.get(name) is None else float(row[name]) for row in rows], dtype=np.float64)


def _sessions(customer: Customer, tail: Mapping[str, Array], keys: list[dict[str, Any]], new: list[dict[str, Any]]) -> Array:
    """Session codes of the rows of the tail and of the new ones: a source's own, or by the half-hour rule of `features.views`."""
    codes = {row["session_id"]: int(code) for row, code in zip(keys, tail["session_id"], strict=True)}
    fresh = max(codes.values(), default=-1) + 1 + 2**30  # beyond every code of the state
    result = np.empty(len(keys) + len(new), dtype=np.int32)
    records: dict[tuple[str, str], list[tuple[int, str, int]]] = {}
    for at, (ts, row) in enumerate([*zip(tail["ts"].tolist(), keys, strict=True), *((row["ts"], row) for row in new)]):
        old = at < len(keys)
        made = f"{row['source']}\x1f{row['source_user_id']}\x1f"
        if (row["session_id"].startswith(made)) if old else row.get("session_id") is None:
            records.setdefault((row["source"], row["source_user_id"]), []).append((ts, row["event_id"], at))
            continue
        text = row["session_id"] if old else f"{row['source']}\x1f{row['session_id']}"
        if text not in codes:
            codes[text] = fresh = fresh + 1
        result[at] = codes[text]
    for rows in records.values():
        before, code = None, MISSING
        for ts, _event, at in sorted(rows):
            if before is None or ts // SECOND - before // SECOND > SESSION_GAP_SECONDS:
                # the first visit of the tail may have begun before it: it keeps its code; later ones are numbered anew, for a
                # late row can join two of them
                code = int(tail["session_id"][at]) if before is None and at < len(keys) else (fresh := fresh + 1)
            before, result[at] = ts, code
    return result


def _with_lines(customer: Customer, new: list[dict[str, Any]]) -> Mapping[str, Array]:
    """The orders of the tail with new lines: of orders that are there, or new ones."""
    tail = customer.tails["orders"]
    if not new:
        return tail
    state = customer.state
    keys = [(row["source"], row["order_id"]) for row in customer.keys("orders")]
    orders: dict[tuple[str, str], dict[str, Any]] = {
        key: {
            name: values[at].item() if name not in ("store_id", "channel") else _text(state, name, values[at])
            for name, values in tail.items()
        }
        for at, key in enumerate(keys)
    }
    seen = {_key("lines", row) for row in customer.keys("lines")} if "lines" in customer.tails else set()
    for line in new:
        if _key("lines", line) in seen:
            continue
        key = (line["source"], line["order_id"])
        order = orders.get(key)
        if order is None:
            order = orders[key] = {"ts": line["ts"], "lines": 0.0, "units": np.nan, "amount": np.nan, "discount": 0.0, "coupon_discount": 0.0,
                                   "store_id": None, "channel": None}  # fmt: skip
        order["ts"] = min(order["ts"], line["ts"])
        order["lines"] += 1.0
        for name, column in (("units", "quantity"), ("amount", "amount"), ("discount", "discount"), ("coupon_discount", "coupon_discount")):
            if line.get(column) is not None:
                order[name] = float(line[column]) + (0.0 if order[name] != order[name] else order[name])
        for name in ("store_id", "channel"):
            present = [text for text in (order[name], line.get(name)) if text is not None]
            order[name] = min(present, default=None)
    rows = sorted(
        ({**order, "source": key[0], "order_id": key[1]} for key, order in orders.items()),
        key=lambda o: (o["ts"], o["order_id"], o["source"]),
    )
    return {name: _encoded(state, name, values.dtype, rows) for name, values in tail.items()}


def _text(state: OnlineState, name: str, code: Any) -> str | None:
    return None if code == MISSING else state.text(name, int(code))
