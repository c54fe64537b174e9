"""The recent rows of one customer: the tail of the state, and the rows that arrived after the build.

There is one difference from a build: a new line of an order that began before the tail (earlier than the longest
window) counts as an order of its own until the next build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.compute.algebra import SESSION_GAP_SECONDS, SORT_KEYS
from features.compute.online.state import MISSING, Array, CustomerState, OnlineState, microseconds
from qianmian.times import MICROSECONDS_PER_SECOND, SECONDS_PER_DAY

FIRST_NEW_SESSION = 2**30  # codes of new sessions are larger than all codes of the state
VIEW_OF = {("transactions", "paid"): "lines", ("transactions", "refunded"): "refunds"}
TIE_BREAKERS = {view: columns[1:] for view, columns in SORT_KEYS.items()}  # order of rows with the same time
NewRows = Mapping[str, Sequence[Mapping[str, Any]]]


class ViewRows:
    """Rows of one view, ordered by time.

    Attributes
    ----------
    ts : ndarray of int64, shape (rows,)
        Microseconds since 1970.
    """

    def __init__(self, columns: Mapping[str, Array], last_before: int | None = None) -> None:
        self.ts: NDArray[np.int64] = columns["ts"]
        self._columns = dict(columns)
        self._last_before = last_before

    def column(self, name: str) -> Array:
        """A column by name, shape (rows,): float64 with NaN for null, or int32 codes for text."""
        if name not in self._columns:
            self._columns[name] = self._derived_column(name)
        return self._columns[name]

    def _derived_column(self, name: str) -> Array:
        seconds = self.ts // MICROSECONDS_PER_SECOND
        day = seconds // SECONDS_PER_DAY
        if name == "day":
            return day.astype(np.float64)
        if name == "weekday":
            return ((day + 3) % 7).astype(np.float64)  # 1970-01-01 was a Thursday
        if name == "week":
            return (day - (day + 3) % 7).astype(np.float64)
        if name == "hour":
            return (seconds % SECONDS_PER_DAY // 3_600).astype(np.float64)
        if name == "gap_days":
            gaps = np.full(len(seconds), np.nan)
            gaps[1:] = np.diff(seconds) / SECONDS_PER_DAY
            if len(seconds) and self._last_before is not None:
                gaps[0] = (seconds[0] - self._last_before // MICROSECONDS_PER_SECOND) / SECONDS_PER_DAY
            return gaps
        if name == "full_amount":
            return np.asarray(self.column("amount") + self.column("discount") + self.column("coupon_discount"))
        raise KeyError(name)


def current_rows(customer: CustomerState, now: int, new_rows: NewRows) -> dict[str, ViewRows]:
    """Rows of every view of the plan in ``[tail_start, now)``."""
    state = customer.state
    rows_by_view: dict[str, list[dict[str, Any]]] = {}
    start = microseconds(state.tail_start)
    for table, rows in new_rows.items():
        for row in rows:
            moment = microseconds(row["ts"]) if isinstance(row["ts"], datetime) else int(row["ts"])
            view = VIEW_OF.get((table, row.get("status") or "paid"), "" if table == "transactions" else table)
            if view and start <= moment < now:
                rows_by_view.setdefault(view, []).append({**row, "ts": moment})
    found = {}
    for view in state.plan.views:
        columns = customer.tails[view]
        if view == "orders":
            columns = _merge_lines(customer, rows_by_view.get("lines", []))
        elif rows_by_view.get(view):
            columns = _merge_rows(customer, view, rows_by_view[view])
        last = int(state.last_order[customer.row]) if view == "orders" and customer.row >= 0 else None
        found[view] = ViewRows(columns, None if last == np.iinfo(np.int64).min else last)
    return found


def _add_item_attributes(state: OnlineState, view: str, row: dict[str, Any]) -> None:
    category, brand = state.items.get(row.get("item_id") or "", (None, None))
    category = (row.get("category") if view == "events" else None) or category
    row.update(category=category, category_top=category.split("/")[0] if category else None, brand=brand)
    if view == "events":
        row["topic"] = state.contents.get(row.get("content_id") or "")


def _merge_rows(customer: CustomerState, view: str, new: list[dict[str, Any]]) -> dict[str, Array]:
    """The tail of a view merged with new rows, ordered by time."""
    state, tail, keys = customer.state, customer.tails[view], customer.keys(view)
    new = _drop_duplicates(view, new, keys, tail["ts"])
    for row in new:
        _add_item_attributes(state, view, row)
    tie_breakers = TIE_BREAKERS[view]
    new.sort(key=lambda row: _sort_key(row["ts"], row, tie_breakers))
    order: list[int] | None = None
    if new and len(tail["ts"]) and new[0]["ts"] <= tail["ts"][-1]:  # rows that arrived late
        rows = [*zip(tail["ts"].tolist(), keys.to_pylist(), strict=True), *((row["ts"], row) for row in new)]
        order = sorted(range(len(rows)), key=lambda at: _sort_key(*rows[at], tie_breakers))
    columns = {
        name: np.concatenate([old, _encoded(state, name, old.dtype, new)])
        for name, old in tail.items()
        if name != "session_id"
    }
    if "session_id" in tail:
        columns["session_id"] = (
            _extend_sessions(tail, keys, new) if order is None else _rebuild_sessions(tail, keys.to_pylist(), new)
        )
    return columns if order is None else {name: values[order] for name, values in columns.items()}


def _sort_key(ts: int, row: Mapping[str, Any], tie_breakers: tuple[str, ...]) -> tuple[Any, ...]:
    return (ts, *("" if (value := row.get(name)) is None else value for name in tie_breakers))


def _drop_duplicates(view: str, new: list[dict[str, Any]], keys: pa.Table, ts: Array) -> list[dict[str, Any]]:
    """New rows whose key is neither in the tail nor in an earlier new row."""

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in TIE_BREAKERS[view] if name != "item_id")

    earliest = min(row["ts"] for row in new)
    at = int(np.searchsorted(ts, earliest))  # a duplicate has the same time
    seen = {key(row) for row in keys.slice(at).to_pylist()} if keys.num_columns and at < len(ts) else set()
    kept = []
    for row in new:
        if key(row) not in seen:
            seen.add(key(row))
            kept.append(row)
    return kept


def _encoded(state: OnlineState, name: str, dtype: Any, rows: Sequence[Mapping[str, Any]]) -> Array:
    if name == "ts":
        return np.asarray([row["ts"] for row in rows], dtype=np.int64)
    if dtype == np.int32:
        return np.asarray([state.code(name, row.get(name)) for row in rows], dtype=np.int32)
    return np.asarray([np.nan if row.get(name) is None else float(row[name]) for row in rows], dtype=np.float64)


def _extend_sessions(tail: Mapping[str, Array], keys: pa.Table, new: list[dict[str, Any]]) -> Array:
    """Session codes of the tail and of new rows after it; a new row continues a session or begins one."""
    ts, codes = tail["ts"], tail["session_id"]
    next_session = FIRST_NEW_SESSION
    known: dict[str, int] = {}
    # record → time and session of its last event without a session id of the source
    running: dict[tuple[str, str], tuple[int, int]] = {}
    if new and len(ts):
        recent_start = int(np.searchsorted(ts, new[0]["ts"] - (SESSION_GAP_SECONDS + 1) * MICROSECONDS_PER_SECOND))
        for moment, code, row in zip(
            ts[recent_start:].tolist(), codes[recent_start:].tolist(), keys.slice(recent_start).to_pylist(), strict=True
        ):
            if row["session_id"].startswith(_prefix(row)):
                running[row["source"], row["source_user_id"]] = (moment, code)
    made = np.empty(len(new), dtype=np.int32)
    for at, row in enumerate(new):
        record = (row["source"], row["source_user_id"])
        if row.get("session_id") is not None:
            text = f"{row['source']}\x1f{row['session_id']}"
            if text not in known:
                found = pc.index(keys["session_id"], text).as_py() if keys.num_rows else -1
                known[text] = int(codes[found]) if found >= 0 else (next_session := next_session + 1)
            made[at] = known[text]
            continue
        before, code = running.get(record, (None, MISSING))
        if (
            before is None
            or row["ts"] // MICROSECONDS_PER_SECOND - before // MICROSECONDS_PER_SECOND > SESSION_GAP_SECONDS
        ):
            code = next_session = next_session + 1
        running[record] = (row["ts"], code)
        made[at] = code
    return np.concatenate([codes, made])


def _prefix(row: Mapping[str, Any]) -> str:
    """Prefix of the session ids of `features.compute.views.with_sessions` for a record."""
    return f"{row['source']}\x1f{row['source_user_id']}\x1f"


def _rebuild_sessions(tail: Mapping[str, Array], keys: list[dict[str, Any]], new: list[dict[str, Any]]) -> Array:
    """Session codes of the tail and of new rows, some of them late; a late row may join two sessions."""
    codes = {row["session_id"]: int(code) for row, code in zip(keys, tail["session_id"], strict=True)}
    next_session = FIRST_NEW_SESSION
    result = np.empty(len(keys) + len(new), dtype=np.int32)
    records: dict[tuple[str, str], list[tuple[int, str, int]]] = {}
    for at, (ts, row) in enumerate([*zip(tail["ts"].tolist(), keys, strict=True), *((row["ts"], row) for row in new)]):
        old = at < len(keys)
        if row["session_id"].startswith(_prefix(row)) if old else row.get("session_id") is None:
            records.setdefault((row["source"], row["source_user_id"]), []).append((ts, row["event_id"], at))
            continue
        text = row["session_id"] if old else f"{row['source']}\x1f{row['session_id']}"
        if text not in codes:
            codes[text] = next_session = next_session + 1
        result[at] = codes[text]
    for rows in records.values():
        before, code = None, MISSING
        for ts, _event, at in sorted(rows):
            if (
                before is None
                or ts // MICROSECONDS_PER_SECOND - before // MICROSECONDS_PER_SECOND > SESSION_GAP_SECONDS
            ):
                # the first session of the tail may have begun before it, so it keeps its code
                code = (
                    int(tail["session_id"][at])
                    if before is None and at < len(keys)
                    else (next_session := next_session + 1)
                )
            before, result[at] = ts, code
    return result


def _merge_lines(customer: CustomerState, new: list[dict[str, Any]]) -> Mapping[str, Array]:
    """The orders of the tail, with new lines added to them or as new orders."""
    tail = customer.tails["orders"]
    if new and "lines" in customer.tails:
        new = _drop_duplicates("lines", new, customer.keys("lines"), customer.tails["lines"]["ts"])
    if not new:
        return tail
    state, keys = customer.state, customer.keys("orders")
    ids = keys["order_id"] if keys.num_rows else None
    changed: dict[tuple[str, str], dict[str, Any]] = {}
    kept = np.ones(len(tail["ts"]), dtype=np.bool_)
    for line in new:
        key = (line["source"], line["order_id"])
        if key not in changed:
            at = _find(ids, keys, *key)
            changed[key] = (
                _new_order(line)
                if at is None
                else {name: _decoded(state, name, values[at]) for name, values in tail.items()}
            )
            if at is not None:
                kept[at] = False
        _add_line(changed[key], line)
    rows = [{**order, "source": source, "order_id": order_id} for (source, order_id), order in changed.items()]
    tie_breakers = TIE_BREAKERS["orders"]
    rows.sort(key=lambda order: _sort_key(order["ts"], order, tie_breakers))
    merged = {
        name: np.concatenate([values[kept], _encoded(state, name, values.dtype, rows)]) for name, values in tail.items()
    }
    last = tail["ts"][kept][-1] if kept.any() else None
    if last is None or rows[0]["ts"] > last:
        return merged
    old = [row for row, keep in zip(keys.to_pylist(), kept, strict=True) if keep]
    order = sorted(
        range(len(old) + len(rows)),
        key=lambda at: _sort_key(
            int(merged["ts"][at]), old[at] if at < len(old) else rows[at - len(old)], tie_breakers
        ),
    )
    return {name: values[order] for name, values in merged.items()}


def _find(ids: pa.ChunkedArray | None, keys: pa.Table, source: str, order_id: str) -> int | None:
    """Row of an order in `keys`; None if it is not there."""
    if ids is None:
        return None
    start = 0
    while (found := pc.index(ids.slice(start), order_id).as_py()) >= 0:
        if keys["source"][start + found].as_py() == source:
            return int(start + found)
        start += found + 1
    return None


def _new_order(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ts": line["ts"],
        "lines": 0.0,
        "units": np.nan,
        "amount": np.nan,
        "discount": 0.0,
        "coupon_discount": 0.0,
        "store_id": None,
        "channel": None,
    }


def _add_line(order: dict[str, Any], line: Mapping[str, Any]) -> None:
    order["ts"] = min(order["ts"], line["ts"])
    order["lines"] += 1.0
    for name, column in (
        ("units", "quantity"),
        ("amount", "amount"),
        ("discount", "discount"),
        ("coupon_discount", "coupon_discount"),
    ):
        if line.get(column) is not None:
            order[name] = float(line[column]) + (0.0 if order[name] != order[name] else order[name])
    for name in ("store_id", "channel"):
        order[name] = min((text for text in (order[name], line.get(name)) if text is not None), default=None)


def _decoded(state: OnlineState, name: str, value: Any) -> Any:
    if name in ("store_id", "channel"):
        return None if value == MISSING else state.text(name, int(value))
    return value.item()
