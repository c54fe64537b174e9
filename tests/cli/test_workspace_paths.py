"""The pipeline in a folder whose name has characters with a meaning in URLs and patterns, then in a copy of it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.main import run
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace

NAME = "shop?x #1 50%25 [a]* & 店"


def content(root: Path) -> dict[str, str]:
    """Checksum of every file below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def call(workspace: Path, *arguments: object) -> None:
    assert run([*map(str, arguments), "--workspace", str(workspace), "--json"]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with profiles and a churn model, alone in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "QIANMIAN_WORKSPACE"):
            patch.delenv(name, raising=False)
        patch.setattr("cli.main.quieten", lambda debug: None)
        patch.setattr("training.bootstrap.STATISTIC_RESAMPLES", 50)
        folder = tmp_path_factory.mktemp("shops")
        patch.chdir(folder)
        root = folder / NAME
        call(root, "ingest", "synthetic", "--customers", 150, "--days", 170)
        call(root, "features")
        call(root, "train", "churn")
        yield root


def scores(root: Path, out: Path) -> list[dict[str, object]]:
    call(root, "score", "churn", "--out", out)
    return pq.read_table(out).to_pylist()


def test_everything_is_inside_and_is_scored_and_served(trained, tmp_path):
    assert [path.name for path in trained.parent.iterdir()] == [trained.name]
    assert (trained / "mlflow.db").is_file()
    assert list(trained.glob("mlartifacts/models/*/artifacts/artifacts/bundle/manifest.json"))
    rows = scores(trained, tmp_path / "scores.parquet")
    assert len(rows) == 166
    assert sum(row["churn_probability"] is not None for row in rows) > 100
    workspace = Workspace(trained)
    champions = load_from_workspace(workspace, load_settings(workspace.config_file))
    assert champions.models["churn"].version == "1"
    assert not champions.problems


def test_a_copy_trains_into_itself_and_does_not_need_the_original(trained, tmp_path):
    copy, hidden = tmp_path / "copy", trained.with_name("hidden")
    expected = scores(trained, tmp_path / "expected.parquet")
    before = content(trained)
    shutil.copytree(trained, copy)
    artifacts = set(content(copy / "mlartifacts"))
    call(copy, "train", "churn")
    assert content(trained) == before
    assert len(set(content(copy / "mlartifacts")) - artifacts) > 10
    trained.rename(hidden)
    try:
        call(copy, "models", "rollback", "churn")  # to the version that was trained in the original
        assert scores(copy, tmp_path / "copied.parquet") == expected
        moved = copy.rename(tmp_path / "moved")
        assert scores(moved, tmp_path / "moved.parquet") == expected
        assert not copy.exists()
        assert not trained.exists()
    finally:
        hidden.rename(trained)
