"""A small synthetic shop, its models in an MLflow store, and a BentoML server, shared by all tests of serving."""

from __future__ import annotations

import importlib.util
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from features.data.ingest import ingest
from features.data.sources.synthetic import Synthetic
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import Champions, load_from_workspace
from serving.server import environment, running
from tests.shared import made_once, own_copy

_spec = importlib.util.spec_from_file_location("serving_registering", Path(__file__).with_name("registering.py"))
_registering = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_registering)

AS_OF = datetime(2024, 8, 1)
Call = Callable[..., tuple[int, Any]]


def request(
    url: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Send a request; return status and decoded body. None sends a GET, bytes are sent unchanged, other bodies as JSON."""
    data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    asked = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, orjson.loads(text)
    except orjson.JSONDecodeError:
        return status, text


@dataclass
class RunningServer:
    """A server and its responses while it started."""

    url: str
    log: Path
    while_loading: dict[str, tuple[int, Any]] = field(default_factory=dict)

    def __call__(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        return request(self.url + path, body, **options)


@pytest.fixture(scope="session", name="registering")
def registering_() -> Any:
    """The helper module: with `--import-mode=importlib` a test cannot import its neighbour."""
    return _registering


@pytest.fixture(scope="session")
def request_() -> Call:
    return request


@pytest.fixture(scope="session")
def server_environment(tmp_path_factory) -> Callable[..., dict[str, str]]:
    """Makes environments of servers, each with a home of its own: BentoML empties the metrics of all that share one."""

    def make(workspace: Workspace | None, workers: int = 1) -> dict[str, str]:
        found = {**environment(workspace, workers), "BENTOML_HOME": str(tmp_path_factory.mktemp("bentoml"))}
        for name in (
            "MLFLOW_TRACKING_URI",
            "PYTHONPATH",
            "QIANMIAN_API_KEYS",
            *(() if workspace else ("QIANMIAN_WORKSPACE",)),
        ):
            found.pop(name, None)
        return found

    return make


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Iterator[Workspace]:
    import mlflow

    before = os.environ.pop("MLFLOW_TRACKING_URI", None)

    def make(folder: Path) -> None:
        made = Workspace(folder / "work space")
        ingest(made, Synthetic(customers=400, days=240, seed=3), Settings())
        _registering.register_all(made, AS_OF)

    folder, _ = made_once(tmp_path_factory, "served", make)
    made = own_copy(Workspace(folder / "work space"), tmp_path_factory.mktemp("a shop") / "work space")
    mlflow.set_tracking_uri(made.tracking_uri)  # as the registration did in the process that made it
    mlflow.set_registry_uri(made.tracking_uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by the former call
    yield made
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def champions(workspace) -> Champions:
    return load_from_workspace(workspace, Settings())


@pytest.fixture(scope="session")
def serve(workspace, server_environment, tmp_path_factory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("wb") as handle, running(workspace, env=server_environment(workspace), wait=False, log=handle) as url:
        found = RunningServer(url, log)
        deadline = time.monotonic() + 60
        while "/livez" not in found.while_loading:
            try:
                found.while_loading["/livez"] = found("/livez")
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        found.while_loading["/readyz"] = found("/readyz")
        found.while_loading["/v1/churn"] = found("/v1/churn", {"user_ids": ["x"]})
        while found("/readyz")[0] != 200:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found


@pytest.fixture(scope="session")
def buyers(champions) -> list[str]:
    """user_ids of customers with history, by number of orders, descending."""
    orders = champions.customers.features.column("orders_total")
    users = champions.customers.table["user_id"].to_pylist()
    return [users[row] for row in (-orders).argsort(kind="stable").tolist() if orders[row] > 0]
