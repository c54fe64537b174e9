"""Weights of the types of interaction and the number of factors are those of the data."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from features.interaction_types import INTERACTION_TYPES
from features.interactions import Interactions, TrainingSet, sorted_interactions
from qianmian.model_settings import RecommendSettings
from training.holdout import NO_START, HoldoutSplit
from training.selection import parameters
from training.selection.parameters import short_search
from training.selection.trials import ParameterTrials
from training.selection.type_weights import learn_type_weights, usual_weights
from training.tasks import TASKS

USERS, GROUPS, SIZE = 400, 20, 6
ITEMS = GROUPS * SIZE
SETTINGS = RecommendSettings()
rng = np.random.default_rng(0)
OWN = rng.integers(0, GROUPS, USERS)  # the group of items that each customer wants


def of_group(group, each, seed):
    """`each` items of its group for every customer."""
    drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(SIZE), (USERS, 1)), axis=1)[:, :each]
    return np.repeat(np.arange(USERS), each), (group[:, None] * SIZE + drawn).ravel()


def anywhere(each, seed):
    return np.repeat(np.arange(USERS), each), np.random.default_rng(seed).integers(0, ITEMS, USERS * each)


def interactions(kind, pairs, n_users=USERS, n_items=ITEMS, age=3.0):
    users, items = pairs
    ones = np.ones(len(users), np.float32)
    code = np.full(len(users), INTERACTION_TYPES.index(kind), np.int8)
    return sorted_interactions(
        users.astype(np.int32), items.astype(np.int32), age * ones, ones, (n_users, n_items), types=code
    )


def validation(bought, later, **others):
    """Purchases before and in the validation period, and interactions of other types before it."""
    users, items = bought
    train = TrainingSet.from_arrays(users, items, n_users=USERS, n_items=ITEMS, age_days=np.full(len(users), 5.0))
    parts = [interactions(kind, pairs) for kind, pairs in others.items()]
    auxiliary = reduce(Interactions.merged, parts) if parts else None
    held = replace(interactions("purchase", later), types=None)
    return HoldoutSplit(replace(train, auxiliary=auxiliary), held, "made up", NO_START)


def learnt(name, split, found=()):
    trials = ParameterTrials(name, SETTINGS, 0, TASKS["home"].examples(split.train, split.holdout, 0))
    learn_type_weights(trials, usual_weights(split.train), found)
    return trials.chosen


def test_usual_weights_are_relative_to_the_target():
    split = validation(anywhere(2, 1), of_group(OWN, 2, 2), view=anywhere(3, 3), cart=anywhere(1, 4))
    assert usual_weights(split.train) == pytest.approx({"view": 0.2, "cart": 0.6})
    assert list(usual_weights(split.train)) == ["view", "cart"]  # the most frequent first
    assert usual_weights(split.train.with_interactions(split.train.interactions)) == {}


def test_views_that_tell_what_is_bought_count_and_carts_that_do_not_are_left_out():
    split = validation(anywhere(2, 1), of_group(OWN, 2, 2), view=of_group(OWN, 3, 3), cart=anywhere(5, 4))
    assert set(learnt("item_knn", split)["type_weights"]) == {"view"}
    own = learnt("own_events", split)["type_weights"]
    assert own.get("view", 0.0) > own.get("cart", 0.0)


def test_types_that_tell_nothing_stay_without_weight():
    split = validation(of_group(OWN, 2, 1), of_group(OWN, 2, 2), view=anywhere(8, 3))
    assert "type_weights" not in learnt("item_knn", split)
    assert learnt("own_events", split) == {} or learnt("own_events", split)["type_weights"].get("view", 0.0) < 0.2


def test_a_model_whose_fit_is_expensive_tries_what_another_has_found():
    split = validation(anywhere(2, 1), of_group(OWN, 2, 2), view=of_group(OWN, 3, 3), cart=anywhere(5, 4))
    assert learnt("ease", split, [{"view": 0.2}])["type_weights"] == {"view": 0.2}


def test_a_shop_with_purchases_alone_pays_nothing(monkeypatch):
    split = validation(of_group(OWN, 2, 1), of_group(OWN, 2, 2))
    monkeypatch.setattr(parameters, "learn_type_weights", lambda *of: pytest.fail("there is one type"))
    monkeypatch.setattr(parameters, "SHORT_SEARCH", {"own_events": {"half_life_days": (1.0,)}, "item_knn": {}})
    assert short_search(SETTINGS, 0, split, 100.0, lambda line: None) == {}


def test_the_search_learns_weights_and_says_them(monkeypatch):
    split, said = validation(anywhere(2, 1), of_group(OWN, 2, 2), view=of_group(OWN, 3, 3)), []
    monkeypatch.setattr(parameters, "SHORT_SEARCH", {"item_knn": {}, "ease": {}})
    found = short_search(SETTINGS, 0, split, 100.0, said.append)
    assert set(found["item_knn"]["type_weights"]) == {"view"}
    assert set(found["ease"]["type_weights"]) == {"view"}
    assert "item_knn.type_weights view 0.2" in said[-1]
    given = SETTINGS.model_copy(update={"models": {"item_knn": {"type_weights": {"view": 9.0}}}})
    assert "item_knn" not in short_search(given, 0, split, 100.0, said.append), "weights of the settings stay"


@pytest.mark.parametrize(("tastes", "size", "enough"), [(4, 50, 64), (120, 4, 128)])
def test_the_number_of_factors_is_enough_for_the_tastes(monkeypatch, tastes, size, enough):
    """Each customer has one of `tastes` disjoint groups of `size` items, which is the rank of the purchases."""
    n_users, n_items, draw = 600, tastes * size, np.random.default_rng(1)
    taste = draw.integers(0, tastes, n_users)

    def bought(each):
        items = taste[:, None] * size + draw.integers(0, size, (n_users, each))
        return np.repeat(np.arange(n_users), each), items.ravel()

    users, items = bought(3)
    ages = np.full(len(users), 5.0)
    train = TrainingSet.from_arrays(users, items, n_users=n_users, n_items=n_items, age_days=ages)
    held = replace(interactions("purchase", bought(2), n_users, n_items), types=None)
    monkeypatch.setattr(parameters, "SHORT_SEARCH", {"ials": {"factors": parameters.SHORT_SEARCH["ials"]["factors"]}})
    found = short_search(SETTINGS, 0, HoldoutSplit(train, held, "made up", NO_START), 100.0, lambda line: None)
    assert found.get("ials", {}).get("factors", 64) == enough
