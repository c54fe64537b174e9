"""`qianmian analytics`: printed tables, written files and rejected arguments."""

from __future__ import annotations

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest


def test_sessions_by_tag_are_printed_and_every_session_is_a_row_of_the_file(qianmian, shop, tmp_path):
    out = tmp_path / "sessions.parquet"
    done = qianmian("analytics", "sessions", "--workspace", shop, "--by", "lifecycle_stage", "--out", out, "--json")
    assert done.code == 0
    overall, *groups = done.json["groups"]
    assert overall["sessions"] == pq.read_table(out).num_rows == sum(group["sessions"] for group in groups)
    assert overall["conversion"]["low"] < overall["conversion"]["value"] < overall["conversion"]["high"]
    assert not (shop / "online" / "current.json").exists()  # an analysis publishes nothing


def test_as_of_reads_nothing_later(qianmian, shop, tmp_path):
    out = tmp_path / "sessions.csv"
    assert (
        qianmian(
            "analytics", "sessions", "--workspace", shop, "--as-of", "2024-02-01", "--window-days", 7, "--out", out
        ).code
        == 0
    )
    table = pc.read_csv(out)
    assert str(max(table["end"].to_pylist())) < "2024-02-01"
    assert str(min(table["start"].to_pylist())) >= "2024-01-25"


def test_a_funnel_is_a_table_and_a_file(qianmian, shop, tmp_path):
    out = tmp_path / "funnel.csv"
    done = qianmian(
        "analytics",
        "funnel",
        "--workspace",
        shop,
        "--per",
        "item",
        "--within-days",
        "7",
        "--by",
        "gender",
        "--out",
        out,
    )
    assert done.code == 0
    for text in ("view", "cart", "buy", "drop-off index", "male"):
        assert text in done.out
    assert pc.read_csv(out)["step"].to_pylist()[:3] == ["view", "cart", "buy"]


def test_paths(qianmian, shop, tmp_path):
    out = tmp_path / "paths.parquet"
    done = qianmian(
        "analytics",
        "paths",
        "--workspace",
        shop,
        "--of",
        "category_top",
        "--depth",
        2,
        "--top",
        3,
        "--out",
        out,
        "--json",
    )
    assert done.code == 0
    assert len(done.json["paths"]) == pq.read_table(out).num_rows == 3
    assert all(len(path["path"]) <= 2 for path in done.json["paths"])
    assert "where sessions begin and end" in qianmian("analytics", "paths", "--workspace", shop).out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["funnel", "--steps", "view,dance"], 2, "dance"),
        (["funnel", "--per", "household"], 2, "customer, session, item"),
        (["funnel", "--by", "mood"], 2, "lifecycle_stage"),
        (["paths", "--of", "weather"], 2, "event_type"),
        (["sessions", "--out", "sessions.xlsx"], 2, ".parquet"),
        (["sessions", "--as-of", "2023-01-01"], 3, "no behaviour event"),
        (["sessions", "--as-of", "someday"], 2, "YYYY-MM-DD"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments_are_rejected(qianmian, shop, arguments, code, message):
    done = qianmian("analytics", *arguments, "--workspace", shop)
    assert done.code == code
    assert message in done.err


def test_a_funnel_without_entries_is_reported(qianmian, shop):
    done = qianmian("analytics", "funnel", "--steps", "service,buy", "--workspace", shop)
    assert done.code == 0
    assert "no customer reached 'service'" in done.out


def orders_and_events(tmp_path, qianmian, events):
    """A shop of three customers with one order each, and these events (customer, type, day) without items."""
    (tmp_path / "orders.csv").write_text(
        "user,number,ts,item,amount\n" + "".join(f"{u},{u}1,2024-03-05 10:00:00,tea,5\n" for u in "abc")
    )
    rows = "".join(f"{u},{kind},2024-03-0{day} 09:00:00\n" for u, kind, day in events)
    (tmp_path / "events.csv").write_text(f"user,kind,ts\n{rows}")
    (tmp_path / "sources.yaml").write_text(
        "source: till\ntables:\n"
        "  transactions:\n    path: orders.csv\n"
        "    columns: {source_user_id: user, order_id: number, ts: ts, item_id: item, amount: amount}\n"
        + (
            "  events:\n    path: events.csv\n    columns: {source_user_id: user, event_type: kind, ts: ts}\n"
            if events
            else ""
        )
    )
    place = tmp_path / "workspace"
    done = qianmian("ingest", "files", "--config", tmp_path / "sources.yaml", "--workspace", place)
    assert done.code == 0, done.err
    return place


@pytest.mark.parametrize(
    ("events", "steps", "reached"),
    [
        ([("a", "view", 1), ("b", "view", 1), ("a", "login", 1)], ["view", "buy"], [2, 2]),
        (
            [("a", "coupon_redeem", 1), ("b", "login", 1), ("a", "login", 1)],
            ["login", "coupon_redeem", "buy"],
            [2, 1, 1],
        ),
        ([("a", "view", 1), ("b", "cart", 2), ("a", "purchase", 3)], ["view", "cart", "buy"], [1, 0, 0]),
    ],
)
def test_a_funnel_without_steps_takes_those_that_are_recorded(qianmian, tmp_path, events, steps, reached):
    place = orders_and_events(tmp_path, qianmian, events)
    done = qianmian("analytics", "funnel", "--workspace", place, "--json")
    assert done.code == 0, done.err
    assert [(step["step"], step["reached"]) for step in done.json["steps"]] == list(zip(steps, reached, strict=True))
    assert f"steps that the data have: {' → '.join(steps)}" in qianmian("analytics", "funnel", "--workspace", place).out


def test_a_funnel_of_one_recorded_step_is_refused_and_names_it(qianmian, tmp_path):
    place = orders_and_events(tmp_path, qianmian, [("a", "view", 6)])
    early = qianmian("analytics", "funnel", "--as-of", "2024-03-06", "--workspace", place)
    assert (early.code, "buy (3 rows)" in early.err) == (3, True), early.err
    # the view names no item
    items = qianmian("analytics", "funnel", "--per", "item", "--workspace", place)
    assert (items.code, "recorded with an item" in items.err, "buy (3 rows)" in items.err) == (3, True, True)
    assert qianmian("analytics", "funnel", "--workspace", place).code == 0
