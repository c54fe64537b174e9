"""`qianmian customer`: the card of one customer of a small synthetic shop, and of a made-up one in two sources."""

from __future__ import annotations

import shutil
from datetime import datetime

import pytest

from features.data.lake import Lake
from features.profiles.snapshot import load_current
from qianmian.workspace import Workspace


@pytest.fixture(scope="module")
def built(shop, tmp_path_factory):
    """The shop with published profiles, in a time zone of its own."""
    from cli.main import run

    place = tmp_path_factory.mktemp("customer") / "workspace"
    shutil.copytree(shop, place)
    (place / "qianmian.yaml").write_text("timezone: Asia/Shanghai\n")
    assert run(["features", "--workspace", str(place), "--json"]) == 0
    return place


def test_the_card_says_what_the_lake_says(qianmian, built):
    lake = Lake(Workspace(built)).connect().con
    rows = lake.execute(
        "SELECT one_id, min((source_user_id, source)), count(DISTINCT order_id), sum(amount), min(ts), max(ts) "
        "FROM transactions JOIN customers USING (source, source_user_id) WHERE status = 'paid' GROUP BY one_id "
        "HAVING count(DISTINCT order_id) > 2 AND count(DISTINCT source_user_id) > 1 ORDER BY one_id LIMIT 1"
    )
    one_id, (user, source), orders, amount, first, last = rows.fetchone()
    done = qianmian("customer", user, "--user-source", source, "--workspace", built, "--json").json
    assert done["one_id"] == one_id
    assert {"user_source": source, "user_id": user} in done["ids"]
    assert len(done["ids"]) > 1
    facts = done["facts"]
    assert (facts["orders"], facts["amount"]) == (orders, pytest.approx(amount, abs=0.005))
    assert facts["average_order_value"] == pytest.approx(amount / orders, abs=0.005)
    for name, moment in (("first_order", first), ("last_order", last)):
        assert abs((datetime.fromisoformat(facts[name]) - moment).total_seconds()) <= 1
    stage = done["tags"]["lifecycle"]["lifecycle_stage"]
    assert stage["stale"] is True
    assert (stage["name_zh"], bool(stage["meaning"]), bool(stage["value_zh"])) == ("生命周期阶段", True, True)
    snapshot = load_current(Workspace(built))
    present = [name for entries in done["tags"].values() for name in entries]
    assert sorted(present) == sorted(snapshot.tags)
    assert not set(present) & set(done["absent"])


def test_the_card_is_found_by_one_id_and_printed_in_two_languages(qianmian, built):
    snapshot = load_current(Workspace(built))
    one_id, user = snapshot.one_ids[0], snapshot.table["user_id"][0].as_py()
    by_user, by_one_id = (qianmian("customer", found, "--workspace", built).out for found in (user, one_id))
    assert by_user == by_one_id
    assert one_id in by_user
    assert "lifecycle_stage" in by_user
    assert "(stale)" in by_user
    chinese = qianmian("customer", user, "--lang", "zh", "--workspace", built).out
    assert "生命周期阶段" in chinese
    assert "lifecycle_stage" not in chinese
    assert "已过期" in chinese


def test_the_dates_of_the_card_are_those_of_the_time_zone(qianmian, tmp_path):
    (tmp_path / "orders.csv").write_text(
        "user,order,ts,item,amount\na,1,2024-03-01 20:00:00,tea,5\nb,2,2024-03-05 10:00:00,tea,6\n"
    )
    (tmp_path / "sources.yaml").write_text(
        "source: till\ntables:\n  transactions:\n    path: orders.csv\n    columns: "
        "{source_user_id: user, order_id: '\"order\"', ts: ts, item_id: item, amount: amount}\n"
    )
    place = tmp_path / "workspace"
    done = qianmian("ingest", "files", "--config", tmp_path / "sources.yaml", "--workspace", place)
    assert done.code == 0, done.err
    (place / "qianmian.yaml").write_text("timezone: Asia/Shanghai\n")
    card = qianmian("customer", "a", "--workspace", place)
    assert "first order: 2024-03-02\n" in card.out
    assert "average order value: 5.00\n" in card.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nobody"], 3, "no customer has this user id"),
        (["1", "--user-source", "till"], 3, "1 of till"),
        (["1", "--as-of", "2023-01-01"], 3, "no customer"),
        (["1", "--lang", "de"], 2, "zh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_id_without_a_customer_is_refused(qianmian, built, arguments, code, message):
    done = qianmian("customer", *arguments, "--workspace", built)
    assert (done.code, message in done.err) == (code, True), done.err


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_the_date_of_an_order_without_a_clock_time_is_that_of_the_file(qianmian, tmp_path, zone):
    (tmp_path / "orders.csv").write_text("id,order,day\n1,o1,2023-01-01\n1,o2,2023-02-01\n")
    (tmp_path / "sources.yaml").write_text(
        "source: shop\ntimezone: Asia/Shanghai\ntables:\n  transactions:\n    path: orders.csv\n"
        "    columns: {source_user_id: id, order_id: order, ts: day}\n"
    )
    place = tmp_path / "workspace"
    assert qianmian("ingest", "files", "--config", tmp_path / "sources.yaml", "--workspace", place).code == 0
    (place / "qianmian.yaml").write_text(f"timezone: {zone}\n" if zone else "")
    shown = qianmian("customer", "1", "--workspace", place).out
    assert "first order: 2023-01-01" in shown
    assert "last order: 2023-02-01" in shown
