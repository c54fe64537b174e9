"""Declarations that make no sense are refused, all mistakes at once."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from features.compute.algebra import Condition, Feature, check
from features.definitions import FEATURES
from qianmian.errors import ConfigError

GOOD = Feature("orders_28d", "orders", "count", window_days=28, description="d")


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"view": "baskets"}, "unknown view 'baskets'"),
        ({"aggregate": "sum"}, "needs a column"),
        ({"aggregate": "entropy"}, "needs a column"),
        ({"aggregate": "ratio", "column": "amount"}, "needs `over`"),
        ({"aggregate": "trend", "window_days": None}, "needs a window"),
        ({"aggregate": "top", "column": "channel"}, "default must be text"),
        ({"default": ""}, "default must be a number"),
        ({"description": ""}, "needs a description and an owner"),
        ({"owner": ""}, "needs a description and an owner"),
        ({"aggregate": "quotient", "view": "", "column": "a", "over": "b"}, "no feature called 'a' before it"),
    ],
)
def test_a_mistake_is_named(changes, mistake):
    with pytest.raises(ConfigError) as caught:
        check((replace(GOOD, **changes),))
    assert any(mistake in problem for problem in caught.value.problems)
    assert all(problem.startswith("orders_28d: ") for problem in caught.value.problems)


def test_all_mistakes_come_together():
    with pytest.raises(ConfigError) as caught:
        check((GOOD, GOOD, replace(GOOD, name="b", view="x"), replace(GOOD, name="c", aggregate="sum", description="")))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["orders_28d", "b", "c", "c"]


def test_a_quotient_comes_after_its_parts():
    parts = (GOOD, replace(GOOD, name="other"))
    quotient = Feature("q", "", "quotient", "orders_28d", over="other", description="d")
    assert check((*parts, quotient)) == (*parts, quotient)
    with pytest.raises(ConfigError, match="before it"):
        check((quotient, *parts))


def test_attributes_may_be_text_or_numbers():
    text = Feature("a", "profiles", "attribute", "age_band", default="", description="d")
    number = Feature("b", "profiles", "attribute", "points_balance", description="d")
    assert [feature.categorical for feature in check((text, number))] == [True, False]


def test_declarations_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        GOOD.name = "x"
    with pytest.raises(FrozenInstanceError):
        Condition("a", "==", 1).value = 2
    assert check(FEATURES) is FEATURES
