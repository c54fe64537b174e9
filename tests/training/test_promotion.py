"""A model whose files are outside the workspace is not registered in its store."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from datetime import datetime

import pytest
from mlflow.tracking import MlflowClient

from qianmian.errors import WorkspaceError
from qianmian.workspace import Workspace
from training import promotion, tracking

NOW = datetime(2025, 1, 1)


def test_a_model_stored_outside_the_workspace_is_refused(tmp_path):
    """Another process opened the same folder under another path while this one trained."""
    workspace = Workspace(tmp_path / "shop").create()
    with tracking.run(workspace, "churn") as run:
        run_id, experiment = run.info.run_id, run.info.experiment_id
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    inside, outside = (f"models:/{client.create_logged_model(experiment, source_run_id=run_id).model_id}" for _ in "ab")
    with contextlib.closing(sqlite3.connect(workspace.mlflow_db, isolation_level=None)) as store:
        store.execute(
            "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?",
            ((tmp_path / "mount" / "mlartifacts").as_uri(), outside.removeprefix("models:/")),
        )
    with pytest.raises(WorkspaceError, match="outside the workspace"):
        promotion.register(workspace, "churn", run_id, outside, {})
    assert client.search_model_versions("name = 'qianmian-churn'") == []
    assert promotion.register(workspace, "churn", run_id, inside, {}) == 1


def test_the_champion_of_a_moved_workspace_changes_in_its_own_store(tmp_path):
    workspace = Workspace(tmp_path / "shop").create()
    for _ in range(2):
        with tracking.run(workspace, "churn") as run:
            client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
            model = client.create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
        version = promotion.register(workspace, "churn", run.info.run_id, f"models:/{model.model_id}", {})
        promotion.promote(workspace, "churn", version, NOW)
    before = workspace.mlflow_db.read_bytes()
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "copy"))
    assert promotion.rollback(copy, "churn", NOW)["version"] == 1
    assert workspace.mlflow_db.read_bytes() == before
    address = MlflowClient(copy.tracking_uri, copy.tracking_uri).get_model_version_download_uri("qianmian-churn", "1")
    assert address.startswith(copy.artifact_root.as_uri())
