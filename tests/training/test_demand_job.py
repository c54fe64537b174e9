"""`train demand`: planted types are found, permuted ones refused, and every refusal says what would be enough."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from qianmian.errors import DataError
from qianmian.schema import DEMAND_TYPES
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.comparison import compare
from training.decision import with_test_start
from training.demand.newcomers import Newcomers, features_at, input_columns, newcomers, supported_inputs
from training.gate import apply_gate
from training.jobs.base import TrainingContext
from training.jobs.demand import _require_newcomers, run


def context(workspace, **more) -> TrainingContext:
    return TrainingContext(workspace, Lake(workspace).default_as_of, Settings(), lambda line: None, **more)


def of_types(counts) -> Newcomers:
    types = np.repeat(np.array(DEMAND_TYPES[: len(counts)]), counts)
    return Newcomers(np.zeros((len(types), 2), dtype=np.float32), types)


@pytest.mark.slow
def test_planted_types_are_found_and_permuted_ones_refused(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    shop = {"customers": 2000, "days": 330, "seed": 3, "intent": True}
    ingest(workspace, SOURCES["synthetic"](**shop, demand_types=True), Settings())
    evaluated = run(context(workspace))
    report = apply_gate(evaluated.report, evaluated.rules)
    assert report.passed, report.reasons
    assert report.metrics["accuracy"].value > report.baselines["majority"]["accuracy"].value
    one_ids, kinds = evaluated.tags["expected_demand_type"]
    assert len(one_ids) == len(set(one_ids)) > 100
    assert set(kinds) <= set(DEMAND_TYPES)
    champion = with_test_start(evaluated).bundle
    champion.save(tmp_path / "champion")
    found = compare(evaluated.comparison, champion, "1", tmp_path / "champion")
    assert "log_loss minus that of champion 1 (as it was evaluated) is 0.0000 [0.0000, 0.0000]" in found.passed[0]
    refused = run(context(workspace, shuffle_labels=True))
    assert compare(refused.comparison, refused.bundle, "1", tmp_path / "champion").failed
    assert not apply_gate(refused.report, refused.rules).passed


@pytest.mark.parametrize(
    ("queries", "told"),
    [
        ({"events": "SELECT * FROM events WHERE false"}, "do not show what newcomers look at and buy"),
        (
            {"events": "SELECT * REPLACE (NULL::VARCHAR AS item_id, NULL::VARCHAR AS content_id) FROM events"},
            "events with `item_id` or `content_id`",
        ),
        ({"items": "SELECT * REPLACE (NULL::VARCHAR AS category) FROM items"}, "items with categories"),
        ({}, "the history is too short to tell demand types"),
    ],
    ids=["no events", "no items in events", "no categories", "short history"],
)
def test_data_that_tell_nothing_are_refused(shop, copy_workspace, queries, told):
    with pytest.raises(DataError, match=told):
        run(context(copy_workspace(shop, queries)))


def test_what_was_recorded_from_some_day_on_is_none_before(shop, copy_workspace):
    """All moments have the columns of the last one; and a moment before the first prices shows no types."""
    late = "ts >= TIMESTAMP '2024-04-01'"
    queries = {
        "events": f"SELECT * REPLACE (CASE WHEN {late} THEN content_id END AS content_id) FROM events",
        "transactions": f"SELECT * REPLACE (CASE WHEN {late} THEN amount END AS amount) FROM transactions",
    }
    changed = context(copy_workspace(shop, queries))
    features = supported_inputs(changed.builder, changed.as_of)
    spec = features_at(changed.builder, changed.as_of, features).spec
    early, later = (
        newcomers(changed.builder, datetime(2024, month, day), 21, spec) for month, day in ((2, 1), (4, 20))
    )
    assert early.X.shape[1] == later.X.shape[1] == len(input_columns(spec))
    assert len(early.types) == 0
    assert "content_event_share" in spec.names
    before = {feature.name for feature in supported_inputs(changed.builder, datetime(2024, 3, 1))}
    assert "viewed_price_level_mean" not in before, "what is recorded later is not known"


@pytest.mark.parametrize(
    ("counts", "told"), [((6, 4), "at least 50, each with 8 lines"), ((80,), "all newcomers have the same")]
)
def test_few_newcomers_or_one_type_are_refused(counts, told):
    with pytest.raises(DataError, match=told):
        _require_newcomers({"training": of_types(counts)}, 28)


def test_the_shop_without_demand_types_is_the_same_as_before_they_existed():
    """Demand types have a random stream of their own: the people, and all that is drawn for them, stay."""
    with_types, without = (
        SOURCES["synthetic"](customers=40, days=90, demand_types=flag).truth() for flag in (True, False)
    )
    kept = [name for name in without["persons"].columns if name not in ("started_at", "churned_at")]
    assert with_types["persons"][kept].equals(without["persons"][kept])
    assert set(with_types["persons"].demand_type) == set(DEMAND_TYPES)
