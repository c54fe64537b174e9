"""Pooled patterns on hand-made counts: known values, exposures, levels, and nothing found where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from models.pooled_patterns import (
    ALL,
    CUSTOMER,
    LEVELS,
    SEGMENT,
    PooledPatterns,
    Responses,
    compared,
    log_losses,
    pattern_of_all,
    shrunk,
)

NO_SEGMENTS = np.full(400, -1)


def matrix(rows):
    return sparse.csr_matrix(np.asarray(rows, dtype=np.float32))


def test_without_exposures_a_pattern_is_the_mean_of_a_dirichlet_distribution():
    prior, counts, k = np.array([0.5, 0.3, 0.2]), np.array([[4.0, 0.0, 1.0]]), 3.0
    expected = counts.sum() * prior
    np.testing.assert_allclose(shrunk(counts, expected, prior, k), (counts + k * prior) / (counts.sum() + k))


def test_the_pattern_of_all_adds_one_response_to_each_cell():
    found = pattern_of_all(Responses(matrix([[5, 0, 0], [0, 2, 0]])))
    np.testing.assert_allclose(found, np.array([6, 3, 1]) / 10)


def test_a_cell_with_many_sends_has_many_responses_and_is_no_better():
    """Half of all messages are answered, and nine of ten go to the first cell."""
    sends = np.tile([90.0, 10.0], (50, 1))
    data = Responses(matrix(sends / 2), matrix(sends))
    np.testing.assert_allclose(pattern_of_all(data), [0.5, 0.5], atol=0.01)
    without = pattern_of_all(Responses(matrix(sends / 2)))
    assert without[0] > 0.85


def test_how_much_a_customer_responds_plays_no_part():
    """Eager customers are sent messages in the first cell, the others in the second; each responds the same in both."""
    sends = np.array([[90.0, 10.0]] * 20 + [[10.0, 90.0]] * 20)
    rates = np.array([[0.8]] * 20 + [[0.1]] * 20)
    np.testing.assert_allclose(pattern_of_all(Responses(matrix(sends * rates), matrix(sends))), [0.5, 0.5], atol=0.01)


def test_a_customer_is_shrunk_to_the_segment_and_the_segment_to_all():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], 200)
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    data = Responses(matrix([rng.multinomial(20, shares[code]) for code in codes]))
    model = PooledPatterns(CUSTOMER, True, 10.0, 1e6).fit(data, codes)
    found, levels = model.predict(np.array([0, 399, -1]))
    np.testing.assert_allclose(found[:2], shares, atol=0.03)
    assert [LEVELS[level] for level in levels] == ["segment", "segment", "all"]
    np.testing.assert_allclose(found[2], model.all_)
    own = PooledPatterns(CUSTOMER, True, 10.0, 1e-6).fit(data, codes)
    found, levels = own.predict(np.array([0]))
    np.testing.assert_allclose(found[0], data.responses[0].toarray()[0] / 20, atol=1e-4)
    assert levels.tolist() == [CUSTOMER]


@pytest.mark.parametrize(("level", "with_segments"), [(ALL, False), (SEGMENT, True)])
def test_a_model_that_does_not_use_the_customers_does_not_hold_them(level, with_segments):
    data = Responses(matrix(np.eye(3).repeat(10, axis=0)))
    model = PooledPatterns(level, with_segments).fit(data, np.zeros(30, dtype=np.int64))
    assert model.data_.responses.nnz == 0
    assert model.data_.responses.shape == (30, 3)


def test_patterns_sum_to_one_and_are_positive():
    rng = np.random.default_rng(1)
    sends = rng.poisson(2.0, (60, 7)).astype(float)
    data = Responses(matrix(rng.binomial(sends.astype(int), 0.3)), matrix(sends))
    found, _ = PooledPatterns(CUSTOMER, True, 10.0, 2.0).fit(data, rng.integers(-1, 3, 60)).predict(np.arange(-1, 60))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert (found > 0).all()


def test_the_log_loss_is_that_of_the_choice_among_what_was_sent():
    losses = log_losses(np.array([[0.6, 0.3, 0.1]]), np.array([[2.0, 0.0, 0.0]]), np.array([[1.0, 2.0, 0.0]]))
    np.testing.assert_allclose(losses, [-np.log(0.5)])


def test_only_customers_with_a_choice_are_compared():
    responses = matrix([[1, 0], [1, 0], [0, 0]])
    assert compared(Responses(responses)).tolist() == [0, 1]
    assert compared(Responses(responses, matrix([[3, 0], [3, 1], [1, 1]]))).tolist() == [1]
