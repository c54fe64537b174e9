"""The recent rows of one customer: the tail of the state, and the rows that arrived after the build.

There is one difference from a build: a new line of an order that began before the tail (earlier than the longest
window) counts as an order of its own until the next build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.compute.algebra import (
    PRICE_LEVEL,
    PRICED_VIEWS,
    SESSION_GAP_SECONDS,
    SESSION_SEPARATOR,
    SORT_KEYS,
    TIME_COLUMNS,
)
from features.compute.online.local_time import local_seconds
from features.compute.online.order_lines import settle_lines
from features.compute.online.state import (
    DATE_ONLY,
    MISSING,
    OLD_SESSIONS,
    Array,
    CustomerState,
    OnlineState,
)
from qianmian.times import MICROSECONDS_PER_SECOND, SECONDS_PER_DAY, microseconds

FIRST_NEW_SESSION = 2**30  # codes of new sessions are larger than all codes of the state
SESSION_GAP = SESSION_GAP_SECONDS * MICROSECONDS_PER_SECOND
VIEW_OF = {("transactions", "paid"): "lines", ("transactions", "refunded"): "refunds"}
TIE_BREAKERS = {view: columns[1:] for view, columns in SORT_KEYS.items()}  # order of rows with the same time
NewRows = Mapping[str, Sequence[Mapping[str, Any]]]


class ViewRows:
    """Rows of one view, ordered by time, with days and hours of a time zone.

    Attributes
    ----------
    ts : ndarray of int64, shape (rows,)
        Microseconds since 1970.
    """

    def __init__(self, columns: Mapping[str, Array], timezone: str, last_before: int | None = None) -> None:
        self.ts: NDArray[np.int64] = columns["ts"]
        self._columns = dict(columns)
        self._timezone, self._last_before = timezone, last_before

    def column(self, name: str) -> Array:
        """A column by name, shape (rows,): float64 with NaN for null, or int32 codes for text."""
        if name not in self._columns:
            self._columns[name] = self._derived_column(name)
        return self._columns[name]

    def _derived_column(self, name: str) -> Array:
        if name in TIME_COLUMNS:
            return self._calendar_column(name)
        seconds = self.ts // MICROSECONDS_PER_SECOND
        if name == "gap_days":
            gaps = np.full(len(seconds), np.nan)
            gaps[1:] = np.diff(seconds) / SECONDS_PER_DAY
            if len(seconds) and self._last_before is not None:
                gaps[0] = (seconds[0] - self._last_before // MICROSECONDS_PER_SECOND) / SECONDS_PER_DAY
            return gaps
        if name == "full_amount":
            return np.asarray(self.column("amount") + self.column("discount") + self.column("coupon_discount"))
        raise KeyError(name)

    def _calendar_column(self, name: str) -> Array:
        day = self._local_seconds // SECONDS_PER_DAY
        if name == "day":
            return day.astype(np.float64)
        if name == "weekday":
            return ((day + 3) % 7).astype(np.float64)  # 1970-01-01 was a Thursday
        if name == "week":
            return (day - (day + 3) % 7).astype(np.float64)
        hour = (self._local_seconds % SECONDS_PER_DAY // 3_600).astype(np.float64)
        return hour if self._date_only is None else np.where(self._date_only, np.nan, hour)

    @cached_property
    def _date_only(self) -> NDArray[np.bool_] | None:
        found = self._columns.get(DATE_ONLY)  # a state of an earlier version does not have it
        return None if found is None else np.asarray(found == 1.0)

    @cached_property
    def _local_seconds(self) -> NDArray[np.int64]:
        return local_seconds(self.ts // MICROSECONDS_PER_SECOND, self._timezone, self._date_only)


def current_rows(customer: CustomerState, now: int, new_rows: NewRows) -> dict[str, ViewRows]:
    """Rows of every view of the plan in ``[tail_start, now)``."""
    state = customer.state
    rows_by_view: dict[str, list[dict[str, Any]]] = {}
    start = microseconds(state.tail_start)
    for table, rows in new_rows.items():
        known = [{**row, "ts": moment} for row in rows if (moment := _moment(row["ts"])) < now]
        if table == "transactions":
            customer, known = settle_lines(customer, known)
        for row in known:
            view = VIEW_OF.get((table, row.get("status") or "paid"), "" if table == "transactions" else table)
            if view and row["ts"] >= start:
                rows_by_view.setdefault(view, []).append(row)
    found = {}
    for view in state.plan.views:
        columns = customer.tails[view]
        if view == "orders":
            columns = _merge_lines(customer, rows_by_view.get("lines", []))
        elif rows_by_view.get(view):
            columns = _merge_rows(customer, view, rows_by_view[view])
        last = int(state.last_order[customer.row]) if view == "orders" and customer.row >= 0 else None
        found[view] = ViewRows(columns, state.timezone, None if last == np.iinfo(np.int64).min else last)
    return found


def _moment(ts: datetime | int) -> int:
    return microseconds(ts) if isinstance(ts, datetime) else int(ts)


def _add_item_attributes(state: OnlineState, view: str, row: dict[str, Any]) -> None:
    attributes = state.items.get(row.get("item_id") or "", (None, None))
    if attributes is None:  # no merchandise
        row.update(item_id=None, category=None)
    category, brand = attributes or (None, None)
    category = (row.get("category") if view == "events" else None) or category
    row.update(category=category, category_top=category.split("/")[0] if category else None, brand=brand)
    if view in PRICED_VIEWS:
        row[PRICE_LEVEL] = state.price_levels.get(row.get("item_id") or "")
    if view == "events":
        row["topic"] = state.contents.get(row.get("content_id") or "")


def _merge_rows(customer: CustomerState, view: str, new: list[dict[str, Any]]) -> dict[str, Array]:
    """The tail of a view merged with new rows, ordered by time."""
    state, tail, keys = customer.state, customer.tails[view], customer.keys(view)
    new = _drop_duplicates(view, new, keys, tail["ts"])
    if not new:
        return dict(tail)
    for row in new:
        _add_item_attributes(state, view, row)
    tie_breakers = TIE_BREAKERS[view]
    new.sort(key=lambda row: _sort_key(row["ts"], row, tie_breakers))
    order: list[int] | None = None
    if len(tail["ts"]) and new[0]["ts"] <= tail["ts"][-1]:  # rows that arrived late
        rows = [*zip(tail["ts"].tolist(), keys.to_pylist(), strict=True), *((row["ts"], row) for row in new)]
        order = sorted(range(len(rows)), key=lambda at: _sort_key(*rows[at], tie_breakers))
    columns = {
        name: np.concatenate([old, _encoded(state, name, old.dtype, new)])
        for name, old in tail.items()
        if name != "session_id"
    }
    if "session_id" in tail:
        columns["session_id"] = _session_codes(customer, new, order)
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


def _session_codes(customer: CustomerState, new: list[dict[str, Any]], order: list[int] | None) -> Array:
    """Session codes of the tail and, after them, of the new rows, which are sorted by time.

    `order` sorts tail and new rows together; None if every new row comes after the tail. Sessions without an id of the
    source are numbered again, as in `features.compute.views.with_sessions`, from the first row that a new one may
    follow, because a late row may join two of them.
    """
    ts, keys = customer.tails["events"]["ts"], customer.keys("events")
    codes = np.concatenate([customer.tails["events"]["session_id"], np.full(len(new), MISSING, dtype=np.int32)])
    earliest = new[0]["ts"] - SESSION_GAP
    start = int(np.searchsorted(ts, earliest))
    recent = [*zip(ts[start:].tolist(), keys.slice(start).to_pylist(), strict=True), *((row["ts"], row) for row in new)]
    running = _running_old_sessions(customer, earliest)
    named: dict[str, int] = {}
    fresh = count(FIRST_NEW_SESSION)
    for at in range(start, len(codes)) if order is None else order[start:]:
        moment, row = recent[at - start]
        record = SESSION_SEPARATOR.join((row["source"], row["source_user_id"], ""))
        is_new = at >= len(ts)
        # an event that is only a date is in no session, unless its source names one
        if is_new and row.get("session_id") is None and row.get(DATE_ONLY):
            continue
        if is_new and row.get("session_id") is not None:
            text = row["source"] + SESSION_SEPARATOR + row["session_id"]
            if text not in named:
                known = _known_session(customer, text)
                named[text] = next(fresh) if known is None else known
            codes[at] = named[text]
        elif is_new or (row["session_id"] or "").startswith(record):
            before = running.get(record)
            if before is not None and moment - before[0] <= SESSION_GAP:
                codes[at] = before[1]
            elif is_new:
                codes[at] = next(fresh)
            running[record] = (moment, int(codes[at]))
    return codes


def _running_old_sessions(customer: CustomerState, earliest: int) -> dict[str, tuple[int, int]]:
    """Record → last moment and code of its last session before the tail, if it ended at `earliest` or later.

    The key of a record is the common prefix of its session ids; a session with an id of the source has a key that no
    record has.
    """
    old = customer.tails.get(OLD_SESSIONS)
    start = 0 if old is None else int(np.searchsorted(old["ts"], earliest))
    if old is None or start == len(old["ts"]):
        return {}
    texts = customer.keys(OLD_SESSIONS)["session_id"].slice(start).to_pylist()
    last = zip(old["ts"][start:].tolist(), old["session_id"][start:].tolist(), strict=True)
    return {text[: text.rindex(SESSION_SEPARATOR) + 1]: pair for text, pair in zip(texts, last, strict=True)}


def _known_session(customer: CustomerState, text: str) -> int | None:
    """The code of a session that the source named, where the customer was in it before the build."""
    for view in ("events", OLD_SESSIONS):
        keys = customer.keys(view)
        at = pc.index(keys["session_id"], text).as_py() if keys.num_rows else -1
        if at >= 0:
            return int(customer.tails[view]["session_id"][at])
    return None


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
        DATE_ONLY: float(bool(line.get(DATE_ONLY))),
        "lines": 0.0,
        "units": np.nan,
        "amount": np.nan,
        "discount": 0.0,
        "coupon_discount": 0.0,
        "store_id": None,
        "channel": None,
    }


def _add_line(order: dict[str, Any], line: Mapping[str, Any]) -> None:
    # an order has a clock time if its first line has
    order["ts"], order[DATE_ONLY] = min(
        (order["ts"], order.get(DATE_ONLY, 0.0)), (line["ts"], float(bool(line.get(DATE_ONLY))))
    )
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
