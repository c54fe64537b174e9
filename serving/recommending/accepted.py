"""The accepted events of a customer as events of a list: which items were viewed, carted or bought, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from features.event_log.rows import EventRow
from features.interaction_types import PURCHASE
from serving.champions import Champion, Champions
from serving.recommending.recent import ItemEvent
from serving.users import ResolvedUser

MOST = 1_000  # events of a list, the last ones; as many as a request may contain
PAID = "paid"


def accepted_events(
    champions: Champions, champion: Champion, user: ResolvedUser, until: datetime | None
) -> list[ItemEvent]:
    """Return the accepted events of a customer that a model does not have, up to a moment, or all.

    They are those from its `as_of` on, and those from before that came after the lake had read the log for it.

    Raises
    ------
    InvalidRequest
        If several sources have events of the user id, no profile knows it, and the request does not name the source.
    """
    live = champions.live
    if live is None or not live.has_any(user.one_id, user.user_id):
        return []
    as_of, known = champion.bundle.as_of, champion.event_log
    rows = live.rows(user.one_id, user.user_id, user.user_source, as_of, known)
    return item_events(rows, until, champion.catalogue.lake_item_id)


def item_events(
    rows: Iterable[EventRow],
    until: datetime | None = None,
    lake_item_id: Callable[[str, str], str] = lambda item_id, _source: item_id,
) -> list[ItemEvent]:
    """Return the last events that concern an item, up to a moment, in the order of the rows.

    `lake_item_id` gives the id of the lake for the one that a sender of a source has written. An order line that was
    refunded or cancelled later is no purchase.

    Examples
    --------
    >>> line = {"source": "shop", "order_id": "o1", "item_id": "milk", "ts": datetime(2026, 5, 1), "status": "paid"}
    >>> rows = [EventRow("transactions", line, "e1")]
    >>> [event.event_type for event in item_events(rows)]
    ['purchase']
    >>> rows += [EventRow("transactions", {**line, "status": "refunded"}, "e2")]
    >>> item_events(rows)
    []
    """
    found: list[tuple[ItemEvent, tuple[str, str, str] | None]] = []
    taken_back: set[tuple[str, str, str]] = set()
    for table, values, _ in rows:
        item_id, ts = values.get("item_id"), values["ts"]
        if item_id is None or (until is not None and ts > until):
            continue
        item_id = lake_item_id(item_id, values["source"])
        if table != "transactions":
            found.append((ItemEvent(item_id, values["event_type"], ts), None))
            continue
        line = values["source"], values["order_id"], item_id
        if values["status"] == PAID:
            amounts = values.get("quantity"), values.get("amount"), _discount(values)
            found.append((ItemEvent(item_id, PURCHASE, ts, *amounts), line))
        else:
            taken_back.add(line)
    events = [event for event, line in found if line not in taken_back]
    if len(events) > MOST:
        events = sorted(events, key=lambda event: event.ts)[-MOST:]
    return events


def _discount(values: Mapping[str, Any]) -> float | None:
    """All that was taken off an order line; None if nothing is said of it."""
    said = [value for name in ("discount", "coupon_discount") if (value := values.get(name)) is not None]
    return sum(said) if said else None
