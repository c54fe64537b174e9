"""Weights of a blend: the fused lists, and values that do not come from the weights' own examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from features.interactions import TrainingSet
from models.ranked import Ranked
from models.recommend.base import Query
from models.recommend.blend import COMPONENTS, BlendRecommender
from models.recommend.fit_cache import fit_cached
from models.recommend.popular import PopularRecommender
from models.recommend.ranking.candidates import list_ranks
from models.recommend.repeat import RepeatPurchaseRecommender
from training.evaluation.metrics import ranking_metrics
from training.selection.fusion import BlendWeights, Fusion, cross_fitted_weights


def listed(ids):
    """Lists with distinct scores."""
    scores = np.where(ids >= 0, -np.arange(ids.shape[1], dtype=np.float32), -np.inf).astype(np.float32)
    return Ranked.of(ids.astype(np.int32), scores, np.zeros(ids.shape, np.int8), ids.shape[1], ("list",))


FIRST = listed(np.array([[0, 1, 2]]))
SECOND = listed(np.array([[2, 3, -1]]))


def test_reciprocal_ranks_are_added():
    """Item 2: 1/(5+3) + 1/(5+1) = .292 is ahead of item 0 with 1/(5+1) = .167."""
    truth = sparse.csr_matrix([[0, 0, 1, 0, 0]])
    fused = Fusion.of({"a": FIRST, "b": SECOND}, truth, 1)
    assert fused.values(BlendWeights({"a": 0.5, "b": 0.5}, 5.0)).tolist() == [1.0]
    assert fused.values(BlendWeights({"a": 1.0}, 5.0)).tolist() == [0.0]
    assert fused.values(BlendWeights({"b": 1.0}, 5.0)).tolist() == [1.0]


@pytest.mark.parametrize("metric", ["ndcg", "mrr"])
def test_values_are_those_of_the_metrics(metric):
    rng = np.random.default_rng(0)
    lists = {name: np.array([rng.permutation(30)[:12] for _ in range(50)]) for name in ("a", "b", "c")}
    truth = sparse.csr_matrix((rng.random((50, 30)) < 0.1).astype(np.float32))
    truth = truth[np.diff(truth.indptr) > 0]
    lists = {name: found[: truth.shape[0]] for name, found in lists.items()}
    fused = Fusion.of({name: listed(found) for name, found in lists.items()}, truth, 10, metric)
    for name, found in lists.items():
        np.testing.assert_allclose(
            fused.values(BlendWeights({name: 1.0}, 20.0)), ranking_metrics(found, truth, 10, (metric,))[metric]
        )


def test_the_blend_ranks_as_its_weights_were_measured():
    rng = np.random.default_rng(2)
    n = 80
    data = TrainingSet.from_arrays(
        rng.integers(0, n, 900),
        np.minimum(rng.geometric(0.08, 900), 40) - 1,
        n_users=n,
        n_items=40,
        age_days=rng.uniform(1, 90, 900),
    )
    models = {"repeat": RepeatPurchaseRecommender(30.0), "popular": PopularRecommender()}
    users = np.unique(data.interactions.users)
    lists = {name: fit_cached(model, data).recommend(users, 40) for name, model in models.items()}
    truth = sparse.csr_matrix((rng.random((len(users), 40)) < 0.2).astype(np.float32) + np.eye(len(users), 40))
    weights = BlendWeights({"repeat": 0.7, "popular": 0.3}, 20.0)
    blend = BlendRecommender(
        [(models[name].name, models[name].get_params(), share) for name, share in weights.weights.items()], 20.0, 40
    ).fit(data)
    expected = Fusion.of(lists, truth, 10).values(weights)
    found = ranking_metrics(blend.recommend(users, 10).ids, truth, 10, ("ndcg",))["ndcg"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["next_basket", "item_knn", "affinity", "ials", "spectral", "ease"])
def test_a_blend_gives_nothing_for_items_that_a_component_does_not_list(name):
    """Short lists end with items of score −inf, which are none."""
    rng = np.random.default_rng(4)
    data = TrainingSet.from_arrays(
        rng.integers(0, 40, 300), rng.integers(0, 30, 300), n_users=40, n_items=30, age_days=rng.uniform(1, 90, 300)
    )
    models = {name: COMPONENTS[name](), "popular": PopularRecommender()}
    users, weights = np.unique(data.interactions.users), BlendWeights({name: 0.7, "popular": 0.3}, 20.0)
    expected = np.zeros((len(users), 30))
    for one, model in models.items():
        listed = fit_cached(model, data).recommend(users, 30)
        rows, places = np.nonzero(listed.ids >= 0)
        gains = weights.weights[one] / (20.0 + list_ranks(listed.scores))
        expected[rows, listed.ids[rows, places]] += gains[rows, places]
    parts = [(one, models[one].get_params(), share) for one, share in weights.weights.items()]
    found = BlendRecommender(parts, 20.0, 30).fit(data).recommend(users, 30)
    rows, places = np.nonzero(found.ids >= 0)
    np.testing.assert_allclose(found.scores[rows, places], expected[rows, found.ids[rows, places]], rtol=1e-5)


def small_blend():
    """A blend of two models that list three of ten items, and its training set: customer 0 bought items 0 to 5."""
    data = TrainingSet.from_arrays(
        np.repeat([0, 1, 2, 3], [6, 10, 10, 5]),
        np.concatenate([np.arange(6), np.arange(10), np.arange(10), np.arange(5)]),
        n_users=4,
        n_items=10,
    )
    parts = [("repeat", {"half_life_days": None}, 0.6), ("popular", {}, 0.4)]
    return BlendRecommender(parts, 20.0, 3).fit(data)


def test_a_filter_leaves_the_order_of_the_listed_items():
    blend = small_blend()
    every = blend.recommend([0], 10).ids[0]
    every = every[every >= 0]
    for left_out in every.tolist():
        shown = blend.recommend([0], 10, allowed=np.isin(np.arange(10), every) & (np.arange(10) != left_out)).ids[0]
        listed_only = shown[np.isin(shown, every)]
        assert listed_only.tolist() == [item for item in every.tolist() if item != left_out]


def test_items_below_the_lists_come_last_in_the_order_of_the_components():
    """Items 6 to 9 are in no list of three; both components find the rest by their scores."""
    blend = small_blend()
    ids = np.array([[9, 2, 5, 7, 0]])
    scores = blend._score_items(Query(np.array([0])), ids)[0]
    assert scores[[1, 4]].min() > scores[[0, 2, 3]].max()  # 0 and 2 are listed
    assert scores[2] > scores[[0, 3]].max()  # the customer's own item 5 is before items that others bought
    assert np.isfinite(scores).all()
    assert blend.recommend([0], 4, allowed=np.isin(np.arange(10), [5, 7])).ids[0].tolist()[:2] == [5, 7]


def test_the_weights_are_chosen_on_the_first_items_of_the_lists():
    rng = np.random.default_rng(3)
    lists = {name: np.array([rng.permutation(30)[:12] for _ in range(20)]) for name in ("a", "b")}
    truth = sparse.csr_matrix((rng.random((20, 30)) < 0.2).astype(np.float32) + np.eye(20, 30, dtype=np.float32))
    shallow = Fusion.of({name: listed(found) for name, found in lists.items()}, truth, 5).shallow(6)
    expected = Fusion.of({name: listed(found[:, :6]) for name, found in lists.items()}, truth, 5)
    for weights in (BlendWeights({"a": 0.5, "b": 0.5}, 5.0), BlendWeights({"b": 1.0}, 20.0)):
        np.testing.assert_allclose(shallow.values(weights), expected.values(weights))


def complementary(n=400, seed=0):
    """Two models that each know one half of what a customer wants, and one that knows nothing."""
    rng = np.random.default_rng(seed)
    truth, lists = (
        np.zeros((n, 60), np.float32),
        {name: np.empty((n, 20), np.int64) for name in ("left", "right", "none")},
    )
    for row in range(n):
        wanted = rng.permutation(60)[:8]
        truth[row, wanted] = 1.0
        rest = rng.permutation(np.setdiff1d(np.arange(60), wanted))
        lists["left"][row] = np.concatenate([wanted[:4], rest[:16]])
        lists["right"][row] = np.concatenate([wanted[4:], rest[16:32]])
        lists["none"][row] = rest[-20:]
    return {name: listed(found) for name, found in lists.items()}, sparse.csr_matrix(truth)


def values_of(lists, truth, folds):
    """The value of each example by the weights for its fold."""
    values, fused = np.full(truth.shape[0], np.nan), Fusion.of(lists, truth, 10)
    for rows, weights in folds:
        values[rows] = fused.take(rows).values(weights)
    assert not np.isnan(values).any()
    return values


def test_models_that_complement_each_other_are_blended():
    lists, truth = complementary()
    weights, folds = cross_fitted_weights(Fusion.of(lists, truth, 10), np.arange(400), 0)
    values = values_of(lists, truth, folds)
    assert set(weights.weights) == {"left", "right"}
    assert sum(weights.weights.values()) == pytest.approx(1.0)
    alone = ranking_metrics(lists["left"].ids, truth, 10, ("ndcg",))["ndcg"]
    assert values.mean() > alone.mean() + 0.1


def test_the_values_are_not_of_weights_chosen_on_the_same_examples():
    """Many lists of noise: the weights that look best in their own fold gain nothing in the other."""
    rng = np.random.default_rng(5)
    lists = {f"noise {i}": listed(np.array([rng.permutation(200)[:20] for _ in range(60)])) for i in range(12)}
    truth = sparse.csr_matrix((rng.random((60, 200)) < 0.05).astype(np.float32) + np.eye(60, 200, dtype=np.float32))
    weights, folds = cross_fitted_weights(Fusion.of(lists, truth, 10), np.arange(60), 0)
    honest = values_of(lists, truth, folds)
    flattering = Fusion.of(lists, truth, 10).values(weights)
    assert honest.mean() < flattering.mean()
