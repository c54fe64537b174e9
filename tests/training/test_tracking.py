"""What MLflow shows of a training: experiments, names, data, descriptions, commands, and models that anyone can load."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import shlex
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions.pack_features import declared_features
from features.erasure.customer import ErasedCustomer
from features.erasure.scan import scan_workspace
from models.bundle import ModelBundle
from qianmian.errors import DataError
from qianmian.workspace import Workspace
from serving.server import free_port
from tests.training.test_train import ALL, END
from training import JOBS, tracking, wheel

FEATURE_JOBS = ("churn", "left", "lifecycle", "value", "propensity")


@pytest.fixture
def store(trained, monkeypatch):
    """Point MLflow to the trained workspace for the duration of a test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.workspace.tracking_uri)
    with tracking.tracking_at(trained.workspace.tracking_uri):
        yield trained.workspace


@pytest.fixture(scope="module")
def profiles(trained, settings):
    return Builder(Lake(trained.workspace), declared_features(settings)).build(END).table.slice(0, 60).to_pandas()


@pytest.fixture
def folder(store, client):
    """Folder of the logged model of a job; MLflow reads its address in the store that it points to."""

    def find(job: str) -> Path:
        source = client.get_model_version(f"qianmian-{job}", "1").source
        return Path(mlflow.artifacts.download_artifacts(source, tracking_uri=store.tracking_uri))

    return find


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ALL)
def test_each_job_has_an_experiment_whose_runs_say_what_they_are(trained, client, job):
    run = client.get_run(trained.results[job].run_id)
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == f"qianmian-{job}"
    assert experiment.artifact_location == trained.workspace.artifact_root.as_uri()
    assert run.info.run_name == f"{job} 2024-05-30 h{90 if job == 'value' else 28}"
    assert run.data.tags["mlflow.note.content"].startswith(f"**{run.info.run_name}**")


@pytest.mark.parametrize("job", ALL)
def test_the_command_of_a_run_is_one_that_the_command_line_takes(trained, client, job):
    from typer.main import get_command

    from cli.main import app

    words = shlex.split(client.get_run(trained.results[job].run_id).data.tags["qianmian.command"])
    assert words[:5] == ["qianmian", "train", job, "--as-of", "2024-05-30"]
    verb = get_command(app).commands["train"]
    parsed = verb.make_context("train", words[2:], resilient_parsing=False).params
    assert (parsed["job"], parsed["horizon_days"]) == (job, 90 if job == "value" else 28)
    assert parsed["active_days"] == (56 if job == "churn" else None)


@pytest.mark.parametrize("job", ["churn", "recommend"])
def test_the_lake_is_the_dataset_of_a_run(trained, client, job):
    (found,) = client.get_run(trained.results[job].run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("lake", Lake(trained.workspace).digest)
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert str(trained.workspace.root) not in found.dataset.source  # a workspace can be moved


@pytest.mark.parametrize("job", ALL)
def test_a_model_and_its_versions_are_described(trained, client, job):
    about = client.get_registered_model(f"qianmian-{job}").description
    assert JOBS[job].description[1:] in about
    text = client.get_model_version(f"qianmian-{job}", "1").description
    report = trained.results[job].report
    assert f"lake `{Lake(trained.workspace).digest}`, before 2024-05-30 00:00" in text
    assert "| horizon | " in text
    assert f"`qianmian train {job} --as-of 2024-05-30" in text
    assert "**Gate: passed**" in text
    name, metric = next(iter(report.metrics.items()))
    assert f"| {name} | {metric.value:.4g} [{metric.low:.4g}, {metric.high:.4g}] |" in text
    assert len(text) <= 5_000


def test_a_nested_run_is_in_the_experiment_of_its_parent(trained):
    workspace = trained.workspace
    with tracking.run(workspace, "churn", "churn tune") as parent, tracking.run(workspace, "churn", "trees 0") as trial:
        assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert trial.info.experiment_id == parent.info.experiment_id
    with tracking.run(workspace, "left") as other:
        assert other.info.experiment_id != parent.info.experiment_id
        assert other.info.run_name == "left"


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ALL)
def test_the_input_example_has_the_columns_of_the_model_and_no_customer(trained, store, folder, job):
    model = mlflow.pyfunc.load_model(str(folder(job)))
    bundle = ModelBundle.load(folder(job) / "artifacts" / "bundle")
    columns = model.metadata.metadata["columns"]
    assert set(columns) == set(model.metadata.signature.inputs.input_names())
    if job not in FEATURE_JOBS:
        assert columns == {"one_id": "id"}
        assert model.input_example is None
        return
    example = model.input_example
    assert len(example) == 1
    assert example.columns.tolist() == model.metadata.signature.inputs.input_names()
    assert set(example.columns) <= {*bundle.spec.names, "lifecycle_stage"}
    assert len(model.predict(example)) == 1
    optional = set(model.metadata.signature.inputs.optional_input_names())
    assert optional == set(bundle.spec.names)


