"""Lifecycle stages: every one can be reached, and each begins exactly where it is said to."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.lifecycle import (
    LIFECYCLE_FEATURES,
    lifecycle_stage,
    replenishment,
    return_probability,
    stages_of_build,
)
from features.profiles.purchase_process.fitting import process_of
from features.profiles.purchase_process.process import PurchaseProcess
from qianmian.errors import DataError
from qianmian.model_settings import LifecycleSettings
from qianmian.schema import LIFECYCLE_STAGES

# without data: orders at random at the pooled gap m = (10 + days since the first order) / orders, so that the
# probability of an order within the return time of 40 days is 1 − exp(−40 / m)
PROCESS = PurchaseProcess(10.0)
REGULAR = {
    "orders_total": 9.0,
    "days_since_last_order": 5.0,
    "days_since_first_order": 300.0,
    "orders_28d": 0.0,
    "orders_91d": 2.0,
    "orders_365d": 9.0,
}
NEVER = {"orders_total": 0.0, "days_since_last_order": 9999.0, "days_since_first_order": 0.0, "orders_365d": 0.0}
STAGES = {
    "prospect": NEVER,
    "new": {"days_since_first_order": 12.0},
    "active": {},
    "loyal": {"orders_total": 40.0, "orders_365d": 30.0},
    "at_risk": {"days_since_first_order": 400.0},
    "asleep": {"days_since_first_order": 800.0},
    "lost": {"days_since_first_order": 1300.0},
}


def rows(people):
    return {name: np.array([{**REGULAR, **person}[name] for person in people]) for name in LIFECYCLE_FEATURES}


def stage(settings=None, **changed):
    return str(lifecycle_stage(rows([changed]), PROCESS, settings)[0])


def first_order_at(probability, days=40.0):
    """Days since the first order with which a customer of nine orders returns with this probability."""
    return 9 * days / -np.log1p(-probability) - 10


@pytest.mark.parametrize("name", LIFECYCLE_STAGES)
def test_every_stage_can_be_reached(name):
    assert stage(**STAGES[name]) == name


def test_all_at_once_is_each_alone():
    assert lifecycle_stage(rows(STAGES.values()), PROCESS).tolist() == list(STAGES)
    assert lifecycle_stage(rows([]), PROCESS).tolist() == []


@pytest.mark.parametrize(
    ("probability", "above", "below"),
    [(0.6, "active", "at_risk"), (0.4, "at_risk", "asleep"), (0.25, "asleep", "lost")],
)
def test_a_stage_begins_at_its_probability_of_a_return(probability, above, below):
    at = first_order_at(probability)
    assert return_probability(rows([{"days_since_first_order": at}]), PROCESS) == pytest.approx(probability)
    assert stage(days_since_first_order=at - 0.001) == above
    assert stage(days_since_first_order=at + 0.001) == below


def test_loyal_from_exactly_ten_orders_a_year():
    assert stage(orders_365d=9.0) == "active"
    assert stage(orders_365d=10.0) == "loyal"


def test_new_ends_at_thirty_days():
    assert stage(days_since_first_order=30.0) == "new"
    assert stage(days_since_first_order=30.001) == "active"
    assert stage(orders_total=1.0, days_since_first_order=30.0, days_since_last_order=30.0) == "new"


def test_one_order_makes_a_customer():
    assert stage(orders_total=1.0, days_since_first_order=31.0) == "active"
    assert stage(orders_total=0.0) == "prospect"


def test_an_unlikely_return_outweighs_many_orders_last_year():
    assert stage(orders_365d=50.0, days_since_first_order=1300.0) == "lost"


@pytest.mark.parametrize(
    ("changed", "person", "usual", "then"),
    [
        ({"at_risk_below": 0.5}, {"days_since_first_order": 400.0}, "at_risk", "active"),
        ({"asleep_below": 0.3}, {"days_since_first_order": 800.0}, "asleep", "at_risk"),
        ({"lost_below": 0.1}, {"days_since_first_order": 1300.0}, "lost", "asleep"),
        ({"return_days": 400.0}, {"days_since_first_order": 800.0}, "asleep", "active"),
        ({"new_days": 10}, {"days_since_first_order": 12.0}, "new", "active"),
        ({"loyal_orders": 5}, {}, "active", "loyal"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) and value else "",
)
def test_settings_are_respected(changed, person, usual, then):
    assert stage(**person) == stage(LifecycleSettings(), **person) == usual
    assert stage(LifecycleSettings(**changed), **person) == then


def test_the_thresholds_must_descend():
    with pytest.raises(ValidationError, match="must descend; got 0.6, 0.7, 0.25"):
        LifecycleSettings(asleep_below=0.7)


def test_thresholds_of_earlier_settings_files_are_named_with_their_successors():
    with pytest.raises(
        ValidationError, match="asleep_gaps, lost_gaps: .* set asleep_below, lost_below to a probability"
    ):
        LifecycleSettings(asleep_gaps=4.0, lost_gaps=8.0)


def test_states_of_the_next_order():
    people = [
        NEVER,
        {"orders_total": 30.0},  # own gap 10: median 7.2 days
        {"days_since_first_order": 180.0},  # gap 21: median 14.6 days, silent for 5
        {"days_since_first_order": 180.0, "days_since_last_order": 100.0},  # own gap 10, silent for 100
        {"days_since_first_order": 400.0},  # returns with a probability below 60 %
    ]
    assert replenishment(rows(people), PROCESS).tolist() == ["", "due", "not_yet", "overdue", "missed"]


def test_stages_of_a_build(lake_of):
    rng = np.random.default_rng(0)
    lines = [
        {
            "source": "s",
            "source_user_id": user,
            "order_id": f"{user}{day}",
            "line_no": 1,
            "item_id": "i",
            "quantity": 1.0,
        }
        | {"amount": 2.0, "status": "paid", "ts": datetime(2024, 1, 1) + timedelta(days=float(day))}
        for number, user in enumerate([f"u{n:02}" for n in range(60)])
        for day in np.arange(rng.uniform(0, 7), 100.0 if number < 20 else 300.0, 7.0)
    ]
    builder = Builder(lake_of({"transactions": lines}), FEATURES)
    as_of = datetime(2024, 1, 1) + timedelta(days=300)
    built = builder.build(as_of)
    stages = dict(
        zip(
            built.table["user_id"].to_pylist(),
            stages_of_build(process_of(builder.views(as_of), built.table), built.table),
            strict=True,
        )
    )
    assert {stages[f"u{n:02}"] for n in range(20)} == {"lost"}
    assert {stages[f"u{n:02}"] for n in range(20, 60)} == {"loyal"}


def test_stages_without_dated_orders_say_what_is_missing(lake_of):
    line = {"source": "s", "source_user_id": "a", "order_id": "o", "line_no": 1, "item_id": "i", "quantity": 1.0}
    builder = Builder(lake_of({"transactions": [{**line, "amount": 2.0, "status": "paid", "ts": None}]}), FEATURES)
    as_of = datetime(2024, 1, 1)
    with pytest.raises(
        DataError, match="lifecycle stages require orders with times.*no days_since_last_order.*map the column `ts`"
    ):
        stages_of_build(None, builder.build(as_of).table)
