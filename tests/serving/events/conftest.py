"""Profiles with their online state, a real event log, and what follows it until the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from features.compute.builder import Builder
from features.compute.online.build import build_state
from features.data.lake import Lake
from features.definitions import FEATURES
from features.event_log import EventLog, open_log
from features.profiles.building import build_snapshot
from features.profiles.snapshot import ONLINE_STATE_FOLDER, Snapshot
from qianmian.settings import Settings
from serving.events.live import LiveEvents
from tests.shared import made_once

AS_OF = datetime(2024, 7, 18)
SECONDS = 20  # that a machine under load may take for what takes milliseconds


@pytest.fixture(scope="session")
def builder(workspace) -> Builder:
    return Builder(Lake(workspace), FEATURES)


@pytest.fixture(scope="session")
def published(builder, tmp_path_factory) -> Snapshot:
    """Profiles at `AS_OF` with their online state, as they are read from their folder."""

    def make(folder: Path) -> None:
        built = build_snapshot(builder, AS_OF, Settings())
        built.save(folder / "profiles")
        build_state(builder, AS_OF, built.spec.features).save(folder / "profiles" / ONLINE_STATE_FOLDER)

    return Snapshot.load(made_once(tmp_path_factory, "published", make)[0] / "profiles")


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
