"""Behaviour clusters: planted groups are found again, data without groups have none, ids and names stay."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from qianmian.errors import DataError
from qianmian.model_settings import ClustersSettings
from training.clusters.choice import MIN_AGREEMENT, ClusterRows, Found, Space, require_rows, sound_choices
from training.clusters.matching import assign_ids, same_clusters
from training.clusters.naming import AVERAGE, ClusterTrait, name_clusters, traits_of
from training.clusters.report import eta_squared
from training.clusters.stability import k_means, labels_of, pair_agreement, without_groups
from training.clusters.traits import SPACES, TRAITS
from training.report import Metric

FEATURES = ("orders_182d", "basket_lines_mean", "coupon_order_share", "weekend_order_share", "top_store_share")
SETTINGS, AS_OF = ClustersSettings(max_clusters=4), datetime(2024, 1, 1)
CENTRES = np.array([[30, 3, 0.1, 0.2, 0.9], [5, 20, 0.5, 0.3, 0.4], [8, 4, 0.1, 0.8, 0.8]])
SPREADS = np.array([4, 1.5, 0.05, 0.07, 0.07])


def planted(sizes=(150, 100, 80), seed=0) -> tuple[ClusterRows, np.ndarray]:
    """Customers of three groups, in the order of their ids, and the group of each."""
    groups = np.repeat(np.arange(3), sizes)
    values = np.random.default_rng(seed).normal(CENTRES[groups], SPREADS).clip(0).astype(np.float32)
    return ClusterRows(np.arange(len(groups)).astype(str), values, FEATURES), groups


def rows_of(values, features=FEATURES) -> ClusterRows:
    return ClusterRows(np.arange(len(values)).astype(str), np.asarray(values, dtype=np.float32), features)


def clustered(rows: ClusterRows, k=3, seed=0):
    """Labels, and the scaled features, in the space of habits."""
    space = Space(SPACES["habits"], rows, seed)
    labels = labels_of(space.places, k_means(space.places, k, seed))
    return labels, dict(zip(space.features, space.learnt.scaled(rows.of(space.features)).T, strict=True))


# ---- the number of clusters ------------------------------------------------------------------------------------------


def test_planted_groups_are_found():
    rows, groups = planted()
    found = next(sound_choices(rows, SETTINGS, 0))
    assert found.k == 3
    assert found.agreement.low >= MIN_AGREEMENT
    assert found.gap.low > 0
    assert adjusted_rand_score(clustered(rows)[0], groups) > 0.95


@pytest.mark.parametrize("kind", ["normal", "skewed", "correlated"])
def test_data_without_groups_have_none(kind):
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.normal(10, 1, (200, 5)),
        "skewed": rng.exponential(1, (200, 5)),
        "correlated": rng.multivariate_normal(np.full(5, 8.0), 0.5 + 0.5 * np.eye(5), 200),
    }[kind]
    assert list(sound_choices(rows_of(values), SETTINGS, 0)) == []


def test_the_clusters_in_production_are_tried_first():
    rows, _ = planted()
    found = next(sound_choices(rows, SETTINGS, 0, ("habits, 4 components", 3)))
    assert (found.space.name, found.k) == ("habits, 4 components", 3)
    assert next(sound_choices(rows, SETTINGS, 0, ("of another version", 2))).k == 3


def test_a_cluster_that_is_too_small_is_not_sound():
    certain, space = Metric(0.9, 0.85, 0.95, 20), SPACES["habits"]
    assert Found(space, 2, certain, certain, certain, 0.2).is_sound(200, 0.05)
    assert not Found(space, 2, certain, certain, certain, 0.09).is_sound(200, 0.05)  # 18 customers
    chance = Metric(0.01, -0.01, 0.03, 200)
    assert not Found(space, 2, certain, chance, certain, 0.2).is_sound(200, 0.05)
    assert not Found(space, 2, certain, certain, chance, 0.2).is_sound(200, 0.05)
    assert not Found(space, 2, Metric(0.75, 0.69, 0.8, 20), certain, certain, 0.2).is_sound(200, 0.05)


def test_a_giant_makes_no_cluster_of_its_own():
    rows, groups = planted()
    rows.values[0] = 1e8
    labels, _ = clustered(rows)
    assert np.bincount(labels).min() >= 80
    assert adjusted_rand_score(labels[1:], groups[1:]) > 0.95


def test_unknown_values_are_no_trait():
    rows, groups = planted()
    rows.values[::7, 2] = np.nan
    labels, _ = clustered(rows)
    assert adjusted_rand_score(labels, groups) > 0.85


def test_agreement_is_1_for_clear_groups_and_low_without():
    rows, _ = planted()
    assert pair_agreement(Space(SPACES["habits"], rows, 0).places, 3, 0, 3, disjoint=True).min() > 0.95
    noise = np.random.default_rng(0).normal(size=(300, 6))
    assert pair_agreement(noise, 5, 0, 4).mean() < MIN_AGREEMENT


def test_the_reference_keeps_values_and_rank_correlations():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=2000)
    scaled = np.column_stack([x, x + rng.normal(size=2000), rng.integers(0, 2, 2000)])
    reference = without_groups(scaled, rng)
    np.testing.assert_array_equal(np.sort(reference, axis=0), np.sort(scaled, axis=0))
    assert spearmanr(*reference.T[:2])[0] == pytest.approx(spearmanr(*scaled.T[:2])[0], abs=0.05)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 10, 99])
def test_too_few_customers(n):
    with pytest.raises(DataError, match="too few customers") as caught:
        require_rows(planted()[0].sample(n, 0) if n else rows_of(np.empty((0, 5))), "orders", 3, 500, AS_OF)
    assert f"{n} of 500 customers have 3 orders before 2024-01-01" in str(caught.value.got)
    assert "at least 100 customers" in caught.value.allowed


@pytest.mark.parametrize(
    "values",
    [np.ones((200, 5)), np.column_stack([np.arange(200), np.arange(200) % 7, np.ones((200, 3))]), np.empty((200, 0))],
    ids=["identical customers", "two features vary", "no features"],
)
def test_customers_who_do_not_differ(values):
    with pytest.raises(DataError, match="do not differ in enough ways") as caught:
        require_rows(rows_of(values, FEATURES[: values.shape[1]]), "orders", 3, 200, AS_OF)
    assert "at least 3 of orders_182d" in caught.value.allowed


def test_a_feature_that_few_customers_have_does_not_vary():
    few = np.zeros(200)
    few[:30] = 1
    assert rows_of(np.column_stack([few, np.arange(200)]), FEATURES[:2]).varying == ("basket_lines_mean",)


# ---- ids -------------------------------------------------------------------------------------------------------------


def test_ids_stay_on_permuted_rows_and_on_other_customers():
    rows, _ = planted()
    labels, _ = clustered(rows)
    order = np.random.default_rng(3).permutation(len(rows))
    permuted, _ = clustered(ClusterRows(rows.one_ids[order], rows.values[order], FEATURES), seed=9)
    same = same_clusters(labels[order], permuted, 3, 3)
    assert sorted(same) == [0, 1, 2]
    ids, last = assign_ids(same, ("c1", "c2", "c3"), 3)
    assert last == 3
    assert [ids[label] for label in permuted] == [f"c{label + 1}" for label in labels[order]]


def test_an_id_is_never_given_again():
    before, now = np.repeat([0, 1, 2], 40), np.concatenate([np.zeros(40, int), np.repeat([1, 2], 40)])
    now[40:80] = np.tile([1, 2], 20)  # the second cluster is torn in two; the third is with one half
    same = same_clusters(before, now, 3, 3)
    assert same == [0, -1, 2]
    assert assign_ids(same, ("c1", "c2", "c5"), 7) == (["c1", "c8", "c5"], 8)


# ---- names -----------------------------------------------------------------------------------------------------------


def trait(feature, difference):
    return ClusterTrait(feature, difference, 1.0, 1.0)


def test_planted_groups_have_the_names_of_their_traits():
    rows, groups = planted()
    _, scaled = clustered(rows)
    names = name_clusters(traits_of(rows, scaled, groups, 3))
    assert len(set(names)) == len({zh for _, zh in names}) == 3
    assert "frequent orders" in names[0][0]
    assert "常下单" in names[0][1]
    assert {"large baskets", "coupons"} <= set(names[1][0].split(", "))
    assert "周末买" in names[2][1]


def test_names_are_distinct_and_one_trait_of_a_block():
    traits = [
        [trait("basket_lines_mean", 1.2), trait("order_value_mean", 1.1), trait("top_store_share", 0.9), trait("orders_182d", 0.8), trait("weekend_order_share", 0.5)],
        [trait("basket_lines_mean", 1.1), trait("top_store_share", 0.9), trait("orders_182d", 0.7), trait("weekend_order_share", -0.6)],
        [trait("basket_lines_mean", 0.2), trait("orders_182d", -0.1)],
    ]  # fmt: skip
    names = [english for english, _ in name_clusters(traits)]
    assert names == [
        "large baskets, one store, frequent orders, weekends",
        "large baskets, one store, frequent orders, weekdays",
        AVERAGE[0],
    ]
    twice = name_clusters([traits[2], traits[2]])
    assert len(set(twice)) == 2


def test_a_name_stays_while_its_traits_do():
    traits = [[trait("top_store_share", 0.9), trait("orders_182d", 0.8)]]
    before = {0: ("frequent orders, one store", "常下单、只去一店")}
    assert name_clusters(traits, before) == [before[0]]
    assert (
        name_clusters([[trait("top_store_share", 0.9), trait("orders_182d", -0.8)]], before)[0][0]
        == "one store, rare orders"
    )


def test_every_trait_has_words_in_both_languages():
    for one in TRAITS.values():
        assert all(one.high)
        assert bool(one.low[0]) == bool(one.low[1])
    words = [text for one in TRAITS.values() for pair in (one.high, one.low) for text in pair if text]
    assert len(words) == len(set(words))


# ---- the evaluation --------------------------------------------------------------------------------------------------


def test_eta_squared():
    assert eta_squared(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 5.0, 7.0])) == pytest.approx(0.8)
    assert eta_squared(np.array([0, 1, 0, 1]), np.ones(4)) == 0.0
