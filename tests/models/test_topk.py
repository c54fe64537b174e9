"""`top_k` against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models import topk
from models.topk import top_k

SCORES = st.one_of(
    st.sampled_from(
        [-np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, np.float32(1e-45), np.float32(-1e-45), np.finfo(np.float32).max]
    ),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def sorted_plainly(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best columns by (score falling, column rising); NaN counts as −inf."""
    clean = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    ids = np.array([np.lexsort((np.arange(len(row)), -row))[:k] for row in clean]).reshape(
        len(scores), min(k, scores.shape[1])
    )
    return ids, np.take_along_axis(clean, ids, axis=1)


def same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert (found[0].dtype, found[1].dtype) == (np.int32, np.float32)


@settings(max_examples=300, deadline=None)
@given(
    scores=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=SCORES),
    k=st.integers(1, 15),
)
@example(scores=np.array([[-0.0, 0.0, -0.0]], dtype=np.float32), k=2)
@example(scores=np.array([[np.nan, -np.inf, -1.0]], dtype=np.float32), k=3)
def test_top_k_is_a_plain_sort(scores, k):
    before = scores.copy()
    scores.flags.writeable = False
    same(top_k(scores, k), sorted_plainly(scores, k))
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("values", [2, 4, 1000])
@pytest.mark.parametrize("candidates", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize(("n", "m", "k"), [(1, 3000, 5), (50, 3001, 100), (7, 777, 300), (3, 20_011, 1)])
def test_top_k_of_many_columns(n, m, k, values, candidates):
    rng = np.random.default_rng(m)
    scores = rng.integers(-values, values, (n, m)).astype(np.float32)
    scores[rng.random((n, m)) >= candidates] = -np.inf
    scores[rng.random((n, m)) < 0.01] = np.nan
    same(top_k(scores, k), sorted_plainly(scores, k))


def test_top_k_of_blocks_is_one(monkeypatch):
    monkeypatch.setattr(topk, "DENSE_CELLS", 320)
    scores = np.random.default_rng(0).integers(0, 9, (30, 50)).astype(np.float32)
    same(top_k(scores, 7), sorted_plainly(scores, 7))


def test_top_k_of_other_layouts():
    scores = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    same(top_k(scores.T, 5), sorted_plainly(scores.T, 5))
    same(top_k(scores[::2, ::3], 5), sorted_plainly(scores[::2, ::3], 5))


def test_top_k_of_nothing():
    assert top_k(np.empty((0, 5), np.float32), 3)[0].shape == (0, 3)
    assert top_k(np.empty((2, 0), np.float32), 3)[0].shape == (2, 0)
