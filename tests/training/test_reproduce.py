"""A version is trained again from what its run holds; another lake and a run without arguments are refused."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from cli.main import app
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.snapshot_table import file_digest
from models import parallel
from models.bundle import ModelBundle, model_hash
from models.classify.calibrated import CalibratedClassifier
from models.classify.snapshot_model import SnapshotColumn, SnapshotModel
from models.parallel import limit_threads, thread_budget
from qianmian.errors import DataError, NotFound, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.training.test_classify import people, written
from tests.training.test_uplift_table import mailing
from training import provenance as origin
from training import reproduce as module
from training import train
from training.classify.run import SnapshotTask, train_classify
from training.jobs import JOBS
from training.jobs.base import TrainingContext
from training.reproduce import different_values, flat, reproduce
from training.uplift.table import UpliftTask, train_uplift_table

CLOCK = partial(datetime, 2025, 1, 1, 12, 0)


@pytest.fixture(scope="module")
def registered(shop, copy_workspace, settings) -> Workspace:
    """The shop with a version of the cheapest job."""
    workspace = copy_workspace(shop)
    train(workspace, ["content"], clock=CLOCK, settings=settings)
    return workspace


def test_a_version_is_reproduced_and_nothing_is_written(registered):
    files = {path: path.stat().st_mtime_ns for path in registered.root.rglob("*") if path.is_file()}
    found = reproduce(registered, "content", 1)
    assert found.same, found
    assert found.model_hash == found.repeated_hash
    assert found.metrics > 10
    assert not found.other_metrics
    assert not found.differences
    assert {path: path.stat().st_mtime_ns for path in registered.root.rglob("*") if path.is_file()} == files


@pytest.mark.slow
@pytest.mark.parametrize("job", ["recommend", "churn", "left", "lifecycle", "lookalike", "propensity", "value"])
def test_the_other_jobs_are_reproduced(trained, job):
    found = reproduce(trained.workspace, job, 1)
    assert found.same, found


def test_a_run_holds_its_provenance(registered, settings):
    client = MlflowClient(registered.tracking_uri, registered.tracking_uri)
    version = client.get_model_version("qianmian-content", "1")
    run = client.get_run(version.run_id)
    tags = run.data.tags
    assert tags["qianmian.data_digest"] == version.tags["data_digest"] == Lake(registered).digest
    assert tags["qianmian.model_hash"] == version.tags["model_hash"]
    assert tags["qianmian.settings_hash"] == origin.digest(origin.effective_settings(registered, settings))
    assert tags["qianmian.seed"] == "0"
    assert "xgboost" in tags["qianmian.libraries"]
    assert len(tags["qianmian.git_commit"].removesuffix("-dirty")) in (0, 40)


def test_the_manifest_has_the_hash_of_the_model(registered):
    manifest = module.read_run(registered, "qianmian-content", 1).manifest
    client = MlflowClient(registered.tracking_uri, registered.tracking_uri)
    tags = client.get_model_version("qianmian-content", "1").tags
    assert manifest["model_hash"] == tags["model_hash"] == model_hash(manifest["kind"], manifest["files"])
    files = {**manifest["files"], "reference.json": "of the monitor"}
    assert model_hash(manifest["kind"], files) == manifest["model_hash"], "other files of a bundle are no part of it"
    assert model_hash(manifest["kind"], {**files, "model/params.json": "x"}) != manifest["model_hash"]


def test_another_lake_is_refused_with_both_digests(registered, shop, copy_workspace):
    half = "SELECT * FROM events WHERE ts < TIMESTAMP '2024-05-01'"
    other = copy_workspace(shop, {"events": half})
    with pytest.raises(DataError) as caught:
        reproduce(registered, "content", 1, lake_workspace=other)
    assert Lake(registered).digest in str(caught.value)
    assert Lake(other).digest in str(caught.value)


def test_a_lake_elsewhere_of_the_same_digest_will_do(registered, shop):
    found = reproduce(registered, "content", 1, lake_workspace=shop)
    assert found.same


def test_a_run_without_arguments_is_refused(registered, monkeypatch):
    monkeypatch.setattr(module, "ARGUMENTS_FILE", "of_no_run.json")
    with pytest.raises(DataError, match="does not hold its arguments"):
        reproduce(registered, "content", 1)


@pytest.mark.slow
def test_a_model_of_a_table_is_reproduced_from_the_same_file(tmp_path):
    """The file is given again, under another name; its digest says whether it is the same."""
    workspace, file = Workspace(tmp_path / "w"), written(tmp_path, people(200))
    task = SnapshotTask(file, "leaves", "customer", name="phones", excluded=("country",))
    train_classify(workspace, task, settings=Settings(seed=3), clock=CLOCK)
    moved = file.rename(tmp_path / "moved.csv")
    arguments = ["models", "reproduce", "classify-phones", "1", "--workspace", str(workspace.root)]
    done = CliRunner().invoke(app, [*arguments, "--data", str(moved)])
    assert done.exit_code == 0, done.output
    assert "is reproduced" in done.output
    with pytest.raises(UsageError, match="trained on a table, which is not kept") as caught:
        reproduce(workspace, "classify-phones", 1)
    assert "--data FILE" in str(caught.value)
    with pytest.raises(UsageError, match="got '?--lake"):
        reproduce(workspace, "classify-phones", 1, data=moved, lake_workspace=workspace)
    other = written(tmp_path, people(200, seed=1), "other.csv")
    with pytest.raises(DataError, match="trained on another table") as refused:
        reproduce(workspace, "classify-phones", 1, data=other)
    assert file_digest(other) in str(refused.value)
    assert file_digest(moved) in str(refused.value)


@pytest.mark.slow
def test_an_uplift_model_of_a_table_is_reproduced(tmp_path):
    workspace, file = Workspace(tmp_path / "w"), written(tmp_path, mailing(), "mailing.csv")
    task = UpliftTask(file, "segment", "visit", id_column="customer", excluded=("spend",))
    train_uplift_table(workspace, task, settings=Settings(), clock=CLOCK)
    found = reproduce(workspace, "uplift-table", 1, data=file)
    assert found.same, found
    assert not found.differences


def test_a_table_for_a_model_of_the_lake_is_refused(registered, tmp_path):
    with pytest.raises(UsageError, match="was trained on the lake"):
        reproduce(registered, "content", 1, data=tmp_path / "people.csv")


def test_an_unknown_version_is_named(registered):
    with pytest.raises(NotFound, match="no version 7"):
        reproduce(registered, "content", 7)
    with pytest.raises(NotFound, match="no model is registered"):
        reproduce(registered, "churn", 1)


@pytest.mark.slow
def test_what_differs_is_said(trained, monkeypatch):
    """Another parameter of the trees, which no setting has: the code is another one."""
    monkeypatch.setattr("models.classify.calibrated.TREES", {"n_estimators": 20, "max_depth": 2})
    monkeypatch.setattr("training.classify.choice.CANDIDATES", {"boosted trees": ("trees",)})
    monkeypatch.setattr(module, "versions_of_libraries", lambda: {"xgboost-cpu": "9.9"})
    monkeypatch.setattr("training.jobs.propensity.fit_best", partial(_trees_alone))
    found = reproduce(trained.workspace, "propensity", 1)
    assert not found.same
    assert found.model_hash != found.repeated_hash
    assert found.other_files
    assert all(file.startswith("model/") for file in found.other_files)
    assert "category=grocery auc".replace("=", "_") in found.other_metrics
    assert any(line.startswith("library xgboost-cpu: ") and line.endswith("9.9 now") for line in found.differences)
    arguments = ["models", "reproduce", "propensity", "1", "--workspace", str(trained.workspace.root)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3, done.output
    assert "NOT reproduced" in done.output
    assert "9.9 now" in done.output


def _trees_alone(X, y, groups, categorical, seed, moments=None, candidates=None, trees=None):
    from models.classify.calibrated import CalibratedClassifier

    return "boosted trees", CalibratedClassifier(("trees",), categorical, seed).fit(X, y, groups)


def test_the_command_prints_and_exits(registered):
    done = CliRunner().invoke(
        app, ["models", "reproduce", "content", "1", "--workspace", str(registered.root), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["same"] is True


def test_settings_that_this_version_does_not_know_are_refused(registered):
    run = module.read_run(registered, "qianmian-content", 1)
    arguments = {**run.arguments, "settings": {**run.arguments["settings"], "retired": 1}}
    with pytest.raises(DataError, match="retired"):
        module.settings_of(replace(run, arguments=arguments), registered)


def test_differences_are_named():
    before, now = (
        flat({"seed": 0, "churn": {"risk_bands": None}}),
        flat({"seed": 1, "churn": {"risk_bands": [0.3, 0.6]}}),
    )
    assert different_values("settings", before, now) == (
        "settings churn.risk_bands: null in the run, [0.3, 0.6] now",
        "settings seed: 0 in the run, 1 now",
    )
    assert different_values("library", {}, {"numpy": "2"}) == ("library numpy: none in the run, 2 now",)


def test_settings_are_recorded_without_passwords_and_folders(tmp_path):
    workspace = Workspace(tmp_path)
    settings = Settings.model_validate(
        {"serving": {"online_store": "redis://shop:hunter22@cache/0"}, "pack": str(tmp_path / "my pack")}
    )
    found = origin.effective_settings(workspace, settings)
    assert "hunter22" not in json.dumps(found)
    assert str(tmp_path) not in json.dumps(found)
    elsewhere = settings.model_copy(update={"pack": "/elsewhere/my pack"})
    assert origin.digest(origin.effective_settings(Workspace(tmp_path.parent / "x"), elsewhere)) != origin.digest(found)


def test_the_commit_is_empty_outside_a_checkout(tmp_path):
    assert origin.git_commit(tmp_path) == ""
    assert origin.lock_digest(tmp_path) == ""


def test_a_changed_checkout_is_dirty(tmp_path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    assert len(origin.git_commit(tmp_path)) == 40
    (tmp_path / "file").write_text("two")
    origin.git_commit.cache_clear()
    assert origin.git_commit(tmp_path).endswith("-dirty")


@pytest.fixture
def on_threads(monkeypatch):
    """Limit this process to so many threads, until the test ends."""
    before = thread_budget()
    monkeypatch.setattr(parallel, "_limit", 0)  # to what it is set back
    with threadpool_limits(before):
        yield limit_threads


def test_regression_and_trees_have_the_same_hash_on_one_core_and_on_two(on_threads):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4_000, 8)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=4_000) > 0).astype(np.int64)
    hashes = []
    for threads in (1, 2):
        on_threads(threads)
        model = CalibratedClassifier(("logistic", "trees"), (False,) * 8, 0).fit(X, y)
        columns = tuple(SnapshotColumn(f"c{place}", "number") for place in range(8))
        hashes.append(ModelBundle("classify", SnapshotModel(columns, model, "y", "yes"), CLOCK()).model_hash)
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.parametrize("job", ["churn", "lifecycle", "value", "propensity", "left", "recommend"])
def test_one_core_and_two_give_the_same_model(shop, settings, job, on_threads):
    found = []
    for threads in (1, 2):
        on_threads(threads)
        context = TrainingContext(shop, Lake(shop).default_as_of, settings, lambda line: None)
        found.append(JOBS[job].run(context).bundle.model_hash)
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "shop_of", "section"),
    [
        ("demand", {"customers": 2000, "days": 330, "seed": 3, "intent": True, "demand_types": True}, {}),
        (
            "uplift",
            {"customers": 1500, "days": 105, "seed": 1},
            {"campaigns": ["kind=message"], "horizon_days": 7, "outcome": "orders"},
        ),
    ],
)
def test_jobs_of_special_data_are_the_same_on_one_core_and_on_two(tmp_path, job, shop_of, section, on_threads):
    workspace, settings = Workspace(tmp_path / "w"), Settings.model_validate({job: section})
    ingest(workspace, SOURCES["synthetic"](**shop_of), settings)
    found = []
    for threads in (1, 2):
        on_threads(threads)
        context = TrainingContext(workspace, Lake(workspace).default_as_of, settings, lambda line: None)
        found.append(JOBS[job].run(context).bundle.model_hash)
    assert found[0] == found[1]


@pytest.mark.slow
def test_outcomes_that_come_late_are_not_used(shop, settings):
    """With a gap, the test period ends so many days before the cutoff, and dates to learn from end before it, too."""
    said: list[str] = []
    late = settings.model_copy(update={"propensity": settings.propensity.model_copy(update={"gap_days": 9})})
    end = Lake(shop).default_as_of
    run = JOBS["propensity"].run(TrainingContext(shop, end, late, said.append))
    assert sum(line.startswith("features at") for line in said) == 4, "two dates to learn from, the test, the cutoff"
    assert f"evaluated at {end - timedelta(days=28 + 9):%Y-%m-%d}" in " ".join(said)
    assert run.parameters["gap_days"] == 9
