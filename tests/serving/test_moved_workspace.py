"""A copied or moved workspace serves its own champions, never those of the folder it came from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving import model_registry
from serving.champions import export, load_from_folder, load_from_workspace


@pytest.fixture
def copy(workspace, tmp_path) -> Workspace:
    shutil.copytree(workspace.root, tmp_path / "copy [1] 100% #?")
    return Workspace(tmp_path / "copy [1] 100% #?")


def test_a_copy_serves_its_own_files(workspace, copy, champions):
    with model_registry.bundle_folder(copy, "churn", "1") as folder:
        assert folder.is_relative_to(copy.root)
        shutil.rmtree(folder)  # only the original has this bundle now
    with model_registry.bundle_folder(workspace, "churn", "1") as folder:
        assert folder.is_relative_to(workspace.root)
    served = load_from_workspace(copy, Settings())
    assert served.models.keys() == champions.models.keys() - {"churn"}
    assert str(copy.root) in str(served.failures["churn"])


def test_a_moved_workspace_is_served_exported_and_read_by_mlflow(copy, tmp_path, champions):
    import mlflow

    load_from_workspace(copy, Settings())
    moved = Workspace(Path(shutil.move(copy.root, tmp_path / "moved")))
    assert load_from_workspace(moved, Settings()).models.keys() == champions.models.keys()
    exported = load_from_folder(export(moved, Settings(), tmp_path / "export"))
    assert exported.models.keys() == champions.models.keys()
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", moved.tracking_uri)  # set by `set_tracking_uri`, and undone at the end
        mlflow.set_tracking_uri(moved.tracking_uri)
        mlflow.set_registry_uri(moved.tracking_uri)
        try:
            folder = mlflow.artifacts.download_artifacts("models:/qianmian-churn@champion")
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])
    assert Path(folder).is_relative_to(moved.root)
    assert list(Path(folder).glob("artifacts/*/manifest.json"))
