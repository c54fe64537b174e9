"""Both stores, on a real file and a real Redis server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local_servers import RedisServer
from features.event_log import AcceptedEvent, EventLog, open_log
from tests.redis_server import start_redis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("servers") / "redis")
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty log is."""
    if request.param == "sqlite":
        return str(tmp_path / "events.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    server.client.flushall()
    return server.url


@pytest.fixture
def opened() -> Iterator[Callable[..., EventLog]]:
    """Opens logs that the test does not close itself."""
    logs: list[EventLog] = []

    def open_one(*arguments: object) -> EventLog:
        logs.append(open_log(*arguments))  # type: ignore[arg-type]
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


@pytest.fixture
def log(location: str, opened: Callable[..., EventLog]) -> EventLog:
    return opened(location)


@pytest.fixture(scope="session")
def event() -> Callable[..., AcceptedEvent]:
    """An event of some number, with the values that a test names."""

    def made(number: object, **values: object) -> AcceptedEvent:
        return AcceptedEvent("shop", f"e{number}", "u1", 1_700_000_000_000_000, b"{}")._replace(**values)  # type: ignore[arg-type]

    return made
