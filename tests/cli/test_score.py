"""`qianmian score`: options are checked before any work; ids are read from text, CSV and Parquet; tags, lookalikes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from cli.score_recommend import read_json, read_limits
from cli.scoring import read_candidates, read_ids
from features.data.lake import Lake
from features.definitions.building import make_builder
from features.profiles.building import build_snapshot
from features.profiles.snapshot import load_current, publish
from qianmian.errors import ArtifactError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.scoring.blocks import write_blocks
from serving.scoring.tags import score_tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weather", "--out", "x.csv"], "weather"),
        (["churn", "--out", "x.txt"], ".parquet"),
        (["churn"], "--out"),
        (["churn", "--out", "x.csv", "--num-results", "3"], "No such option: --num-results"),
        (["churn", "--out", "x.csv", "--scene", "home"], "No such option: --scene"),
        (["churn", "--out", "x.csv", "--as-of", "x"], "YYYY-MM-DD"),
        (["recommend", "--out", "x.csv", "--candidates", "nowhere.txt"], "nowhere.txt"),
        (["recommend", "--out", "/", "--engine", "spark"], "remove the folder, or name another one"),
        (["recommend", "--out", "/"], "name a file in it"),
        (["tags", "--out", "x.txt"], ".parquet"),
        (["lookalike", "--out", "x.csv"], "--seed"),
        (["lookalike", "--out", "x.csv", "--seed", "nowhere.txt"], "--seed; got 'nowhere.txt'"),
        (["lookalike", "--out", "x.csv", "--seed", "x", "--size", "3", "--ratio", "0.1"], "--size and --ratio"),
        (["lookalike", "--out", "x.csv", "--seed", "x", "--ratio", "2"], "above 0, at most 1"),
        (["recommend", "--out", "x.csv", "--filters", "{category: x}"], "invalid JSON"),
        (["recommend", "--out", "x.csv", "--filters", "@nowhere.json"], "nowhere.json"),
        (["recommend", "--out", "x.csv", "--filters", "[]"], "filters"),
        (["recommend", "--out", "x.csv", "--purchased", "sometimes"], "purchased"),
        (["recommend", "--out", "x.csv", "--purchased", "only", "--exclude-purchased"], "--purchased only"),
        (["recommend", "--out", "x.csv", "--max-per", "brand"], "ATTRIBUTE=N"),
        (["recommend", "--out", "x.csv", "--max-per", "brand=0"], "diversity.max_per.brand"),
        (["recommend", "--out", "x.csv", "--mmr", "2"], "diversity.mmr"),
        (["recommend", "--out", "x.csv", "--exploration", '{"share": 1.5}'], "exploration.share"),
        (
            [
                "recommend",
                "--out",
                "x.csv",
                "--promotions",
                '[{"name": "a", "filter": {}, "percent": 60}, {"name": "b", "filter": {}, "percent": 60}]',
            ],
            "add up to 120",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_is_exit_2(qianmian, shop, arguments, message):
    done = qianmian("score", *arguments, "--workspace", shop)
    assert done.code == 2
    assert message in done.err


def ids_of(path, column="user_id"):
    return read_ids(path, "--seed", column, "user_source")


def test_ids_from_text(tmp_path):
    (tmp_path / "ids.txt").write_text("\ufeff007\n\n  42 \n", encoding="utf-8")
    assert ids_of(tmp_path / "ids.txt") == [("007", None), ("42", None)]


def test_ids_from_csv_stay_text_and_may_name_their_source(tmp_path):
    (tmp_path / "items.csv").write_text("name,item_id\npear,007\n")
    assert ids_of(tmp_path / "items.csv", "item_id") == [("007", None)]
    (tmp_path / "seed.csv").write_text("user_id,user_source\n007,shop\n8,\n")
    assert ids_of(tmp_path / "seed.csv") == [("007", "shop"), ("8", None)]


def test_ids_from_parquet(tmp_path):
    pq.write_table(pa.table({"user_id": [7, 42, None]}), tmp_path / "ids.parquet")
    assert ids_of(tmp_path / "ids.parquet") == [("7", None), ("42", None)]


@pytest.mark.parametrize(
    ("name", "text"), [("ids.txt", "\n"), ("ids.csv", "name\npear\n"), ("ids.parquet", "no parquet")]
)
def test_ids_that_cannot_be_read_are_rejected(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError):
        ids_of(tmp_path / name)


def test_tags_of_all_customers_are_one_row_each(qianmian, fresh_shop, tmp_path):
    out = tmp_path / "tags.parquet"
    done = qianmian("score", "tags", "--out", out, "--workspace", fresh_shop, "--json")
    assert done.code == 0, done.err
    table = pq.read_table(out)
    snapshot = load_current(Workspace(fresh_shop))
    assert table.column_names == ["user_id", "user_source", "one_id", *snapshot.tags, "as_of"]
    assert table["one_id"].to_pylist() == snapshot.one_ids
    assert all(table[name].to_pylist() == values for name, values in snapshot.tags.items())
    assert set(table["as_of"].to_pylist()) == {snapshot.as_of}
    assert done.json["rows"] == len(snapshot.one_ids)
    # another date is built and not published; CSV holds the same
    early = tmp_path / "early.csv"
    assert (
        qianmian("score", "tags", "--out", early, "--as-of", "2024-02-01", "--workspace", fresh_shop, "--json").code
        == 0
    )
    read = pa_csv.read_csv(early)
    assert set(map(str, read["as_of"].to_pylist())) == {"2024-02-01 00:00:00"}
    assert load_current(Workspace(fresh_shop)).as_of == snapshot.as_of


@pytest.fixture(scope="module")
def snapshot(shop):
    """The profiles of the shop, which are not published."""
    lake = Lake(Workspace(shop))
    return build_snapshot(make_builder(lake, Settings()), lake.default_as_of, Settings())


def test_the_date_of_a_model_tag_stands_beside_its_values(snapshot):
    before = datetime(2024, 3, 1)
    facts = replace(snapshot.tag_facts["lifecycle_stage"], how="model", as_of=before)
    snapshot = replace(snapshot, tag_facts={**snapshot.tag_facts, "lifecycle_stage": facts})
    table = score_tags(snapshot).table()
    assert set(table["lifecycle_stage_as_of"].to_pylist()) == {before}
    assert set(table["as_of"].to_pylist()) == {snapshot.as_of}


def test_a_tag_may_be_named_like_a_moment_and_is_counted(qianmian, fresh_shop, snapshot, tmp_path):
    workspace = Workspace(fresh_shop)
    facts = {"lifecycle_stage": replace(snapshot.tag_facts["lifecycle_stage"], how="model")}
    tags = {**snapshot.tags, "member_as_of": ["2024"] * len(snapshot.one_ids)}
    publish(workspace, replace(snapshot, tags=tags, tag_facts={**snapshot.tag_facts, **facts}))
    done = qianmian("score", "tags", "--out", tmp_path / "tags.parquet", "--workspace", fresh_shop)
    assert f"{len(tags)} tags as of" in done.out
    names = pq.read_schema(tmp_path / "tags.parquet").names
    assert names[-3:] == ["member_as_of", "as_of", "lifecycle_stage_as_of"]


def test_tags_are_read_by_blocks_from_the_published_files(snapshot, monkeypatch, tmp_path):
    """Files of several row groups, and blocks that begin within one and end within another."""
    monkeypatch.setattr("features.profiles.snapshot.ROWS_PER_GROUP", 7)
    snapshot.save(tmp_path / "profiles")
    assert pq.read_metadata(tmp_path / "profiles" / "tags.parquet").num_row_groups > 3
    in_memory, of_files = score_tags(snapshot), score_tags(tmp_path / "profiles")
    assert of_files.digest == in_memory.digest
    for start, stop in ((0, 40), (5, 9), (6, 22), (7, 14), (39, 40)):
        assert of_files.block(start, stop).equals(in_memory.block(start, stop))
    out = tmp_path / "tags.parquet"
    write_blocks(replace(of_files, size=9), out)
    assert pq.read_table(out).equals(in_memory.table())
    (tmp_path / "profiles" / "tags.parquet").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="cannot be read"):
        of_files.block(0, 3)


def test_tags_are_read_to_the_end_although_the_profiles_are_replaced(fresh_shop, snapshot, tmp_path):
    workspace = Workspace(fresh_shop)
    folder = publish(workspace, snapshot)
    scores = replace(score_tags(folder), size=9)
    changed = replace(snapshot, tags={name: [None] * len(values) for name, values in snapshot.tags.items()})

    def replaced(done, of):
        if done == 9:
            publish(workspace, changed)
            publish(workspace, changed)  # only the current profiles and those before are kept
            assert not folder.exists()

    write_blocks(scores, tmp_path / "tags.parquet", replaced)
    assert pq.read_table(tmp_path / "tags.parquet").equals(score_tags(snapshot).table())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", "2"), "Spark starts its own processes"),
        (("--as-of", "2023-01-01"), "Spark scores the published profiles"),
    ],
)
def test_what_spark_does_not_take_is_exit_2(qianmian, fresh_shop, snapshot, tmp_path, monkeypatch, options, message):
    champions = SimpleNamespace(customers=snapshot)
    monkeypatch.setattr("cli.score_churn.ensure_champion", lambda *_: False)
    monkeypatch.setattr("serving.champions.load_from_workspace", lambda *_: champions)
    arguments = ("score", "churn", "--out", tmp_path / "churn", "--engine", "spark", "--workspace", fresh_shop)
    done = qianmian(*arguments, *options)
    assert done.code == 2
    assert message in done.err


def test_a_champion_that_is_missing_and_cannot_be_trained_is_exit_3(qianmian, fresh_shop, tmp_path):
    done = qianmian("score", "churn", "--out", tmp_path / "churn.csv", "--workspace", fresh_shop)
    assert done.code == 3
    assert "training it first" in done.err
    assert not (tmp_path / "churn.csv").exists()


def test_candidates_are_items_for_all_or_pairs(tmp_path):
    (tmp_path / "items.csv").write_text("item_id\n007\n")
    assert read_candidates(tmp_path / "items.csv", "--candidates") == ["007"]
    (tmp_path / "pairs.csv").write_text("name,item_id,user_id\nx,007,01\ny,,02\nz,8,\n")
    pairs = read_candidates(tmp_path / "pairs.csv", "--candidates").pairs
    assert pairs.to_pylist() == [{"item_id": "007", "user_id": "01"}]
    pq.write_table(pa.table({"user_id": [1], "item_id": [7], "user_source": ["shop"]}), tmp_path / "pairs.parquet")
    pairs = read_candidates(tmp_path / "pairs.parquet", "--candidates").pairs
    assert pairs.to_pylist() == [{"item_id": "7", "user_id": "1", "user_source": "shop"}]
    (tmp_path / "none.csv").write_text("item_id,user_id\n,1\n")
    with pytest.raises(UsageError, match="no pair"):
        read_candidates(tmp_path / "none.csv", "--candidates")


def test_json_of_an_option_or_of_a_file(tmp_path):
    (tmp_path / "filter.json").write_text('{"brand": "阿"}', encoding="utf-8")
    assert (
        read_json("--filters", f"@{tmp_path / 'filter.json'}")
        == {"brand": "阿"}
        == read_json("--filters", '{"brand": "阿"}')
    )
    assert read_json("--filters", None) is None
    assert read_limits(["a=b=2"]) == {"a=b": 2}, "the name of an attribute may contain ="
