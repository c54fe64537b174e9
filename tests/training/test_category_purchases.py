"""What customers are expected to buy again, by hand; that it is the feature of a profile is in `test_churn_choice`."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from models.classify.rhythm import EXPECTED_CATEGORIES, HABIT_FEATURES, day_number
from tests.features.conftest import write_lake
from training.churn.history import OrderHistory

AS_OF = datetime(2024, 6, 3)


def line(user, days_before, item, order):
    return {
        **{"source": "app", "source_user_id": user, "order_id": order, "line_no": 1, "item_id": item},
        **{"ts": AS_OF - timedelta(days=days_before), "amount": 1.0, "status": "paid"},
    }


@pytest.fixture
def builder(tmp_path):
    bought = [("a", 40, "milk"), ("a", 30, "milk"), ("a", 20, "milk"), ("a", 100, "soap"), ("b", 7, "nameless")]
    lines = [line(*one, f"o{number}") for number, one in enumerate(bought)]
    lines += [line("a", 300, "soap", "o8"), line("c", -1, "soap", "o9")]  # before the window, and after the date
    lines += [{**line("a", 20, "milk", "o2"), "line_no": 2}]  # the same day again
    items = [{"item_id": "milk", "category": "food/milk"}, {"item_id": "soap", "category": "home"}]
    items += [{"item_id": "nameless", "brand": "b"}]
    return Builder(write_lake(tmp_path / "shop", {"transactions": lines, "items": items}), FEATURES)


def test_expected_purchases_of_a_hand_made_history(builder):
    history = OrderHistory.read(builder.views(AS_OF + timedelta(days=9)), with_categories=True)
    profile = builder.build(AS_OF, [one for one in FEATURES if one.name == EXPECTED_CATEGORIES]).table.to_pylist()
    people = {row["user_id"]: row["one_id"] for row in profile}
    # milk on three days, 20 days from the first to the last: gap (20 + 56) / (2 + 2) = 19, one day overdue
    # soap once in half a year: gap 56 / 2 = 28, silent for 100 days
    milk, soap = 28 / 19 * math.exp(-0.7 / 19), math.exp(-0.7 * (100 / 28 - 1))
    assert history.categories is not None
    found = dict(zip(history.one_ids.tolist(), history.categories.expected(day_number(AS_OF)).tolist(), strict=True))
    assert found[people["a"]] == pytest.approx(milk + soap)
    assert found[people["b"]] == 0.0  # the item has no category
    assert {row["user_id"]: row[EXPECTED_CATEGORIES] for row in profile} == pytest.approx({"a": milk + soap, "b": 0.0})
    # on the day it is due, all of it is expected
    due = history.categories.expected(day_number(AS_OF) - 1)[history.one_ids.tolist().index(people["a"])]
    assert due == pytest.approx(28 / 19 + math.exp(-0.7 * (99 / 28 - 1)))
    assert history.categories.expected(day_number(AS_OF) - 400).tolist() == [0.0] * len(history.one_ids)


def test_dates_and_clock_times_of_other_time_zones_mix(tmp_path):
    """West of the source, an order with a clock time is of the local day before that of an earlier one with a date."""
    monday, zone = datetime(2024, 5, 6), "America/Los_Angeles"
    times = [(monday - timedelta(days=1), False), (monday, True), (monday + timedelta(hours=2), False)]
    times += [(monday + timedelta(hours=20), False), (monday + timedelta(days=9), True), (monday, False)]
    rng = np.random.default_rng(4)
    for _ in range(60):
        moment = monday - timedelta(days=int(rng.integers(0, 60)))
        times.append((moment, True) if rng.random() < 0.5 else (moment + timedelta(hours=int(rng.integers(24))), False))
    lines = [
        {**line("u" if number < 6 else f"u{number % 3}", 0, "milk", f"o{number}"), "ts": ts, "date_only": only}
        for number, (ts, only) in enumerate(times)
    ]
    twice = {
        **line("v", 0, "milk", "w"),
        "ts": monday,
    }  # an order whose first line is only a date, and the other is not
    lines += [{**twice, "date_only": True}, {**twice, "ts": times[2][0], "date_only": False, "line_no": 2}]
    workspace = write_lake(
        tmp_path / "shop", {"transactions": lines, "items": [{"item_id": "milk", "category": "milk"}]}
    )
    builder = Builder(workspace, [one for one in FEATURES if one.name in HABIT_FEATURES], timezone=zone)
    history = OrderHistory.read(builder.views(AS_OF), with_categories=True)
    for as_of in (AS_OF, monday + timedelta(hours=21), monday + timedelta(hours=3)):
        found = history.features(as_of, HABIT_FEATURES).tolist()
        profile = {row["one_id"]: row for row in builder.build(as_of).table.to_pylist()}
        for one_id, values in zip(history.one_ids.tolist(), found, strict=True):
            assert values == pytest.approx([profile[one_id][name] for name in HABIT_FEATURES], rel=1e-6)


def test_without_categories_nothing_of_them_is_read(builder):
    history = OrderHistory.read(builder.views(AS_OF))
    assert history.categories is None
    with pytest.raises(KeyError, match=EXPECTED_CATEGORIES):
        history.features(AS_OF, (EXPECTED_CATEGORIES,))


def test_weeks_of_orders_before_and_after_a_moment():
    now = day_number(AS_OF)  # a Monday
    days = np.array([now - 92, now - 9, now - 8, now - 1, now, now + 6, now + 7, now + 28, now - 5])
    history = OrderHistory(
        np.array(["a", "b"]), np.array([0, 8, 9]), days, np.ones(9), (days - (days + 3) % 7).astype(int)
    )
    assert history.weeks_with_order(AS_OF, 28).tolist() == [2, 0]  # the order of day 28 is after the horizon
    assert history.weeks_with_order(AS_OF, 29).tolist() == [3, 0]
    assert history.weeks_with_order(AS_OF, 5).tolist() == [1, 0]
    assert history.features(AS_OF, ("order_weeks_91d",))[:, 0].tolist() == [2.0, 1.0]
    assert history.features(AS_OF + timedelta(days=0.5), ("order_weeks_91d",))[:, 0].tolist() == [3.0, 1.0]
