"""The purchase process: its distribution, its fit on shops whose truth is known, and its agreement with the features."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.lifecycle import lifecycle_stage
from features.profiles.purchase_process.fitting import fit_process, process_of, residual_quantiles
from features.profiles.purchase_process.order_times import OrderTimes, read_order_times
from features.profiles.purchase_process.process import (
    PROBABILITIES,
    PROCESS_FEATURES,
    WEIBULL_QUANTILES,
    PurchaseProcess,
)
from qianmian.model_settings import LifecycleSettings

BEGIN = datetime(2024, 1, 1)


def lines_of(orders):
    """One paid line per order, given as (customer, day)."""
    return [
        {
            "source": "s",
            "source_user_id": user,
            "order_id": f"o{number}",
            "line_no": 1,
            "ts": BEGIN + timedelta(days=day),
            "item_id": "i",
            "quantity": 1.0,
            "amount": 2.0,
            "status": "paid",
        }
        for number, (user, day) in enumerate(orders)
    ]


def columns(*customers):
    """Columns of customers given as (orders, days since the last, days since the first, in 28, 91, 365 days)."""
    return dict(zip(PROCESS_FEATURES, np.array(customers, dtype=float).T, strict=True))


def random_buyers(gaps, days, rng, stop=None):
    """Order times of customers who order at random with these mean gaps, over the last `days` days."""
    times = []
    for number, gap in enumerate(gaps):
        waits = rng.exponential(gap, int(3 * days / gap) + 10)
        own = -days + rng.uniform(0, gap) + np.cumsum(waits)
        own = own[own < (0.0 if stop is None else -stop[number])]
        times.append(own if len(own) else np.array([-days]))
    return OrderTimes(np.concatenate([[0], np.cumsum([len(own) for own in times])]), np.concatenate(times))


def test_without_data_customers_order_at_random_at_their_pooled_gap():
    process = PurchaseProcess(10.0)
    weekly = columns((39, 1, 383, 4, 13, 39))  # (10 + 383) / 39 = 10.08 days
    gap = (10 + 383) / 39
    assert process.days_to_order(weekly) == pytest.approx(gap * np.log(2))
    assert process.order_probability(weekly, gap) == pytest.approx(1 - np.exp(-1))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_time_and_its_probability_are_inverse(probability):
    process = PurchaseProcess(8.0, tuple(np.linspace(-0.2, 0.9, 10)), 0.8)
    some = columns((3, 20, 60, 1, 3, 3), (50, 1, 360, 4, 12, 50))
    days = process.days_to_order(some, probability)
    for number, day in enumerate(days):
        assert process.order_probability(some, day)[number] == pytest.approx(probability)
    assert (days > 0).all()


def test_stored_parameters_give_the_same_process():
    process = PurchaseProcess(
        8.0, tuple(np.linspace(-0.2, 0.9, 10)), 0.8, longest_silence=(2.5, 1.5), as_of_day=19_000.5
    )
    assert PurchaseProcess.of(process.as_fitted()) == process


def test_order_times_at_the_cutoff_are_the_features(lake_of):
    rng = np.random.default_rng(0)
    orders = [(f"u{n % 7}", float(day)) for n, day in enumerate(rng.uniform(0, 400, 90))]
    builder = Builder(lake_of({"transactions": lines_of(orders)}), FEATURES)
    as_of = BEGIN + timedelta(days=380)
    table = builder.build(as_of, [feature for feature in FEATURES if feature.name in PROCESS_FEATURES]).table
    known, _, _ = read_order_times(builder.views(as_of), table["one_id"].to_pylist()).before(0.0)
    for name in PROCESS_FEATURES:
        np.testing.assert_allclose(np.sort(known[name]), np.sort(table[name].to_numpy()), atol=1e-6, err_msg=name)


def test_a_past_moment_knows_the_orders_before_it_and_the_wait_after_it():
    orders = OrderTimes(np.array([0, 3, 4]), np.array([-100.0, -60.0, -10.0, -20.0]))
    known, waits, ordered = orders.before(-50.0)
    assert known["orders_total"].tolist() == [2.0]  # the second customer ordered only later
    assert known["days_since_last_order"].tolist() == [10.0]
    assert known["days_since_first_order"].tolist() == [50.0]
    assert known["orders_28d"].tolist() == [1.0]
    assert (waits.tolist(), ordered.tolist()) == ([40.0], [True])
    _, waits, ordered = orders.before(-5.0)
    assert (waits.tolist(), ordered.tolist()) == ([5.0, 5.0], [False, False])  # not ended by the cutoff


def test_the_fit_finds_the_rhythm_of_each_customer_and_calibrated_intervals():
    rng = np.random.default_rng(1)
    gaps = rng.choice([4.0, 12.0, 40.0], 600)
    history = random_buyers(gaps, 400.0, rng)
    process = fit_process(history)
    known, _, _ = history.before(0.0)
    next_order = rng.exponential(gaps)  # orders at random do not remember
    inside = (next_order >= process.days_to_order(known, 0.1)) & (next_order <= process.days_to_order(known, 0.9))
    assert 0.75 <= inside.mean() <= 0.85
    medians = process.days_to_order(known)
    for gap in (4.0, 12.0, 40.0):
        assert np.median(medians[gaps == gap]) == pytest.approx(gap * np.log(2), rel=0.2)


def test_customers_who_stopped_are_known_by_their_silence():
    rng = np.random.default_rng(2)
    gaps = rng.choice([5.0, 15.0], 800)
    stop = np.where(rng.random(800) < 0.4, rng.uniform(0, 350, 800), 0.0)  # the others still buy
    history = random_buyers(gaps, 400.0, rng, stop)
    process = fit_process(history)
    known, _, _ = history.before(0.0)
    returns = process.order_probability(known, process.return_days)
    gone = stop > 120
    assert np.median(returns[gone]) < 0.1
    assert np.median(returns[stop == 0]) > 0.8
    # given the rhythm, a longer silence never makes an order likelier by much
    silent = columns(*((20, silence, 200 + silence, 0, 0, 20) for silence in (60, 90, 120, 180, 240)))
    assert (np.diff(process.order_probability(silent, 30.0)) < 0.01).all()


def test_clockwork_is_narrower_than_chance():
    rng = np.random.default_rng(3)
    days = [np.arange(-400.0 + offset, 0.0, 10.0) + rng.normal(0, 0.5) for offset in rng.uniform(0, 10, 300)]
    clock = OrderTimes(
        np.concatenate([[0], np.cumsum([len(own) for own in days])]), np.clip(np.concatenate(days), None, -0.01)
    )
    chance = random_buyers(np.full(300, 10.0), 400.0, rng)
    widths = []
    for history in (clock, chance):
        process, (known, _, _) = fit_process(history), history.before(0.0)
        widths.append(np.median(process.days_to_order(known, 0.9) - process.days_to_order(known, 0.1)))
    assert widths[0] < 0.6 * widths[1]


@pytest.mark.parametrize("times", [[], [[-3.0]], [[-3.0], [-400.0, -380.0]]])
def test_hardly_any_orders_leave_the_prior_nearly_as_it_is(times):
    sizes = [len(own) for own in times]
    history = OrderTimes(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), np.concatenate([np.empty(0), *map(np.array, times)])
    )
    process, prior = fit_process(history), PurchaseProcess(fit_process(history).typical_gap_days)
    one = columns((2, 10, 40, 1, 2, 2))
    assert np.isfinite(process.days_to_order(one)).all()
    assert process.days_to_order(one) == pytest.approx(prior.days_to_order(one), rel=2.0)
    assert process.typical_gap_days == (20.0 if len(times) == 2 else 60.0)


def test_the_settings_bound_the_typical_gap():
    history = OrderTimes(np.array([0, 3]), np.array([-20.0, -19.0, -18.0]))
    assert fit_process(history).typical_gap_days == 7.0
    assert fit_process(history, LifecycleSettings(min_gap_days=0.5)).typical_gap_days == 1.0
    yearly = OrderTimes(np.array([0, 3]), np.array([-900.0, -535.0, -170.0]))
    assert fit_process(yearly).typical_gap_days == 365.0
    once = OrderTimes(np.array([0, 1]), np.array([-20.0]))
    assert fit_process(once, LifecycleSettings(max_gap_days=90.0)).typical_gap_days == 90.0


def test_a_yearly_buyer_is_no_lost_customer_after_a_month():
    rng = np.random.default_rng(7)
    days = [np.arange(-1900.0 + offset, 0.0, 365.0) + rng.normal(0, 15) for offset in rng.uniform(0, 365, 300)]
    history = OrderTimes(
        np.concatenate([[0], np.cumsum([len(own) for own in days])]), np.minimum(np.concatenate(days), -1)
    )
    process, (known, _, _) = fit_process(history), history.before(0.0)
    stages = lifecycle_stage(known, process)
    assert set(stages[known["days_since_last_order"] < 60]) == {"active"}


def test_orders_after_the_cutoff_change_nothing(lake_of):
    rng = np.random.default_rng(4)
    orders = [(f"u{n % 40}", float(day)) for n, day in enumerate(rng.uniform(0, 200, 600))]
    as_of = BEGIN + timedelta(days=150)
    processes = []
    for given in (orders, [order for order in orders if order[1] < 150]):
        builder = Builder(lake_of({"transactions": lines_of(given)}), FEATURES)
        processes.append(process_of(builder.views(as_of), builder.build(as_of).table))
    assert processes[0] == processes[1]


def test_a_sample_of_the_buyers_is_enough(lake_of):
    rng = np.random.default_rng(5)
    orders = [(f"u{n % 60}", float(day)) for n, day in enumerate(rng.uniform(0, 200, 900))]
    builder = Builder(lake_of({"transactions": lines_of(orders)}), FEATURES)
    as_of = BEGIN + timedelta(days=200)
    buyers = builder.build(as_of).table["one_id"].to_pylist()
    sample = read_order_times(builder.views(as_of), buyers, max_customers=20)
    assert len(sample.starts) == 21
    again = read_order_times(builder.views(as_of), buyers, max_customers=20)
    np.testing.assert_array_equal(sample.days, again.days)


def test_without_order_times_there_is_no_process(lake_of):
    rows = [{**row, "ts": None} for row in lines_of([("a", 1.0), ("b", 2.0)])]
    builder = Builder(lake_of({"transactions": rows}), FEATURES)
    as_of = BEGIN + timedelta(days=10)
    assert process_of(builder.views(as_of), builder.build(as_of).table) is None


def test_residual_quantiles_are_those_of_the_waits_and_ascend():
    rng = np.random.default_rng(6)
    residuals = rng.normal(0.0, 0.5, 4_000)
    censored = rng.normal(0.2, 0.5, 4_000)
    ordered = residuals <= censored
    found = residual_quantiles(np.minimum(residuals, censored), ordered)
    for probability, quantile in zip(PROBABILITIES, found, strict=True):
        if probability <= 0.9:
            assert quantile == pytest.approx(np.quantile(residuals, probability), abs=0.08)
    assert (np.diff(found) > 0).all()
    # where most waits have not ended, the upper quantiles continue as those of a Weibull model
    early = residual_quantiles(np.minimum(residuals, -0.2), residuals <= -0.2)
    reached = np.searchsorted(PROBABILITIES, (residuals <= -0.2).mean())
    np.testing.assert_allclose(np.diff(early[reached:]), np.diff(WEIBULL_QUANTILES[reached:]))
    assert residual_quantiles(residuals[:400], np.ones(400, bool)) == WEIBULL_QUANTILES  # too few
