"""Registration, promotion, rollback and pruning with an MLflow server instead of the store of the workspace."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest

from features.profiles.tags import published
from qianmian.workspace import Workspace
from serving.model_registry import version_of
from training import promotion
from training.pruning import Pruned, prune

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
START_SECONDS = 120.0


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of an MLflow server with a store of its own, which proxies artifacts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    process = subprocess.Popen([*command, "--artifacts-destination", str(tmp_path / "artifacts")], cwd=tmp_path)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_versions_go_their_way_with_an_mlflow_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    import measurement_kills as kills

    workspace = Workspace(tmp_path / "shop").create()
    assert workspace.tracking_uri == server
    trained = [kills._train(workspace, kills.NOW + timedelta(seconds=second)) for second in range(3)]
    assert [(one.status, one.version) for one in trained] == [("registered", version) for version in (1, 2, 3)]
    assert "champion 2 (as it was evaluated) is 0.0000 [0.0000, 0.0000]" in trained[2].reason
    assert promotion.rollback(workspace, "churn", kills.NOW + timedelta(seconds=9))["version"] == 2
    assert version_of(workspace, "churn") == published.read(workspace, kills.TAG).model_version == "2"
    assert prune(workspace, None, keep=0) == [Pruned("qianmian-churn", 1)]
    assert len(list((tmp_path / "artifacts").rglob("bundle/manifest.json"))) == 2
