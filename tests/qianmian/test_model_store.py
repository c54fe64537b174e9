"""The MLflow store of a workspace that was copied or moved names the artifacts of that workspace and of no other."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qianmian import model_store
from qianmian.errors import WorkspaceError
from qianmian.paths import local_path
from qianmian.workspace import Workspace

NAME = "qianmian-churn"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(model_store, "READER_LOCK_SECONDS", 0.05)
    monkeypatch.setattr(model_store, "WRITER_LOCK_SECONDS", 0.05)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A workspace with one run, one registered version and one file of artifacts; tests copy it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        workspace = Workspace(tmp_path_factory.mktemp("shops") / "shop").create()
        client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
        experiment = client.create_experiment(model_store.EXPERIMENT, workspace.artifact_root.as_uri())
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, "churn", "model/MLmodel")
        client.create_registered_model(NAME)
        client.create_model_version(NAME, f"{run.info.artifact_uri}/model", run.info.run_id)
    return workspace


@pytest.fixture
def original(template, tmp_path):
    """The original of the copies of a test: its own store names it."""
    shutil.copytree(template.root, tmp_path / "original" / "shop")
    workspace = Workspace(tmp_path / "original" / "shop")
    model_store.adopt(workspace, required=True)
    return workspace


def addresses(workspace: Workspace) -> list[str]:
    """Every address of artifacts in the store, in any column of any table."""
    with contextlib.closing(sqlite3.connect(workspace.mlflow_db)) as store:
        tables = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            value
            for table in tables
            for row in store.execute(f'SELECT * FROM "{table}"')
            for value in row
            if isinstance(value, str) and "/mlartifacts" in value
        ]


def artifact(workspace: Workspace) -> Path:
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    return local_path(client.get_model_version_download_uri(NAME, "1"))


def digest(workspace: Workspace) -> str:
    return hashlib.sha256(workspace.mlflow_db.read_bytes()).hexdigest()


def copied(original: Workspace, to: Path) -> Workspace:
    shutil.copytree(original.root, to)
    return Workspace(to)


@pytest.mark.parametrize("name", ["copy", "shop/inside the original", "shop?x #1 100% [a]* 店", "shop%41"])
def test_a_copy_names_its_own_artifacts(original, tmp_path, name):
    before = digest(original)
    copy = copied(original, tmp_path / "original" / name)
    assert model_store.former_root(copy) == original.root
    assert model_store.current_path(copy, artifact(copy)) == copy.root / artifact(original).relative_to(original.root)
    model_store.adopt(copy)
    assert digest(original) == before
    assert model_store.former_root(copy) is None
    assert len(addresses(copy)) == len(addresses(original)) == 4  # experiment, run, source and place of the version
    assert all(model_store.is_inside(copy, address) for address in addresses(copy))
    assert artifact(copy).is_relative_to(copy.root)
    assert (artifact(copy) / "MLmodel").read_text() == "churn"


def test_a_workspace_that_was_moved_twice(original, tmp_path):
    first = Path(shutil.move(original.root, tmp_path / "first"))
    model_store.adopt(Workspace(first))
    second = Workspace(Path(shutil.move(first, tmp_path / "second")))
    model_store.adopt(second)
    assert (artifact(second) / "MLmodel").exists()
    assert artifact(second).is_relative_to(second.root)


def test_another_path_to_the_same_folder_is_no_move(original, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(original.root)
    before = digest(original)
    model_store.adopt(Workspace(link), required=True)
    assert digest(original) == before


def test_a_copy_of_hard_links_leaves_the_store_of_the_original(original, tmp_path):
    before = digest(original)
    shutil.copytree(original.root, tmp_path / "linked", copy_function=os.link)
    linked = Workspace(tmp_path / "linked")
    model_store.adopt(linked, required=True)
    assert digest(original) == before
    assert artifact(original).is_relative_to(original.root)
    assert artifact(linked).is_relative_to(linked.root)


def test_processes_that_open_a_copy_at_once(original, tmp_path, monkeypatch):
    monkeypatch.setattr(model_store, "WRITER_LOCK_SECONDS", 30.0)
    copy = copied(original, tmp_path / "copy")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: model_store.adopt(copy, required=True), range(16)))
    assert artifact(copy) == copy.root / artifact(original).relative_to(original.root)


def test_a_store_that_cannot_be_written_is_translated_or_refused(original, tmp_path):
    copy = copied(original, tmp_path / "copy")
    before = digest(copy)
    with contextlib.closing(sqlite3.connect(copy.mlflow_db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # another process writes; a read-only file gives the same class of error
        model_store.adopt(copy)
        assert model_store.current_path(copy, artifact(copy)).is_relative_to(copy.root)
        with pytest.raises(WorkspaceError, match="copied or moved from") as caught:
            model_store.adopt(copy, required=True)
        other.execute("ROLLBACK")
    assert str(original.root) in str(caught.value)
    assert "locked" in str(caught.value)
    assert digest(copy) == before


def test_a_store_outside_the_workspace_is_left_alone(original, tmp_path, monkeypatch):
    other = Workspace(tmp_path / "other").create()
    before = digest(original)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", original.tracking_uri)
    model_store.adopt(other, required=True)
    model_store.keep_inside(other)
    assert model_store.own_store(other) is None
    assert digest(original) == before
    assert model_store.own_store(original) == original.mlflow_db


def test_experiments_that_mlflow_made_store_new_artifacts_inside(original, tmp_path):
    client = MlflowClient(original.tracking_uri, original.tracking_uri)
    elsewhere, theirs = tmp_path / "mlruns" / "1", client.create_experiment("theirs", (tmp_path / "x").as_uri())
    with contextlib.closing(sqlite3.connect(original.mlflow_db, isolation_level=None)) as store:
        store.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = ?", (str(elsewhere), model_store.EXPERIMENT)
        )
    model_store.keep_inside(original)
    assert client.get_experiment_by_name(model_store.EXPERIMENT).artifact_location == original.artifact_root.as_uri()
    assert client.get_experiment("0").artifact_location == (original.artifact_root / "0").as_uri()
    assert client.get_experiment(theirs).artifact_location == (tmp_path / "x").as_uri()


def test_a_run_that_cannot_be_written_is_refused_before_the_training(original, tmp_path):
    """`mlflow run --experiment-name` makes an experiment outside the workspace; MLflow takes no runs in a deleted one."""
    client = MlflowClient(original.tracking_uri)
    theirs = client.create_experiment("chosen", (tmp_path / "mlruns").as_uri())
    run_id = client.create_run(theirs).info.run_id
    model_store.check_experiments(original, ["churn"], None)
    model_store.check_experiments(original, ["churn"], client.create_run("0").info.run_id)
    with pytest.raises(WorkspaceError, match="the experiment chosen stores its models outside the workspace") as caught:
        model_store.check_experiments(original, ["churn"], run_id)
    assert str(tmp_path / "mlruns") in str(caught.value)
    client.delete_experiment(client.create_experiment("qianmian-left", original.artifact_root.as_uri()))
    model_store.check_experiments(original, ["churn"], None)
    with pytest.raises(WorkspaceError, match="mlflow experiments restore --experiment-id"):
        model_store.check_experiments(original, ["churn", "left"], None)


def test_a_workspace_in_which_only_mlflow_opened_runs(original, tmp_path):
    """`mlflow run` uses the experiment `Default`; that of this project is not there then."""
    with contextlib.closing(sqlite3.connect(original.mlflow_db, isolation_level=None)) as store:
        store.execute("UPDATE experiments SET name = 'Default' || experiment_id WHERE name = 'Default'")
        store.execute(
            "UPDATE experiments SET name = 'Default', artifact_location = artifact_location || '/0' WHERE name = ?",
            (model_store.EXPERIMENT,),
        )
    moved = Workspace(Path(shutil.move(original.root, tmp_path / "moved")))
    assert model_store.former_root(moved) == original.root
    model_store.adopt(moved)
    assert artifact(moved).is_relative_to(moved.root)


def test_a_file_that_is_no_store_is_left_to_mlflow(tmp_path):
    workspace = Workspace(tmp_path).create()
    workspace.mlflow_db.write_text("no database")
    model_store.adopt(workspace, required=True)
    assert workspace.mlflow_db.read_text() == "no database"
