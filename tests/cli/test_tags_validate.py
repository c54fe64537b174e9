"""`qianmian tags validate` on a small synthetic shop."""

from __future__ import annotations

import pytest

from cli.main import run


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """80 customers, of 180 days."""
    place = tmp_path_factory.mktemp("validate") / "workspace"
    arguments = ["ingest", "synthetic", "--customers", "80", "--days", "180", "--workspace", str(place), "--json"]
    assert run(arguments) == 0
    assert run(["features", "--workspace", str(place), "--json"]) == 0
    return place


def test_verdicts_are_printed_stored_and_shown(qianmian, year):
    before = qianmian("tags", "list", "--workspace", year)
    assert "qianmian tags validate" in before.out
    command = ("tags", "validate", "--tag", "favourite_category", "--tag", "favourite_weekday", "--workspace", year)
    done = qianmian(*command, "--json")
    assert done.code == 0
    tags = {tag["tag"]: tag for tag in done.json["tags"]}
    assert {name: tag["verdict"] for name, tag in tags.items()} == {
        "favourite_category": "borne_out",
        "favourite_weekday": "not_borne_out",
    }
    assert tags["favourite_category"]["values"][0]["low"] > 1
    assert done.json["moments"][0] == "2024-06-01T00:00:00"
    shown = qianmian(*command)
    assert "favourite_weekday: not_borne_out" in shown.out
    assert "all values" in shown.out
    assert qianmian(*command, "--strict").code == 3
    assert done.json["written"] is None  # verdicts that are adjusted for two claims are not stored
    assert "qianmian tags validate" in qianmian("tags", "list", "--workspace", year).out
    assert qianmian("tags", "validate", "--workspace", year).code == 0
    entries = {
        tag["name"]: tag["checked"] for tag in qianmian("tags", "list", "--workspace", year, "--json").json["tags"]
    }
    assert entries["favourite_weekday"] == "not_borne_out"
    assert entries["favourite_category"] == "borne_out"
    assert entries["gender"] is None
    assert "tags validate" not in qianmian("tags", "list", "--workspace", year).out


def test_nothing_after_as_of_is_read_and_short_data_are_refused(qianmian, year):
    done = qianmian("tags", "validate", "--tag", "value_tier", "--as-of", "2024-05-01", "--workspace", year, "--json")
    assert (done.code, done.json["as_of"], done.json["moments"]) == (0, "2024-05-01T00:00:00", ["2024-04-03T00:00:00"])
    late = qianmian("tags", "validate", "--tag", "value_tier", "--as-of", "2030-01-01", "--workspace", year, "--json")
    assert late.json["as_of"] == "2024-06-29T00:00:00"
    early = qianmian("tags", "validate", "--as-of", "2024-03-01", "--workspace", year)
    assert (early.code, "too short" in early.err) == (3, True)
    unknown = qianmian("tags", "validate", "--tag", "gender", "--workspace", year)
    assert (unknown.code, "claims nothing" in unknown.err) == (2, True)
