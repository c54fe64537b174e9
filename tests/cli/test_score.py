"""`qianmian score`: options are checked before any work; candidates are read from text, CSV and Parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.score import read_candidates, read_json, read_limits
from qianmian.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weather", "--out", "x.csv"], "recommend, churn, predictions"),
        (["churn", "--out", "x.txt"], ".parquet"),
        (["churn"], "--out"),
        (["churn", "--out", "x.csv", "--num-results", "3"], "does not accept --num-results"),
        (["churn", "--out", "x.csv", "--scene", "home"], "does not accept --scene"),
        (["churn", "--out", "x.csv", "--as-of", "x"], "YYYY-MM-DD"),
        (["recommend", "--out", "x.csv", "--candidates", "nowhere.txt"], "nowhere.txt"),
        (["churn", "--out", "x.csv", "--filters", "{}"], "does not accept --filters"),
        (["churn", "--out", "x.csv", "--max-per", "brand=1", "--mmr", "0.5"], "does not accept --max-per, --mmr"),
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


def test_candidates_from_text(tmp_path):
    (tmp_path / "items.txt").write_text("007\n\n  42 \n")
    assert read_candidates(tmp_path / "items.txt") == ["007", "42"]


def test_candidates_from_csv_stay_text(tmp_path):
    (tmp_path / "items.csv").write_text("name,item_id\npear,007\n")
    assert read_candidates(tmp_path / "items.csv") == ["007"]


def test_candidates_from_parquet(tmp_path):
    pq.write_table(pa.table({"item_id": [7, 42]}), tmp_path / "items.parquet")
    assert read_candidates(tmp_path / "items.parquet") == ["7", "42"]


@pytest.mark.parametrize(
    ("name", "text"), [("items.txt", "\n"), ("items.csv", "name\npear\n"), ("items.parquet", "no parquet")]
)
def test_candidates_that_cannot_be_read_are_rejected(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError):
        read_candidates(tmp_path / name)


def test_a_champion_that_is_missing_and_cannot_be_trained_is_exit_3(qianmian, fresh_shop, tmp_path):
    done = qianmian("score", "churn", "--out", tmp_path / "churn.csv", "--workspace", fresh_shop)
    assert done.code == 3
    assert "training it first" in done.err
    assert not (tmp_path / "churn.csv").exists()


def test_json_of_an_option_or_of_a_file(tmp_path):
    (tmp_path / "filter.json").write_text('{"brand": "阿"}', encoding="utf-8")
    assert (
        read_json("--filters", f"@{tmp_path / 'filter.json'}")
        == {"brand": "阿"}
        == read_json("--filters", '{"brand": "阿"}')
    )
    assert read_json("--filters", None) is None
    assert read_limits(["a=b=2"]) == {"a=b": 2}, "the name of an attribute may contain ="