@pytest.mark.parametrize("job", FEATURE_JOBS)
def test_integers_and_a_csv_file_are_predicted_as_the_profiles_are(store, folder, profiles, job):
    model = mlflow.pyfunc.load_model(str(folder(job)))
    frame = profiles.assign(lifecycle_stage="active")
    expected = model.predict(frame)
    whole = {
        name: values.astype("int64")
        for name, values in frame.select_dtypes("number").items()
        if values.notna().all() and (values == values.round()).all()
    }
    assert len(whole) > 5
    csv = pd.read_csv(io.StringIO(frame.drop(columns="one_id").to_csv(index=False)))
    for other in (frame.assign(**whole), csv, frame.sample(frac=1, axis=1, random_state=0)):
        np.testing.assert_allclose(model.predict(other).to_numpy(), expected.to_numpy(), rtol=1e-6)


def test_a_column_that_is_absent_counts_as_one_that_is_empty(store, folder, profiles):
    model = mlflow.pyfunc.load_model(str(folder("churn")))
    spec = ModelBundle.load(folder("churn") / "artifacts" / "bundle").spec
    name = next(feature.name for feature in spec.features if not feature.categorical)
    default = next(feature.default for feature in spec.features if feature.name == name)
    absent = model.predict(profiles.drop(columns=name))
    np.testing.assert_array_equal(absent, model.predict(profiles.assign(**{name: None})))
    np.testing.assert_array_equal(absent, model.predict(profiles.assign(**{name: default})))
    with pytest.raises(DataError, match="none of the columns"):
        model.predict(pd.DataFrame({"one_id": ["a"], "Orders": [1]}))


@pytest.mark.parametrize("job", ["recommend", "content", "lookalike"])
def test_ids_of_which_the_model_knows_none_are_an_error(store, folder, job):
    model = mlflow.pyfunc.load_model(str(folder(job)))
    with pytest.raises(DataError, match="knows none of these customers") as caught:
        model.predict(pd.DataFrame({"one_id": ["42", "43"]}))
    assert "got '42, 43'" in str(caught.value)
    if job == "recommend":  # a part of a call that Spark has divided may have new customers only
        part = model.predict(pd.DataFrame({"one_id": ["42"]}), params={"one_row_per_customer": True})
        assert set(part["source"][0]) == {"popular"}


# ---- what is installed where a model is loaded -----------------------------------------------------------------------


def test_every_requirement_of_a_model_can_be_installed(folder):
    """The libraries are those of the lock, and the project is a wheel beside them."""
    lines = [line for line in (folder("churn") / "requirements.txt").read_text().splitlines() if line]
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    libraries = [line for line in lines if "==" in line]
    assert [line for line in libraries if f"{line} \\" not in lock.replace("_", "-").lower()] == []
    assert [line for line in lines if line not in libraries] == [f"code/{wheel.NAME}"]
    assert (folder("churn") / "code" / wheel.NAME).is_file()
    assert not [
        line for line in libraries if line.startswith(("rectools", "implicit", "bentoml"))
    ]  # only train or serve


