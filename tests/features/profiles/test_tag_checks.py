"""Stored verdicts: they belong to a declaration, and profiles show them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from features.definitions.building import make_builder
from features.profiles.building import build_snapshot
from features.profiles.snapshot import Snapshot, load_current, publish
from features.profiles.tags import TAGS
from features.profiles.tags.checked import checks_path, read_verdicts, write_checks
from qianmian.errors import ArtifactError
from qianmian.model_settings import LifecycleSettings
from qianmian.settings import Settings

NOW = datetime(2024, 6, 1)
SETTINGS = Settings()
DECLARED = list(TAGS.values())


@pytest.fixture
def lake(lake_of):
    row = {"source": "till", "source_user_id": "a", "line_no": 1, "item_id": "i", "quantity": 1.0, "amount": 2.0}
    rows = [{**row, "order_id": str(n), "ts": NOW - timedelta(days=n + 1), "status": "paid"} for n in range(4)]
    return lake_of({"transactions": rows})


def test_verdicts_are_kept_until_the_declaration_changes(lake):
    workspace = lake.workspace
    assert read_verdicts(workspace, DECLARED, SETTINGS) == {}
    write_checks(workspace, DECLARED, SETTINGS, {"buyer_stage": {"verdict": "borne_out"}}, NOW)
    write_checks(workspace, DECLARED, SETTINGS, {"value_tier": {"verdict": "contradicted"}}, NOW)
    assert read_verdicts(workspace, DECLARED, SETTINGS) == {"buyer_stage": "borne_out", "value_tier": "contradicted"}
    other_claim = [replace(TAGS["value_tier"], claim=TAGS["buyer_stage"].claim), TAGS["buyer_stage"]]
    assert read_verdicts(workspace, other_claim, SETTINGS) == {"buyer_stage": "borne_out"}
    other_values = [replace(TAGS["value_tier"], values=("a", "b", "c"))]
    assert read_verdicts(workspace, other_values, SETTINGS) == {}
    other_settings = Settings(lifecycle=LifecycleSettings(new_days=5))
    assert read_verdicts(workspace, DECLARED, other_settings) == {}
    # a verdict on a tag that is no longer declared goes with the next check
    write_checks(workspace, [TAGS["buyer_stage"]], SETTINGS, {"buyer_stage": {"verdict": "too_few"}}, NOW)
    assert list(json.loads(checks_path(workspace).read_text())["tags"]) == ["buyer_stage"]


def test_profiles_show_the_verdict_of_the_workspace_or_null(lake):
    workspace = lake.workspace
    snapshot = build_snapshot(make_builder(lake, SETTINGS), NOW, SETTINGS)
    publish(workspace, snapshot)
    assert snapshot.facts_of(0, NOW)["lifecycle"]["buyer_stage"]["checked"] is None
    write_checks(workspace, DECLARED, SETTINGS, {"buyer_stage": {"verdict": "not_borne_out"}}, NOW)
    served = load_current(workspace)
    facts = served.facts_of(0, NOW)
    assert facts["lifecycle"]["buyer_stage"]["checked"] == "not_borne_out"
    assert facts["lifecycle"]["days_since_last_order"]["checked"] is None
    # a copy that is served elsewhere has them too
    folder = workspace.root / "copy"
    served.save(folder)
    assert Snapshot.load(folder).checked == {"buyer_stage": "not_borne_out"}


def test_a_broken_file_is_named_and_profiles_are_served_without_verdicts(lake, caplog):
    workspace = lake.workspace
    publish(workspace, build_snapshot(make_builder(lake, SETTINGS), NOW, SETTINGS))
    checks_path(workspace).write_text('{"format": 7, "tags": {}}')
    with pytest.raises(ArtifactError, match="verdicts on the tags"):
        read_verdicts(workspace, DECLARED, SETTINGS)
    assert load_current(workspace).checked == {}
    assert "tag_checks=ignored" in caplog.text
    write_checks(workspace, DECLARED, SETTINGS, {"buyer_stage": {"verdict": "too_few"}}, NOW)
    assert load_current(workspace).checked == {"buyer_stage": "too_few"}
