"""Drift as an effect size against permuted days: known values, what never fires, and what must be found."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.day_histograms import BINS, DayHistograms, bin_edges, day_histograms, unit_bounds
from tests.examples import examples
from training.monitoring.drift import Limits, drift, psi, step_down

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def simulated(monkeypatch):
    """Histograms of correlated days (`benchmarks/measurement_drift.py`)."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    return importlib.import_module("measurement_drift").simulated


@pytest.fixture
def shops(simulated):
    return sys.modules["measurement_drift"].SHOPS


def windows(*moved, n=400, seed=0):
    """A window for each number, whose second column is moved by it; the first never moves."""
    rng = np.random.default_rng(seed)
    made = []
    for end, by in enumerate(moved):
        values = rng.normal(size=(n, 2)) + [0.0, by]
        made.append((float(-end), values, rng.uniform(0, 56, n)))
    return made


def compared(reference, current, limits=None):
    stored = day_histograms(reference, 8)
    return drift(stored, day_histograms([current], 8, stored), limits or Limits())


def test_psi_of_the_oracle_and_of_equal_distributions():
    assert psi(np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])) == pytest.approx(0.06286, abs=5e-6)
    assert psi(np.array([0.2, 0.8, 0.0]), np.array([0.2, 0.8, 0.0])) == 0
    assert np.isfinite(psi(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300), n_windows=st.integers(1, 6))
@settings(max_examples=examples(30), deadline=None)
def test_identical_data_never_drift(seed, n, n_windows):
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=n), rng.integers(0, 3, n), np.exp(3 * rng.normal(size=n)), np.ones(n)]
    values, days = np.column_stack(columns).astype(float), rng.uniform(0, 56, n)
    for found in compared([(float(-end), values, days) for end in range(n_windows)], (1.0, values, days)):
        assert (np.nan_to_num(found.shift), found.psi) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert not found.drifted


def test_a_moved_column_is_found_and_the_other_is_not():
    made = windows(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5)
    still, moved = compared(made[:-1], made[-1])
    assert not still.drifted
    assert moved.drifted
    assert moved.shift == pytest.approx(0.5, abs=0.15)
    assert moved.p_shift <= 0.05 < still.p_shift


def test_what_moves_as_much_between_the_months_of_the_reference_is_usual():
    made = windows(0.0, 0.6, 0.1, 0.5, 0.2, 0.6, 0.55)
    _, moved = compared(made[:-1], made[-1])
    assert moved.usual_shift > abs(moved.shift)
    assert not moved.drifted


@given(seed=st.integers(0, 2**32 - 1), moved=st.floats(-1, 1), times=st.integers(2, 100_000))
@settings(max_examples=examples(30), deadline=None)
def test_the_verdict_does_not_depend_on_the_number_of_rows(seed, moved, times):
    made = windows(0.0, 0.0, 0.0, 0.0, moved, seed=seed)
    stored = day_histograms(made[:-1], 8)
    now = day_histograms(made[-1:], 8, stored)
    many = [
        replace(part, counts=part.counts * times, sums=part.sums * times, squares=part.squares * times)
        for part in (stored, now)
    ]
    few, more = (drift(*parts, Limits(), seed, 199) for parts in ((stored, now), many))
    for one, other in zip(few, more, strict=True):
        assert one.shift == pytest.approx(other.shift)
        assert one.psi == pytest.approx(other.psi)
        assert (one.p_shift, one.drifted) == (other.p_shift, other.drifted)


def test_a_constant_column_that_moves_is_seen_by_its_distribution():
    days = np.arange(56.0)
    reference = [(0.0, np.ones((56, 1)), days), (-28.0, np.ones((56, 1)), days), (-56.0, np.ones((56, 1)), days)]
    (found,) = compared(reference, (28.0, np.full((56, 1), 7.0), days))
    assert np.isnan(found.shift)
    assert found.psi > 1
    assert found.drifted


@pytest.mark.parametrize("rows", [1_000, 1_000_000])
def test_correlated_days_alone_are_seldom_drift(simulated, rows):
    alarms = [any(one.drifted for one in drift(*simulated(seed, rows), Limits(), seed, 199)) for seed in range(30)]
    assert np.mean(alarms) <= 0.05 + 2 * (0.05 * 0.95 / 30) ** 0.5


def test_two_tenths_of_a_standard_deviation_are_found_in_ten_thousand_rows(simulated):
    found = [drift(*simulated(seed, 10_000, 0.2), Limits(), seed, 199)[0].drifted for seed in range(12)]
    assert np.mean(found) >= 0.9


def test_days_that_are_strongly_correlated_are_seldom_drift(shops, simulated):
    pairs = [simulated(seed, 1_000_000, shop=shops["correlated"]) for seed in range(500, 530)]
    alarms = [any(one.drifted for one in drift(*pair, Limits(), 0, 199)) for pair in pairs]
    assert np.mean(alarms) <= 0.05 + 2 * (0.05 * 0.95 / 30) ** 0.5


def test_a_large_change_is_found_with_few_windows_in_the_reference():
    made = windows(0.0, 0.0, 0.0, 1.0)
    _, moved = compared(made[:-1], made[-1])
    assert moved.drifted


def test_step_down_adjusts_like_the_hand_made_table():
    # scales are 1; the maxima of both columns are 2, 2, 1, 1, those of the second alone 1, 1, 1, 1 or below
    statistics = np.array([[2.0, 1.0], [2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    assert step_down(statistics).tolist() == [(1 + 2) / 5, (1 + 2) / 5]
    assert step_down(np.array([[9.0, 0.5], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])).tolist() == [1 / 4, 1.0]


def test_without_a_permutation_that_moves_nothing_is_significant():
    assert step_down(np.zeros((5, 3))).tolist() == [1.0, 1.0, 1.0]


def test_few_values_have_a_bin_each_and_many_are_divided_at_deciles():
    assert np.isfinite(bin_edges(np.array([0.0, 3.0] * 9))).sum() == 3
    many = bin_edges(np.arange(1000.0))
    assert np.isfinite(many).sum() == BINS - 1
    assert not np.isfinite(bin_edges(np.array([np.nan]))).any()


def test_units_are_whole_days_with_about_equally_many_rows():
    days = np.repeat(np.arange(8.0), [80, 40, 20, 20, 10, 10, 10, 10]) + 0.3
    bounds = unit_bounds(days, 4)
    assert (bounds == np.floor(bounds)).all()
    assert bounds.tolist() == [1.0, 3.0]
    assert not len(unit_bounds(np.zeros(5), 4))


def test_histograms_are_read_back_unchanged(tmp_path):
    made = day_histograms(windows(0.0, 0.2), 4)
    made.save(tmp_path / "reference.npz")
    again = DayHistograms.load(tmp_path / "reference.npz")
    for name in DayHistograms.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
    assert made.rows.sum() == 2 * 2 * 400
