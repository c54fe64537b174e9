"""How much of an event log the lake, the published profiles and the recommenders allow to remove."""

from __future__ import annotations

from datetime import datetime, timedelta

from features.event_log.base import EventLog
from features.event_log.tail import Tail
from qianmian.times import microseconds

PAGE_EVENTS = 10_000


def removable_through(log: EventLog, known: int, as_of: datetime, keep_days: float) -> int:
    """Number up to which all events are in the published profiles and older than what must be kept.

    Parameters
    ----------
    known : int
        Number up to which the lake had the events when the published profiles were built. A late event, which the lake
        has got since, is in no profile however old it is.
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
    while tail.after < known and (events := tail.read(min(PAGE_EVENTS, known - tail.after))):
        for seq, event in events:
            if event.ts >= before:
                return min(seq - 1, known)
    return min(tail.after, known)  # a page may end behind `known` where events were erased
