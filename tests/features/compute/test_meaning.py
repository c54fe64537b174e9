"""Digests and snapshots follow the meaning of the data, not only their values."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import duckdb
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.profiles import snapshot
from features.profiles.building import ensure_snapshot
from qianmian.errors import ArtifactError
from qianmian.settings import Settings

BEGIN = datetime(2024, 1, 1)
LINE = {
    "source": "s",
    "source_user_id": "u",
    "order_id": "o",
    "line_no": 1,
    "ts": BEGIN,
    "item_id": "i",
    "quantity": 1.0,
    "amount": 2.0,
    "status": "paid",
}


def digest(lake: Lake, query: str) -> str:
    with duckdb.connect() as connection:
        return lake.commit(connection, {"profiles": query})["profiles"].digest


def test_the_same_values_under_another_name_are_other_data(lake_of):
    lake = lake_of({"transactions": [LINE]})
    known = "SELECT 's' AS source, 'u' AS source_user_id, 'x' AS "
    assert digest(lake, known + "shoe") != digest(lake, known + "hat")
    assert digest(lake, known + "shoe") == digest(lake, known + "shoe")


def test_doubled_rows_do_not_cancel_out(lake_of):
    lake = lake_of({"transactions": [LINE]})
    first, second = (digest(lake, f"SELECT 's' AS source, '{user}' AS source_user_id FROM range(2)") for user in "ab")
    assert first != second


def test_the_order_of_rows_is_no_matter(lake_of):
    lake = lake_of({"transactions": [LINE]})
    first, second = (
        digest(lake, f"SELECT 's' AS source, n::VARCHAR AS source_user_id FROM range(50) t(n) ORDER BY n {way}")
        for way in ("", "DESC")
    )
    assert first == second


def test_a_snapshot_of_other_declarations_is_built_again(lake_of):
    """Somebody adds a feature: a model trained on it must not meet profiles that lack it."""
    lake = lake_of({"transactions": [LINE]})
    as_of = datetime(2024, 2, 1)
    made = ensure_snapshot(lake.workspace, as_of, Settings())
    old = Builder(lake, FEATURES).build(as_of, made.spec.features[:-1])
    snapshot.publish(lake.workspace, replace(made, table=old.table, spec=old.matrix().spec))
    assert made.spec.names[-1] not in snapshot.load_current(lake.workspace).spec.names
    assert ensure_snapshot(lake.workspace, as_of, Settings()).spec == made.spec
    assert snapshot.load_current(lake.workspace).spec == made.spec


@pytest.mark.parametrize("content", [{"format": 99}, [], {"as_of": 5}])
def test_a_snapshot_that_says_something_else(lake_of, content):
    lake = lake_of({"transactions": [LINE]})
    ensure_snapshot(lake.workspace, datetime(2024, 2, 1), Settings())
    file = lake.workspace.online / snapshot.current_snapshot_name(lake.workspace) / "snapshot.json"
    facts = content if isinstance(content, list) else {**json.loads(file.read_text()), **content}
    file.write_text(json.dumps(facts))
    with pytest.raises(ArtifactError) as caught:
        snapshot.load_current(lake.workspace)
    assert "qianmian features" in caught.value.hint
