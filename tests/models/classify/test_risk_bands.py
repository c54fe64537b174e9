"""Risk bands relative to the customers who are scored, absolute, and of older models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classify.risk_bands import RiskBands, bands_of_model
from qianmian.schema import RISK_BANDS


def test_the_tenth_at_highest_risk_with_twice_the_base_rate_is_high():
    p = np.concatenate([np.full(80, 0.02), np.full(15, 0.2), np.full(5, 0.9)])
    bands = RiskBands.relative(p)
    assert bands.medium_from == pytest.approx(p.mean())
    assert bands.of(p).count("high") == 20  # a tenth ends among equal probabilities, of twice the base rate
    assert bands.of(np.array([0.02])) == ["low"]
    # the tenth at highest risk is not high where it hardly differs from the others
    even = RiskBands.relative(np.linspace(0.10, 0.14, 100))
    assert "high" not in even.of(np.linspace(0.10, 0.14, 100))


@pytest.mark.parametrize("base", [0.005, 0.05, 0.5, 0.95, 0.99])
def test_bands_where_nearly_nobody_or_everybody_churns(base):
    p = np.clip(np.random.default_rng(0).beta(200 * base, 200 * (1 - base), 2000), 0, 1)
    bands = RiskBands.relative(p)
    counted = {band: bands.of(p).count(band) for band in RISK_BANDS}
    assert counted["high"] <= 201
    # who is more likely than not is never called low
    assert not (np.array(bands.of(p))[p > 0.5] == "low").any()
    assert bands.medium_from <= p.mean() + 1e-6


@pytest.mark.parametrize("rare", [0.0, 3e-8, 4.567e-4, 0.1234567])
def test_bounds_of_rare_outcomes_are_not_rounded_away(rare):
    """Equal customers are medium whatever the digits of their probability, and ten times the others is high."""
    assert RiskBands.relative(np.full(7, rare)).of(np.full(7, rare)) == ["medium"] * 7
    if rare:
        p = np.concatenate([np.full(90, rare / 10), np.full(10, rare)])
        assert RiskBands.relative(p).of(p) == ["low"] * 90 + ["high"] * 10


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_bounds_rise_and_higher_probabilities_have_no_lower_band(values):
    p = np.array(sorted(values))
    bands = RiskBands.relative(p)
    assert 0 <= bands.medium_from <= bands.high_from <= 1
    places = [RISK_BANDS.index(band) for band in bands.of(p)]
    assert places == sorted(places)


def test_absolute_bounds_come_before_those_of_the_training():
    assert bands_of_model({"risk_bands": [0.1, 0.3]}) == RiskBands(0.1, 0.3)
    assert bands_of_model({"risk_bands": [0.1, 0.3]}, (0.4, 0.5)) == RiskBands(0.4, 0.5)
    assert bands_of_model({}) == RiskBands(0.33, 0.66)  # a model of an earlier version
