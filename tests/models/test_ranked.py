"""The padding of `Ranked`."""

from __future__ import annotations

import numpy as np

from models.ranked import Ranked


def test_ranked_pads_and_counts():
    ranked = Ranked.of(
        np.array([[4, 2, 0]], np.int32),
        np.array([[2.0, 1.0, -np.inf]], np.float32),
        np.zeros((1, 3), np.int8),
        5,
        ("m",),
    )
    assert ranked.ids.tolist() == [[4, 2, -1, -1, -1]]
    assert ranked.valid.tolist() == [2]
    assert ranked.source.tolist() == [[0, 0, -1, -1, -1]]
    assert ranked.scores[0, :2].tolist() == [2.0, 1.0]
    assert np.isneginf(ranked.scores[0, 2:]).all()
    assert ranked.sources == ("m",)
