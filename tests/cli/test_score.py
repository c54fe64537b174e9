"""`qianmian score`: options are checked before any work, candidates are read from text, CSV and Parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.score import read_candidates
from qianmian.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["weather", "--out", "x.csv"], "recommend, churn, predictions"),
        (["churn", "--out", "x.txt"], ".parquet"),
        (["churn"], "--out"),
        (["churn", "--out", "x.csv", "--num-results", "3"], "does not take --num-results"),
        (["churn", "--out", "x.csv", "--scene", "home"], "does not take --scene"),
        (["churn", "--out", "x.csv", "--as-of", "x"], "YYYY-MM-DD"),
        (["recommend", "--out", "x.csv", "--candidates", "nowhere.txt"], "nowhere.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_is_exit_2(qianmian, shop, arguments, said):
    done = qianmian("score", *arguments, "--workspace", shop)
    assert done.code == 2
    assert said in done.err


def test_candidates_from_text(tmp_path):
    (tmp_path / "items.txt").write_text("007\n\n  42 \n")
    assert read_candidates(tmp_path / "items.txt") == ["007", "42"]


def test_candidates_from_csv_stay_text(tmp_path):
    (tmp_path / "items.csv").write_text("name,item_id\npear,007\n")
    assert read_candidates(tmp_path / "items.csv") == ["007"]


def test_candidates_from_parquet(tmp_path):
    pq.write_table(pa.table({"item_id": [7, 42]}), tmp_path / "items.parquet")
    assert read_candidates(tmp_path / "items.parquet") == ["7", "42"]


@pytest.mark.parametrize(("name", "text"), [("items.txt", "\n"), ("items.csv", "name\npear\n"), ("items.parquet", "no parquet")])
def test_candidates_that_cannot_be_read_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError):
        read_candidates(tmp_path / name)


def test_a_champion_that_is_missing_and_cannot_be_trained_is_exit_3(qianmian, fresh_shop, tmp_path):
    done = qianmian("score", "churn", "--out", tmp_path / "churn.csv", "--workspace", fresh_shop)
    assert done.code == 3
    assert "training it first" in done.err
    assert not (tmp_path / "churn.csv").exists()
