"""Models that need only who had what: against their formulas, written out densely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.recommend import ease, item_knn, spectral
from models.recommend import query as query_module
from models.recommend.base import ItemFilter, Query
from models.recommend.bpr import BPRRecommender
from models.recommend.ease import EASERecommender
from models.recommend.item_knn import ItemKNNRecommender, cooccurrence_blocks, strongest_links, weighted_counts
from models.recommend.spectral import SpectralRecommender
from qianmian.errors import DataError, UsageError

LINKED = [ItemKNNRecommender, EASERecommender, SpectralRecommender]
COUNTS = arrays(np.int8, st.tuples(st.integers(1, 7), st.integers(1, 6)), elements=st.sampled_from([0, 0, 1, 2, 5]))


def training_set(counts):
    """As many entries a pair as its count."""
    users, items = np.nonzero(counts)
    times = counts[users, items].astype(int)
    return TrainingSet.from_arrays(
        np.repeat(users, times), np.repeat(items, times), n_users=counts.shape[0], n_items=counts.shape[1]
    )


@pytest.fixture(scope="module")
def taste():
    """Two groups of customers, each with twenty items of its own, and counts that differ."""
    rng = np.random.default_rng(3)
    counts = np.zeros((80, 40), dtype=np.int8)
    for group in range(2):
        rows, columns = slice(40 * group, 40 * group + 40), slice(20 * group, 20 * group + 20)
        counts[rows, columns] = rng.binomial(1, 0.3, (40, 20)) * rng.integers(1, 4, (40, 20))
    counts[0, :2] = counts[40, 20:22] = 1  # nobody is without history
    return training_set(counts)


def dense_knn(had, weighting, shrinkage, power, normalise):
    weighted = weighted_counts(sparse.csr_matrix(had, dtype=np.float32), weighting).toarray().astype(float)
    products = weighted.T @ weighted
    lengths = np.sqrt(np.diag(products))
    similar = products / np.maximum(np.outer(lengths, lengths) + shrinkage, 1e-30)
    np.fill_diagonal(similar, 0)
    if normalise:
        similar /= np.maximum(similar.sum(axis=0), 1e-30)
    sums = had.sum(axis=0)
    return similar * np.where(sums > 0, np.maximum(sums, 1e-30) ** power, 1.0)


@settings(max_examples=60, deadline=None)
@given(
    COUNTS,
    st.sampled_from(["cosine", "tf-idf", "bm25"]),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([0.0, 0.4]),
    st.booleans(),
)
def test_knn_is_its_formula(counts, weighting, shrinkage, power, normalise):
    model = ItemKNNRecommender(10, weighting, shrinkage, normalise, power, count_power=0.5).fit(training_set(counts))
    expected = dense_knn(np.sqrt(counts.astype(float)), weighting, shrinkage, power, normalise)
    np.testing.assert_allclose(model.links_.toarray(), expected, rtol=1e-4, atol=1e-6)


def test_knn_keeps_the_nearest_of_each_item(taste):
    everything, few = ItemKNNRecommender(neighbours=40).fit(taste), ItemKNNRecommender(neighbours=3).fit(taste)
    full, kept = everything.links_.toarray(), few.links_.toarray()
    assert (np.count_nonzero(kept, axis=0) == 3).all()
    np.testing.assert_allclose(np.sort(full, axis=0)[-3:], np.sort(kept, axis=0)[-3:])


def test_a_customer_who_has_everything_says_little():
    counts = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=np.int8)
    told = {
        weighting: weighted_counts(sparse.csr_matrix(counts, dtype=np.float32), weighting)
        for weighting in ("cosine", "tf-idf", "bm25")
    }
    for weighting in ("tf-idf", "bm25"):
        assert told[weighting][3, 0] < 0.1 * told[weighting][0, 0]
    assert told["cosine"][3, 0] == told["cosine"][0, 0]
    with pytest.raises(UsageError, match="weighting"):
        ItemKNNRecommender(weighting="pearson").fit(training_set(counts))


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.sampled_from([0.5, 20.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_ease_is_its_closed_form(counts, regularization, power):
    model = EASERecommender(regularization, count_power=power).fit(training_set(counts))
    had = np.where(counts > 0, np.maximum(counts, 1).astype(float) ** power, 0.0)
    inverse = np.linalg.inv(had.T @ had + regularization * np.eye(had.shape[1]))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(model.links_.toarray(), expected, atol=2e-4)


def dense_spectral(model, counts):
    had = np.sqrt(counts.astype(float))
    by_user, by_item = (np.maximum(had.sum(axis=axis), 1e-30) for axis in (1, 0))
    normal = by_user[:, None] ** (-model.user_power / 2) * had * by_item**-0.5
    graph = normal.T @ normal
    values, vectors = np.linalg.eigh(graph)
    first = np.argsort(-values)[: min(model.components, min(counts.shape) // spectral.MIN_ROWS_PER_COMPONENT)]
    low, basis = values[first], vectors[:, first]
    smoothing = model.smoothing * low[-1]
    filtered = (basis * (low / (low + smoothing))) @ basis.T
    rest = graph - (basis * low) @ basis.T
    links = (
        by_item[:, None] ** -model.seen_power
        * (filtered + model.beyond / (low[-1] + smoothing) * rest)
        * by_item**model.shown_power
    )
    np.fill_diagonal(links, 0)
    return np.maximum(links, 0)


def test_spectral_is_its_formula(taste):
    model = SpectralRecommender(neighbours=40, count_power=0.5).fit(taste)
    counts = taste.interactions.matrix().toarray()
    np.testing.assert_allclose(model.links_.toarray(), dense_spectral(model, counts), atol=1e-4)
    other = SpectralRecommender(
        neighbours=40,
        components=2,
        smoothing=2.0,
        beyond=0.0,
        user_power=1.0,
        seen_power=0.0,
        shown_power=0.5,
        count_power=0.5,
    ).fit(taste)
    np.testing.assert_allclose(other.links_.toarray(), dense_spectral(other, counts), atol=1e-4)


def test_one_seed_one_model(taste):
    first, again = (SpectralRecommender(seed=7).fit(taste).links_ for _ in range(2))
    assert (first != again).nnz == 0
    users = np.arange(taste.n_users)
    lists = [BPRRecommender(factors=4, iterations=5, seed=7).fit(taste).recommend(users, 5).ids for _ in range(2)]
    np.testing.assert_array_equal(*lists)


@pytest.mark.parametrize("kind", LINKED)
def test_blocks_change_nothing(kind, taste, monkeypatch):
    whole = kind().fit(taste).links_
    for module, name in ((item_knn, "BLOCK_ENTRIES"), (ease, "BLOCK_CELLS"), (spectral, "BLOCK_CELLS")):
        monkeypatch.setattr(module, name, 90)
    np.testing.assert_allclose(kind().fit(taste).links_.toarray(), whole.toarray(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", LINKED)
def test_dense_and_sparse_answers_are_the_same(kind, taste, monkeypatch):
    model = kind().fit(taste)
    query = Query(np.array([0, 17, -1, 79]))
    item_filter = ItemFilter(np.arange(40) != 3, model.history_[[0, 17, 1, 79]])
    answers = []
    for share in (0.0, 2.0):
        monkeypatch.setattr(query_module, "DENSE_SHARE", share)
        ids, scores = model._top_k(query, 6, item_filter)
        width = np.isfinite(scores).sum(axis=1)
        answers.append([(row[:n].tolist(), of[:n].tolist()) for row, of, n in zip(ids, scores, width, strict=True)])
    assert answers[0] == answers[1]
    assert answers[0][2] == ([], [])


@pytest.mark.parametrize("kind", [*LINKED, BPRRecommender])
def test_each_group_gets_what_its_own_had(kind, taste):
    """The checkerboard of implicit's tests: nothing links the groups, so nothing crosses over."""
    ranked = kind().fit(taste).recommend(np.arange(80), 5, exclude_purchased=True)
    assert (ranked.valid == 5).all()
    own = (ranked.ids // 20) == (np.arange(80) // 40)[:, None]
    assert own.mean() > (0.9 if kind is BPRRecommender else 0.999)  # factors are learnt by chance, links are counted


@pytest.mark.parametrize("kind", LINKED)
def test_a_stranger_is_answered_like_a_customer_who_did_the_same(kind, taste):
    model = kind().fit(taste)
    mine = taste.interactions.where(taste.interactions.users == 5)
    same = Interactions(np.zeros(len(mine.items), np.int32), mine.items, mine.age_days, mine.weights, (1, 40))
    known, stranger = (
        model.recommend([5], 8, exclude_purchased=True),
        model.recommend([-1], 8, recent_interactions=same, exclude_purchased=True),
    )
    np.testing.assert_array_equal(known.ids, stranger.ids)
    np.testing.assert_allclose(known.scores, stranger.scores, rtol=1e-5)


@pytest.mark.parametrize("kind", LINKED)
def test_similar_items_are_of_the_same_group_and_the_nearest_is_one(kind, taste):
    model = kind().fit(taste)
    for item in (0, 25):
        ranked = model.similar_items(item, 5)
        assert ranked.scores[0, 0] == 1.0
        assert (ranked.ids[0, : ranked.valid[0]] // 20 == item // 20).all()


@pytest.mark.parametrize("kind", LINKED)
def test_a_user_with_everything_and_an_item_with_nobody(kind):
    counts = np.random.default_rng(0).binomial(1, 0.4, (30, 12)).astype(np.int8)
    counts[4], counts[:, 11] = 1, 0
    model = kind().fit(training_set(counts))
    ranked = model.recommend(np.arange(30), 12)
    assert 11 not in ranked.ids
    assert not model.recommend([4], 12, exclude_purchased=True).valid[0]
    assert not model.similar_items(11, 3).valid[0]


@pytest.mark.parametrize("kind", [EASERecommender, SpectralRecommender])
def test_a_large_catalogue_is_linked_within_its_most_popular_items(kind, taste):
    """The links are those of a fit on the popular items alone; the others are linked to nothing and never ranked."""
    customers = taste.item_customers
    popular = np.sort(np.argsort(-customers, kind="stable")[:25])
    some = np.isin(taste.interactions.items, popular)
    place = np.searchsorted(popular, taste.interactions.items[some])
    alone = TrainingSet.from_arrays(taste.interactions.users[some], place, n_users=taste.n_users, n_items=25)
    whole, expected = kind(max_items=25).fit(taste).links_.toarray(), kind().fit(alone).links_.toarray()
    np.testing.assert_allclose(whole[np.ix_(popular, popular)], expected, rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(whole) == np.count_nonzero(expected)
    ranked = kind(max_items=25).fit(taste).recommend(np.arange(taste.n_users), taste.n_items).ids
    assert set(ranked[ranked >= 0].tolist()) <= set(popular.tolist())


def test_ease_inverts_by_halves_what_is_too_large_to_invert_at_once(monkeypatch):
    counts = np.random.default_rng(3).integers(0, 2, (60, 37)).astype(np.float32)
    whole = EASERecommender(5.0).fit(training_set(counts))
    monkeypatch.setattr("models.recommend.ease.LEAF_ROWS", 4)
    halves = EASERecommender(5.0).fit(training_set(counts))
    np.testing.assert_allclose(halves.links_.toarray(), whole.links_.toarray(), rtol=1e-4, atol=1e-5)


def test_ease_without_regularization_says_so():
    counts = np.ones((3, 5), dtype=np.int8)  # all columns equal: the products are singular
    with pytest.raises(DataError, match="inverted"):
        EASERecommender(regularization=-1.0).fit(training_set(counts))


def test_bpr_scores_are_those_of_implicit(taste):
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    theirs = BayesianPersonalizedRanking(
        factors=6, iterations=10, learning_rate=0.05, regularization=0.01, random_state=3, num_threads=1
    )
    had = taste.interactions.matrix()
    had.data[:] = 1.0
    theirs.fit(had, show_progress=False)
    ours = BPRRecommender(factors=6, iterations=10, regularization=0.01, popularity_power=0.0, seed=3).fit(taste)
    users = np.arange(taste.n_users)
    expected = theirs.user_factors @ theirs.item_factors.T
    np.testing.assert_allclose(ours._scores(Query(users)), expected, rtol=1e-4, atol=1e-5)
    likely = BPRRecommender(factors=6, iterations=10, regularization=0.01, popularity_power=1.0, seed=3).fit(taste)
    customers = np.asarray((had > 0).sum(axis=0)).ravel()
    np.testing.assert_allclose(likely._scores(Query(users)), expected + np.log(customers), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 5))
def test_strongest_keeps_the_greatest(counts, most):
    kept = strongest_links(sparse.csr_matrix(counts), most).toarray()
    for given_row, row in zip(counts, kept, strict=True):
        expected = np.sort(given_row[given_row > 0])[::-1][:most]
        assert sorted(row[row > 0].tolist(), reverse=True) == expected.tolist()
        assert (given_row[row > 0] == row[row > 0]).all()


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 5))
def test_strongest_of_equal_ones_are_the_first_columns_however_the_row_is_stored(counts, most):
    stored = sparse.csr_matrix(counts)
    for row in range(stored.shape[0]):  # the same matrix, each row backwards
        own = slice(stored.indptr[row], stored.indptr[row + 1])
        stored.indices[own], stored.data[own] = stored.indices[own][::-1].copy(), stored.data[own][::-1].copy()
    stored.has_sorted_indices = False
    kept = strongest_links(stored, most)
    assert kept.has_canonical_format
    for given_row, row in zip(counts, kept.toarray(), strict=True):
        best = np.lexsort((np.arange(len(given_row)), -given_row))[:most]
        assert np.flatnonzero(row).tolist() == sorted(best[given_row[best] > 0].tolist())


def test_products_in_blocks_are_the_product(taste, monkeypatch):
    monkeypatch.setattr(item_knn, "BLOCK_ENTRIES", 50)
    had = taste.interactions.matrix()
    blocks = list(cooccurrence_blocks(had.T.tocsr(), had))
    assert len(blocks) > 3
    assert [row for rows, _ in blocks for row in rows] == list(range(40))
    np.testing.assert_allclose(sparse.vstack([products for _, products in blocks]).toarray(), (had.T @ had).toarray())
