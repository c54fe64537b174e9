"""The identity of an event and its content as short hashes: all that a log keeps of an event that it has removed."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

from features.event_log.base import AcceptedEvent
from qianmian.errors import DataError

IDENTITY_BYTES = 16  # two of 10^12 events have the same with a probability of 10^-15
CONTENT_BYTES = 8  # compared only between events of the same identity
MAX_BODY_BYTES = 1 << 20
INT64 = 1 << 63


class IdentifiedEvent(NamedTuple):
    """A checked event with the hash of its identity and that of everything else in it."""

    event: AcceptedEvent
    identity: bytes
    content: bytes


def identify(event: AcceptedEvent) -> IdentifiedEvent:
    """Check the types of an event and hash it, so that a store can meet nothing that it cannot write.

    Raises
    ------
    DataError
        A value has another type than `AcceptedEvent` says, contains NUL or half a surrogate pair, or is too large.

    Examples
    --------
    >>> identified = identify(AcceptedEvent("shop", "e1", "u1", 0, b"{}"))
    >>> len(identified.identity), len(identified.content)
    (16, 8)
    """
    source, event_id, user = (_encoded(event, name) for name in ("source", "event_id", "source_user_id"))
    if type(event.ts) is not int or not -INT64 <= event.ts < INT64:
        raise _refused("ts", event.ts, "microseconds as an integer of 64 bits")
    if type(event.body) is not bytes or len(event.body) > MAX_BODY_BYTES:
        size = len(event.body) if isinstance(event.body, bytes) else event.body
        raise _refused("body", size, f"at most {MAX_BODY_BYTES} bytes")
    # NUL, which no id contains, keeps ("ab", "c") and ("a", "bc") apart
    return IdentifiedEvent(
        event,
        blake2b(source + b"\0" + event_id, digest_size=IDENTITY_BYTES).digest(),
        blake2b(b"%b\0%d\0%b" % (user, event.ts, event.body), digest_size=CONTENT_BYTES).digest(),
    )


def _encoded(event: AcceptedEvent, field: str) -> bytes:
    text = getattr(event, field)
    if type(text) is str and "\0" not in text:
        try:
            return text.encode()
        except UnicodeEncodeError:
            pass
    raise _refused(field, text, "a text of Unicode characters without NUL")


def _refused(field: str, got: Any, allowed: str) -> DataError:
    return DataError("an event cannot be stored", where=field, got=got, allowed=allowed, field=field)
