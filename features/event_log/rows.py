"""An accepted event as a row of a canonical table, and as what the event log keeps of it.

An event of type `purchase` is a row of `transactions`, a `consent` one of `profiles`, an `availability` one of `items`,
and every other one a row of `events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from features.event_log.base import AcceptedEvent
from qianmian.schema import ANONYMOUS_ID, AVAILABILITY, CONSENT, LOGINS
from qianmian.times import from_microseconds, microseconds

NO_CUSTOMER = ""  # the user id in the log of an event about an item
VISITOR_IN_BODY = b'"anonymous_id":'  # a cheap test, which no text of a row passes: its quotes are escaped
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)  # an event that another version has written
# the same row always has the same bytes, by which a log tells a duplicate from another event
OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


class EventRow(NamedTuple):
    """A row that has passed validation.

    Attributes
    ----------
    table : str
        `events`, `transactions`, `profiles` (a consent) or `items` (an availability).
    values : dict
        Column → value, with `source`, `source_user_id` and `ts` (naive UTC); a column that is not there is null.
        `properties` is a JSON text. `source_user_id` is `NO_CUSTOMER` in a row of `items`. A row of `events` of type
        `login` or `register` may have `anonymous_id`, which is no column of that table: the user id, in the same
        source, of the visitor's events before.
    event_id : str
        Id of the event within its source; only a row of `events` has a column for it.
    """

    table: str
    values: dict[str, Any]
    event_id: str


def make_row(event_id: str, values: Mapping[str, Any]) -> EventRow:
    """Make the row of an event from its canonical columns.

    Parameters
    ----------
    event_id : str
    values : mapping
        Columns of `events` with `event_type`; of a purchase the columns of `transactions` and `event_type`. The order
        of a purchase without `order_id` is the event itself, with line 1. In an order, a purchase without `line_no` has
        a number made of its item, as the refund of that item has. It is one unit and paid, unless it says otherwise.
        A consent has `channel` and `granted`, which become one column; an availability `item_id` and `available`.

    Examples
    --------
    >>> make_row("e1", {"event_type": "purchase", "item_id": "milk"}).values
    {'order_id': 'e1', 'line_no': 1, 'quantity': 1.0, 'status': 'paid', 'item_id': 'milk'}
    >>> make_row("e2", {"event_type": "consent", "source_user_id": "u1", "channel": "sms", "granted": False}).values
    {'source_user_id': 'u1', 'consent_sms': False}
    >>> basket = [{"event_type": "purchase", "order_id": "o1", "item_id": item} for item in ("milk", "bread")]
    >>> len({make_row(f"e{place}", values).values["line_no"] for place, values in enumerate(basket)})
    2
    """
    event_type = values["event_type"]
    if event_type == "purchase":
        line_no = _line_no(str(values.get("item_id") or event_id)) if "order_id" in values else 1
        row = {"order_id": event_id, "line_no": line_no, "quantity": 1.0, "status": "paid", **values}
        del row["event_type"]
        return EventRow("transactions", row, event_id)
    if event_type == CONSENT:
        row = {name: value for name, value in values.items() if name not in ("event_type", "channel", "granted")}
        return EventRow("profiles", row | {f"consent_{values['channel']}": values["granted"]}, event_id)
    if event_type == AVAILABILITY:
        return EventRow("items", {name: value for name, value in values.items() if name != "event_type"}, event_id)
    return EventRow("events", {"event_id": event_id, **values}, event_id)


def _line_no(item_id: str) -> int:
    """A number for a line of an order that its events know by themselves, a refund too; it fits into a double."""
    return 1 + int.from_bytes(blake2b(item_id.encode(), digest_size=6).digest(), "big")


def encode(row: EventRow) -> AcceptedEvent:
    """Return the event that the log keeps; its body is JSON, `{"row": {…}, "table": …}`.

    Examples
    --------
    >>> from datetime import datetime
    >>> values = {"source": "shop", "source_user_id": "u1", "ts": datetime(2026, 5, 1, 12), "event_type": "view"}
    >>> encode(EventRow("events", values, "e1")).body[:44]
    b'{"row":{"event_type":"view","source":"shop",'
    """
    values = row.values
    return AcceptedEvent(
        values["source"],
        row.event_id,
        values["source_user_id"],
        microseconds(values["ts"]),
        orjson.dumps({"table": row.table, "row": values}, option=OPTIONS),
    )


def decode(event: AcceptedEvent) -> EventRow:
    """Return the row of an event of the log."""
    body = orjson.loads(event.body)
    body["row"]["ts"] = from_microseconds(event.ts)
    return EventRow(body["table"], body["row"], event.event_id)


def visitor_of(event: AcceptedEvent) -> tuple[str, str] | None:
    """The visitor that a login names, as source and user id; None if the event is none, or names its own user id.

    Examples
    --------
    >>> from datetime import datetime
    >>> login = {"source": "shop", "source_user_id": "u1", "ts": datetime(2026, 5, 1), "event_type": "login"}
    >>> visitor_of(encode(EventRow("events", {**login, "anonymous_id": "visit-7"}, "e1")))
    ('shop', 'visit-7')
    """
    if VISITOR_IN_BODY not in event.body:
        return None
    try:
        row = decode(event)
        if row.table != "events" or row.values["event_type"] not in LOGINS:
            return None
        anonymous_id = row.values.get(ANONYMOUS_ID)
    except UNREADABLE:
        return None
    if not isinstance(anonymous_id, str) or anonymous_id in ("", event.source_user_id):
        return None
    return event.source, anonymous_id
