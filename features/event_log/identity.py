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
    source, event_id, user, ts, body = event
    if not (type(source) is type(event_id) is type(user) is str):
        raise _wrong_text(event)
    if type(ts) is not int or not -INT64 <= ts < INT64:
        raise _refused("ts", ts, "microseconds as an integer of 64 bits")
    if type(body) is not bytes or len(body) > MAX_BODY_BYTES:
        raise _refused("body", len(body) if isinstance(body, bytes) else body, f"at most {MAX_BODY_BYTES} bytes")
    try:
        # NUL, which no id contains, keeps ("ab", "c") and ("a", "bc") apart
        name, rest = f"{source}\0{event_id}".encode(), f"{user}\0{ts}\0".encode()
    except UnicodeEncodeError:
        raise _wrong_text(event) from None
    if name.count(0) != 1 or rest.count(0) != 2:
        raise _wrong_text(event)
    return IdentifiedEvent(
        event,
        blake2b(name, digest_size=IDENTITY_BYTES).digest(),
        blake2b(rest + body, digest_size=CONTENT_BYTES).digest(),
    )


def _wrong_text(event: AcceptedEvent) -> DataError:
    """The error of the first text that cannot be stored."""
    for field in ("source", "event_id", "source_user_id"):
        text = getattr(event, field)
        if type(text) is not str or "\0" in text or text.encode(errors="replace").decode() != text:
            return _refused(field, text, "a text of Unicode characters without NUL")
    raise AssertionError("all texts can be stored")


def _refused(field: str, got: Any, allowed: str) -> DataError:
    return DataError("an event cannot be stored", where=field, got=got, allowed=allowed, field=field)
