"""Lifecycle stages: every one can be reached, and each begins exactly where it is said to."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.compute.spec import UserFeatures
from features.definitions import FEATURES
from features.profiles.lifecycle import LIFECYCLE_FEATURES, lifecycle_stage, stages_from_features
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES
from qianmian.settings import LifecycleSettings

REGULAR = {
    "orders_total": 9.0,
    "days_since_last_order": 5.0,
    "days_since_first_order": 300.0,
    "gap_days_mean": 10.0,
    "orders_365d": 9.0,
}
STAGES = {
    "prospect": {
        "orders_total": 0.0,
        "days_since_last_order": 9999.0,
        "days_since_first_order": 0.0,
        "gap_days_mean": 365.0,
        "orders_365d": 0.0,
    },
    "new": {"days_since_first_order": 12.0},
    "active": {},
    "loyal": {"orders_total": 40.0, "orders_365d": 30.0},
    "at_risk": {"days_since_last_order": 25.0},
    "asleep": {"days_since_last_order": 50.0},
    "lost": {"days_since_last_order": 200.0},
}


def stage(settings=None, **changed):
    found = lifecycle_stage({name: np.array([number]) for name, number in {**REGULAR, **changed}.items()}, settings)
    assert found.shape == (1,)
    return str(found[0])


def below(number):
    return float(np.nextafter(number, 0.0))


@pytest.mark.parametrize("name", LIFECYCLE_STAGES)
def test_every_stage_can_be_reached(name):
    assert stage(**STAGES[name]) == name


def test_all_at_once_is_each_alone():
    people = [{**REGULAR, **STAGES[name]} for name in LIFECYCLE_STAGES]
    found = lifecycle_stage({need: np.array([person[need] for person in people]) for need in LIFECYCLE_FEATURES})
    assert found.tolist() == list(LIFECYCLE_STAGES)
    assert lifecycle_stage({need: np.empty(0) for need in LIFECYCLE_FEATURES}).tolist() == []


@pytest.mark.parametrize(
    ("days", "before", "after"), [(20.0, "active", "at_risk"), (40.0, "at_risk", "asleep"), (80.0, "asleep", "lost")]
)
def test_silence_counts_from_exactly_so_many_own_gaps(days, before, after):
    assert stage(days_since_last_order=below(days)) == before
    assert stage(days_since_last_order=days) == after


def test_loyal_from_exactly_ten_orders_a_year():
    assert stage(orders_365d=9.0) == "active"
    assert stage(orders_365d=10.0) == "loyal"


def test_new_ends_at_thirty_days():
    assert stage(days_since_first_order=below(30.0)) == "new"
    assert stage(days_since_first_order=30.001) == "active"


def test_one_order_makes_a_customer():
    assert stage(orders_total=1.0) == "active"
    assert stage(orders_total=0.0) == "prospect"


@pytest.mark.parametrize(
    ("gap", "at_risk_from"),
    [(0.0, 14.0), (1.0, 14.0), (7.0, 14.0), (7.5, 15.0), (60.0, 120.0), (61.0, 120.0), (365.0, 120.0)],
)
def test_a_gap_counts_as_at_least_seven_and_at_most_sixty_days(gap, at_risk_from):
    assert stage(gap_days_mean=gap, days_since_last_order=below(at_risk_from)) == "active"
    assert stage(gap_days_mean=gap, days_since_last_order=at_risk_from) == "at_risk"


def test_silence_outweighs_being_new_or_loyal():
    assert stage(days_since_first_order=29.0, days_since_last_order=29.0) == "at_risk"
    assert stage(orders_365d=50.0, days_since_last_order=100.0) == "lost"
    assert stage(days_since_first_order=20.0, orders_365d=50.0) == "new"


@pytest.mark.parametrize(
    ("changed", "person", "usual", "then"),
    [
        ({"at_risk_gaps": 3.0}, {"days_since_last_order": 25.0}, "at_risk", "active"),
        ({"asleep_gaps": 6.0}, {"days_since_last_order": 50.0}, "asleep", "at_risk"),
        ({"lost_gaps": 30.0}, {"days_since_last_order": 200.0}, "lost", "asleep"),
        ({"new_days": 10}, {"days_since_first_order": 12.0}, "new", "active"),
        ({"loyal_orders": 5}, {}, "active", "loyal"),
        ({"min_gap_days": 20.0}, {"days_since_last_order": 25.0}, "at_risk", "active"),
        ({"max_gap_days": 4.0}, {"days_since_last_order": 8.0, "gap_days_mean": 7.0}, "active", "at_risk"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) and value else "",
)
def test_settings_are_respected(changed, person, usual, then):
    settings = LifecycleSettings(**{**({"min_gap_days": 1.0} if "max_gap_days" in changed else {}), **changed})
    assert stage(**person) == stage(LifecycleSettings(), **person) == usual
    assert stage(settings, **person) == then


def features_with(names):
    declared = [feature for feature in FEATURES if feature.name in names]
    people = [{**REGULAR, **STAGES[name]} for name in LIFECYCLE_STAGES]
    table = pa.table(
        {
            "one_id": [f"u{n}" for n in range(len(people))],
            **{f.name: [person[f.name] for person in people] for f in declared},
        }
    )
    return UserFeatures.from_table(table, declared, datetime(2024, 1, 1))


def test_stages_of_a_profile_matrix():
    assert stages_from_features(features_with(LIFECYCLE_FEATURES)).tolist() == list(LIFECYCLE_STAGES)
    assert (
        stages_from_features(features_with(LIFECYCLE_FEATURES), LifecycleSettings(loyal_orders=5))[
            LIFECYCLE_STAGES.index("active")
        ]
        == "loyal"
    )


def test_stages_without_dated_orders_say_what_is_missing():
    with pytest.raises(
        DataError,
        match="lifecycle stages require orders with times.*no days_since_last_order, gap_days_mean.*map the column `ts`",
    ):
        stages_from_features(features_with(["orders_total", "days_since_first_order", "orders_365d"]))
