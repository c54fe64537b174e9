"""The verbs with an industry pack selected in the settings."""

from __future__ import annotations

import pyarrow.parquet as pq


def test_a_selected_pack_is_used_by_the_synthetic_shop_the_profiles_and_doctor(qianmian, tmp_path):
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


def test_an_unknown_pack_is_rejected_before_anything_is_read(qianmian, tmp_path):
    (tmp_path / "qianmian.yaml").write_text("pack: beuty\n", encoding="utf-8")
    done = qianmian("ingest", "synthetic", "--workspace", tmp_path)
    assert done.code == 2
    assert "did you mean beauty" in done.err
    assert not (tmp_path / "lake").exists()
