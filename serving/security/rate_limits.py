"""Rate limits: how many requests one caller may send in a time, counted in each worker."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem


@lru_cache(maxsize=1024)
def parsed_limit(text: str) -> RateLimitItem:
    """The limit that a text such as ``100/second`` describes."""
    from limits import parse  # only where there is a limit

    return parse(text)


class NoSweep(threading.Timer):
    """Stands for a sweep that is under way, so that the storage starts none."""

    def is_alive(self) -> bool:
        return True


class RateLimits:
    """Counts the requests of each caller in a sliding window of two counters, so that memory does not grow with them.

    Each worker counts its own: a counter that all share would cost a round trip for each request. The storage would
    start a thread that removes old counters a hundred times a second; here the first request after `sweep` does.

    Parameters
    ----------
    now : callable
        Returns the seconds of the epoch, as the library counts them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._storage, self._now = MemoryStorage(), now
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._no_sweep, self._ended = NoSweep(0, print), self._storage.timer

    def seconds_to_wait(self, limit: RateLimitItem, caller: str) -> int:
        """Count a request of a caller; 0 if it may be answered, else seconds until another one may."""
        is_within = self._limiter.hit(limit, caller)
        self._storage.timer = self._no_sweep
        if is_within:
            return 0
        free_at = self._limiter.get_window_stats(limit, caller).reset_time
        return max(1, math.ceil(free_at - self._now()))

    def sweep(self) -> None:
        """Let the next request start the removal of counters of times that are over."""
        self._storage.timer = self._ended
