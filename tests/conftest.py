"""What all tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.examples import ALL

if TYPE_CHECKING:
    from deploy.local_servers import PostgresServer

# The tests run in one process a core, on small data. More threads than that gain nothing: those of OpenBLAS and XGBoost that wait for
# each other would spin and take the cores from the other processes. Set before either library is loaded.
FEW_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# DuckDB reads a variable of Slurm only. A second thread costs a query over a few rows up to half of its time again.
if not ALL:
    FEW_THREADS["SLURM_CPUS_ON_NODE"] = "1"
for name, value in FEW_THREADS.items():
    os.environ.setdefault(name, value)
# Expressions of Ibis are so many small objects that the usual thresholds scan them again and again.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish() -> None:
    """Keep all generated queries: a process builds profiles of the same few shops again and again, and between them of many others."""
    for name in ("features.compute.engines.duckdb", "features.compute.online.build"):
        if name in sys.modules:
            sys.modules[name].SQL_CACHE_SIZE = 256


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the tests of a process share."""
    from tests.postgres_server import start_postgres

    server = start_postgres()
    yield server
    server.remove()
