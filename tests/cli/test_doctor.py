"""`qianmian doctor`: findings with a suggested fix, and the settings file."""

from __future__ import annotations

import importlib.resources
import shutil


def by_check(done):
    return {finding["check"]: finding for finding in done.json["findings"]}


def test_a_workspace_without_models_is_healthy_with_warnings(qianmian, shop):
    done = qianmian("doctor", "--workspace", shop, "--json")
    assert done.code == 0
    found = by_check(done)
    assert found["lake"]["status"] == "ok"
    assert found["libraries"]["status"] == "ok"
    assert "qianmian features" in found["profiles"]["hint"]
    assert "qianmian train all" in found["champions"]["hint"]
    assert "ok" in qianmian("doctor", "--workspace", shop).out


def test_days_and_hours_of_no_zone_or_of_an_earlier_one_are_warnings(qianmian, published_shop, tmp_path):
    fresh_shop = shutil.copytree(published_shop, tmp_path / "workspace")
    found = by_check(qianmian("doctor", "--workspace", fresh_shop, "--json"))
    assert found["time zone"]["status"] == "warn"
    assert "timezone: " in found["time zone"]["hint"]
    (fresh_shop / "qianmian.yaml").write_text("timezone: Asia/Tokyo\n")
    found = by_check(qianmian("doctor", "--workspace", fresh_shop, "--json"))
    assert (found["time zone"]["status"], found["time zone"]["found"]) == ("ok", "Asia/Tokyo")
    assert "those of UTC, not of Asia/Tokyo" in found["profiles"]["found"]
    assert "qianmian features" in found["profiles"]["hint"]


def test_a_missing_workspace_fails(qianmian, tmp_path):
    done = qianmian("doctor", "--workspace", tmp_path / "nowhere", "--json")
    assert done.code == 2
    assert not done.json["healthy"]
    assert "qianmian ingest" in by_check(done)["workspace"]["hint"]
    assert not (tmp_path / "nowhere").exists()


def test_wrong_settings_fail(qianmian, fresh_shop):
    (fresh_shop / "qianmian.yaml").write_text("wings: 2\n")
    done = qianmian("doctor", "--workspace", fresh_shop, "--json")
    assert done.code == 2
    assert "wings" in by_check(done)["settings"]["found"]


def test_a_lost_file_of_the_lake_fails(qianmian, fresh_shop):
    shutil.rmtree(next(path for path in (fresh_shop / "lake" / "transactions").iterdir()))
    done = qianmian("doctor", "--workspace", fresh_shop, "--json")
    assert done.code == 2
    assert by_check(done)["lake"]["status"] == "fail"


def test_a_broken_snapshot_fails(qianmian, published_shop, tmp_path):
    fresh_shop = shutil.copytree(published_shop, tmp_path / "workspace")
    next((fresh_shop / "online").glob("*/profiles.parquet")).write_bytes(b"no parquet")
    done = qianmian("doctor", "--workspace", fresh_shop, "--json")
    assert done.code == 2
    assert by_check(done)["profiles"]["status"] == "fail"


def test_init_settings_writes_the_defaults_once(qianmian, tmp_path):
    place = tmp_path / "workspace"
    assert qianmian("doctor", "--init-settings", "--workspace", place).code == 0
    written = (place / "qianmian.yaml").read_text()
    assert written == importlib.resources.files("qianmian").joinpath("defaults.yaml").read_text()
    (place / "qianmian.yaml").write_text("seed: 1\n")
    assert qianmian("doctor", "--init-settings", "--workspace", place).code == 2
    assert (place / "qianmian.yaml").read_text() == "seed: 1\n"
