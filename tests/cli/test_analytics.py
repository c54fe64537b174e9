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
