"""Intervals of totals: coverage on new customers, whole numbers for counts, none below 0."""

from __future__ import annotations

import numpy as np
import pytest

from models.value.intervals import TAIL, TotalInterval, coverage


def drawn(n: int, mean: float, seed: int):
    """Expectations, and totals with more spread than a Poisson distribution."""
    rng = np.random.default_rng(seed)
    expected = rng.gamma(1.0, mean, n)
    return expected, rng.poisson(expected * rng.gamma(1.5, 1 / 1.5, n)).astype(float)


def from_zero(expected):
    """Whose total is 0 with a probability of a tenth, as they are drawn."""
    return (1 + expected / 1.5) ** -1.5 >= TAIL


@pytest.mark.parametrize(("mean", "most"), [(40.0, 0.83), (3.0, 0.87)])
def test_intervals_contain_four_fifths_of_new_totals(mean, most):
    expected, totals = drawn(4000, mean, 1)
    interval = TotalInterval.fit(expected, totals, from_zero(expected), 1.0)
    expected, totals = drawn(4000, mean, 2)
    low, high = interval.of(expected, from_zero(expected))
    assert 0.77 < coverage(totals, low, high).mean() < most
    assert (low >= 0).all()
    assert (low <= high).all()
    assert (low == np.round(low)).all()
    assert (high == np.round(high)).all()


def test_intervals_of_rare_orders_hold_at_a_longer_horizon():
    """Learnt where 85 % order nothing, used where expectations are three times as large."""
    expected, totals = drawn(5000, 0.2, 1)
    assert (totals == 0).mean() > 0.8
    interval = TotalInterval.fit(expected, totals, from_zero(expected), 1.0)
    later, later_totals = drawn(5000, 0.6, 2)
    assert 0.75 < coverage(later_totals, *interval.of(later, from_zero(later))).mean() < 0.92


def test_money_is_counted_in_units_of_an_order():
    expected, totals = drawn(4000, 5.0, 3)
    interval = TotalInterval.fit(20 * expected, 20 * totals, from_zero(expected), 20.0)
    new, new_totals = drawn(4000, 5.0, 4)
    assert coverage(20 * new_totals, *interval.of(20 * new, from_zero(new))).mean() == pytest.approx(0.8, abs=0.05)
    assert TotalInterval.from_dict(interval.as_dict()) == interval


def test_a_customer_who_orders_nothing_has_the_interval_zero():
    low, high = TotalInterval(1.0, (0.0, 0.0), 0.8).of(np.array([0.0, 1e-9]), np.ones(2, dtype=bool))
    np.testing.assert_array_equal([low, high], np.zeros((2, 2)))


def test_what_begins_at_zero_is_decided_once_for_orders_and_money():
    """By the same shape, one customer in ten with five orders expected has none; the interval follows `from_zero`."""
    expected, known = np.full(2, 5.0), np.array([True, False])
    orders, orders_high = TotalInterval(1.0, (0.4, 0.0), 0.8).of(expected, known)
    money, _ = TotalInterval(20.0, (1.5, 0.0), 0.8).of(20 * expected, known)
    assert orders.tolist() == [0.0, 1.0]
    assert money[0] == 0.0 < money[1]
    assert orders_high[0] < orders_high[1]


def test_each_tail_of_customers_who_surely_order_holds_a_tenth():
    expected, totals = drawn(6000, 8.0, 5)
    sure = ~from_zero(expected)
    interval = TotalInterval.fit(expected, totals, ~sure, 1.0)
    low, high = interval.of(expected, ~sure)
    assert (totals < low)[sure].mean() == pytest.approx(TAIL, abs=0.03)
    assert (totals > high)[sure].mean() == pytest.approx(TAIL, abs=0.03)
    assert (totals < low)[~sure].mean() == 0
