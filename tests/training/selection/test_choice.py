"""The simplest candidate within noise of the best ships."""

from __future__ import annotations

import numpy as np
import pytest

from training.selection.choice import choose, is_ahead

NOISE = np.random.default_rng(0).random(400)


def test_a_complex_candidate_must_be_ahead_beyond_noise():
    jitter = np.random.default_rng(1).normal(0, 0.05, 400)
    jitter -= jitter.mean()
    chosen = choose({"trees": NOISE + jitter + 0.002, "counts": NOISE, "popular": NOISE - 0.1})
    assert (chosen.best, chosen.winner) == ("trees", "counts")
    assert chosen.behind["counts"].low < 0 < chosen.behind["counts"].high
    assert chosen.behind["popular"].low > 0
    assert "within noise of trees" in chosen.reason
    ahead = choose({"trees": NOISE + jitter + 0.02, "counts": NOISE, "popular": NOISE - 0.1})
    assert (ahead.winner, ahead.reason) == ("trees", "the best beyond noise")


def test_few_examples_choose_the_simple_one_and_many_the_better_one():
    """The highest mean of 20 examples is noise; of 4,000 it is not."""
    rng = np.random.default_rng(3)
    for n, expected in ((20, "popular"), (4_000, "trees")):
        popular = rng.random(n)
        assert (
            choose({"trees": np.clip(popular + rng.normal(0.03, 0.3, n), 0, None), "popular": popular}).winner
            == expected
        )


def test_the_interval_is_paired():
    """A small advantage of every example counts, although the examples differ widely."""
    assert choose({"ours": NOISE * 10 + 0.01, "theirs": NOISE * 10}).winner == "ours"


def test_equal_candidates_and_missing_lists():
    assert choose({"blend": NOISE, "counts": NOISE}).winner == "counts"
    some = NOISE.copy()
    some[:300] = np.nan  # no list for three quarters of the customers
    chosen = choose({"counts": some, "popular": NOISE})
    assert chosen.winner == "popular"
    assert chosen.values["counts"].value == pytest.approx(NOISE[300:].sum() / 400)


def test_is_ahead():
    found = is_ahead(NOISE + 0.5, NOISE)
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5)
    assert is_ahead(np.full(9, np.nan), np.ones(9)).value == -1.0