def test_the_wheel_is_the_same_each_time_and_is_a_wheel(tmp_path):
    from wheel.wheelfile import WheelFile

    path = wheel.write_wheel(tmp_path)
    wheel._wheel.cache_clear()
    assert wheel.write_wheel(tmp_path / "..").read_bytes() == path.read_bytes()
    with WheelFile(path) as archive:  # reading compares each file with its checksum in RECORD
        names = archive.namelist()
        assert all(archive.read(name) is not None for name in names)
    assert {name.split("/")[0] for name in names} == {"qianmian", "features", "models", "qianmian-0.1.0.dist-info"}


def test_the_words_of_the_code_are_no_trace_of_a_customer(tmp_path):
    workspace = Workspace(tmp_path).create()
    folder = workspace.artifact_root / "models" / "m-1" / "artifacts" / "code"
    folder.mkdir(parents=True)
    file = wheel.write_wheel(folder)
    customer = ErasedCustomer((("shop", "anonymous"),), (), ())
    assert scan_workspace(workspace, customer) == [(str(file.relative_to(workspace.root)), "user id")]
    assert wheel.wheels_below(workspace.artifact_root) == {file}
    assert scan_workspace(workspace, customer, wheel.wheels_below(workspace.artifact_root)) == []


def distributions_of(lines):
    """What pip installs for these requirements: their distributions and what they need, without extras."""
    found, todo = set(), [Requirement(line).name for line in lines if "==" in line]
    while todo:
        if (name := canonicalize_name(todo.pop())) not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or ())
            todo += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.slow
def test_a_model_is_loaded_with_its_wheel_and_its_requirements_alone(trained, folder, profiles, tmp_path):
    """The project itself is on no path, and what its requirements do not install cannot be imported."""
    frame = tmp_path / "profiles.parquet"
    profiles.assign(lifecycle_stage="active").to_parquet(frame)
    needed = distributions_of((folder("churn") / "requirements.txt").read_text().splitlines())
    packages = importlib.metadata.packages_distributions()
    absent = {name for name, owners in packages.items() if not needed & {canonicalize_name(one) for one in owners}}
    absent -= {package.__name__ for package in wheel.PACKAGES}
    assert {"implicit", "lightfm", "bentoml", "optuna", "training", "serving", "cli"} <= absent
    code = f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {absent}:
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Absent())
        sys.path.insert(0, {str(folder("churn") / "code" / wheel.NAME)!r})
        import features, mlflow, pandas as pd
        assert ".whl" in features.__file__, features.__file__
        frame = pd.read_parquet({str(frame)!r})
        for place in {[str(folder(job)) for job in ALL]!r}:
            columns = ["one_id"] if "one_id" in mlflow.models.Model.load(place).signature.inputs.input_names() else None
            assert len(mlflow.pyfunc.load_model(place).predict(frame[columns] if columns else frame))
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_CURRENT_TEST")
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_mlflow_serves_a_model_over_http(trained, folder, tmp_path):
    port, environment = (
        free_port("127.0.0.1"),
        {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder("churn")), "--env-manager", "local"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        example = json.loads((folder("churn") / "serving_input_example.json").read_text())
        rows = {"dataframe_records": [{"orders_total": 5, "days_since_last_order": 12}, {"orders_total": 1.0}]}
        assert [len(posted(port, body)["predictions"]) for body in (example, rows)] == [1, 2]
        with pytest.raises(urllib.error.HTTPError) as caught:
            posted(port, {"dataframe_records": [{"nothing": 1}]})
        assert caught.value.code == 400
        assert "none of the columns that the model reads" in caught.value.read().decode()
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def posted(port, body, seconds=120):
    """The answer of a server that may still be starting."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
