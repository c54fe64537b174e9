"""`BehaviourClusters`: known places and distances, and nobody who is far away decides the scale."""

from __future__ import annotations

import numpy as np
import pytest

from models.clusters import CLIP, BehaviourClusters, BehaviourSpace, nearest

FEATURES, BLOCKS = ("orders_182d", "basket_lines_mean", "order_value_mean"), ("often", "basket", "basket")


@pytest.fixture
def values():
    return np.random.default_rng(0).exponential(10.0, (400, 3)).astype(np.float32)


@pytest.fixture
def space(values):
    return BehaviourSpace.learn(values, FEATURES, (True, False, False), BLOCKS)


def test_each_feature_has_mean_0_and_variance_1_and_each_block_the_same_weight(space, values):
    scaled = space.scaled(values)
    assert scaled.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert scaled.std(axis=0) == pytest.approx(1)
    variances = space(values).var(axis=0)
    assert variances[0] == pytest.approx(variances[1] + variances[2])


def test_an_unknown_value_is_the_median(space, values):
    median = np.median(values, axis=0, keepdims=True)
    assert space(np.full((1, 3), np.nan)) == pytest.approx(space(median), abs=1e-6)


def test_a_giant_is_no_further_away_than_the_limit_and_does_not_change_the_scale(space, values):
    values[0] = 1e9
    learnt = BehaviourSpace.learn(values, FEATURES, (True, False, False), BLOCKS)
    assert learnt.scale == pytest.approx(space.scale, rel=0.05)
    assert np.abs(learnt.scaled(values)).max() <= (CLIP + 1) / learnt.spread.min()


def test_a_constant_feature_stays_at_zero():
    space = BehaviourSpace.learn(np.ones((50, 3)), FEATURES, (True, False, False), BLOCKS)
    assert (space(np.ones((5, 3))) == 0).all()


def test_components_keep_what_varies_most(values):
    space = BehaviourSpace.learn(values, FEATURES, (True, False, False), BLOCKS, components=2)
    places = space(values)
    assert places.shape == (400, 2)
    assert places[:, 0].var() >= places[:, 1].var()
    assert np.corrcoef(places, rowvar=False)[0, 1] == pytest.approx(0, abs=1e-9)


def test_nearest_and_typicality():
    found = nearest(np.array([[0.0], [5.0], [9.0]]), np.array([[0.0], [10.0]]))
    assert found.cluster.tolist() == [0, 0, 1]
    assert found.typicality == pytest.approx([1.0, 0.0, 1 - 1 / 9])


def test_saved_and_loaded(space, values, tmp_path):
    centroids = space(values)[:2]
    model = BehaviourClusters(space, centroids, ("c1", "c4"), ("large baskets", "weekends"), ("大单", "周末买"))
    model.save(tmp_path / "model")
    loaded = BehaviourClusters.load(tmp_path / "model")
    rows = np.column_stack([values, np.arange(400) % 5]).astype(np.float32)
    for one, other in zip(model.predict(rows), loaded.predict(rows), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (loaded.ids, loaded.names, loaded.names_zh) == (model.ids, model.names, model.names_zh)
    assert loaded.columns == (*FEATURES, "orders_total")
    assert loaded.has_evidence(rows).tolist() == [count >= 3 for count in rows[:, -1]]
    assert loaded.get_params() == model.get_params()
