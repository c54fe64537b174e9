"""BG/NBD, Pareto/NBD and gamma-gamma: published values, the underflow pair, recovery of parameters, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import hyp2f1

from models.value.bgnbd import BGNBD, BLOCK
from models.value.gamma_gamma import GammaGamma
from models.value.pareto_nbd import ParetoNBD
from qianmian.errors import DataError

CDNOW = BGNBD(0.243, 4.414, 0.793, 2.426)  # the rounded parameters of the paper, in weeks
FITTED = BGNBD(0.24259, 4.41353, 0.79289, 2.42575)


def one(*values):
    return [np.array([value]) for value in values]


def test_published_expectation_of_a_customer():
    assert CDNOW.expected_orders(39.0, *one(2.0, 30.43, 38.86))[0] == pytest.approx(1.226, abs=5e-4)


@pytest.mark.parametrize(
    ("t", "orders"), [(0.1429, 0.0078), (1, 0.0532), (3, 0.1506), (31.8571, 1.0405), (32, 1.0437), (78, 1.8576)]
)
def test_published_expectations_of_a_new_customer(t, orders):
    assert FITTED.expected_orders_of_new(t) == pytest.approx(orders, abs=5e-4)


def test_published_probabilities_of_counts():
    assert CDNOW.probability_of_orders_of_new(0, 39) == pytest.approx(0.5737864, abs=1e-6)
    assert CDNOW.probability_of_orders_of_new(10, 2) == pytest.approx(1.07869e-07, rel=1e-5)
    assert sum(FITTED.probability_of_orders_of_new(n, 39.0) for n in range(200)) == pytest.approx(1.0, abs=1e-6)


def test_expectation_is_the_mean_of_the_counts():
    customer = one(3.0, 20.0, 30.0)
    counts = [float(CDNOW.probability_of_orders(n, 10.0, *customer)[0]) for n in range(150)]
    assert sum(counts) == pytest.approx(1.0, abs=1e-9)
    mean = sum(n * p for n, p in enumerate(counts))
    assert CDNOW.expected_orders(10.0, *customer)[0] == pytest.approx(mean, rel=1e-6)


def test_expectation_is_that_of_the_formula_of_the_paper():
    x, t_x, T, t = 2.0, 30.43, 38.86, 39.0
    r, alpha, a, b = CDNOW.r, CDNOW.alpha, CDNOW.a, CDNOW.b
    z = t / (alpha + T + t)
    part = 1 - ((alpha + T) / (alpha + T + t)) ** (r + x) * hyp2f1(r + x, b + x, a + b + x - 1, z)
    left = a / (b + x - 1) * ((alpha + T) / (alpha + t_x)) ** (r + x)
    expected = (a + b + x - 1) / (a - 1) * part / (1 + left)
    assert CDNOW.expected_orders(t, *one(x, t_x, T))[0] == pytest.approx(expected, rel=1e-7)


def test_long_histories_do_not_underflow():
    x = np.array([132.0, 133.0, 5000.0])
    T = np.full(3, 200.0)
    found = CDNOW.expected_orders(10.0, x, T, T)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert CDNOW.expected_orders(10.0, *one(5000.0, 38.0, 200.0))[0] < 1e-9  # silent for long


def test_pareto_nbd_published_values_and_the_underflow_pair():
    cdnow = ParetoNBD(0.553, 10.578, 0.606, 11.669)
    customer = one(26.0, 30.86, 31.0)
    assert cdnow.expected_orders(52.0, *customer)[0] == pytest.approx(25.46, abs=5e-3)
    assert cdnow.probability_alive(*customer)[0] == pytest.approx(0.9979, abs=5e-5)
    pair = ParetoNBD(0.55, 10.58, 0.61, 11.67).expected_orders(10.0, np.array([132.0, 133.0]), *[np.full(2, 200.0)] * 2)
    np.testing.assert_allclose(pair, [6.20605, 6.25287], atol=1e-5)


def test_gamma_gamma_published_means():
    """The amounts 22.35, 0, 0, 0, 73.74 and 11.77 of CDNOW with 2, 0, 0, 0, 7 and 1 repeat orders."""
    model = GammaGamma(6.249, 3.745, 15.448)
    found = model.expected_amount(
        np.array([2.0, 1, 0, 0, 0, 7, 1, 0, 2, 0]), np.array([22.35, 11.77, 0, 0, 0, 73.74, 11.77, 0, 25.55, 0])
    )
    np.testing.assert_allclose(found, [24.65, 18.91, 35.17, 35.17, 35.17, 71.46, 18.91, 35.17, 27.28, 35.17], atol=0.1)


def simulated(model: BGNBD, n: int, seed: int):
    """x, t_x and T of customers who behave as the model says."""
    rng = np.random.default_rng(seed)
    rate, leave = rng.gamma(model.r, 1 / model.alpha, n), rng.beta(model.a, model.b, n)
    T = rng.uniform(20, 39, n)
    x, t_x, time, here = np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n, dtype=bool)
    while here.any():
        time = time + rng.exponential(1 / rate)
        here &= time < T
        x, t_x = x + here, np.where(here, time, t_x)
        here &= rng.random(n) >= leave
    return x, t_x, T


def test_the_fit_is_a_maximum_near_the_parameters_of_the_customers():
    made = BGNBD(0.5, 5.0, 0.8, 2.5)
    data = simulated(made, 6000, 1)
    found = BGNBD.fit(*data)
    assert found.r == pytest.approx(made.r, rel=0.15)
    assert found.a / (found.a + found.b) == pytest.approx(made.a / (made.a + made.b), rel=0.2)
    best = found.log_likelihood(*data)
    for name in ("r", "alpha", "a", "b"):
        for factor in (0.97, 1.03):
            moved = BGNBD(**{**found.as_dict(), name: found.as_dict()[name] * factor})
            assert moved.log_likelihood(*data) < best
    days = BGNBD.fit(data[0], 7 * data[1], 7 * data[2])
    assert days.alpha == pytest.approx(7 * found.alpha, rel=1e-3)  # only the unit of time differs
    assert days.r == pytest.approx(found.r, rel=1e-3)
    assert found.notes() == ()


def test_a_fit_without_a_maximum_says_so():
    rng = np.random.default_rng(0)
    T = np.full(300, 100.0)
    x = rng.poisson(20, 300).astype(float)
    nobody_left = BGNBD.fit(x, T - 0.01, T)
    assert any("nobody is expected to leave" in note for note in nobody_left.notes())
    assert np.isfinite(nobody_left.expected_orders(10.0, x, T, T)).all()


def test_refusals_say_what_would_be_enough():
    ones = np.ones(50)
    with pytest.raises(DataError, match="too few customers came back.*0 of 50.*at least 10"):
        BGNBD.fit(0 * ones, 0 * ones, 30 * ones)
    with pytest.raises(DataError, match="too few customers came back"):
        BGNBD.fit(2 * ones, 0 * ones, 0 * ones)  # all orders at once
    with pytest.raises(DataError, match="too few customers paid.*0 of 50"):
        GammaGamma.fit(ones, 0 * ones)
    with pytest.raises(DataError, match="gamma-gamma.*no maximum"):
        GammaGamma.fit(3 * ones, 20 * ones)  # everybody pays the same


def test_many_customers_are_computed_in_blocks():
    x, T = np.arange(BLOCK + 5.0) % 40, np.full(BLOCK + 5, 30.0)
    found = CDNOW.expected_orders(10.0, x, 0.8 * T, T)
    np.testing.assert_array_equal(found[-5:], CDNOW.expected_orders(10.0, x[-5:], 0.8 * T[-5:], T[-5:]))
    assert found.shape == x.shape
