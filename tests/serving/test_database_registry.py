"""MLflow's store on a real PostgreSQL: read without MLflow, followed, and away for a while."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.local_servers import PostgresServer
from qianmian.errors import WorkspaceError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
from serving.following import WorkspaceSource
from serving.model_registry import list_models, version_of
from tests.postgres_server import PASSWORD
from training.promotion import promote, rollback

ROOT = Path(__file__).resolve().parents[2]
JOB = "recommend"
# a worker of a server that loads its models
LOADS = """
import sys
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
print(load_from_workspace(Workspace.locate(), Settings()).models["recommend"].version, "mlflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def shop(
    workspace: Workspace,
    champions: Any,
    registering: Any,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workspace]:
    """The shop with two versions of its recommender in PostgreSQL, the second of which is the champion."""
    copied = Workspace(tmp_path_factory.mktemp("on a server") / "shop")
    shutil.copytree(workspace.root, copied.root, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    postgres_server.create_database("registry")
    uri, bundle = postgres_server.url("registry"), champions.models[JOB].bundle
    other = replace(bundle, item_ids=np.char.add(bundle.item_ids, "~second"))
    with pytest.MonkeyPatch.context() as patch:
        for registered in (bundle, other):
            patch.setenv("MLFLOW_TRACKING_URI", uri)  # `register` unsets it
            registering.register(copied, JOB, registered)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield copied


def test_a_worker_loads_from_postgresql_without_mlflow(shop: Workspace) -> None:
    environment = {**os.environ, "QIANMIAN_WORKSPACE": str(shop.root), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LOADS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert not shop.mlflow_db.exists()


def test_promotions_and_rollbacks_are_followed_also_after_an_outage(
    shop: Workspace, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    source = WorkspaceSource(shop)
    served = source.load()
    assert served.models[JOB].version == "2"
    assert source.moved() == {}
    rollback(shop, JOB, datetime.now(UTC))
    assert source.moved() == {JOB: "1"}
    served = source.with_part(served, JOB, "1")
    postgres_server.stop()
    with caplog.at_level(logging.INFO, logger="serving.following"):
        assert source.moved() == source.moved() == {}
        # a champion that moved just before the outage is loaded after it
        with pytest.raises(WorkspaceError):
            source.with_part(served, JOB, "2")
        postgres_server.start()
        assert source.moved() == {JOB: "1"}
    assert [line.split(" ")[0] for line in caplog.messages] == ["registry=lost", "registry=found"]
    assert PASSWORD not in caplog.text
    promote(shop, JOB, 2, datetime.now(UTC))
    assert source.moved() == {JOB: "2"}
    assert source.with_part(served, JOB, "2").models[JOB].version == "2"


def test_a_server_that_is_away_is_said_at_once_and_without_its_password(
    shop: Workspace, postgres_server: PostgresServer
) -> None:
    source = WorkspaceSource(shop)
    postgres_server.stop()
    begun = time.monotonic()
    calls = (
        source.load,
        lambda: load_from_workspace(shop, Settings()),
        lambda: list_models(shop),
        lambda: version_of(shop, JOB),
        lambda: promote(shop, JOB, 1, datetime.now(UTC)),
    )
    for call in calls:
        with pytest.raises(WorkspaceError, match="registry cannot be read") as raised:
            call()
        assert PASSWORD not in str(raised.value)
    assert time.monotonic() - begun < 20, "MLflow would try again for an hour"
    postgres_server.start()
    assert JOB in source.moved(), "a server that could not load its models loads them now"
    assert source.load().models[JOB].version == "2"


def test_an_empty_database_has_no_models(
    shop: Workspace, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_server.create_database("empty")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_server.url("empty"))
    assert WorkspaceSource(shop)._pointers_of_jobs() == {}
    assert version_of(shop, JOB) is None


def test_a_driver_that_is_missing_is_named(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+mysqldb://shop:secret@127.0.0.1/mlflow")
    with pytest.raises(WorkspaceError, match="MySQLdb is not installed") as raised:
        version_of(shop, JOB)
    assert "secret" not in str(raised.value)
