"""`FactorIndex` against a plain sort of all products."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import sparse

from models import inner_product_search
from models.inner_product_search import FactorIndex
from models.parallel import blas
from qianmian.errors import DataError

WHOLE = st.integers(-3, 3).map(np.float32)  # sums of products of small whole numbers are exact, so ties are ties
SMALL_TILES = {"CHUNK": 2, "FIRST": 4, "WIDEST": 8, "TILE_CELLS": 64, "USERS": 16}  # a few dozen items make several


def factor_top_k(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    k: int,
    *,
    item_bias: NDArray[np.float32] | None = None,
    allowed: NDArray[np.bool_] | None = None,
    excluded: sparse.csr_matrix | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`FactorIndex.search` on vectors that are searched once."""
    typical = float(np.median(np.linalg.norm(user_vectors, axis=1))) if len(user_vectors) else 1.0
    index = FactorIndex(item_vectors, item_bias, typical if np.isfinite(typical) else 1.0)
    return index.search(user_vectors, k, allowed=allowed, excluded=excluded, threads=threads)


def sorted_products(users, items, k, bias=None, allowed=None, excluded=None):
    """What `factor_top_k` must answer, by way of every score."""
    scores = users.astype(np.float64) @ items.astype(np.float64).T
    if bias is not None:
        scores += bias
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    if excluded is not None:
        scores[excluded.toarray() > 0] = -np.inf
    k = min(k, len(items))
    ids = np.lexsort((np.broadcast_to(np.arange(len(items)), scores.shape), -scores), axis=1)[:, :k]
    values = np.take_along_axis(scores, ids, axis=1)
    return np.where(np.isneginf(values), -1, ids), values


def same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert (found[0].dtype, found[1].dtype) == (np.int32, np.float32)


@pytest.fixture
def small_tiles(monkeypatch):
    for name, value in SMALL_TILES.items():
        monkeypatch.setattr(inner_product_search, name, value)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_factor_top_k_is_a_plain_sort_of_all_products(data):
    n, m, d = (data.draw(st.integers(1, most), label=name) for name, most in (("n", 6), ("m", 40), ("d", 3)))
    users = data.draw(hnp.arrays(np.float32, (n, d), elements=WHOLE), label="users")
    items = data.draw(hnp.arrays(np.float32, (m, d), elements=WHOLE), label="items")
    bias = data.draw(st.none() | hnp.arrays(np.float32, m, elements=WHOLE), label="bias")
    allowed = data.draw(st.none() | hnp.arrays(np.bool_, m), label="allowed")
    out = data.draw(st.none() | hnp.arrays(np.float32, (n, m), elements=st.sampled_from([0.0, 1.0])), label="excluded")
    excluded = None if out is None else sparse.csr_matrix(out)
    k, threads = data.draw(st.integers(1, 50), label="k"), data.draw(st.integers(1, 3), label="threads")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL_TILES.items():
            patch.setattr(inner_product_search, name, value)
        found = factor_top_k(users, items, k, item_bias=bias, allowed=allowed, excluded=excluded, threads=threads)
    same(found, sorted_products(users, items, k, bias, allowed, excluded))


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("skewed", [False, True])
def test_factor_top_k_on_real_numbers(k, skewed):
    """Many blocks of users, several tiles, two threads; scores to rounding, the order by them exactly."""
    rng = np.random.default_rng(k)
    users, items = rng.standard_normal((600, 16)).astype(np.float32), rng.standard_normal((2500, 16)).astype(np.float32)
    bias = rng.standard_normal(2500).astype(np.float32)
    if skewed:
        items *= np.exp(rng.standard_normal((2500, 1))).astype(np.float32)
    excluded = sparse.random(600, 2500, density=0.01, format="csr", random_state=0, dtype=np.float32)
    allowed = rng.random(2500) < 0.9
    ids, scores = factor_top_k(users, items, k, item_bias=bias, allowed=allowed, excluded=excluded, threads=2)
    expected_ids, expected = sorted_products(users, items, k, bias, allowed, excluded)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert (ids == expected_ids).mean() > 0.999  # what differs are neighbours whose scores differ in the last bit
    assert not excluded[np.repeat(np.arange(600), k), ids.ravel()].any()
    assert allowed[ids].all()


def test_one_user_alone_gets_the_same_as_among_others():
    """To the last bit, with items of equal vectors: the sum has one order whatever the shape of the block."""
    rng = np.random.default_rng(0)
    users = rng.standard_normal((700, 33)).astype(np.float32)
    items = np.repeat(rng.standard_normal((900, 33)).astype(np.float32), 4, axis=0)
    index = FactorIndex(items)
    together = index.search(users, 10, threads=1)
    for row in range(0, 700, 50):
        same(index.search(users[row : row + 1], 10), (together[0][row : row + 1], together[1][row : row + 1]))
    np.testing.assert_array_equal(index.score_items(users, together[0]), together[1])
    assert (together[0][:, 0] % 4 == 0).all()  # of four equal ones the first


def test_scores_at_of_no_item():
    index = FactorIndex(np.ones((3, 2), np.float32), np.array([0.0, 1.0, 2.0], np.float32))
    np.testing.assert_array_equal(
        index.score_items(np.ones((1, 2), np.float32), np.array([[2, -1, 0]])), [[4.0, -np.inf, 2.0]]
    )


def test_all_equal_gives_the_lowest_indices(small_tiles):
    users, items = np.zeros((40, 2), np.float32), np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)
    assert (factor_top_k(users, items, 9, threads=2)[0] == np.arange(9)).all()
    assert (factor_top_k(users[:1], items, 9)[0] == np.arange(9)).all()


def test_all_barred_and_one_item():
    users, items = np.ones((3, 2), np.float32), np.ones((1, 2), np.float32)
    assert factor_top_k(users, items, 5)[0].tolist() == [[0]] * 3
    assert factor_top_k(users, items, 5, allowed=np.zeros(1, bool))[0].tolist() == [[-1]] * 3
    assert factor_top_k(users[:1], items, 5, excluded=sparse.csr_matrix(np.ones((1, 1), np.float32)))[0].tolist() == [
        [-1]
    ]
    assert factor_top_k(users[:0], items, 5)[0].shape == (0, 1)
    assert factor_top_k(users, items[:0], 5)[0].shape == (3, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_factors_that_are_no_numbers_are_refused(bad):
    good, ill = np.ones((4, 2), np.float32), np.ones((4, 2), np.float32)
    ill[2, 1] = bad
    with pytest.raises(DataError, match=r"finite.*1 of 4"):
        FactorIndex(ill)
    with pytest.raises(DataError, match=r"user vectors are not finite"):
        FactorIndex(good).search(ill, 2)
    with pytest.raises(DataError, match="biases"):
        FactorIndex(good, ill[:, 1])


def test_a_search_leaves_its_input_alone():
    rng = np.random.default_rng(0)
    users, items, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((50, 4), (300, 4), (300,)))
    for array in (users, items, bias):
        array.flags.writeable = False
    factor_top_k(users, items, 5, item_bias=bias)


def test_callers_at_once_get_their_own_answers_and_blas_its_threads_back():
    def threads():
        return [library["num_threads"] for library in blas().info()]

    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((2000, 8)).astype(np.float32), rng.standard_normal((3000, 8)).astype(np.float32)
    before, index, found = threads(), FactorIndex(items), {}

    def ask(part):
        found[part] = index.search(users[part::4], 5, threads=2)

    callers = [threading.Thread(target=ask, args=(part,)) for part in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert threads() == before
    for part in range(4):
        same(found[part], index.search(users[part::4], 5, threads=1))
