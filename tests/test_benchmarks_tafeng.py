"""TIFU-KNN of the Ta-Feng benchmark is what its paper says, basket by basket."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from features.interactions import TrainingSet
from training.evaluation.protocols import last_basket_split

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def tafeng(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(
        "benchmarks_recommenders_tafeng", BENCHMARKS / "recommenders_tafeng.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("common", None)


def test_baskets_fade_within_and_between_groups(tafeng):
    got = tafeng.basket_weights(5, 2, 0.5, 0.1)  # two groups, of two and of three baskets
    np.testing.assert_allclose(got, np.array([0.5**4 / 2 * 0.1, 0.5**3 / 2 * 0.1, 0.5**2 / 3, 0.5 / 3, 1 / 3]) / 2)
    np.testing.assert_allclose(
        tafeng.basket_weights(2, 3, 0.5, 0.1), np.array([0.5 * 0.1**2, 0.1]) / 2
    )  # each its own group, the first two


def test_a_list_is_of_own_and_the_nearest_frequencies(tafeng):
    rng = np.random.default_rng(0)
    baskets = [[rng.choice(12, 3, replace=False).tolist() for _ in range(4)] for _ in range(9)]
    lines = [
        (user, item, place) for user, own in enumerate(baskets) for place, basket in enumerate(own) for item in basket
    ]
    users, items, orders = (np.array(column) for column in zip(*lines, strict=True))
    split = last_basket_split(TrainingSet.from_arrays(users, items, n_users=9, n_items=12, orders=orders))
    got = tafeng.tifu_knn(split, neighbours=3, groups=2, within=0.9, between=0.7, own=0.6)
    vectors = np.zeros((9, 12))
    for user, own in enumerate(baskets):
        # three baskets of the past in two groups, of one and of two
        for place, weight in enumerate([0.9**2 * 0.7 / 2, 0.9 / 2 / 2, 1 / 2 / 2]):
            vectors[user, own[place]] += weight
    for user in range(9):
        nearest = np.argsort(((vectors - vectors[user]) ** 2).sum(axis=1), kind="stable")[:3]
        scores = 0.6 * vectors[user] + 0.4 * vectors[nearest].mean(axis=0)
        np.testing.assert_allclose(scores[got[user]], np.sort(scores)[::-1][:10], rtol=1e-5, atol=1e-7)
