"""Shared accounts: a till's walk-in account is found, and a large customer is not."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.shared_accounts import shared_accounts

AS_OF = datetime(2024, 7, 1)


def orders(user, days, per_day, *, lines=2):
    """`per_day` orders of `user` on each of the last `days` days."""
    return [
        {
            "source": "shop",
            "source_user_id": user,
            "order_id": f"{user}-{day}-{number}",
            "line_no": line_no,
            "ts": AS_OF - timedelta(days=day + 1) + timedelta(minutes=number),
            "item_id": f"i{line_no}",
            "quantity": 1.0,
            "amount": 1.0,
            "status": "paid",
        }
        for day in range(days)
        for number in range(per_day)
        for line_no in range(lines)
    ]


PEOPLE = [row for person in range(40) for row in orders(f"c{person}", 1 + person % 5, 1)]


@pytest.mark.parametrize(
    ("large", "found"),
    [
        (orders("WALKIN", 40, 5), ["WALKIN"]),
        (orders("WALKIN", 30, 5) + orders("GUEST", 40, 6), ["GUEST", "WALKIN"]),
        (orders("whale", 60, 1, lines=8), []),  # one large order a day
        (orders("busy", 2, 6), []),  # many orders, but few lines
    ],
)
def test_accounts_that_no_person_can_have(lake_of, large, found):
    builder = Builder(lake_of({"transactions": [*PEOPLE, *large]}), FEATURES)
    accounts = shared_accounts(builder, AS_OF, 0.05)
    assert [account.user_id for account in accounts] == found
    assert shared_accounts(builder, AS_OF, 1.0) == []
    if found == ["WALKIN"]:
        total = 2 * sum(1 + person % 5 for person in range(40)) + 400
        assert accounts[0].share == pytest.approx(400 / total)
        assert accounts[0].orders_per_day == 5.0
        assert shared_accounts(builder, AS_OF - timedelta(days=39), 0.05) == [], "not known before it grew large"


def test_of_few_customers_none_is_too_large(lake_of):
    rows = [*(row for person in range(10) for row in orders(f"c{person}", 2, 1)), *orders("WALKIN", 40, 5)]
    assert shared_accounts(Builder(lake_of({"transactions": rows}), FEATURES), AS_OF, 0.05) == []
