"""A new recommender beside the champion: the same customers, whose items have other places in its bundle."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.bundle import ModelBundle
from models.recommend import RECOMMENDERS
from models.recommend.fallback import FallbackChain
from models.recommend.scene_models import SceneModels
from training.comparison import compare
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.selection.comparison import home_comparison
from training.selection.report import HOME, SHIPPED_MODEL, HomeLists

START, USERS, ITEMS = datetime(2025, 3, 1), 120, 12


@pytest.fixture(scope="module")
def shop():
    """Each customer has bought one item three times and others once, and buys it again in the test period."""
    users = np.repeat(np.arange(USERS), 5)
    favourite = np.arange(USERS) % ITEMS
    items = np.column_stack([favourite, favourite, favourite, (favourite + 1) % ITEMS, (favourite + 2) % ITEMS])
    train = TrainingSet.from_arrays(users, items.ravel(), n_users=USERS, n_items=ITEMS)
    truth = interaction_matrix(np.arange(USERS), favourite, (USERS, ITEMS))
    return train, EvaluationSplit(train, np.arange(USERS), truth)


def fit(train, name):
    return FallbackChain.of([RECOMMENDERS[name]().fit(train)])


def bundle_of(train, name, as_of=START):
    """A champion that was trained on the same purchases, without the first ten customers, its items in reverse order."""
    matrix = train.interactions.matrix()[10:, ::-1].tocoo()
    users, items = np.repeat(matrix.row, matrix.data.astype(int)), np.repeat(matrix.col, matrix.data.astype(int))
    own = TrainingSet.from_arrays(users, items, n_users=USERS - 10, n_items=ITEMS)
    scenes = SceneModels({name: RECOMMENDERS[name]().fit(own)}, {HOME: [name]})
    facts = {"horizon_days": 28}
    return ModelBundle(
        "scenes", scenes, as_of, user_ids=train.user_ids[10:], item_ids=train.item_ids[::-1], facts=facts
    )


def comparison(shop, name):
    train, examples = shop
    return home_comparison(HomeLists(examples, {SHIPPED_MODEL: examples.recommend_with(fit(train, name), 20)}), START)


def test_the_same_model_has_the_same_losses_wherever_its_customers_and_items_are(shop):
    found = comparison(shop, "repeat")
    theirs = found.losses(bundle_of(shop[0], "repeat"))
    assert np.isnan(theirs[:10]).all()  # customers who came later
    np.testing.assert_allclose(theirs[10:], found.own[10:])
    assert found.own.max() == 0.0  # the favourite is the first


def test_a_worse_recommender_is_behind_the_champion_and_refused(shop, tmp_path):
    train, _ = shop
    bundle_of(train, "repeat").save(tmp_path / "repeat")
    bundle_of(train, "popular").save(tmp_path / "popular")
    new = bundle_of(train, "popular")
    worse = compare(comparison(shop, "popular"), new, "3", tmp_path / "repeat")
    assert "1 - ndcg@10 minus that of champion 3 (in production, from what it knew at 2025-03-01)" in worse.failed[0]
    better = compare(comparison(shop, "repeat"), new, "3", tmp_path / "popular")
    assert better.differences["1 - ndcg@10:champion 3"].high < 0
    assert "not behind it beyond noise" in better.passed[0]


def test_a_champion_that_knows_the_test_period_is_not_compared(shop, tmp_path):
    bundle_of(shop[0], "repeat", datetime(2025, 3, 8)).save(tmp_path / "later")
    verdict = compare(comparison(shop, "popular"), bundle_of(shop[0], "popular"), "3", tmp_path / "later")
    assert "it has learnt from days after 2025-03-01" in verdict.passed[0]
    assert not verdict.failed
