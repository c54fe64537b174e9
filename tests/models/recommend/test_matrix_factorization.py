"""Models of factors: folding in, answers without dense scores, factors that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from features.interactions import Interactions
from models.persist import load_arrays, save_arrays
from models.recommend.base import Query, fold_in
from models.recommend.hybrid import HybridRecommender, item_traits
from models.recommend.ials import ImplicitALSRecommender
from qianmian.errors import ArtifactError, DataError

MODELS = [ImplicitALSRecommender(factors=8, iterations=5), HybridRecommender(factors=8, epochs=3)]


def since_of(rows, items, ages, shape):
    rows, items, ages = (np.asarray(values) for values in (rows, items, ages))
    return Interactions(
        rows.astype(np.int32), items.astype(np.int32), ages.astype(np.float32), np.ones(len(rows), np.float32), shape
    )


@pytest.mark.parametrize("half_life", [None, 30.0])
def test_ials_solves_for_users_as_implicit_recalculates_them(shop, half_life):
    from implicit.cpu.als import AlternatingLeastSquares

    model = ImplicitALSRecommender(factors=8, alpha=3.0, half_life_days=half_life).fit(shop)
    users = np.arange(shop.n_users)
    recent_interactions = since_of(
        [0, 0, 5, 39], [3, 7, 24, 2], [1, 2, 0.5, 3], (40, 25)
    )  # the last one has no history
    now = fold_in(model.counts_, Query(users, None, recent_interactions, 10.0), half_life)
    theirs = AlternatingLeastSquares(factors=8, regularization=model.ridge_, num_threads=1)
    theirs.item_factors = model.index_.item_vectors
    theirs.user_factors = model.user_factors_
    expected = theirs.recalculate_user(users, model._confidence(now))
    np.testing.assert_allclose(model.solve(now), expected, atol=1e-4)
    vectors, answerable = model._user_vectors(Query(users, None, recent_interactions, 10.0))
    np.testing.assert_allclose(vectors[[0, 5, 39]], expected[[0, 5, 39]], atol=1e-4)
    np.testing.assert_array_equal(vectors[1], model.user_factors_[1])  # nothing new: the factors of the fit
    assert answerable.tolist() == [user < 36 or user == 39 for user in range(40)]


def test_ials_solves_in_batches_of_any_size(shop, monkeypatch):
    model = ImplicitALSRecommender(factors=8).fit(shop)
    together = model.solve(model.counts_)
    monkeypatch.setattr("models.recommend.ials.GATHERED", 100)
    np.testing.assert_allclose(model.solve(model.counts_), together, atol=1e-5)
    assert not together[-4:].any()  # no history, no factors


def test_ials_answers_from_what_was_done_since(shop):
    model = ImplicitALSRecommender(factors=8, alpha=20.0).fit(shop)
    stranger = model.recommend(
        [-1], 5, recent_interactions=since_of([0, 0], [4, 6], [1, 1], (1, 25)), exclude_purchased=True
    )
    assert stranger.valid[0] == 5
    assert not {4, 6} & set(stranger.ids[0].tolist())
    assert model.recommend([-1], 5).valid[0] == 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_what_is_best_and_what_given_items_score_are_the_dense_scores(model, shop):
    model.fit(shop)
    users = np.arange(shop.n_users)
    query = Query(users)
    dense = model._scores(query)
    ranked = model.recommend(users, shop.n_items)
    for row in range(len(users)):
        valid = ranked.valid[row]
        assert valid == np.isfinite(dense[row]).sum()
        np.testing.assert_allclose(
            ranked.scores[row, :valid], dense[row, ranked.ids[row, :valid]], rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(model._score_items(query, ranked.ids), ranked.scores)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_factors_that_are_no_numbers_are_refused_when_loaded(model, shop, tmp_path):
    model.fit(shop).save(tmp_path)
    state = load_arrays(tmp_path / "state.npz")
    for name in [name for name in state if name.endswith(("factors", "vectors"))]:
        harmed = state[name].copy()
        harmed[1, 1] = np.nan
        save_arrays(tmp_path / "state.npz", {**state, name: harmed})
        with pytest.raises(ArtifactError, match=f"not finite.*{name}.*got '1 of"):
            type(model).load(tmp_path)


def test_a_fit_that_diverges_says_so(shop):
    weights = np.full(len(shop.interactions.users), 1e30, np.float32)
    data = Interactions(
        shop.interactions.users, shop.interactions.items, shop.interactions.age_days, weights, shop.interactions.shape
    )
    with pytest.raises(DataError, match="not finite"):
        ImplicitALSRecommender(factors=4, iterations=2).fit(shop.with_interactions(data))


def test_hybrid_knows_an_item_by_its_traits(shop):
    """An item without interactions has the vector and the prior of its traits."""
    data = shop.interactions
    model = HybridRecommender(factors=8, epochs=3).fit(shop.with_interactions(data.where(data.items != 7)))
    vectors, priors = model._from_traits(item_traits(shop)[1][[7]])
    np.testing.assert_allclose(vectors[0], model.index_.item_vectors[7], rtol=1e-5)
    np.testing.assert_allclose(priors[0], model.item_prior_[7], rtol=1e-5)
    assert priors[0] > 0
