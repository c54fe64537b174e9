"""Waits of tests for what another thread or process does soon."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 20  # that a machine under load may take for what takes milliseconds


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.002)
