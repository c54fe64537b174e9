"""Batch scoring gives the same results as single requests, at the right moment, in both formats."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.training_data import interaction_rows
from qianmian.errors import DataError, InvalidRequest, UsageError
from serving.endpoints import ENDPOINTS
from serving.recommending import batch
from serving.recommending.candidates import CustomerCandidates
from serving.recommending.request_options import parse_list_options
from serving.scoring import tables
from serving.scoring.churn import score_churn
from serving.scoring.predictions import score_predictions
from serving.scoring.tables import write_tables

NOW = datetime(2024, 8, 3)
AS_OF = datetime(2024, 8, 1)


def answer(champions, route, **fields):
    endpoint = ENDPOINTS[route]
    return endpoint.respond(champions, endpoint.request.model_validate(fields), NOW)


@pytest.mark.parametrize("scene", ["home", "discover"])
def test_recommend_equals_single_answers(champions, scene, monkeypatch):
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(champions, num_results=7, scene=scene).table()
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
    churn, predictions = score_churn(champions).table(), score_predictions(champions).table()
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
    table = batch.score_recommend(champions, num_results=20, candidates={*items, "ghost"}).table()
    assert set(table["item_id"].to_pylist()) == set(items)
    assert table.num_rows == 10 * champions.customers.table.num_rows
    for purchased in ("never", "only"):
        lists = batch.score_recommend(
            champions, num_results=5, options=parse_list_options({"purchased": purchased})
        ).table()
        users = np.array([catalogue.user_row(one_id) for one_id in lists["one_id"].to_pylist()])
        columns = np.array([catalogue.item_column(item) for item in lists["item_id"].to_pylist()])
        interacted = np.asarray(catalogue.history[users, columns]).ravel()
        assert (interacted == (purchased == "only")).all()
        many = np.diff(catalogue.history.indptr)
        lengths = np.minimum(5, many if purchased == "only" else catalogue.history.shape[1] - many)
        assert len(lists) == sum(lengths[catalogue.user_row(one_id)] for one_id in champions.customers.one_ids)
    with pytest.raises(DataError, match="none of the candidates"):
        batch.score_recommend(champions, candidates={"ghost"}).table()
    for number in (0, 501):
        with pytest.raises(UsageError, match=r"1\.\.500"):
            batch.score_recommend(champions, num_results=number).table()
    with pytest.raises(UsageError, match="home, replenish, discover"):
        batch.score_recommend(champions, scene="moon").table()
    with pytest.raises(UsageError, match="requires the context items"):
        batch.score_recommend(champions, scene="similar").table()
    with pytest.raises(InvalidRequest, match="never"):
        batch.score_recommend(champions, scene="discover", options=parse_list_options({"purchased": "only"})).table()


def candidate_pairs(*pairs):
    names = ["user_id", "item_id"] if len(pairs[0]) == 2 else ["user_id", "item_id", "user_source"]
    return CustomerCandidates(pa.table([pa.array(column, pa.string()) for column in zip(*pairs, strict=True)], names))


@pytest.mark.parametrize("scene", ["home", "discover"])
def test_candidates_of_each_customer_are_ranked_as_single_requests_rank_them(champions, scene, monkeypatch):
    items = champions.models["recommend"].catalogue.item_ids
    people = champions.customers.table.select(["user_id", "user_source"]).to_pylist()[5:90:6]
    wanted = {
        (person["user_id"], person["user_source"]): [items[(7 * number + 3 * place) % len(items)] for place in range(9)]
        for number, person in enumerate(people)
    }
    pairs = [(user, item, source) for (user, source), chosen in wanted.items() for item in chosen]
    bad = [(*pairs[0][:2], pairs[0][2]), ("nobody", items[0], None), (pairs[0][0], "ghost", pairs[0][2])]
    candidates = candidate_pairs(*pairs, *bad)
    monkeypatch.setattr(batch, "BLOCK", 4)
    scores = batch.score_recommend(champions, num_results=20, scene=scene, candidates=candidates, unavailable=[])
    assert scores.counts == {
        "pairs": len(pairs) + 3,
        "used": len(pairs),
        "repeated": 1,
        "of_unknown_users": 1,
        "of_unknown_items": 1,
    }
    assert len(scores.ranges) == -(-len(wanted) // 4)
    lists: dict[tuple[str, str], list[str]] = {}
    for row in scores.table().to_pylist():
        lists.setdefault((row["user_id"], row["user_source"]), []).append(row["item_id"])
    assert set(lists) <= set(wanted), "customers who are not in the file get no list"
    for (user_id, user_source), chosen in wanted.items():
        person = {"user_id": user_id, "user_source": user_source}
        if scene == "home":
            single = answer(champions, "/rank", **person, item_ids=chosen)["items"]
            assert lists[user_id, user_source] == [item["item_id"] for item in single if item["score"] is not None]
        else:
            assert set(lists.get((user_id, user_source), [])) <= set(chosen)


def test_candidates_of_each_customer_keep_the_purchased_option(champions):
    catalogue, person = champions.models["recommend"].catalogue, champions.customers.table["user_id"][3].as_py()
    bought = catalogue.interacted(catalogue.user_row(champions.customers.resolve(person))).tolist()
    asked = [catalogue.item_ids[column] for column in {*bought[:2], 0, 1, 2, 3}]
    lists = {
        option: set(
            batch.score_recommend(
                champions,
                candidates=candidate_pairs(*((person, item) for item in asked)),
                options=parse_list_options({"purchased": option, "filters": {"available": [True, False]}}),
            )
            .table()["item_id"]
            .to_pylist()
        )
        for option in ("only", "never")
    }
    own = {catalogue.item_ids[column] for column in bought}
    assert lists["only"] == set(asked) & own
    assert lists["never"] == set(asked) - own


def test_candidates_without_a_known_customer_or_item_are_refused(champions):
    person, item = champions.customers.table["user_id"][0].as_py(), champions.models["recommend"].catalogue.item_ids[0]
    with pytest.raises(DataError, match="user_id"):
        batch.score_recommend(champions, candidates=candidate_pairs(("nobody", item)))
    with pytest.raises(DataError, match="item_id"):
        batch.score_recommend(champions, candidates=candidate_pairs((person, "ghost")))


def test_what_the_lists_depend_on_is_in_their_digest(champions):
    """Otherwise a run would continue with the blocks of other lists."""
    items = champions.models["recommend"].catalogue.item_ids
    variants = [
        {},
        {"num_results": 3},
        {"scene": "discover"},
        {"candidates": items[:5]},
        {"candidates": items[:6]},
        {"candidates": candidate_pairs((champions.customers.table["user_id"][0].as_py(), items[0]))},
        {"unavailable": items[:1]},
        {"options": parse_list_options({"purchased": "never"})},
        {"options": parse_list_options({"filters": {"brand": "x"}, "purchased": "never"})},
    ]
    digests = [batch.score_recommend(champions, **variant).digest for variant in variants]
    assert len(set(digests)) == len(variants)
    assert batch.score_recommend(champions).digest == digests[0]


CONTROLLED = {
    "filters": {"or": [{"category": "grocery"}, {"not": {"attribute": "price", "op": ">", "value": 20}}]},
    "purchased": "any",
    "diversity": {"max_per": {"category/1": 3, "brand": 2}, "mmr": 0.6},
    "promotions": [{"name": "house", "filter": {"category": "home"}, "percent": 20}],
}


def test_controls_equal_single_answers(champions, monkeypatch):
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(champions, num_results=8, options=parse_list_options(CONTROLLED)).table()
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
    table = batch.score_recommend(champions, num_results=6, options=explored).table()
    assert table.column_names[-5:] == ["explored", "propensity", "propensity_in_list", "as_of", "model_version"]
    monkeypatch.setattr(batch, "BLOCK", 31)
    assert batch.score_recommend(champions, num_results=6, options=explored).table().equals(table)
    people = champions.customers.table.num_rows
    drawn = table.filter(table["explored"])
    # of 6 slots 1.5 are explored: one, or two with probability one half; the pool follows the other items
    assert drawn.num_rows / people == pytest.approx(1.5, abs=0.1)
    assert (np.asarray(table["propensity"]) > 0).all()
    by_place = table.group_by("rank").aggregate([("explored", "mean")]).sort_by("rank")["explored_mean"].to_pylist()
    assert by_place[0] == 0, "the top-ranked item stays first"
    other = batch.score_recommend(
        champions, num_results=6, options=parse_list_options({"exploration": {"share": 0.25, "pool": 8, "seed": 6}})
    ).table()
    assert other["item_id"].to_pylist() != table["item_id"].to_pylist()


def test_no_row_at_or_after_as_of_is_read(champions, workspace):
    before, later = AS_OF - timedelta(days=1), AS_OF + timedelta(days=14)
    builder = Builder(Lake(workspace), FEATURES)
    for score in (batch.score_recommend, score_churn, score_predictions):
        assert score(champions, as_of=AS_OF).customers
        with pytest.raises(DataError, match="was trained on rows after") as found:
            score(champions, as_of=before, builder=builder)
        assert "qianmian train" in (found.value.hint or "")
        with pytest.raises(UsageError):
            score(champions, as_of=later)
    table = score_churn(champions, as_of=later, builder=builder).table()
    assert set(table["as_of"].to_pylist()) == {later}
    assert table["churn_probability"].to_pylist() != score_churn(champions).table()["churn_probability"].to_pylist()


def test_a_later_as_of_folds_in_recent_purchases(champions, workspace, monkeypatch):
    moment = AS_OF + timedelta(days=14)
    builder = Builder(Lake(workspace), FEATURES)
    monkeypatch.setattr(batch, "BLOCK", 97)
    table = batch.score_recommend(
        champions, num_results=500, as_of=moment, builder=builder, options=parse_list_options({"purchased": "only"})
    ).table()
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
    together = batch.score_recommend(champions, num_results=8, as_of=moment, builder=builder).table()
    listed = [row["item_id"] for row in together.to_pylist() if row["one_id"] == one_id]
    assert [item["item_id"] for item in single["items"]] == listed
    stale = batch.score_recommend(champions, num_results=8).table()
    assert together["item_id"].to_pylist() != stale["item_id"].to_pylist()


def test_items_that_became_unavailable_are_not_shown(champions, workspace):
    catalogue = champions.models["recommend"].catalogue
    known = {item for item, can in zip(catalogue.item_ids, catalogue.available.tolist(), strict=True) if not can}
    assert set(batch.unavailable_items(Lake(workspace))) & set(catalogue.item_ids) == known
    bestseller = catalogue.item_ids[0]
    before, after = (
        batch.score_recommend(champions).table(),
        batch.score_recommend(champions, unavailable=[bestseller, "ghost"]).table(),
    )
    assert bestseller in before["item_id"].to_pylist()
    assert bestseller not in after["item_id"].to_pylist()
    assert before.num_rows == after.num_rows
    asked = batch.score_recommend(
        champions, unavailable=[bestseller], options=parse_list_options({"filters": {"available": [True, False]}})
    ).table()
    assert bestseller in asked["item_id"].to_pylist()


def test_files(champions, tmp_path):
    table = score_churn(champions).table()
    parquet, text = (
        write_tables([table], table.schema, tmp_path / "churn.parquet"),
        write_tables([table], table.schema, tmp_path / "churn.csv"),
    )
    assert pq.read_table(parquet).equals(table)
    with text.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == table.num_rows
    assert list(rows[0]) == table.column_names
    assert json.loads(rows[0]["reasons"]) == table["reasons"][0].as_py()
    predictions = score_predictions(champions).table()
    with write_tables([predictions], predictions.schema, tmp_path / "predictions.csv").open(
        newline="", encoding="utf-8"
    ) as handle:
        first = next(csv.DictReader(handle))
    assert json.loads(first["next_stage"] or "null") == predictions["next_stage"][0].as_py()
    with pytest.raises(UsageError, match=r"\.parquet, \.csv"):
        write_tables([table], table.schema, tmp_path / "churn.xlsx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.csv", "churn.parquet", "predictions.csv"]
