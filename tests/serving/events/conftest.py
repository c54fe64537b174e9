"""A real event log, and what follows it until the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.event_log import EventLog, open_log
from serving.events.live import LiveEvents

SECONDS = 20  # that a machine under load may take for what takes milliseconds


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = open_log(tmp_path / "events.db")
    yield opened
    opened.close()


@pytest.fixture
def following() -> Iterator[Callable[..., LiveEvents]]:
    """Follows a log until the test ends."""
    started: list[LiveEvents] = []

    def follow(log: EventLog, **options: int) -> LiveEvents:
        started.append(LiveEvents(lambda: log, **options))
        started[-1].start()
        started[-1].wait(SECONDS)
        return started[-1]

    yield follow
    for one in started:
        one.close()
