"""Scoring everybody gives what single requests give, at the right moment, in both formats."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.builder import Builder
from features.lake import Lake
from qianmian.errors import DataError, UsageError
from serving import batch
from serving.answers import ENDPOINTS

NOW = datetime(2024, 8, 3)
AS_OF = datetime(2024, 8, 1)


def answer(champions, route, **fields):
    endpoint = ENDPOINTS[route]
    return endpoint.answer(champions, endpoint.request.model_validate(fields), NOW)


@pytest.mark.parametrize("scene", ["home", "discover"])
def test_recommend_equals_single_answers(champions, scene, monkeypatch):
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(champions, num_results=7, scene=scene)
    assert table.column_names == ["user_id", "user_source", "one_id", "rank", "item_id", "score", "source", "as_of", "model_version"]
    assert set(table["as_of"].to_pylist()) == {AS_OF}
    assert set(table["model_version"].to_pylist()) == {"1"}
    rows: dict[tuple[str, str], list[dict]] = {}
    for row in table.to_pylist():
        rows.setdefault((row["user_id"], row["user_source"]), []).append(row)
    assert len(rows) == champions.customers.table.num_rows
    for (user_id, user_source), listed in list(rows.items())[::7]:
        single = answer(champions, "/recommendations", user_id=user_id, user_source=user_source, num_results=7, scene=scene)
        assert single["one_id"] == listed[0]["one_id"]
        assert [item["item_id"] for item in single["items"]] == [row["item_id"] for row in listed]
        assert [item["source"] for item in single["items"]] == [row["source"] for row in listed]
        assert [item["rank"] for item in single["items"]] == [row["rank"] for row in listed]
        assert [row["score"] for row in listed] == pytest.approx([item["score"] for item in single["items"]], abs=2e-5)


def test_churn_and_predictions_equal_single_answers(champions, monkeypatch):
    monkeypatch.setattr(batch, "BLOCK", 97)
    churn, predictions = batch.score_churn(champions), batch.score_predictions(champions)
    assert churn.column_names == [
        "user_id", "user_source", "one_id", "churn_probability", "risk_band", "reasons", "no_score_reason", "as_of", "model_version",
    ]  # fmt: skip
    assert churn.num_rows == predictions.num_rows == champions.customers.table.num_rows
    for one, two in list(zip(churn.to_pylist(), predictions.to_pylist(), strict=True))[::11]:
        who = {"user_ids": [one["user_id"]], "user_source": one["user_source"]}
        single = answer(champions, "/churn", **who, explain=True)["scores"][0]
        for name in ("one_id", "churn_probability", "risk_band", "no_score_reason"):
            assert one[name] == single[name]
        assert [reason["feature"] for reason in one["reasons"]] == [reason["feature"] for reason in single["reasons"]]
        single = answer(champions, "/predictions", **who)["scores"][0]
        for name in ("one_id", "lifecycle_stage", "next_stage", "average_days_between_orders", "average_order_value", "no_score_reason"):
            assert two[name] == single[name]


def test_candidates_and_exclude_purchased(champions):
    champion = champions.models["recommend"]
    items = champion.catalogue.item_ids[5:15]
    table = batch.score_recommend(champions, num_results=20, candidates={*items, "ghost"})
    assert set(table["item_id"].to_pylist()) == set(items)
    assert table.num_rows == 10 * champions.customers.table.num_rows
    fresh = batch.score_recommend(champions, num_results=5, exclude_purchased=True)
    users = np.array([champion.catalogue.user_row(one_id) for one_id in fresh["one_id"].to_pylist()])
    columns = np.array([champion.catalogue.item_index[item] for item in fresh["item_id"].to_pylist()])
    assert np.asarray(champion.bundle.model.history_[users, columns]).sum() == 0
    with pytest.raises(DataError, match="none of the candidates"):
        batch.score_recommend(champions, candidates={"ghost"})
    for number in (0, 501):
        with pytest.raises(UsageError, match=r"1\.\.500"):
            batch.score_recommend(champions, num_results=number)
    with pytest.raises(UsageError, match="home, discover"):
        batch.score_recommend(champions, scene="moon")


def test_no_row_at_or_after_as_of_is_read(champions, workspace):
    before, later = AS_OF - timedelta(days=1), AS_OF + timedelta(days=14)
    builder = Builder(Lake(workspace))
    for score in (batch.score_recommend, batch.score_churn, batch.score_predictions):
        assert score(champions, as_of=AS_OF).num_rows
        options = {} if score is batch.score_recommend else {"builder": builder}
        with pytest.raises(DataError, match="has seen rows after that") as found:
            score(champions, as_of=before, **options)
        assert "qianmian train" in (found.value.hint or "")
    with pytest.raises(DataError, match="does not know what was bought since"):
        batch.score_recommend(champions, as_of=later)
    table = batch.score_churn(champions, as_of=later, builder=builder)
    assert set(table["as_of"].to_pylist()) == {later}
    assert table["churn_probability"].to_pylist() != batch.score_churn(champions)["churn_probability"].to_pylist()
    with pytest.raises(UsageError):
        batch.score_churn(champions, as_of=later)


def test_files(champions, tmp_path):
    table = batch.score_churn(champions)
    parquet, text = batch.write(table, tmp_path / "churn.parquet"), batch.write(table, tmp_path / "churn.csv")
    assert pq.read_table(parquet).equals(table)
    with text.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == table.num_rows
    assert list(rows[0]) == table.column_names
    assert json.loads(rows[0]["reasons"]) == table["reasons"][0].as_py()
    predictions = batch.score_predictions(champions)
    with batch.write(predictions, tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        first = next(csv.DictReader(handle))
    assert json.loads(first["next_stage"] or "null") == predictions["next_stage"][0].as_py()
    with pytest.raises(UsageError, match=r"\.parquet, \.csv"):
        batch.write(table, tmp_path / "churn.xlsx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.csv", "churn.parquet", "predictions.csv"]
