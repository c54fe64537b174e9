"""Batch scoring gives the same results as single requests, at the right moment, in both formats."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.training_data import interaction_rows
from qianmian.errors import DataError, InvalidRequest, UsageError
from serving.endpoints import ENDPOINTS
from serving.recommending import batch
from serving.recommending.request_options import parse_list_options
from serving.scoring import tables
from serving.scoring.churn import score_churn
from serving.scoring.lifecycle import score_predictions
from serving.scoring.tables import write

NOW = datetime(2024, 8, 3)
AS_OF = datetime(2024, 8, 1)


def answer(champions, route, **fields):
    endpoint = ENDPOINTS[route]
    return endpoint.respond(champions, endpoint.request.model_validate(fields), NOW)


@pytest.mark.parametrize("scene", ["home", "discover"])
def test_recommend_equals_single_answers(champions, scene, monkeypatch):
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(champions, num_results=7, scene=scene)
    assert table.column_names == [
        "user_id",
        "user_source",
        "one_id",
        "rank",
        "item_id",
        "score",
        "source",
        "as_of",
        "model_version",
    ]
    assert set(table["as_of"].to_pylist()) == {AS_OF}
    assert set(table["model_version"].to_pylist()) == {"1"}
    rows: dict[tuple[str, str], list[dict]] = {}
    for row in table.to_pylist():
        rows.setdefault((row["user_id"], row["user_source"]), []).append(row)
    assert len(rows) == champions.customers.table.num_rows
    for (user_id, user_source), listed in list(rows.items())[::7]:
        single = answer(
            champions, "/recommendations", user_id=user_id, user_source=user_source, num_results=7, scene=scene
        )
        assert single["one_id"] == listed[0]["one_id"]
        assert [item["item_id"] for item in single["items"]] == [row["item_id"] for row in listed]
        assert [item["source"] for item in single["items"]] == [row["source"] for row in listed]
        assert [item["rank"] for item in single["items"]] == [row["rank"] for row in listed]
        assert [row["score"] for row in listed] == pytest.approx([item["score"] for item in single["items"]], abs=2e-5)


def test_churn_and_predictions_equal_single_answers(champions, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 97)
    churn, predictions = score_churn(champions), score_predictions(champions)
    assert churn.column_names == [
        "user_id",
        "user_source",
        "one_id",
        "churn_probability",
        "risk_band",
        "reasons",
        "no_score_reason",
        "as_of",
        "model_version",
    ]
    assert churn.num_rows == predictions.num_rows == champions.customers.table.num_rows
    for one, two in list(zip(churn.to_pylist(), predictions.to_pylist(), strict=True))[::11]:
        who = {"user_ids": [one["user_id"]], "user_source": one["user_source"]}
        single = answer(champions, "/churn", **who, explain=True)["scores"][0]
        for name in ("one_id", "churn_probability", "risk_band", "no_score_reason"):
            assert one[name] == single[name]
        assert [reason["feature"] for reason in one["reasons"]] == [reason["feature"] for reason in single["reasons"]]
        single = answer(champions, "/predictions", **who)["scores"][0]
        for name in (
            "one_id",
            "lifecycle_stage",
            "next_stage",
            "average_days_between_orders",
            "average_order_value",
            "no_score_reason",
        ):
            assert two[name] == single[name]


def test_candidates_and_purchased(champions):
    champion = champions.models["recommend"]
    catalogue = champion.catalogue
    items = catalogue.item_ids[5:15]
    table = batch.score_recommend(champions, num_results=20, candidates={*items, "ghost"})
    assert set(table["item_id"].to_pylist()) == set(items)
    assert table.num_rows == 10 * champions.customers.table.num_rows
    for purchased in ("never", "only"):
        lists = batch.score_recommend(champions, num_results=5, options=parse_list_options({"purchased": purchased}))
        users = np.array([catalogue.user_row(one_id) for one_id in lists["one_id"].to_pylist()])
        columns = np.array([catalogue.item_column(item) for item in lists["item_id"].to_pylist()])
        interacted = np.asarray(catalogue.history[users, columns]).ravel()
        assert (interacted == (purchased == "only")).all()
        many = np.diff(catalogue.history.indptr)
        lengths = np.minimum(5, many if purchased == "only" else catalogue.history.shape[1] - many)
        assert len(lists) == sum(lengths[catalogue.user_row(one_id)] for one_id in champions.customers.one_ids)
    with pytest.raises(DataError, match="none of the candidates"):
        batch.score_recommend(champions, candidates={"ghost"})
    for number in (0, 501):
        with pytest.raises(UsageError, match=r"1\.\.500"):
            batch.score_recommend(champions, num_results=number)
    with pytest.raises(UsageError, match="home, replenish, discover"):
        batch.score_recommend(champions, scene="moon")
    with pytest.raises(UsageError, match="requires the context items"):
        batch.score_recommend(champions, scene="similar")
    with pytest.raises(InvalidRequest, match="never"):
        batch.score_recommend(champions, scene="discover", options=parse_list_options({"purchased": "only"}))


CONTROLLED = {
    "filters": {"or": [{"category": "grocery"}, {"not": {"attribute": "price", "op": ">", "value": 20}}]},
    "purchased": "any",
    "diversity": {"max_per": {"category/1": 3, "brand": 2}, "mmr": 0.6},
    "promotions": [{"name": "house", "filter": {"category": "home"}, "percent": 20}],
}


def test_controls_equal_single_answers(champions, monkeypatch):
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(champions, num_results=8, options=parse_list_options(CONTROLLED))
    assert table.column_names[-3:] == ["promotion", "as_of", "model_version"]
    rows: dict[str, list[dict]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["user_id"], []).append(row)
    assert any(row["promotion"] for row in table.to_pylist())
    for user_id, listed in list(rows.items())[::23]:
        single = answer(champions, "/recommendations", user_id=user_id, num_results=8, **CONTROLLED)["items"]
        assert [item["item_id"] for item in single] == [row["item_id"] for row in listed]
        assert [item["source"] for item in single] == [row["source"] for row in listed]
        assert [item.get("promotion") for item in single] == [row["promotion"] for row in listed]


def test_exploration_is_the_same_in_blocks_of_any_size_and_its_propensities_are_exact(champions, monkeypatch):
    explored = parse_list_options({"exploration": {"share": 0.25, "pool": 8, "seed": 5}})
    table = batch.score_recommend(champions, num_results=6, options=explored)
    assert table.column_names[-5:] == ["explored", "propensity", "propensity_in_list", "as_of", "model_version"]
    monkeypatch.setattr(batch, "BLOCK", 31)
    assert batch.score_recommend(champions, num_results=6, options=explored).equals(table)
    people = champions.customers.table.num_rows
    drawn = table.filter(table["explored"])
    # of 6 slots 1.5 are explored: one, or two with probability one half; the pool follows the other items
    assert drawn.num_rows / people == pytest.approx(1.5, abs=0.1)
    assert (np.asarray(table["propensity"]) > 0).all()
    by_place = table.group_by("rank").aggregate([("explored", "mean")]).sort_by("rank")["explored_mean"].to_pylist()
    assert by_place[0] == 0, "the top-ranked item stays first"
    other = batch.score_recommend(
        champions, num_results=6, options=parse_list_options({"exploration": {"share": 0.25, "pool": 8, "seed": 6}})
    )
    assert other["item_id"].to_pylist() != table["item_id"].to_pylist()


def test_no_row_at_or_after_as_of_is_read(champions, workspace):
    before, later = AS_OF - timedelta(days=1), AS_OF + timedelta(days=14)
    builder = Builder(Lake(workspace), FEATURES)
    for score in (batch.score_recommend, score_churn, score_predictions):
        assert score(champions, as_of=AS_OF).num_rows
        with pytest.raises(DataError, match="was trained on rows after") as found:
            score(champions, as_of=before, builder=builder)
        assert "qianmian train" in (found.value.hint or "")
        with pytest.raises(UsageError):
            score(champions, as_of=later)
    table = score_churn(champions, as_of=later, builder=builder)
    assert set(table["as_of"].to_pylist()) == {later}
    assert table["churn_probability"].to_pylist() != score_churn(champions)["churn_probability"].to_pylist()


def test_a_later_as_of_folds_in_recent_purchases(champions, workspace, monkeypatch):
    moment = AS_OF + timedelta(days=14)
    builder = Builder(Lake(workspace), FEATURES)
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(
        champions, num_results=500, as_of=moment, builder=builder, options=parse_list_options({"purchased": "only"})
    )
    assert set(table["as_of"].to_pylist()) == {moment}
    rows = interaction_rows(builder, moment, AS_OF)
    catalogue = champions.models["recommend"].catalogue
    can_be_had = np.ones(len(catalogue.item_ids), bool) if catalogue.available is None else catalogue.available
    known = [
        (one, item)
        for one, item in zip(*(rows[name].to_pylist() for name in ("one_id", "item_id")), strict=True)
        if (column := catalogue.item_column(item)) >= 0 and can_be_had[column]
    ]
    assert known, "the shop had sales in those days"
    shown = set(zip(table["one_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    assert set(known) <= shown
    new = [
        (one, item)
        for one, item in known
        if catalogue.item_column(item) not in catalogue.interacted(catalogue.user_row(one))
    ]
    assert new, "some of them to new buyers of the item"
    # a single request with the same events returns the same list
    one_id = new[0][0]
    user = dict(zip(champions.customers.one_ids, champions.customers.table["user_id"].to_pylist(), strict=True))[one_id]
    events = [
        {"item_id": row["item_id"], "ts": (moment - timedelta(days=row["age_days"])).isoformat(timespec="microseconds")}
        for row in rows.to_pylist()
        if row["one_id"] == one_id
    ]
    single = answer(
        champions,
        "/recommendations",
        user_id=user,
        num_results=8,
        context={"events": events, "now": moment.isoformat()},
    )
    together = batch.score_recommend(champions, num_results=8, as_of=moment, builder=builder)
    listed = [row["item_id"] for row in together.to_pylist() if row["one_id"] == one_id]
    assert [item["item_id"] for item in single["items"]] == listed
    stale = batch.score_recommend(champions, num_results=8)
    assert together["item_id"].to_pylist() != stale["item_id"].to_pylist()


def test_items_that_became_unavailable_are_not_shown(champions, workspace):
    catalogue = champions.models["recommend"].catalogue
    known = {item for item, can in zip(catalogue.item_ids, catalogue.available.tolist(), strict=True) if not can}
    assert set(batch.unavailable_items(Lake(workspace))) & set(catalogue.item_ids) == known
    bestseller = catalogue.item_ids[0]
    before, after = (
        batch.score_recommend(champions),
        batch.score_recommend(champions, unavailable=[bestseller, "ghost"]),
    )
    assert bestseller in before["item_id"].to_pylist()
    assert bestseller not in after["item_id"].to_pylist()
    assert before.num_rows == after.num_rows
    asked = batch.score_recommend(
        champions, unavailable=[bestseller], options=parse_list_options({"filters": {"available": [True, False]}})
    )
    assert bestseller in asked["item_id"].to_pylist()


def test_files(champions, tmp_path):
    table = score_churn(champions)
    parquet, text = write(table, tmp_path / "churn.parquet"), write(table, tmp_path / "churn.csv")
    assert pq.read_table(parquet).equals(table)
    with text.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == table.num_rows
    assert list(rows[0]) == table.column_names
    assert json.loads(rows[0]["reasons"]) == table["reasons"][0].as_py()
    predictions = score_predictions(champions)
    with write(predictions, tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        first = next(csv.DictReader(handle))
    assert json.loads(first["next_stage"] or "null") == predictions["next_stage"][0].as_py()
    with pytest.raises(UsageError, match=r"\.parquet, \.csv"):
        write(table, tmp_path / "churn.xlsx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.csv", "churn.parquet", "predictions.csv"]
