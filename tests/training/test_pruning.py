"""`models prune`: old versions and their artifacts go; those that an alias names, and all runs, stay."""

from __future__ import annotations

from datetime import datetime

import pytest
from mlflow.tracking import MlflowClient

from cli.main import run
from qianmian.errors import UsageError
from qianmian.paths import local_path
from qianmian.workspace import Workspace
from training import promotion, tracking
from training.pruning import Pruned, prune

NOW = datetime(2025, 1, 1)


@pytest.fixture
def workspace(tmp_path):
    """Six versions: 1 is the champion, 2 was it before, 3 is the challenger; the artifacts of 4 are those of 5, too."""
    workspace = Workspace(tmp_path / "work space").create()
    with tracking.run(workspace, "churn") as active:
        client, runs = client_of(workspace), active.info
        models = [client.create_logged_model(runs.experiment_id, source_run_id=runs.run_id) for _ in range(5)]
    for place in (0, 1, 2, 3, 3, 4):
        folder = local_path(models[place].artifact_location)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model").write_text("a model")
        promotion.register(workspace, "churn", runs.run_id, f"models:/{models[place].model_id}", {})
    promotion.promote(workspace, "churn", 2, NOW)
    promotion.promote(workspace, "churn", 1, NOW)
    promotion.challenge(workspace, "churn", 3)
    return workspace


def client_of(workspace):
    return MlflowClient(workspace.tracking_uri, workspace.tracking_uri)


def versions_left(workspace):
    return sorted(int(one.version) for one in client_of(workspace).search_model_versions("name = 'qianmian-churn'"))


def files_left(workspace):
    return len(list(workspace.artifact_root.rglob("model")))


def test_versions_without_an_alias_go_with_their_artifacts(workspace):
    assert prune(workspace, "churn", keep=1, dry_run=True) == [Pruned("qianmian-churn", number) for number in (4, 5)]
    assert (versions_left(workspace), files_left(workspace)) == ([1, 2, 3, 4, 5, 6], 5)
    assert prune(workspace, None, keep=2) == [Pruned("qianmian-churn", 4)]
    assert files_left(workspace) == 5, "version 5 has the same artifacts"
    assert prune(workspace, None, keep=0) == [Pruned("qianmian-churn", number) for number in (5, 6)]
    assert (versions_left(workspace), files_left(workspace)) == ([1, 2, 3], 3)
    assert promotion.rollback(workspace, "churn", NOW)["version"] == 2
    assert prune(workspace, None, keep=0) == []


def test_the_command_says_what_it_removes(workspace, capsys):
    assert run(["models", "prune", "--keep", "2", "--workspace", str(workspace.root)]) == 0
    assert "qianmian-churn: version 4 is removed" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no model is registered as qianmian-value"):
        prune(workspace, "value", keep=1)
