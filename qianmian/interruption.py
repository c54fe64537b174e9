"""Long work that can be interrupted: it calls `checkpoint` between its parts.

Whoever runs the work says with `checking` what happens there, such as giving way to others or raising because nobody
waits for the result any more. By default nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


def checkpoint() -> None:
    """Raise an exception if this thread's work is no longer wanted; else return, perhaps after a short pause."""
    _CHECK.get()()


@contextmanager
def checking(check: Callable[[], None]) -> Iterator[None]:
    """Context manager in which `checkpoint` calls `check` in this thread."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)
