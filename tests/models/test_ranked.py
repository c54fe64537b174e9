"""`top_k` against a plain sort, and the padding of `Ranked`."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.ranked import Ranked, top_k

SCORES = st.one_of(
    st.sampled_from([-np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, np.float32(1e-45), np.float32(-1e-45), np.finfo(np.float32).max]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)  # fmt: skip


def sorted_plainly(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best columns by (score falling, column rising); NaN counts as −inf."""
    clean = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    ids = np.array([np.lexsort((np.arange(len(row)), -row))[:k] for row in clean]).reshape(len(scores), min(k, scores.shape[1]))
    return ids, np.take_along_axis(clean, ids, axis=1)


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
    ids, values = top_k(scores, k)
    expected_ids, expected_values = sorted_plainly(scores, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(scores, before)
    assert ids.dtype == np.int32
    assert values.dtype == np.float32


def test_top_k_of_many_columns_with_few_values():
    scores = np.random.default_rng(0).integers(0, 4, (50, 3000)).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, 100)[0], sorted_plainly(scores, 100)[0])


def test_top_k_of_nothing():
    assert top_k(np.empty((0, 5), np.float32), 3)[0].shape == (0, 3)
    assert top_k(np.empty((2, 0), np.float32), 3)[0].shape == (2, 0)


def test_ranked_pads_and_counts():
    ranked = Ranked.of(np.array([[4, 2, 0]], np.int32), np.array([[2.0, 1.0, -np.inf]], np.float32), np.zeros((1, 3), np.int8), 5, ("m",))
    assert ranked.ids.tolist() == [[4, 2, -1, -1, -1]]
    assert ranked.valid.tolist() == [2]
    assert ranked.source.tolist() == [[0, 0, -1, -1, -1]]
    assert ranked.scores[0, :2].tolist() == [2.0, 1.0]
    assert np.isneginf(ranked.scores[0, 2:]).all()
    assert ranked.sources == ("m",)
