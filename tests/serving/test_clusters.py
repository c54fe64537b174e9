"""Behaviour clusters in `/v1/predictions` and in lists, by a model that is put beside the champions."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from models.bundle import ModelBundle
from models.clusters import BehaviourClusters, BehaviourSpace
from serving.champions import Champion
from serving.predictions import PREDICTIONS
from serving.scoring.lists.tables import list_of_table
from serving.scoring.lists.words import no_score_words
from serving.scoring.predictions import score_predictions

FEATURES = ("orders_182d", "basket_lines_mean", "weekend_order_share")
NAMES, NAMES_ZH = ("frequent orders", "weekends"), ("常下单", "周末买")


@pytest.fixture(scope="module")
def with_clusters(champions):
    profiles = champions.customers.features
    model = BehaviourClusters(ids=("c1", "c4"), names=NAMES, names_zh=NAMES_ZH, min_evidence=3.0)
    values = np.column_stack([profiles.column(name) for name in FEATURES])
    model.space = BehaviourSpace.learn(values, FEATURES, (True, True, False), FEATURES)
    model.centroids = np.array([[1.0, 0.0, -0.5], [-1.0, 0.0, 1.0]])
    bundle = ModelBundle("clusters", model, datetime(2024, 1, 1), profiles.spec.select(model.columns))
    return replace(champions, models={**champions.models, "clusters": Champion("clusters", "1", bundle)})


@pytest.fixture(scope="module")
def table(with_clusters):
    return score_predictions(with_clusters, names=("clusters",)).table()


def test_customers_with_enough_orders_have_a_cluster_and_the_others_a_reason(with_clusters, table):
    orders = with_clusters.customers.features.column("orders_total")
    assert 0 < (orders < 3).sum() < len(orders)
    for row, count in zip(table.to_pylist(), orders.tolist(), strict=True):
        if count >= 3:
            assert (row["cluster_name"], row["cluster_name_zh"]) == {"c1": (NAMES[0], NAMES_ZH[0]), "c4": (NAMES[1], NAMES_ZH[1])}[row["behaviour_cluster"]]  # fmt: skip
            assert 0 <= row["typicality"] <= 1
            assert row["no_score_reason"] is None
        else:
            assert row["behaviour_cluster"] is row["cluster_name"] is row["typicality"] is None
            assert row["no_score_reason"] == "fewer than 3 orders"
    assert set(table["behaviour_cluster"].to_pylist()) == {"c1", "c4", None}
    assert {row["rfm_tier"] for row in table.to_pylist()} > {None} or "rfm_tier" not in with_clusters.customers.tags


@pytest.mark.parametrize(("lang", "names"), [("en", NAMES), ("zh", NAMES_ZH)])
def test_a_list_has_the_name_in_its_language(table, lang, names):
    found = list_of_table(table, lang, {})
    assert set(found.values["cluster_name"]) == {*names, None}
    assert "cluster_name_zh" not in found.values


def test_the_reason_has_words():
    assert no_score_words("fewer than 3 orders", "zh") == "不足 3 单"
    assert no_score_words("fewer than 2 days with an event", "zh") == "不足 2 个有行为的日子"


def test_serving_clusters_needs_no_library_of_training():
    module = sys.modules[PREDICTIONS["clusters"].predict.__module__]
    assert not {name for name in vars(module) if name in ("sklearn", "pandas", "mlflow")}
