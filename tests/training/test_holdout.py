"""Validation and test periods, with and without timestamps."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pytest

from features.data.lake import Lake
from qianmian.errors import DataError
from training import train
from training.evaluation.protocols import hold_out
from training.holdout import HOLDOUT_SHARE, NO_START, HoldoutSplitter
from training.jobs.base import TrainingContext

CLOCK = partial(datetime, 2025, 1, 1, 12, 0)
END = datetime(2024, 5, 30)
UNDATED = {
    "transactions": "SELECT * REPLACE (NULL::TIMESTAMP AS ts) FROM transactions",
    "events": "SELECT * FROM events WHERE false",
}


def context_of(workspace, settings):
    return TrainingContext(workspace, END, settings, lambda line: None)


@pytest.fixture(scope="module")
def undated(shop, copy_workspace):
    return copy_workspace(shop, UNDATED)


def pairs(data, item_ids, user_ids):
    return set(zip(user_ids[data.users].tolist(), item_ids[data.items].tolist(), strict=True))


def test_test_follows_validation_with_timestamps(shop, settings):
    splitter = HoldoutSplitter(context_of(shop, settings))
    assert splitter.horizon_days == 28
    test, validation = splitter.test(), splitter.validation()
    assert (test.start, validation.start) == (END - timedelta(days=28), END - timedelta(days=56))
    assert test.train.as_of == test.start
    assert validation.train.user_features is not None
    for held in (test, validation):
        assert held.holdout.shape == (held.train.n_users, held.train.n_items)
        assert 0 < held.holdout.age_days.min() <= held.holdout.age_days.max() <= 28


def test_without_timestamps_a_share_of_each_customers_items_is_held_out(undated, settings):
    assert not Lake(undated).has_timestamps
    splitter = HoldoutSplitter(context_of(undated, settings))
    assert splitter.horizon_days is None
    test, validation = splitter.test(), splitter.validation()
    assert test.start == validation.start == NO_START
    assert "undated data" in test.period
    assert test.train.user_features is None  # profiles know what is held out
    learnt, wanted = (
        pairs(data, test.train.item_ids, test.train.user_ids) for data in (test.train.interactions, test.holdout)
    )
    assert learnt
    assert not learnt & wanted, "no relevant item is in the training data"
    assert len(wanted) == pytest.approx(HOLDOUT_SHARE * len(learnt | wanted), rel=0.2)
    earlier = pairs(validation.train.interactions, validation.train.item_ids, validation.train.user_ids)
    chosen_by = pairs(validation.holdout, validation.train.item_ids, validation.train.user_ids)
    assert not (earlier | chosen_by) & wanted, "the validation data contain no test data"
    assert chosen_by <= learnt
    assert np.all(np.diff(test.train.item_customers) <= 0), "ties are broken by the training data, not by the test data"


def test_hold_out_takes_one_of_two_and_never_all(undated, settings):
    whole = context_of(undated, settings).training_set(END, min_item_customers=1, with_features=False)
    kept, held = hold_out(whole, share=0.5, seed=1)
    interacted = np.bincount(whole.interactions.users, minlength=whole.n_users) > 0
    assert np.array_equal(np.bincount(kept.interactions.users, minlength=whole.n_users) > 0, interacted)
    assert len(kept.interactions.items) + len(held.items) == len(whole.interactions.items)


def test_recommend_trains_and_evaluates_undated_data(undated, settings):
    lines = []
    result = train(undated, ["recommend"], clock=CLOCK, as_of=END, settings=settings, progress=lines.append)[0]
    assert result.status in ("registered", "refused"), result.reason
    assert "home" in {task.task for task in result.report.tasks}
    assert not any("ranker is best" in line for line in lines), "a ranker needs timestamps to cut"
    ours = result.report.metrics["ndcg@10"]
    assert ours.n > 300
    assert ours.value > result.report.baselines["own purchase counts"]["ndcg@10"].value


def test_a_history_that_is_too_short_is_rejected(shop, copy_workspace, settings):
    first = "SELECT * FROM {} WHERE ts < TIMESTAMP '2024-01-03'"
    workspace = copy_workspace(shop, {name: first.format(name) for name in ("transactions", "events")})
    with pytest.raises(DataError, match="too short"):
        HoldoutSplitter(TrainingContext(workspace, datetime(2024, 1, 3), settings, lambda line: None))
