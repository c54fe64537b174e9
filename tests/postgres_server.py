"""A real PostgreSQL server for tests, which are skipped where PostgreSQL is not installed."""

from __future__ import annotations

import pytest

from deploy.local_servers import PostgresServer

PASSWORD = "only-in-the-environment"


def start_postgres() -> PostgresServer:
    """Start a server; skip the test where PostgreSQL is not installed."""
    if not PostgresServer.installed():
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    return PostgresServer("shop", PASSWORD)
