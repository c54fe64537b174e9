"""A pack in one line of the settings, as the verbs see it."""

from __future__ import annotations

import pyarrow.parquet as pq


def test_a_chosen_pack_is_in_the_made_up_shop_the_profiles_and_the_check_up(qianmian, tmp_path):
    place, out = tmp_path / "workspace", tmp_path / "profiles.parquet"
    place.mkdir()
    (place / "qianmian.yaml").write_text("pack: medical_aesthetics\n", encoding="utf-8")
    assert qianmian("ingest", "synthetic", "--customers", 60, "--days", 150, "--workspace", place).code == 0
    done = qianmian("features", "--workspace", place, "--out", out, "--json")
    assert done.code == 0
    assert {"decision_stage", "course_stage", "replenishment_due"} <= set(done.json["tags"])
    assert "botulinum_orders" in done.json["features"]
    assert set(pq.read_table(out)["top_category"].to_pylist()) <= {"injection", "device", "skin", "care", "surgery", ""}
    by = qianmian(
        "analytics", "funnel", "--steps", "view,lead", "--by", "decision_stage", "--workspace", place, "--json"
    )
    assert by.json["steps"][1]["reached"] > 0
    assert "industry pack medical_aesthetics" in qianmian("doctor", "--workspace", place).out


def test_a_pack_that_is_not_there_stops_before_anything_is_read(qianmian, tmp_path):
    (tmp_path / "qianmian.yaml").write_text("pack: beuty\n", encoding="utf-8")
    done = qianmian("ingest", "synthetic", "--workspace", tmp_path)
    assert done.code == 2
    assert "did you mean beauty" in done.err
    assert not (tmp_path / "lake").exists()
