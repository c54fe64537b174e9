"""The id of each request: that of its client, or a new one; in the response and in every line of the log about it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

NAME = b"x-request-id"
KEY = "qianmian.request_id"  # in the scope of a request
ALLOWED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
Header = tuple[bytes, bytes]

AT_ONCE = 256  # ids that are made together, in a quarter of the time of as many single ones
_random = random.Random()  # seeded by the system, once a process: an id is no secret
_new: list[Header] = []  # that are made and not given to a request yet


def _begin_process() -> None:
    """Make other ids than the process that this one was forked from."""
    _new.clear()
    _random.seed()


os.register_at_fork(after_in_child=_begin_process)
# a request runs in a task of its own, which slow work and its thread inherit from
HEADER: ContextVar[Header | None] = ContextVar("request_id", default=None)


def begin(scope: MutableMapping[str, Any]) -> None:
    """Give the request that this task answers its id."""
    # its connection finds it in the scope, if it has to end the request
    scope[KEY] = header = header_of(scope.get("headers", ()))
    HEADER.set(header)


def header_of(headers: Iterable[Header]) -> Header:
    """The id that a client has sent, if it is one, else a new one; called by the thread of the event loop only.

    Examples
    --------
    >>> header_of([(b"host", b"localhost"), (b"x-request-id", b"order-7.2")])
    (b'x-request-id', b'order-7.2')
    >>> len(header_of([(b"x-request-id", b"no spaces")])[1])
    16
    """
    for name, value in headers:
        if name == NAME:
            if ALLOWED.fullmatch(value):
                return NAME, value
            break
    if not _new:
        digits = _random.randbytes(8 * AT_ONCE).hex().encode()
        _new.extend([(NAME, digits[start : start + 16]) for start in range(0, len(digits), 16)])
    return _new.pop()


def header_in(scope: Mapping[str, Any]) -> Header:
    """The id of the request of a scope; a new one if it has none yet."""
    found: Header | None = scope.get(KEY)
    return found if found is not None else header_of(())


def current() -> str:
    """The id of the request that is answered; empty outside requests."""
    header = HEADER.get()
    return header[1].decode() if header is not None else ""
