"""Snapshots: written and read back whole, two kept, ids resolved, built again only when there is a reason."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.compute.algebra import Feature
from features.compute.builder import Builder
from features.compute.online import OnlineState
from features.compute.spec import FeatureSpec
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.event_log import EventLogSource
from features.definitions import FEATURES
from features.definitions.building import make_builder
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.building import build_snapshot, ensure_snapshot, snapshot_at
from features.profiles.snapshot import (
    ONLINE_STATE_FOLDER,
    Snapshot,
    current_snapshot_name,
    load_current,
    publish,
)
from qianmian.config import load_settings
from qianmian.errors import ArtifactError, InvalidRequest, WorkspaceError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

AS_OF = datetime(2024, 3, 1)


def line(user, source, order, ts, item="i1", amount=2.0):
    return {
        "source": source,
        "source_user_id": user,
        "order_id": order,
        "line_no": 1,
        "ts": ts,
        "item_id": item,
        "quantity": 1.0,
        "amount": amount,
        "channel": "web",
        "status": "paid",
    }


def person(user, source, **more):
    return {"source": source, "source_user_id": user, **more}


ROWS = {
    "transactions": [
        line("1", "app", "o1", datetime(2024, 1, 10)),
        line("1", "shop 2", "o2", datetime(2024, 1, 20)),
        line("张三", "app", "o3", datetime(2024, 2, 10), "i2", 5.0),
    ],
    "profiles": [
        person("1", "app", age_band="18-24"),
        person("张三", "app", age_band="65+"),
        person("9", "shop 2", age_band="25-34"),
    ],
    "items": [{"item_id": "i1", "category": "food/milk"}, {"item_id": "i2", "category": "home"}],
}


@pytest.fixture(scope="module")
def lake(lake_of):
    return lake_of(ROWS)


@pytest.fixture(scope="module")
def snapshot(lake):
    return build_snapshot(Builder(lake, FEATURES), AS_OF, Settings())


@pytest.fixture(scope="module")
def months(snapshot):
    """Snapshots that say they are of three moments."""
    return [replace(snapshot, as_of=datetime(2024, month, 1)) for month in (2, 3, 4)]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace").create()


def one_id(snapshot, user, source):
    (row,) = [row for row in snapshot.customers.to_pylist() if (row["source_user_id"], row["source"]) == (user, source)]
    return row["one_id"]


def folders(workspace):
    return {path.name for path in workspace.online.iterdir() if path.is_dir()}


def same(left, right):
    assert left.table.equals(right.table)
    assert left.customers.equals(right.customers)
    assert left.tags == right.tags
    assert (left.as_of, left.spec, left.spec.hash, left.data_digest, left.unsupported) == (
        right.as_of,
        right.spec,
        right.spec.hash,
        right.data_digest,
        right.unsupported,
    )
    np.testing.assert_array_equal(left.features.values, right.features.values)
    np.testing.assert_array_equal(left.features.one_ids, right.features.one_ids)


# ---- made, saved, loaded ---------------------------------------------------------------------------------------------


def test_a_snapshot_holds_every_customer_with_features_and_tags(snapshot, lake):
    assert snapshot.table.num_rows == snapshot.customers.num_rows == 4
    assert snapshot.one_ids == sorted(snapshot.one_ids)
    assert set(snapshot.table.column_names) == {"one_id", "user_id", "user_source", *snapshot.spec.names}
    assert all(len(values) == 4 for values in snapshot.tags.values())
    assert snapshot.data_digest == lake.digest
    assert "events_28d" in snapshot.unsupported
    row = snapshot.user_map.row(one_id(snapshot, "张三", "app"))
    assert snapshot.table["amount_total"][row].as_py() == 5.0
    assert (snapshot.tags["age_band"][row], snapshot.tags["favourite_category"][row]) == ("65+", "home")


def test_saved_and_loaded_it_is_the_same(snapshot, tmp_path):
    snapshot.save(tmp_path / "saved")
    same(Snapshot.load(tmp_path / "saved"), snapshot)


def test_a_folder_that_is_there_is_not_written_over(snapshot, tmp_path):
    with pytest.raises(FileExistsError):
        snapshot.save(tmp_path)


# ---- published -------------------------------------------------------------------------------------------------------


def test_nothing_published_is_said_with_the_way_out(workspace):
    assert current_snapshot_name(workspace) is None
    with pytest.raises(WorkspaceError, match="no profiles have been built yet.*qianmian features"):
        load_current(workspace)


def test_publish_keeps_the_current_one_and_the_one_before(months, workspace):
    paths = []
    for number, made in enumerate(months):
        paths.append(publish(workspace, made))
        assert current_snapshot_name(workspace) == paths[-1].name
        same(load_current(workspace), made)
        assert folders(workspace) == {path.name for path in paths[max(0, number - 1) :]}
    same(Snapshot.load(paths[1]), months[1])


def test_publish_leaves_a_folder_that_another_process_writes_and_removes_one_of_a_killed_process(months, workspace):
    unfinished = [workspace.online / f".{months[0].as_of:%Y%m%d}-{end}.tmp" for end in ("written", "killed")]
    for folder in unfinished:
        months[0].save(folder)  # its online state is still to come
    (unfinished[1] / "snapshot.json").unlink()
    os.utime(unfinished[1], (0, 0))
    publish(workspace, months[1])
    assert [folder.exists() for folder in unfinished] == [True, False]


def test_a_snapshot_loaded_before_a_publish_stays_usable(months, workspace):
    publish(workspace, months[0])
    held = load_current(workspace)
    for made in months[1:]:
        publish(workspace, made)
    same(held, months[0])


# ---- resolve ---------------------------------------------------------------------------------------------------------


def test_resolve_an_id_of_one_source(snapshot):
    assert snapshot.resolve("张三") == snapshot.resolve("张三", "app") == one_id(snapshot, "张三", "app")
    assert snapshot.resolve("9") == one_id(snapshot, "9", "shop 2")


@pytest.mark.parametrize(
    ("user", "source"), [("nobody", None), ("nobody", "app"), ("", None), ("9", "app"), ("1", "elsewhere")]
)
def test_resolve_an_unknown_id(snapshot, user, source):
    assert snapshot.resolve(user, source) is None


def test_resolve_an_id_of_two_sources_asks_which(snapshot):
    with pytest.raises(InvalidRequest, match="more than one source") as caught:
        snapshot.resolve("1")
    assert (caught.value.got, caught.value.allowed, caught.value.field) == ("1", "app, shop 2", "user_source")
    picked = [snapshot.resolve("1", source) for source in ("app", "shop 2")]
    assert picked == [one_id(snapshot, "1", "app"), one_id(snapshot, "1", "shop 2")]
    assert picked[0] != picked[1]


def test_an_id_two_sources_use_for_the_same_customer_needs_no_source(snapshot):
    merged = pa.table({"one_id": ["u1", "u1"], "source": ["app", "shop 2"], "source_user_id": ["1", "1"]})
    both = Snapshot(snapshot.table, snapshot.tags, merged, AS_OF, snapshot.spec, "digest")
    assert both.resolve("1") == both.resolve("1", "app") == "u1"


# ---- ensure ----------------------------------------------------------------------------------------------------------


def test_ensure_builds_again_when_data_or_moment_changed_and_not_otherwise(write_lake, tmp_path):
    workspace = write_lake(tmp_path / "shop", ROWS).workspace

    def written():
        found = (workspace.online / "current.json").stat()
        return found.st_ino, found.st_mtime_ns

    first = ensure_snapshot(workspace, AS_OF, Settings())
    same(load_current(workspace), first)
    before = written()
    same(ensure_snapshot(workspace, AS_OF, Settings()), first)
    assert written() == before

    moved = ensure_snapshot(workspace, datetime(2024, 2, 1), Settings())
    assert moved.as_of == load_current(workspace).as_of == datetime(2024, 2, 1)
    assert (sum(first.table["orders_total"].to_pylist()), sum(moved.table["orders_total"].to_pylist())) == (3, 2)
    assert written() != before

    before = written()
    write_lake(workspace.root, ROWS)  # the same rows again
    ensure_snapshot(workspace, datetime(2024, 2, 1), Settings())
    assert written() == before

    write_lake(workspace.root, {**ROWS, "profiles": [*ROWS["profiles"], person("10", "app", age_band="65+")]})
    grown = ensure_snapshot(workspace, datetime(2024, 2, 1), Settings())
    assert grown.resolve("10") is not None
    assert grown.data_digest != moved.data_digest
    same(load_current(workspace), grown)
    assert written() != before


def test_published_profiles_have_their_online_state(write_lake, tmp_path):
    workspace = write_lake(tmp_path / "shop", ROWS).workspace
    ensure_snapshot(workspace, AS_OF, Settings())

    def state():
        return workspace.online / str(current_snapshot_name(workspace)) / ONLINE_STATE_FOLDER

    assert OnlineState.load(state()).as_of == AS_OF
    shutil.rmtree(state())  # profiles of an earlier version have none
    name = current_snapshot_name(workspace)
    ensure_snapshot(workspace, AS_OF, Settings())
    assert current_snapshot_name(workspace) != name  # so that servers load them with it
    assert OnlineState.load(state()).as_of == AS_OF


def test_if_only_the_tags_differ_features_and_online_state_stay(write_lake, tmp_path, monkeypatch):
    workspace = write_lake(tmp_path / "shop", ROWS).workspace
    first = ensure_snapshot(workspace, AS_OF, Settings())
    again = Settings(lifecycle=Settings().lifecycle.model_copy(update={"new_days": 1}))
    monkeypatch.setattr(Builder, "build", None)  # a build of features would fail
    monkeypatch.setattr("features.profiles.building.build_state", None)
    second = ensure_snapshot(workspace, AS_OF, again)
    assert second.tags_digest != first.tags_digest
    same(load_current(workspace), second)
    assert second.table.equals(first.table)
    monkeypatch.undo()
    whole = build_snapshot(make_builder(Lake(workspace), again), AS_OF, again)
    assert {name: list(values) for name, values in second.tags.items()} == whole.tags
    assert OnlineState.load(workspace.online / str(current_snapshot_name(workspace)) / ONLINE_STATE_FOLDER)


def test_profiles_say_that_the_lake_has_read_events_that_changed_nothing(write_lake, tmp_path, monkeypatch):
    """An export had told the order already: the events of it must not be added to profiles that count it."""
    workspace = write_lake(tmp_path / "shop", ROWS).workspace
    before = ensure_snapshot(workspace, AS_OF, Settings())
    log = open_log(workspace.online / "events.db")
    order = {"source": "app", "source_user_id": "1", "order_id": "o1", "ts": datetime(2024, 1, 10), "item_id": "i1"}
    log.append([encode(make_row("e1", {**order, "event_type": "purchase"}))])
    log_id = log.header().log_id
    log.close()
    report = ingest(workspace, EventLogSource(workspace.online / "events.db"), Settings())
    assert (report.kept, report.digest) == (0, before.data_digest)
    monkeypatch.setattr(Builder, "build", None)  # nothing is computed again
    monkeypatch.setattr("features.profiles.building.build_state", None)
    assert snapshot_at(make_builder(Lake(workspace), Settings()), AS_OF, Settings()).knows_through(log_id) == 1
    assert load_current(workspace).knows_through(log_id) == 0
    ensure_snapshot(workspace, AS_OF, Settings())
    after = load_current(workspace)
    same(after, before)
    assert after.knows_through(log_id) == 1
    assert after.online_state is not None
    ensure_snapshot(workspace, AS_OF, Settings())
    assert load_current(workspace).folder == after.folder


# ---- encoded ---------------------------------------------------------------------------------------------------------


def test_encoded_with_its_own_spec_is_its_features(snapshot):
    np.testing.assert_array_equal(snapshot.encoded(snapshot.spec).values, snapshot.features.values)


def test_encoded_for_a_model_of_other_data(snapshot):
    age, amount = (
        snapshot.spec.features[snapshot.spec.names.index(name)] for name in ("profile_age_band", "amount_total")
    )
    gone = Feature("orders_3d", "orders", "count", window_days=3, default=7.0, description="gone")
    gone_text = Feature("top_shelf", "lines", "top", "shelf", default="", description="gone")
    spec = FeatureSpec((gone_text, amount, age, gone), (("a",), (), ("18-24", "35-44"), ()))
    encoded = snapshot.encoded(spec)
    assert encoded.spec == spec
    assert (encoded.values.dtype, encoded.values.shape) == (np.float32, (4, 4))
    expected = {
        ("1", "app"): [-1, 2, 0, 7],
        ("张三", "app"): [-1, 5, -1, 7],
        ("9", "shop 2"): [-1, 0, -1, 7],
        ("1", "shop 2"): [-1, 2, -1, 7],
    }
    for (user, source), values in expected.items():
        assert encoded.values[snapshot.user_map.row(one_id(snapshot, user, source))].tolist() == values
    assert encoded.text("profile_age_band")[snapshot.user_map.row(one_id(snapshot, "1", "app"))] == "18-24"


# ---- broken files ----------------------------------------------------------------------------------------------------


def truncate(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "damage",
    [truncate, lambda path: path.write_bytes(b""), lambda path: path.unlink()],
    ids=["truncated", "empty", "missing"],
)
@pytest.mark.parametrize("name", ["profiles.parquet", "tags.parquet", "customers.parquet", "snapshot.json"])
def test_a_broken_file_is_an_artifact_error_with_a_hint(snapshot, workspace, name, damage):
    folder = publish(workspace, snapshot)
    damage(folder / name)
    for use in (lambda: Snapshot.load(folder), lambda: load_current(workspace)):
        with pytest.raises(ArtifactError, match="the profile snapshot cannot be read") as caught:
            use()
        assert caught.value.where == str(folder)
        assert "qianmian features" in caught.value.hint


@pytest.mark.parametrize("key", ["as_of", "spec", "data_digest", "off"])
def test_a_fact_that_is_missing_is_an_artifact_error(snapshot, tmp_path, key):
    snapshot.save(tmp_path / "saved")
    facts = json.loads((tmp_path / "saved" / "snapshot.json").read_text())
    del facts[key]
    (tmp_path / "saved" / "snapshot.json").write_text(json.dumps(facts))
    with pytest.raises(ArtifactError, match=f"cannot be read.*{key}"):
        Snapshot.load(tmp_path / "saved")


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}"])
def test_a_broken_pointer_is_an_artifact_error(snapshot, workspace, content):
    publish(workspace, snapshot)
    (workspace.online / "current.json").write_text(content)
    with pytest.raises(ArtifactError, match="pointer to the profile snapshot cannot be read.*qianmian features"):
        load_current(workspace)


def test_a_pointer_to_nothing_is_an_artifact_error(workspace):
    (workspace.online / "current.json").write_text('{"snapshot": "gone"}')
    with pytest.raises(ArtifactError, match="gone.*qianmian features"):
        load_current(workspace)


@pytest.mark.parametrize("damage", ["pointer", "tags.parquet", "snapshot.json"])
def test_what_is_damaged_is_mended_by_building_again(lake_of, damage):
    lake = lake_of(ROWS)
    ensure_snapshot(lake.workspace, AS_OF, Settings())
    folder = lake.workspace.online / str(current_snapshot_name(lake.workspace))
    (lake.workspace.online / "current.json" if damage == "pointer" else folder / damage).write_text("{")
    with pytest.raises(ArtifactError):
        load_current(lake.workspace)
    made = ensure_snapshot(lake.workspace, AS_OF, Settings())
    same(load_current(lake.workspace), made)


def test_values_changed_between_rows_change_the_profiles(lake_of):
    first, second = line("1", "app", "o1", datetime(2024, 1, 10)), line("2", "app", "o2", datetime(2024, 1, 10))
    one = lake_of({"transactions": [first, {**second, "status": "refunded"}]})
    other = lake_of({"transactions": [{**first, "status": "refunded"}, second]})
    assert one.digest != other.digest, "the last column's values change places"


def test_a_changed_setting_of_the_lifecycle_reaches_the_tags(lake_of):
    lake = lake_of({"transactions": [line("1", "app", "o1", datetime(2024, 1, 10))]})
    assert ensure_snapshot(lake.workspace, datetime(2024, 1, 30), load_settings(lake.workspace.config_file)).tags[
        "lifecycle_stage"
    ] == ["new"]
    lake.workspace.config_file.write_text("lifecycle: {new_days: 10}\n")
    assert ensure_snapshot(lake.workspace, datetime(2024, 1, 30), load_settings(lake.workspace.config_file)).tags[
        "lifecycle_stage"
    ] == ["active"]
