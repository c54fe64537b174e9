"""Which records are customers, under which id, and since when."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from features.compute.algebra import Feature
from features.compute.builder import Builder
from features.data.identity import SingleSourceResolver, resolve
from features.data.lake import Lake
from features.data.tables import CUSTOMERS
from features.definitions import FEATURES
from qianmian.settings import Settings

ORDERS = (Feature("orders_total", "orders", "count", description="orders"),)
DAY = [datetime(2024, 1, day) for day in range(1, 30)]


def line(user, ts, source="s", **more):
    return {
        "source": source,
        "source_user_id": user,
        "order_id": f"o {user} {ts} {source}",
        "line_no": 1,
        "ts": ts,
        "item_id": "i",
        "amount": 1.0,
        "status": "paid",
        **more,
    }


def event(user, ts):
    return {"source": "s", "source_user_id": user, "event_id": f"e {user} {ts}", "event_type": "view", "ts": ts}


def profile(user, at=None):
    return {"source": "s", "source_user_id": user, "registered_at": at}


def customers(lake: Lake) -> dict[tuple[str, str], tuple[str, datetime | None]]:
    rows = lake.connect().con.execute("SELECT source, source_user_id, one_id, valid_from FROM customers").fetchall()
    return {(source, user): (one_id, valid_from) for source, user, one_id, valid_from in rows}


def test_one_customer_a_source_record(lake_of):
    lake = lake_of(
        {
            "transactions": [line("1", DAY[3]), line("1", DAY[1]), line("1", DAY[2], "t"), line(None, DAY[0])],
            "events": [event("2", DAY[0])],
        }
    )
    found = customers(lake)
    assert found.keys() == {("s", "1"), ("t", "1"), ("s", "2")}
    ids = [one_id for one_id, _ in found.values()]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"u[0-9a-f]{16}", one_id) for one_id in ids)
    assert lake.state("customers").columns == CUSTOMERS.names


def test_ids_do_not_change_with_the_rows(lake_of):
    few = customers(lake_of({"transactions": [line("1", DAY[1])]}))
    many = customers(lake_of({"transactions": [line("1", DAY[9]), line("0", DAY[0]), line("张三", DAY[0])]}))
    assert few["s", "1"][0] == many["s", "1"][0]


def test_the_parts_of_a_record_are_kept_apart(lake_of):
    found = customers(lake_of({"transactions": [line("bc", DAY[0], "a"), line("c", DAY[0], "ab")]}))
    assert found["a", "bc"][0] != found["ab", "c"][0]


@pytest.mark.parametrize(
    ("tables", "since"),
    [
        ({"transactions": [line("1", DAY[5]), line("1", DAY[3])]}, DAY[3]),
        ({"transactions": [line("1", DAY[5], status="refunded")]}, DAY[5]),
        ({"transactions": [line("1", DAY[5])], "events": [event("1", DAY[2])]}, DAY[2]),
        ({"transactions": [line("1", DAY[5])], "profiles": [profile("1", DAY[1])]}, DAY[1]),
        ({"profiles": [profile("1")]}, None),
        ({"transactions": [line("1", DAY[5])], "profiles": [profile("1")]}, None),
        ({"transactions": [line("1", None)], "events": [event("1", DAY[5])]}, None),
        (
            {
                "transactions": [line("1", DAY[5])],
                "identities": [{"source": "s", "source_user_id": "1", "id_type": "phone", "id_value": "x"}],
            },
            None,
        ),
    ],
    ids=[
        "first line",
        "a refund is a sign of life",
        "event",
        "registration",
        "undated profile",
        "undated profile, later purchase",
        "undated line, later event",
        "undated identity",
    ],
)
def test_since_when(lake_of, tables, since):
    assert customers(lake_of(tables))["s", "1"][1] == since


def test_somebody_with_an_undated_profile_who_buys_later_was_there_before(lake_of):
    profiles = [profile("1"), profile("2")]
    alone = Builder(lake_of({"transactions": [line("2", DAY[0])], "profiles": profiles}), FEATURES)
    buying = Builder(lake_of({"transactions": [line("2", DAY[0]), line("1", DAY[9])], "profiles": profiles}), FEATURES)
    for builder in (alone, buying):
        for as_of, known in ((DAY[5], ["1", "2"]), (DAY[9], ["1", "2"]), (DAY[9] + timedelta(seconds=1), ["1", "2"])):
            assert sorted(builder.build(as_of, ORDERS).table["user_id"].to_pylist()) == known


def test_known_from_the_moment_after_the_first_row(lake_of):
    builder = Builder(lake_of({"transactions": [line("1", DAY[0]), line("2", DAY[5])]}), FEATURES)
    assert builder.build(DAY[5], ORDERS).table["user_id"].to_pylist() == ["1"]
    assert sorted(builder.build(DAY[5] + timedelta(seconds=1), ORDERS).table["user_id"].to_pylist()) == ["1", "2"]


def test_resolving_again_changes_nothing(lake_of):
    lake = lake_of({"transactions": [line("1", DAY[5])]})
    before = lake.state("customers").digest
    assert resolve(lake, Settings(), SingleSourceResolver()).digest == before
