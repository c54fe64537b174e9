"""Slices, paired differences, and the comparison of several models."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import sparse

from features.interactions import TrainingSet
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import UsageError
from qianmian.model_settings import LifecycleSettings
from training.bootstrap import mean_metric
from training.evaluation.compare import evaluate
from training.evaluation.metrics import PUBLISHED, STANDARD, ranking_metrics, repeat_and_explore
from training.evaluation.protocols import time_split
from training.evaluation.slices import activity_slices


def market(n_users=120, n_items=40, seed=0):
    """Training data of customers who buy their favourites repeatedly."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), rng.integers(4, 40, n_users))
    favourite = rng.integers(0, n_items, n_users)
    items = np.where(
        rng.random(len(users)) < 0.5, favourite[users], (rng.random(len(users)) ** 3 * n_items).astype(int)
    )
    return TrainingSet.from_arrays(
        users, items, n_users=n_users, n_items=n_items, age_days=np.ceil(rng.random(len(users)) * 200)
    )


# ---- slices ----------------------------------------------------------------------------------------------------------


def test_slices_partition_the_users():
    data = market()
    users = np.array([3, 0, -1, 7, 7, 50])
    found = activity_slices(data.interactions, users)
    assert tuple(found) == ("new", "asleep", "light", "heavy")
    assert np.sum(list(found.values()), axis=0).tolist() == [1] * 6
    assert found["new"][2], "an unknown user is new"
    everybody = activity_slices(data.interactions, np.arange(120))
    assert all(rows.any() for name, rows in everybody.items() if name != "new")


def test_each_slice_by_its_rule():
    ages = {
        "once": [300.0],
        "came lately": [20.0, 10.0],
        "own rhythm, silent": [150.0, 140.0, 130.0],
        "slow, not silent": [200.0, 140.0],
        "often": [60.0, 50.0, 40.0, 10.0],
    }
    users = np.repeat(np.arange(5), [len(days) for days in ages.values()])
    days = np.concatenate(list(ages.values()))
    for orders in (None, 1000 - days.astype(int)):
        data = TrainingSet.from_arrays(
            users, np.zeros(len(users), int), n_users=5, n_items=1, age_days=days, orders=orders
        )
        found = activity_slices(data.interactions, np.arange(5))
        assert {name: np.flatnonzero(rows).tolist() for name, rows in found.items()} == {
            "new": [0, 1],
            "asleep": [2],
            "light": [3],
            "heavy": [4],
        }
    patient = LifecycleSettings(min_gap_days=200.0, max_gap_days=200.0)  # a slow shop
    assert activity_slices(data.interactions, np.arange(5), patient)["asleep"].sum() == 0


def test_without_timestamps_no_user_is_asleep():
    data = TrainingSet.from_arrays([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0], n_users=3, n_items=3)
    found = activity_slices(data.interactions, np.arange(3))
    assert {name: np.flatnonzero(rows).tolist() for name, rows in found.items()} == {
        "new": [2],
        "asleep": [],
        "light": [1],
        "heavy": [0],
    }


# ---- paired bootstrap ------------------------------------------------------------------------------------------------


def test_pairs_are_resampled_together():
    rng = np.random.default_rng(1)
    b = rng.random(500)
    a = b + 0.01 + rng.normal(0, 0.005, 500)
    gain = mean_metric(a - b)
    assert 0.009 < gain.low < gain.value < gain.high < 0.011
    assert gain.high - gain.low < 0.1 * (mean_metric(a).high - mean_metric(a).low)


