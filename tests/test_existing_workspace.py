"""A workspace made by an earlier version is read by this one: the same settings, tables, profiles and answers."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tarfile
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.main import run
from features.compute.online import OnlineState, values
from features.data.lake import Lake
from qianmian.config import load_settings
from qianmian.errors import ArtifactError
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
from serving.endpoints import ENDPOINTS

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.name.removesuffix(".json") for path in DATA.glob("workspace-*.json"))
PLACEHOLDER = "file:///WORKSPACE"
# Drawn anew by every answer, or message texts, which may change.
NOT_COMPARED = {"recommendation_id", "reasons", "short_reason", "no_score_reason"}


# An earlier version ranked lookalikes by bagged classifiers; what it stored is ranked by the discriminant of now
NOT_COMPARED_OF = {"/lookalike": {"users", "evidence"}}


def differences(before, now, where="answer"):
    """Where `now` differs from `before`; fields that `before` does not have are not looked at."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() - NOT_COMPARED:
            yield from differences(before[key], now.get(key, "no such field"), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{where}[{place}]")
    elif isinstance(before, float) and isinstance(now, float):
        if now != pytest.approx(before, rel=1e-5, abs=1e-5, nan_ok=True):
            yield f"{where}: {before} → {now}"
    elif before != now:
        yield f"{where}: {before!r} → {now!r}"


def unpack(name, root):
    """The workspace in a folder; its model registry is SQL with a placeholder for the folder's address."""
    workspace = Workspace(root)
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(root, filter="data")
    sql = root / "mlflow.sql"
    with sqlite3.connect(root / "mlflow.db") as store:
        store.executescript(sql.read_text(encoding="utf-8").replace(PLACEHOLDER, root.as_uri()))
    sql.unlink()
    return workspace


@pytest.fixture(scope="module", params=NAMES)
def made(request, tmp_path_factory):
    """A workspace of an earlier version and what that version said of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        workspace = unpack(request.param, tmp_path_factory.mktemp("earlier") / "work space")
        yield workspace, json.loads((DATA / f"{request.param}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def champions(made):
    workspace, _ = made
    return load_from_workspace(workspace, load_settings(workspace.config_file))


def test_settings_and_tables_are_read(made):
    workspace, before = made
    settings = load_settings(workspace.config_file)
    assert (settings.seed, settings.recommend.horizon_days, settings.lookalike.minimum_seed) == (11, 7, 10)
    lake = Lake(workspace)
    assert {name: state.rows for name, state in lake.states().items()} == before["tables"]
    connection = lake.connect()
    assert {name: connection.table(name).count().execute() for name in before["tables"]} == before["tables"]


def test_every_champion_and_the_profiles_are_read(champions, made):
    """`refused` in the JSON names champions that are no longer read; the error says how to get one that is."""
    _, before = made
    refused = set(before.get("refused", ()))
    assert champions.failures.keys() == refused
    assert all("train" in str(error) for error in champions.failures.values())
    assert champions.problems == ()
    versions = {job: version for job, version in before["versions"].items() if job not in refused}
    assert {job: champion.version for job, champion in champions.models.items()} == versions
    snapshot = champions.customers
    assert {
        "as_of": snapshot.as_of.isoformat(),
        "customers": len(snapshot.one_ids),
        "features": [feature.name for feature in snapshot.spec.features],
        "tags": sorted(snapshot.tags),
        "orders": float(snapshot.features.column("orders_total").sum()),
    } == before["profiles"]


def needs_refused(entry, before):
    """Whether a request is answered by a champion that is no longer read."""
    by_recommender = ("/recommendations", "/rank", "/similar-items")
    is_content = entry["request"].get("scene") == "content"
    return "recommend" in before.get("refused", ()) and entry["route"] in by_recommender and not is_content


def test_arrays_that_processes_cannot_share_are_copied_and_this_is_said_once(made, caplog):
    workspace, _ = made
    load_from_workspace(workspace, load_settings(workspace.config_file), jobs=["churn", "lifecycle"])
    said = [record.message for record in caplog.records if record.message.startswith("champion=copied")]
    assert ["model=qianmian-churn" in said[0], "model=qianmian-lifecycle" in said[1], len(said)] == [True, True, 2]
    assert all(line.endswith("fix=train it again") for line in said)


def test_answers_are_the_same(champions, made):
    _, before = made
    now = datetime.fromisoformat(before["now"])
    assert {entry["route"] for entry in before["answers"]} <= set(ENDPOINTS)
    for entry in before["answers"]:
        endpoint = ENDPOINTS[entry["route"]]
        request = endpoint.request.model_validate_json(json.dumps(entry["request"]))
        if needs_refused(entry, before):
            with pytest.raises(ArtifactError, match="train"):
                endpoint.respond(champions, request, now)
            continue
        answer = json.loads(json.dumps(endpoint.respond(champions, request, now)))
        expected = dict(entry["answer"])
        for key in NOT_COMPARED_OF.get(entry["route"], ()):
            assert type(answer[key]) is type(expected.pop(key))
        assert list(differences(expected, answer)) == [], entry["request"]


def test_the_online_state_gives_the_values_of_the_profiles(champions, made):
    workspace, _ = made
    pointer = json.loads((workspace.online / "current.json").read_text(encoding="utf-8"))
    state = OnlineState.load(workspace.online / pointer["snapshot"] / "state")
    table = champions.customers.table
    assert state.as_of == champions.customers.as_of
    for row in range(0, table.num_rows, 100):
        built = table.slice(row, 1).to_pylist()[0]
        computed = values(state.customer(built["one_id"]), state.as_of)
        assert list(differences({name: built[name] for name in computed}, computed)) == []


def test_scores_are_the_same(made, tmp_path, monkeypatch):
    """`qianmian score` neither trains nor builds anything first."""
    workspace, before = made
    monkeypatch.setattr("cli.main.quieten", lambda debug: None)
    pointer, bundles = workspace.online / "current.json", sorted(workspace.artifact_root.rglob("manifest.json"))
    published = pointer.read_text(encoding="utf-8")
    out = tmp_path / "lists.parquet"
    if "recommend" in before.get("refused", ()):
        assert run(["score", "recommend", "--out", str(out), "--workspace", str(workspace.root), "--json"]) == 3
        assert not out.exists()
        return
    assert run(["score", "recommend", "--out", str(out), "--workspace", str(workspace.root), "--json"]) == 0
    assert sorted(workspace.artifact_root.rglob("manifest.json")) == bundles
    assert pointer.read_text(encoding="utf-8") == published
    lists = pq.read_table(out).select(["one_id", "rank", "item_id", "source"]).to_pylist()
    found = {"rows": len(lists), "sha256": hashlib.sha256(json.dumps(lists).encode()).hexdigest()}
    assert found == before["lists"]
