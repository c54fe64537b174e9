"""Reading the registry, and what is served if files of the workspace are corrupt."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from features.compute.online import OnlineState
from features.data.lake import Lake
from features.definitions import FEATURES
from features.profiles.snapshot import Snapshot
from models.recommend.fallback import FallbackChain
from qianmian.errors import (
    ArtifactError,
    ConfigError,
    InvalidRequest,
    NotFound,
    NotReady,
    QianmianError,
    WorkspaceError,
)
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving import model_registry
from serving.champions import Champions, export, load_from_folder, load_from_workspace
from serving.endpoints import ENDPOINTS
from serving.loading import BackgroundLoader
from serving.requests import parse_request
from serving.server import check_port, free_port, running
from serving.slow_requests import TooManyRequests
from serving.stored_errors import fresh
from serving.users import resolve, resolve_users

NOW = datetime(2024, 8, 3)


def answer(champions: Champions, route: str, **fields):
    endpoint = ENDPOINTS[route]
    return endpoint.respond(champions, endpoint.request.model_validate(fields), NOW)


def bundle_of(workspace: Workspace, job: str, version: str) -> Path:
    with model_registry.bundle_folder(workspace, job, version) as folder:
        return folder


@pytest.fixture
def damaged(tmp_path):
    """Corrupt a file for the duration of a test."""
    saved = []

    def spoil(path: Path) -> None:
        keep = tmp_path / f"{len(saved)}"
        shutil.copy(path, keep)
        saved.append((keep, path))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))

    yield spoil
    for keep, path in reversed(saved):
        shutil.copy(keep, path)


# ---- registry --------------------------------------------------------------------------------------------------------


def test_list_show_history(workspace):
    listed = {model["name"]: model for model in model_registry.list_models(workspace)}
    assert list(listed) == [
        "qianmian-churn",
        "qianmian-lifecycle",
        "qianmian-lookalike",
        "qianmian-recommend",
        "qianmian-uplift",
    ]
    assert listed["qianmian-churn"]["champion"] == "1"
    shown = model_registry.show(workspace, "churn")
    assert shown["aliases"] == {"champion": "1"}
    assert shown["versions"][0]["metrics"] == {"auc": 0.9}
    events = model_registry.history(workspace, "qianmian-churn")
    assert [(event.action, event.version, event.previous) for event in events] == [("register", "1", None)]
    with pytest.raises(NotFound, match="qianmian-nonsense"):
        model_registry.show(workspace, "nonsense")


def test_the_models_of_a_workspace_are_loaded_without_mlflow(workspace):
    code = (
        "import json, sys; from pathlib import Path; from serving.champions import load_from_workspace; "
        "from qianmian.settings import Settings; from qianmian.workspace import Workspace; "
        f"models = load_from_workspace(Workspace(Path({str(workspace.root)!r})), Settings()).models; "
        "print(json.dumps([{job: one.version for job, one in models.items()}, 'mlflow' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    versions, loaded = json.loads(done.stdout)
    assert versions == dict.fromkeys(("recommend", "churn", "lifecycle", "lookalike", "uplift"), "1")
    assert not loaded


def test_an_alias_is_that_of_mlflow(workspace, tmp_path):
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    client = MlflowClient(copy.tracking_uri, copy.tracking_uri)
    source = client.get_model_version("qianmian-churn", "1").source
    client.create_model_version("qianmian-churn", source)
    client.set_registered_model_alias("qianmian-churn", "champion", "2")
    client.set_registered_model_alias("qianmian-churn", "previous", "1")
    assert model_registry.version_of(copy, "churn") == "2"
    assert model_registry.version_of(copy, "churn", "previous") == "1"
    client.delete_registered_model_alias("qianmian-churn", "champion")
    assert model_registry.version_of(copy, "churn") is None
    assert model_registry.version_of(copy, "nonsense") is None


def test_history_reads_events_in_order_and_skips_what_it_cannot_read(workspace):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    name = "qianmian-lookalike"
    tags = {
        "qianmian.event.2030-01-02T00:00:00.000000Z": {"action": "rollback", "version": 1, "previous": 2},
        "qianmian.event.2030-01-01T00:00:00.000000Z": {"action": "promote", "version": 2, "previous": 1},
    }
    for key, value in tags.items():
        client.set_registered_model_tag(name, key, json.dumps(value))
    client.set_registered_model_tag(name, "qianmian.event.2030-01-03T00:00:00.000000Z", "not json")
    try:
        assert [(event.action, event.version) for event in model_registry.history(workspace, name)] == [
            ("register", "1"),
            ("promote", "2"),
            ("rollback", "1"),
        ]
    finally:
        for key in (*tags, "qianmian.event.2030-01-03T00:00:00.000000Z"):
            client.delete_registered_model_tag(name, key)


def test_reading_an_empty_workspace_makes_no_store(tmp_path):
    empty = Workspace(tmp_path).create()
    assert model_registry.list_models(empty) == []
    assert model_registry.version_of(empty, "churn") is None
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(NotReady, match="no champion"):
        load_from_workspace(empty, Settings())
    with pytest.raises(WorkspaceError, match="workspace does not exist"):
        load_from_workspace(Workspace(tmp_path / "nowhere"), Settings())


# ---- a corrupt champion ----------------------------------------------------------------------------------------------


def test_the_previous_version_is_served_if_the_champion_is_corrupt(
    workspace, champions, damaged, server_environment, buyers, registering, request_
):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    version = registering.register(workspace, "churn", champions.models["churn"].bundle)
    try:
        assert version == "2"
        assert load_from_workspace(workspace, Settings()).models["churn"].version == "2"
        damaged(bundle_of(workspace, "churn", "2") / "model" / "member_0" / "booster.json")
        damaged(bundle_of(workspace, "lookalike", "1") / "model" / "state.npz")  # it has no previous version
        loaded = load_from_workspace(workspace, Settings())
        assert loaded.models["churn"].version == "1"
        assert "booster.json" in str(loaded.problems[0])
        with running(workspace, env=server_environment(workspace)) as url:
            status, body = request_(f"{url}/v1/churn", {"user_ids": buyers[:1]})
            assert status == 200
            assert body["model"] == {"name": "qianmian-churn", "version": "1"}
            assert body["scores"][0]["churn_probability"] is not None
            status, body = request_(f"{url}/v1/lookalike", {"seed_user_ids": buyers[:30], "size": 5})
            assert status == 503
            assert body["error"]["code"] == "artifact"
            assert "state.npz" in body["error"]["message"]
            assert "rollback" in body["error"]["hint"]
            assert request_(f"{url}/v1/recommendations", {"user_id": buyers[0]})[0] == 200
        damaged(bundle_of(workspace, "churn", "1") / "manifest.json")
        with pytest.raises(ArtifactError):
            load_from_workspace(workspace, Settings()).require("churn")
    finally:
        client.set_registered_model_alias("qianmian-churn", "champion", "1")
        client.delete_registered_model_alias("qianmian-churn", "previous")


@pytest.mark.parametrize("text", ["{}", "[]", "", '{"format": 1}', '{"format": 99, "files": {}}'])
def test_an_invalid_manifest_is_an_artifact_error(text, workspace, damaged):
    path = bundle_of(workspace, "lifecycle", "1") / "manifest.json"
    damaged(path)
    path.write_text(text)
    loaded = load_from_workspace(workspace, Settings())
    assert isinstance(loaded.failures["lifecycle"], ArtifactError)
    with pytest.raises(ArtifactError):
        answer(loaded, "/predictions", user_ids=["x"], predictions=["lifecycle"])


def test_missing_artifacts_are_an_artifact_error(workspace):
    folder = bundle_of(workspace, "lifecycle", "1")
    away = folder.with_name("away")
    folder.rename(away)
    (away / "manifest.json").rename(away / "elsewhere.json")
    try:
        assert isinstance(load_from_workspace(workspace, Settings()).failures["lifecycle"], ArtifactError)
    finally:
        (away / "elsewhere.json").rename(away / "manifest.json")
        away.rename(folder)


def test_corrupt_profiles_are_replaced_by_the_previous_ones(workspace, champions, damaged):
    from features.compute.builder import Builder
    from features.profiles.building import build_snapshot
    from features.profiles.snapshot import current_snapshot_name, publish

    before = current_snapshot_name(workspace)
    newer = publish(
        workspace,
        build_snapshot(Builder(Lake(workspace), FEATURES), champions.customers.as_of + timedelta(days=3), Settings()),
    )
    try:
        damaged(newer / "profiles.parquet")
        (newer / "profiles.parquet").write_bytes(b"nothing")
        loaded = load_from_workspace(workspace, Settings())
        assert loaded.customers.as_of == champions.customers.as_of
        assert "profile snapshot" in str(loaded.problems[0])
        for other in workspace.online.iterdir():
            if other.is_dir() and other != newer:
                damaged(other / "snapshot.json")
                (other / "snapshot.json").write_text("{")
        alone = load_from_workspace(workspace, Settings())
        with pytest.raises(ArtifactError):
            answer(alone, "/profile", user_id="x")
        item = champions.models["recommend"].catalogue.item_ids[0]
        assert answer(alone, "/similar-items", item_id=item)["items"], "routes that need no profiles still work"
    finally:
        (workspace.online / "current.json").write_text(json.dumps({"snapshot": before}))


def test_a_model_of_another_time_zone_than_the_profiles_is_not_served(workspace, champions, tmp_path):
    from features.compute.builder import Builder
    from features.profiles.building import build_snapshot
    from features.profiles.snapshot import current_snapshot_name, publish

    before = current_snapshot_name(workspace)
    settings = Settings(timezone="America/New_York")
    builder = Builder(Lake(workspace), FEATURES, timezone=settings.calendar_timezone)
    publish(workspace, build_snapshot(builder, champions.customers.as_of, settings))
    try:
        loaded = load_from_workspace(workspace, settings)
        exported = load_from_folder(export(workspace, settings, tmp_path / "export"))
    finally:
        (workspace.online / "current.json").write_text(json.dumps({"snapshot": before}))
    assert loaded.failures.keys() == {"churn", "lifecycle"}
    assert exported.models.keys() == loaded.models.keys() == champions.models.keys() - {"churn", "lifecycle"}
    loaded.warm()
    with pytest.raises(ArtifactError, match="another time zone") as found:
        answer(loaded, "/churn", user_ids=["x"])
    assert "train the model again" in (found.value.hint or "")
    with pytest.raises(ArtifactError, match="another time zone"):
        champions.with_snapshot(loaded.customers).encoded("churn")


def test_an_endpoint_without_a_model_says_what_to_run(champions):
    without = Champions({"recommend": champions.models["recommend"]}, champions.snapshot, champions.settings)
    with pytest.raises(NotReady) as found:
        answer(without, "/churn", user_ids=["x"])
    assert "qianmian train churn" in (found.value.hint or "")


# ---- export ----------------------------------------------------------------------------------------------------------


def test_an_export_answers_the_same_without_the_workspace(workspace, champions, buyers, tmp_path):
    loaded = load_from_folder(export(workspace, Settings(), tmp_path / "exported"))
    assert OnlineState.load(loaded.snapshot.online_state).as_of == loaded.snapshot.as_of, "for fresh tags"
    for route, fields in {
        "/recommendations": {"user_id": buyers[0]},
        "/churn": {"user_ids": buyers[:5], "explain": True},
        "/profile": {"user_id": buyers[0]},
        "/predictions": {"user_ids": buyers[:5]},
        "/lookalike": {"seed_user_ids": buyers[:30], "size": 5},
    }.items():
        one, two = answer(champions, route, **fields), answer(loaded, route, **fields)
        assert {**one, "recommendation_id": ""} == {**two, "recommendation_id": ""}
    (tmp_path / "exported" / "models" / "churn" / "manifest.json").write_text("{}")
    assert isinstance(load_from_folder(tmp_path / "exported").failures["churn"], ArtifactError)
    (tmp_path / "exported" / "index.json").write_text("{}")
    with pytest.raises(ArtifactError):
        load_from_folder(tmp_path / "exported")


# ---- ambiguous ids ---------------------------------------------------------------------------------------------------


def test_an_id_of_two_sources_requires_user_source(champions):
    import pyarrow as pa

    first, second = champions.customers.one_ids[:2]
    people = pa.table({"one_id": [first, second], "source": ["app", "shop"], "source_user_id": ["7", "7"]})
    own = champions.customers
    double = champions.with_snapshot(Snapshot(own.table, own.tags, people, own.as_of, own.spec, own.data_digest))
    with pytest.raises(InvalidRequest) as found:
        resolve(double, "7", None)
    assert found.value.field == "user_source"
    assert resolve(double, "7", "shop").one_id == second
    rows = answer(double, "/churn", user_ids=["7", "8"])["scores"]
    assert "user_source" in rows[0]["no_score_reason"]
    assert rows[1]["no_score_reason"] == "unknown customer"
    assert next(resolve_users(double, ["7"], "app")).one_id == first


# ---- the server as a process -----------------------------------------------------------------------------------------


def test_without_a_workspace_every_route_says_why(tmp_path):
    from starlette.testclient import TestClient

    from serving.http import UniformErrorMiddleware, make_app

    loading = BackgroundLoader(lambda: load_from_workspace(Workspace(tmp_path / "no"), Settings()))
    loading._run()
    client = TestClient(UniformErrorMiddleware(make_app(loading), loading))
    for route in ENDPOINTS.keys() - {"/events", "/erase"}:  # which need no models
        found = client.post(route, json={})
        assert found.status_code == 503
        assert found.json()["error"]["code"] == "workspace"
        assert "qianmian ingest" in found.json()["error"]["hint"]


def test_an_unexpected_error_is_a_500_without_details(champions, buyers, monkeypatch):
    from starlette.testclient import TestClient

    from serving.http import make_app

    without_kept_lists = replace(champions)

    class Loaded:
        def get(self):
            return without_kept_lists

        def why_not_ready(self):
            return None

    def fail(*_arguments, **_options):
        raise ZeroDivisionError("secret value")

    monkeypatch.setattr(FallbackChain, "recommend", fail)
    found = TestClient(make_app(Loaded())).post("/recommendations", json={"user_id": buyers[0]})
    assert found.status_code == 500
    assert found.json()["error"]["code"] == "internal"
    assert "secret" not in found.text


@pytest.mark.slow
def test_a_server_that_can_never_be_ready_says_why(tmp_path, server_environment):
    with (
        pytest.raises(NotReady, match="workspace does not exist"),
        running(None, env={**server_environment(None), "QIANMIAN_WORKSPACE": str(tmp_path / "no")}),
    ):
        pass


def test_a_port_in_use_is_refused():
    import socket

    from qianmian.errors import UsageError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            check_port("127.0.0.1", taken.getsockname()[1])
    check_port("127.0.0.1", free_port())


def test_an_unexpected_error_while_loading_is_not_reported_as_loading():
    def fail() -> Champions:
        raise ZeroDivisionError("secret")

    loading = BackgroundLoader(fail)
    assert "being loaded" in str(loading.why_not_ready())
    loading._run()
    assert "could not be loaded" in str(loading.why_not_ready())
    assert "secret" not in str(loading.why_not_ready())


@pytest.mark.parametrize("error", [ConfigError(["a", "b"], where="q.yaml"), TooManyRequests("/churn", 2, 7)])
def test_an_error_is_copied_with_its_fields_and_without_its_traceback(error):
    try:
        raise error from ZeroDivisionError()
    except QianmianError as caught:
        copied = fresh(caught)
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))
    assert copied.__traceback__ is copied.__cause__ is copied.__context__ is None


def test_stored_errors_keep_nothing_of_the_requests_that_they_are_raised_for(champions):
    def fail() -> Champions:
        raise ConfigError(["a mistake"], where="qianmian.yaml")

    loading = BackgroundLoader(fail)
    loading._load_all()
    stored = {"churn": ArtifactError("broken"), "profiles": ArtifactError("broken")}
    broken = Champions({}, None, champions.settings, stored)
    for raises in (loading.get, lambda: broken.require("churn"), lambda: broken.customers):
        for _ in range(3):
            with pytest.raises(QianmianError) as found:
                raises()
            assert len(found.traceback) <= 4
    for error in (loading.why_not_ready(), *broken.failures.values()):
        assert error.__traceback__ is None


def test_the_errors_of_a_load_do_not_keep_what_was_loaded(workspace, damaged):
    damaged(bundle_of(workspace, "churn", "1") / "manifest.json")
    loaded = load_from_workspace(workspace, Settings())
    errors = [*loaded.failures.values(), *loaded.problems]
    assert errors
    assert [error.__traceback__ for error in errors] == [None] * len(errors)


def test_parse_request_names_all_errors_and_the_first_field():
    with pytest.raises(InvalidRequest) as found:
        parse_request(ENDPOINTS["/recommendations"].request, b'{"num_results": 0, "colour": 1}')
    assert found.value.field == "user_id"
    for part in ("user_id: is required", "num_results", "colour: unknown field"):
        assert part in found.value.message


def test_a_shared_account_is_in_no_audience(champions, buyers):
    champion = champions.models["lookalike"]
    asked = {"seed_user_ids": buyers[:30], "size": 5, "with_evidence": False}
    first = answer(champions, "/lookalike", **asked)["users"][0]
    facts = {**champion.bundle.facts, "shared_accounts": {first["one_id"]: "shared account"}}
    shared = replace(champions, models={"lookalike": replace(champion, bundle=replace(champion.bundle, facts=facts))})
    found = answer(shared, "/lookalike", **asked)["users"]
    assert len(found) == 5
    assert first["one_id"] not in [user["one_id"] for user in found]
