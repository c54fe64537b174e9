"""How much of an event log the lake, the published profiles and the recommenders allow to remove."""

from __future__ import annotations

from datetime import datetime, timedelta

from features.event_log.base import EventLog
from features.event_log.tail import Tail
from qianmian.times import microseconds

PAGE_EVENTS = 10_000


def removable_through(log: EventLog, ingested: int, as_of: datetime, keep_days: float) -> int:
    """Number up to which all events are in the lake and older than what must be kept.

    Parameters
    ----------
    ingested : int
        Number up to which the lake has the events.
    as_of : datetime
        Earliest `as_of` of the published profiles and the recommenders in production, naive UTC: what is not older may
        be missing in them.
    keep_days : float
        Days before it of which events are kept too, for the ranker of recent behaviour and for late builds.

    Notes
    -----
    Events are removed in the order of their numbers. One with a later time keeps those behind it, until it is old too.
    """
    before = microseconds(as_of - timedelta(days=keep_days))
    tail = Tail(log, log.header().first_seq - 1)
    while tail.after < ingested and (events := tail.read(min(PAGE_EVENTS, ingested - tail.after))):
        for seq, event in events:
            if event.ts >= before:
                return seq - 1
    return tail.after
