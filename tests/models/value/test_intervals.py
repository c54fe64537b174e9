"""Intervals of totals: coverage on new customers, whole numbers for counts, none below 0."""

from __future__ import annotations

import numpy as np
import pytest

from models.value.intervals import TotalInterval, coverage


def drawn(n: int, mean: float, seed: int):
    """Expectations, and totals with more spread than a Poisson distribution."""
    rng = np.random.default_rng(seed)
    expected = rng.gamma(1.0, mean, n)
    return expected, rng.poisson(expected * rng.gamma(1.5, 1 / 1.5, n)).astype(float)


@pytest.mark.parametrize(("mean", "most"), [(40.0, 0.83), (3.0, 0.87)])
def test_intervals_contain_four_fifths_of_new_totals(mean, most):
    interval = TotalInterval.fit(*drawn(4000, mean, 1), 1.0)
    expected, totals = drawn(4000, mean, 2)
    low, high = interval.of(expected)
    assert 0.77 < coverage(totals, low, high).mean() < most
    assert (low >= 0).all()
    assert (low <= high).all()
    assert (low == np.round(low)).all()
    assert (high == np.round(high)).all()


def test_intervals_of_rare_orders_hold_at_a_longer_horizon():
    """Learnt where 85 % order nothing, used where expectations are three times as large."""
    expected, totals = drawn(5000, 0.2, 1)
    assert (totals == 0).mean() > 0.8
    interval = TotalInterval.fit(expected, totals, 1.0)
    later, later_totals = drawn(5000, 0.6, 2)
    assert 0.75 < coverage(later_totals, *interval.of(later)).mean() < 0.92


def test_money_is_counted_in_units_of_an_order():
    expected, totals = drawn(4000, 5.0, 3)
    interval = TotalInterval.fit(20 * expected, 20 * totals, 20.0)
    new, new_totals = drawn(4000, 5.0, 4)
    assert coverage(20 * new_totals, *interval.of(20 * new)).mean() == pytest.approx(0.8, abs=0.05)
    assert TotalInterval.from_dict(interval.as_dict()) == interval


def test_a_customer_who_orders_nothing_has_the_interval_zero():
    low, high = TotalInterval(1.0, (0.0, 0.0), 0.8).of(np.array([0.0, 1e-9]))
    np.testing.assert_array_equal([low, high], np.zeros((2, 2)))