def test_thirty_thousand_customers_take_less_than_a_second():
    a, b = np.random.default_rng(2).random((2, 30_000))
    seconds = []
    for _ in range(3):
        started = time.thread_time()  # CPU time, because the machine may be busy
        found = mean_metric(a - b)
        seconds.append(time.thread_time() - started)
    assert min(seconds) < 1.0
    half = 1.96 * (a - b).std() / math.sqrt(30_000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


# ---- several models --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    split = time_split(market(), 40)
    ranked_lists = {
        model.name: split.recommend_with(model.fit(split.train), 10)
        for model in (RepeatPurchaseRecommender(), PopularRecommender())
    }
    categories = np.array([f"c{item % 3}/{item}" for item in range(split.train.n_items)])
    data = split.train.interactions
    found = evaluate(
        ranked_lists,
        split.truth,
        10,
        names=(*STANDARD, *PUBLISHED),
        history=split.history(),
        item_customers=split.train.item_customers,
        n_customers=len(np.unique(data.users)),
        categories=categories,
        slices=activity_slices(data, split.users),
        n_resamples=200,
    )
    return split, ranked_lists, found


def test_all_models_are_evaluated_on_the_same_users(measured):
    split, ranked_lists, found = measured
    metrics = set(found.models["repeat"])
    assert metrics == set(found.models["popular"])
    assert metrics >= {
        f"{name}@10" for name in (*STANDARD, *PUBLISHED, "repeat_recall", "explore_recall", "repeat_share", "coverage")
    }
    assert metrics >= {f"{name}@10" for name in ("novelty", "popularity", "popularity_lift", "diversity")}
    for name, answer in ranked_lists.items():
        alone = {
            **ranking_metrics(answer.ids, split.truth, 10),
            **repeat_and_explore(answer.ids, split.truth, split.history(), 10),
        }
        for metric, values in alone.items():
            wanted = mean_metric(values[np.isfinite(values)], n_resamples=200)
            got = found.models[name][f"{metric}@10"]
            assert (got.value, got.n) == (pytest.approx(wanted.value), wanted.n)
            if wanted.n == len(split):
                assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high))


def test_metrics_beyond_accuracy_separate_the_models(measured):
    _, _, found = measured
    repeat, popular = found.models["repeat"], found.models["popular"]
    assert repeat["ndcg@10"].value > popular["ndcg@10"].value
    assert found.differences["ndcg@10:popular"].value == pytest.approx(
        repeat["ndcg@10"].value - popular["ndcg@10"].value
    )
    assert found.differences["ndcg@10:popular"].low > 0
    assert set(found.differences) == {"ndcg@10:popular", "recall@10:popular"}
    assert popular["popularity_lift@10"].value > 0, "popular items are recommended more often than they are bought"
    assert repeat["popularity_lift@10"].value < popular["popularity_lift@10"].value
    assert repeat["coverage@10"].value > popular["coverage@10"].value == pytest.approx(10 / 40)
    assert repeat["novelty@10"].value > popular["novelty@10"].value


def test_slices_contain_their_own_customers(measured):
    split, _, found = measured
    parts = activity_slices(split.train.interactions, split.users)
    assert set(found.slices) == {name for name, rows in parts.items() if rows.any()}
    for name, by_model in found.slices.items():
        values = found.values["repeat"]["ndcg@10"][parts[name]]
        assert by_model["repeat"]["ndcg@10"].value == pytest.approx(values.mean())
        assert by_model["repeat"]["ndcg@10"].n == parts[name].sum()


def test_a_comparison_is_written_as_json_and_as_a_table(measured):
    _, _, found = measured
    plain = found.as_dict()
    assert plain["repeat"]["ndcg@10"] == found.models["repeat"]["ndcg@10"].__dict__
    assert all(math.isfinite(metric["value"]) for model in plain.values() for metric in model.values())
    lines = found.table(["recall@10", "ndcg@10"]).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("repeat")


def test_the_reference_can_be_named(measured):
    split, ranked_lists, _ = measured
    turned = evaluate(ranked_lists, split.truth, 10, reference="popular", differences=["map"], n_resamples=20)
    assert set(turned.differences) == {"map@10:repeat"}
    assert turned.differences["map@10:repeat"].value < 0
    with pytest.raises(UsageError):
        evaluate(ranked_lists, split.truth, 10, reference="nobody")
    with pytest.raises(UsageError):
        evaluate({}, split.truth, 10)


def test_a_metric_without_values_is_nan():
    truth = sparse.csr_matrix([[0, 1.0]] * 5)
    found = evaluate({"one": np.array([[0]] * 5)}, truth, 1, history=sparse.csr_matrix((5, 2)), n_resamples=20)
    assert found.models["one"]["repeat_recall@1"].n == 0
    assert "repeat_recall@1" not in found.as_dict()["one"]
