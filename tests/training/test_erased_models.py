"""A customer is taken out of every bundle and text of an MLflow store: champions, former versions, deleted runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from features.erasure.customer import ErasedCustomer
from models.bundle import ModelBundle
from models.erasing import bundles_in
from qianmian.workspace import Workspace
from training.erased_models import ERASURES_TAG, erase_models


@pytest.fixture(scope="module")
def workspace(trained, tmp_path_factory):
    """A copy of the trained workspace, which its tests change."""
    other = Workspace(tmp_path_factory.mktemp("erasing") / "work space")
    shutil.copytree(trained.workspace.root, other.root)
    return other


@pytest.fixture(scope="module")
def customer(workspace):
    """The customer with a row in every model who has bought most."""
    folder = next(one for one in bundles_in(workspace.artifact_root) if (one / "model" / "scenes.json").exists())
    bundle = ModelBundle.load(folder)
    history = next(iter(bundle.model.models.values())).history_
    one_id = str(bundle.user_ids[int(np.argmax(np.diff(history.indptr)))])
    return ErasedCustomer((("synthetic", "user-of-20-characters"),), (one_id,), ("h1:0123456789abcdef",))


@pytest.fixture(scope="module")
def uri(workspace):
    return workspace.tracking_uri


def holds(root: Path, *words: str) -> set[str]:
    """The files whose bytes hold a text, as UTF-8 or as an array of texts."""
    texts = [word.encode(encoding) for word in words for encoding in ("utf-8", "utf-32-le")]
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and any(text in path.read_bytes() for text in texts)
    }


@pytest.fixture(scope="module")
def store(workspace, customer, uri):
    """Runs and versions of all states: one that is not registered, a deleted one, a deleted version, and planted texts."""
    from qianmian import model_store

    model_store.adopt(workspace, required=True)
    client = MlflowClient(uri, uri)
    one_id = customer.one_ids[0]
    champion = client.get_model_version_by_alias("qianmian-recommend", "champion")
    experiment = client.get_run(champion.run_id).info.experiment_id
    for deleted in (False, True):
        run = client.create_run(experiment)
        bundle = next(one for one in bundles_in(workspace.artifact_root) if (one / "model" / "scenes.json").exists())
        client.log_artifacts(run.info.run_id, str(bundle), "a model/bundle")
        client.log_param(run.info.run_id, "shared_accounts", str({one_id: "9,000 orders"}))
        client.set_tag(run.info.run_id, "note", f"asked by user-of-20-characters, {one_id}")
        if deleted:
            client.delete_run(run.info.run_id)
    client.update_model_version("qianmian-recommend", champion.version, f"checked with {one_id}")
    return client


def test_nothing_in_the_store_names_the_customer(store, workspace, customer):
    words = (customer.one_ids[0], "user-of-20-characters")
    before = {one: ModelBundle.load(one) for one in bundles_in(workspace.artifact_root)}
    assert (
        sum("ids.npz" in path for path in holds(workspace.artifact_root, *words)) >= 6
    )  # of recommend, two of content, lookalike, and two runs without a version
    assert any(word.encode() in workspace.mlflow_db.read_bytes() for word in words)

    found = erase_models(workspace, customer)
    assert found.not_reached == ()
    assert found.removed >= 6
    assert holds(workspace.artifact_root, *words) == set()
    assert not any(word.encode() in workspace.mlflow_db.read_bytes() for word in words)
    assert not list(workspace.artifact_root.rglob(".erasing*"))

    for folder, bundle in before.items():
        left = ModelBundle.load(folder)
        if bundle.kind == "scenes":
            kept = np.flatnonzero(bundle.user_ids != customer.one_ids[0])
            for scene in bundle.model.scenes:
                one, other = (
                    model.scene(scene).recommend(users[:40], 10)
                    for model, users in ((bundle.model, kept), (left.model, np.arange(len(kept))))
                )
                np.testing.assert_array_equal(one.ids, other.ids)
                np.testing.assert_array_equal(one.scores, other.scores)

    taken = {
        (version.name.removeprefix("qianmian-"), version.version): version.tags.get(ERASURES_TAG)
        for version in store.search_model_versions()
        if version.name.removeprefix("qianmian-") in ("recommend", "content", "lookalike", "lifecycle")
    }
    former = {("content", 1): "1", ("content", 2): "1"}
    assert taken == {**former, ("recommend", 1): "1", ("lookalike", 1): "1", ("lifecycle", 1): None}
    assert erase_models(workspace, customer).removed == 0  # and again


def test_a_model_of_another_format_is_named(store, workspace):
    bundle = bundles_in(workspace.artifact_root)[0]
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    found = erase_models(workspace, ErasedCustomer((), ("u-nobody",)))
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert found.removed == 0
    assert found.not_reached == (
        f"{bundle}: the model has another format; delete this version, or restore its files and erase again",
    )


def test_a_workspace_without_models_has_nothing_to_erase(tmp_path):
    assert erase_models(Workspace(tmp_path).create(), ErasedCustomer((), ("u1",))).removed == 0
    assert not Workspace(tmp_path).mlflow_db.exists()


@pytest.mark.slow
def test_artifacts_behind_an_mlflow_server_are_uploaded_again(trained, tmp_path, monkeypatch, customer):
    import mlflow

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", f"{tmp_path}/kept"]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", url.rpartition(":")[2], "--workers", "1"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW")}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        mlflow.set_tracking_uri(url)
        client = MlflowClient(url, url)
        bundle = next(
            one for one in bundles_in(trained.workspace.artifact_root) if (one / "model" / "scenes.json").exists()
        )
        with mlflow.start_run() as run:
            mlflow.log_param("shared_accounts", str({customer.one_ids[0]: "9,000 orders"}))
            mlflow.log_artifacts(str(bundle), "model/artifacts/bundle")
        client.create_registered_model("qianmian-recommend")
        client.create_model_version("qianmian-recommend", f"{run.info.artifact_uri}/model", run.info.run_id)

        found = erase_models(Workspace(tmp_path / "workspace").create(), customer)
        assert found.removed == 1
        assert found.not_reached[0].startswith(f"run {run.info.run_id}: a parameter or tag names the customer")
        assert holds(tmp_path / "kept", customer.one_ids[0]) == set()
        again = mlflow.artifacts.download_artifacts("models:/qianmian-recommend/1", dst_path=str(tmp_path / "again"))
        left = ModelBundle.load(Path(again) / "artifacts" / "bundle")
        assert customer.one_ids[0] not in left.user_ids
        assert client.get_model_version("qianmian-recommend", "1").tags[ERASURES_TAG] == "1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers as well
        server.wait()
