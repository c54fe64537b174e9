"""The most expensive models are left out until the rest is within the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.bpr import BPRRecommender
from models.recommend.ease import EASERecommender
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import OwnEventsRecommender, RepeatPurchaseRecommender
from training.selection.budget import within_budget

TRAIN = TrainingSet.from_arrays(np.zeros(10, int), np.zeros(10, int), n_users=1, n_items=1)


@pytest.fixture(autouse=True)
def costs(monkeypatch):
    for kind, seconds in ((EASERecommender, 100.0), (BPRRecommender, 30.0), (RepeatPurchaseRecommender, 1.0)):
        monkeypatch.setattr(kind, "estimated_cpu_seconds", lambda self, train, seconds=seconds: seconds)
    monkeypatch.setattr(PopularRecommender, "estimated_cpu_seconds", lambda self, train: 500.0)


def models():
    return {
        "home": {"ease": EASERecommender(), "bpr": BPRRecommender(), "repeat": RepeatPurchaseRecommender()},
        "discover": {"ease": EASERecommender(), "bpr": BPRRecommender(), "popular": PopularRecommender()},
    }


@pytest.mark.parametrize(
    ("budget", "left"),
    [(1_000.0, {}), (631.0, {}), (630.0, {"bpr": 30.0}), (50.0, {"bpr": 30.0}), (40.0, {"bpr": 30.0, "ease": 100.0})],
)
def test_base_models_go_first_and_the_simplest_stays(budget, left):
    """`ease` is the first candidate of both tasks, their main model."""
    kept, too_expensive = within_budget(models(), TRAIN, budget)
    assert too_expensive == left  # a model of two tasks counts once: 100 + 30 + 1 + 500
    for task, candidates in models().items():
        assert list(kept[task]) == [name for name in candidates if name not in left]


def test_models_for_several_types_are_left_out_where_there_is_one():
    candidates = {"home": {"own events": OwnEventsRecommender(), "repeat": RepeatPurchaseRecommender()}}
    assert list(within_budget(candidates, TRAIN, 100.0)[0]["home"]) == ["repeat"]
    views = replace(TRAIN, auxiliary=replace(TRAIN.interactions, types=np.ones(10, np.int8)))
    assert list(within_budget(candidates, views, 100.0)[0]["home"]) == ["own events", "repeat"]


def test_of_models_that_cost_the_same_the_first_is_left_out():
    """The choice is that of the candidates' order, and not that of a set, which changes between processes."""
    equal = {f"ease {place}": EASERecommender(regularization=float(place + 1)) for place in range(8)}
    candidates = {"home": {"bpr": BPRRecommender(), **equal, "repeat": RepeatPurchaseRecommender()}}
    kept, _ = within_budget(candidates, TRAIN, 431.0)
    assert list(kept["home"]) == ["bpr", "ease 4", "ease 5", "ease 6", "ease 7", "repeat"]
