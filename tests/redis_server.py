"""A real Redis server for tests, which are skipped where Redis is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local_servers import RedisServer


def start_redis(folder: Path, password: str | None = None) -> RedisServer:
    """Start a server in a new folder; skip the test where Redis is not installed."""
    if not RedisServer.installed():
        pytest.skip("Redis is not installed (Debian package redis-server)")
    folder.mkdir()
    return RedisServer(folder, password)
