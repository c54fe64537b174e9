"""Top shares of the customers by risk, the curve of gains, and the customers who are hard to tell."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from models.classify.rhythm import day_number
from training.churn.gains import gains_curves, lift, positives_found, precision, recall, top_shares
from training.churn.history import OrderHistory
from training.churn.middle import MIDDLE, in_middle, mean_auc_difference, middle_slice
from training.churn.report import in_words

Y = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
P = np.linspace(0.9, 0.0, 10)


def test_precision_lift_and_recall_of_a_hand_made_list():
    assert (precision(0.2, Y, P), recall(0.2, Y, P)) == (1.0, pytest.approx(2 / 3))
    assert precision(0.4, Y, P) == 0.75
    assert lift(0.4, Y, P) == pytest.approx(0.75 / 0.3)
    assert positives_found(0.001, Y, P) == 1.0  # one customer at least
    # ties are in random order: without any order, a share of the customers finds that share
    assert recall(0.4, Y, np.zeros(10)) == pytest.approx(0.4)


def test_top_shares_are_beside_the_baselines():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    found = top_shares(y, y + rng.normal(size=400), {"recency": rng.normal(size=400)})
    assert list(found) == ["highest 5%", "highest 10%", "highest 20%"]
    part = found["highest 20%"]
    assert part["precision"].value - part["precision recency"].value == pytest.approx(
        part["precision minus recency"].value
    )
    assert part["precision minus recency"].low > 0
    shares, lines = gains_curves(y, y + rng.normal(size=400), {"recency": rng.normal(size=400)})
    assert set(lines) == {"model", "recency", "at random"}
    assert (lines["model"][0], lines["model"][-1]) == (0, 100)
    assert lines["model"] == sorted(lines["model"])
    assert lines["at random"] == shares


def test_weeks_with_an_order():
    as_of = datetime(2024, 6, 3)
    now = day_number(as_of)
    # two orders in the last week, one on the edge of 13 weeks, one before; and a customer who only orders later
    days = np.array([now - 91.5, now - 91, now - 3, now - 1, now + 2])
    history = OrderHistory(np.array(["a", "b"]), np.array([0, 4, 5]), days, np.ones(5), np.zeros(5, dtype=np.int64))
    assert history.active_weeks(as_of, 13).tolist() == [2, 0]
    assert in_middle(np.array([-1, 0, 1, 2, 6, 7])).tolist() == [False, False, False, True, True, False]


def test_the_slice_of_customers_who_are_hard_to_tell():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    good, bad = y + rng.normal(size=300), rng.normal(size=300)
    found = middle_slice(y, good, {"recency": bad})
    assert found[MIDDLE]["auc minus recency"].low > 0
    assert "ahead of recency +" in in_words(found)[-1]
    assert middle_slice(y[:5], good[:5], {}) == {}


def test_the_difference_over_several_dates_draws_customers():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    good, bad = y + rng.normal(size=200), rng.normal(size=200)
    owners = np.arange(200).astype(str)
    once = mean_auc_difference(y, good, bad, np.zeros(200), owners, 0)
    # the same rows at a second date tell nothing more
    twice = mean_auc_difference(
        np.tile(y, 2), np.tile(good, 2), np.tile(bad, 2), np.repeat([0.0, 1.0], 200), np.tile(owners, 2), 0
    )
    assert (once.value, once.low, once.high, once.n) == (twice.value, twice.low, twice.high, twice.n)
    assert once.low > 0
