"""The figures of `tags validate`, against values by hand and against known truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from features.profiles.governance.separation import Shares, group_means, holm, one_sided
from features.profiles.governance.waits import (
    Waits,
    concordance,
    coverage,
    mean_absolute_error,
    position,
    rank_correlation,
)


def test_means_of_groups_by_hand():
    # two rows of one customer are one cluster: its deviations 1 and 1 add up before they are squared
    found = group_means(np.array([0, 0, 0, 1]), np.array([7, 7, 8, 9]), np.array([3.0, 3.0, 0.0, 5.0]), 3)
    assert found.rows.tolist() == [3, 1, 0]
    assert found.customers.tolist() == [2, 1, 0]
    assert found.means[:2].tolist() == [2.0, 5.0]
    assert np.isnan(found.means[2])
    assert found.covariance[0, 0] == pytest.approx(((2 / 3) ** 2 + (2 / 3) ** 2) * 2 / 1)
    assert found.difference(1, 0)[0] == 3.0


def test_the_interval_of_a_share_is_that_of_wilson_and_a_share_of_one_is_not_certain():
    found = group_means(np.zeros(10, int), np.arange(10), np.array([1.0] * 8 + [0.0] * 2), 1, share=True)
    assert (found.low[0], found.high[0]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    sure = group_means(np.repeat([0, 1], 40), np.arange(80), np.repeat([1.0, 0.0], 40), 2, share=True)
    assert sure.high[0] == pytest.approx(1.0)
    assert sure.low[0] == pytest.approx(0.912, abs=0.002)
    difference, error = sure.difference(0, 1)
    assert 0.9 < difference < 1.0
    assert error > 0


def test_intervals_of_clustered_shares_and_their_differences_contain_the_truth():
    rng = np.random.default_rng(0)
    hits = np.zeros(3)
    for _ in range(300):
        habit = np.repeat(rng.beta(2, 2, 120), 4)  # four looks at each of 120 customers
        group = rng.integers(0, 2, 480)
        y = (rng.random(480) < np.where(group == 0, habit, habit * 0.6)).astype(float)
        found = group_means(group, np.repeat(np.arange(120), 4), y, 2, share=True)
        difference, error = found.difference(0, 1)
        hits += [
            found.low[0] <= 0.5 <= found.high[0],
            found.low[1] <= 0.3 <= found.high[1],
            abs(difference - 0.2) <= 1.96 * error,
        ]
    assert (hits / 300 >= 0.91).all(), hits / 300
    assert (hits / 300 <= 0.99).all(), hits / 300


def shares_of(named, counts, cluster=None):
    shares, n = Shares(), len(named)
    rows, values = np.nonzero(counts)
    shares.add(
        np.arange(n) if cluster is None else cluster,
        named,
        list("abc"),
        rows,
        values,
        counts[rows, values].astype(float),
    )
    return shares


def test_the_lift_by_hand():
    # shares of a: 1, 1/2, 0; everybody: a 1/2; customer 3 has no later rows, customer 2 no named value
    counts = np.array([[4, 0, 0], [1, 1, 0], [0, 0, 2], [0, 0, 0]])
    lift = shares_of(np.array([0, 0, -1, 0]), counts).lift()
    assert (lift.customers, lift.own, lift.everybody) == (2, 0.75, 0.5)
    assert lift.lift == pytest.approx(1.5)
    assert lift.low < 1.5 < lift.high


def test_the_interval_of_the_lift_contains_the_truth_and_a_random_name_has_a_lift_of_one():
    rng = np.random.default_rng(1)
    hits = placebo = false = 0
    for _ in range(300):
        n = 150
        favourite = rng.choice(3, n, p=[0.5, 0.3, 0.2])
        p = np.full((n, 3), 0.1)
        p[np.arange(n), favourite] = 0.8
        counts = np.array([rng.multinomial(rng.integers(1, 12), one) for one in p])
        expected = 0.1 + 0.7 * np.array([0.5, 0.3, 0.2])  # share of each value among everybody
        truth = 0.8 / (expected @ np.array([0.5, 0.3, 0.2]))
        lift = shares_of(favourite, counts).lift()
        hits += lift.low <= truth <= lift.high
        shuffled = shares_of(rng.permutation(favourite), counts).lift()
        placebo += shuffled.log_lift / 300
        false += one_sided(shuffled.log_lift, shuffled.error) < 0.025
    assert 0.90 <= hits / 300 <= 0.99
    assert abs(placebo) < 0.01
    assert false / 300 < 0.06


def test_holm_is_not_bonferroni():
    assert holm([0.01, 0.02, 0.04]) == [pytest.approx(0.03), pytest.approx(0.04), pytest.approx(0.04)]


# ---- waits -----------------------------------------------------------------------------------------------------------


def waits_of(days, seen):
    return Waits.of(np.asarray(days, float), np.broadcast_to(np.asarray(seen, float), len(days)), np.arange(len(days)))


def test_coverage_by_hand():
    # interval of days 2 to 4; the third customer was last seen on day 3.5 without an order
    waits = Waits.of(np.array([1, 3, np.nan, 4.5, 6]), np.array([9, 9, 3.5, 9, 9]), np.arange(5))
    inside, before, after = coverage(waits, np.full(5, 2.0), np.full(5, 4.0))
    # four of five are left on day 2, three quarters of them after day 3; the censored one leaves unseen
    assert before.value == pytest.approx(1 / 5)
    assert inside.value == pytest.approx(4 / 5 - 4 / 5 * 3 / 4)
    assert after.value == pytest.approx(4 / 5 * 3 / 4)


def test_coverage_counts_censored_waits_as_they_are_likely_to_end():
    rng = np.random.default_rng(2)
    scale = rng.uniform(4, 40, 6000)
    days = rng.exponential(scale)
    seen = rng.choice([14.0, 28.0, 84.0], 6000)  # most long waits are cut
    waits = waits_of(np.where(days < seen, days, np.nan), seen)
    low, high = scale * -np.log(0.9), scale * -np.log(0.1)
    inside, before, after = coverage(waits, low, high)
    assert inside.value == pytest.approx(0.8, abs=0.02)
    assert before.value == pytest.approx(0.1, abs=0.02)
    assert after.value == pytest.approx(0.1, abs=0.02)
    assert inside.low <= 0.8 <= inside.high
    ended = waits.ended  # leaving out the waits that did not end is wrong
    assert abs(coverage(waits.take(ended), low[ended], high[ended])[2].value - 0.1) > 0.04


def test_positions_grow_with_the_day():
    days = np.array([0, 1, 2, 3, 4, 4.1, 50])
    z = position(days, np.full(7, 2.0), np.full(7, 4.0))
    assert z.tolist()[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert (np.diff(z) > 0).all()
    assert position(np.array([0.0]), np.array([0.0]), np.array([3.0])).tolist() == [1.0]


def test_a_cut_wait_counts_only_where_it_could_be_seen():
    waits = Waits.of(np.array([2.0, np.nan, np.nan, 12.0]), np.array([20.0, 20.0, 5.0, 20.0]), np.arange(4))
    cut = waits.within(10)
    assert cut.days.tolist() == [2.0, 10.0, 10.0]  # the third was seen for five days only
    assert cut.ended.tolist() == [True, False, False]
    error = mean_absolute_error(np.array([4.0, 30.0, 1.0, 7.0]), waits, 10)
    assert error.value == pytest.approx((2 + 0 + 3) / 3)


def test_concordance_by_hand():
    # pairs of known order: 0 before 1, 2 and 3; 1 before 3. The wait of 2 was cut on day 4, after 0 and before 1 ended.
    waits = Waits.of(np.array([2.0, 5.0, np.nan, 9.0]), np.array([20.0, 20.0, 4.0, 20.0]), np.arange(4))
    assert concordance(np.array([1.0, 2.0, 3.0, 4.0]), waits) == 1.0
    assert concordance(np.array([4.0, 3.0, 2.0, 1.0]), waits) == 0.0
    assert concordance(np.array([1.0, 1.0, 3.0, 0.0]), waits) == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_the_rank_correlation_is_that_of_spearman_and_its_interval_knows_clusters():
    rng = np.random.default_rng(3)
    a = rng.normal(size=200).round(1)
    b = (a + rng.normal(size=200)).round(1)
    one = rank_correlation(a, b, np.arange(200))
    assert one.value == pytest.approx(spearmanr(a, b).statistic)
    assert one.low < one.value < one.high
    four = rank_correlation(np.tile(a, 4), np.tile(b, 4), np.tile(np.arange(200), 4))
    assert four.error == pytest.approx(one.error, rel=0.25)  # the same customers four times are no more customers
