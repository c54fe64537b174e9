"""`train content`: the split, the baselines, and the reasons for skipping the job."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.interactions import READ_WEIGHT
from models.recommend.content.model import ContentRecommender
from qianmian.errors import DataError
from training.jobs import content
from training.jobs.base import TrainingContext

END = datetime(2024, 5, 30)  # 150 days from 2024-01-01
START = END - timedelta(days=28)


@pytest.fixture(scope="module")
def outcome(shop, settings):
    return content.run(TrainingContext(shop, END, settings, lambda line: None))


@pytest.fixture(scope="module")
def train(shop, settings):
    return content._contents(TrainingContext(shop, START, settings, lambda line: None), START)


def test_it_beats_simple_baselines_and_recommends_new_contents(outcome):
    report = outcome.report
    for name in ("most clicked", "topic popularity", "most recent", "new first"):
        assert report.differences[f"ndcg@10:{name}"].low > 0, name
    assert {rule.difference for rule in outcome.rules} <= set(report.differences)
    places = {
        name: metrics["share_of_places@10"].value
        for name, metrics in report.slices.items()
        if name.startswith("of contents nobody")
    }
    assert places["of contents nobody had met: most clicked"] == 0.0
    assert 0.05 < places["of contents nobody had met: content"] < 0.6
    found = {
        name: metrics["recall@10"].value
        for name, metrics in report.slices.items()
        if name.startswith("of contents nobody")
    }
    assert found["of contents nobody had met: content"] > found["of contents nobody had met: topic popularity"]
    assert {"light readers", "heavy readers"} <= set(report.slices)


def test_the_bundle_contains_contents(outcome):
    bundle = outcome.bundle
    assert bundle.kind == "scenes"
    assert list(bundle.model.scenes) == ["content"]
    assert isinstance(bundle.model.scene("content").submodels[0], ContentRecommender)
    assert {"topics", "type", "item_ids", "category"} <= set(bundle.item_attributes)
    assert bundle.facts["interactions"] == "contents"
    assert bundle.as_of == END
    assert len(bundle.item_ids) == 130


def test_contents_read_before_are_not_relevant(train):
    """The relevant contents are read in the test period by customers with a history who had not read them before."""
    rng = np.random.default_rng(0)
    m = 500
    holdout = train.interactions.where(rng.integers(0, len(train.interactions.users), m))
    users, truth, read = content._evaluation_examples(train, holdout)
    data = train.interactions
    ends = {
        (user, item)
        for user, item in zip(
            data.users[data.weights >= READ_WEIGHT], data.items[data.weights >= READ_WEIGHT], strict=True
        )
    }
    rows = np.repeat(users, np.diff(truth.indptr))
    assert len(rows) > 50
    assert not ends & set(zip(rows.tolist(), truth.indices.tolist(), strict=True))
    assert read.nnz == len(ends)
    lists = content._baselines(train, read[users])
    for name, ids in lists.items():
        for row, user in enumerate(users.tolist()):
            assert not {(user, item) for item in ids[row].tolist()} & ends, name


def test_a_lake_without_contents_skips_the_job(shop, copy_workspace, settings):
    workspace = copy_workspace(shop, {"contents": "SELECT * FROM contents WHERE false"})
    with pytest.raises(DataError, match="no contents"):
        content.run(TrainingContext(workspace, END, settings, lambda line: None))


def test_too_few_readers_skip_the_job(shop, copy_workspace, settings):
    workspace = copy_workspace(
        shop, {"events": "SELECT * FROM events WHERE content_id IS NULL OR hash(source_user_id) % 40 = 0"}
    )
    with pytest.raises(DataError, match="customers with a history"):
        content.run(TrainingContext(workspace, END, settings, lambda line: None))


@pytest.mark.slow
def test_without_purchases_it_uses_content_interactions(shop, copy_workspace, settings):
    """Content interactions are sufficient without items and orders."""
    workspace = copy_workspace(
        shop,
        {
            "transactions": "SELECT * FROM transactions WHERE false",
            "events": "SELECT * FROM events WHERE content_id IS NOT NULL",
        },
    )
    lines: list[str] = []
    found = content.run(TrainingContext(workspace, END, settings, lines.append))
    assert any("purchases are not used" in line for line in lines)
    assert found.report.differences["ndcg@10:most clicked"].low > 0
    assert found.bundle.model.scene("content").submodels[0].weights_[[1, 3]].tolist() == [0.0, 0.0]
