"""The baselines and the protocol of the intent benchmark, on events whose answers are known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PURCHASE, VIEW, CART = 0, 1, 2


@pytest.fixture
def intent(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(
        "benchmarks_recommenders_intent", BENCHMARKS / "recommenders_intent.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def events_of(intent, rows, n_items=12):
    """Events of rows (user, item, day, kind)."""
    users, items, days, kinds = (
        np.array(column) for column in zip(*sorted(rows, key=lambda row: (row[0], row[2])), strict=True)
    )
    return intent.Events(users, items, days.astype(float), kinds.astype(np.int8), np.full(n_items, "c"))


def test_truth_is_of_the_day_and_of_customers_with_a_history(intent):
    rows = [(0, 1, 0.5, VIEW), (0, 2, 1.0, VIEW), (0, 3, 1.5, PURCHASE), (0, 4, 2.0, VIEW), (1, 5, 1.2, PURCHASE)]
    events = events_of(intent, rows)
    users, truth = events.truth(1.0, "next action")
    assert users.tolist() == [0]  # the other customer has no history
    assert sorted(truth.indices.tolist()) == [2, 3]
    users, truth = events.truth(1.0, "next purchase")
    assert (users.tolist(), truth.indices.tolist()) == ([0], [3])


def test_the_training_set_knows_the_past_by_type(intent):
    rows = [(0, 1, 0.5, VIEW), (0, 2, 0.75, CART), (0, 3, 0.9, PURCHASE), (0, 4, 1.0, VIEW), (1, 4, 3.0, VIEW)]
    train = events_of(intent, rows).training_set(1.0, "purchase")
    assert train.interactions.items.tolist() == [3]
    assert train.auxiliary.items.tolist() == [1, 2]
    assert train.auxiliary.types.tolist() == [VIEW, CART]
    np.testing.assert_allclose(train.auxiliary.age_days, [0.5, 0.25])


def test_baselines(intent):
    # user 0 met 1 often and long ago, 2 once and just now, 3 in the cart; item 5 is met with 2 by user 1
    rows = [(0, 1, 0.1, VIEW), (0, 1, 0.2, VIEW), (0, 3, 0.3, CART), (0, 2, 3.9, VIEW)]
    rows += [(1, 2, 2.1, VIEW), (1, 5, 2.2, VIEW), (1, 5, 2.3, VIEW)]
    past = events_of(intent, rows)
    assert intent.own_events(past, 4.0, None, False)[0][:3].tolist() == [1, 2, 3]
    assert intent.own_events(past, 4.0, None, True)[0][:3].tolist() == [3, 1, 2]
    assert intent.own_events(past, 4.0, 0.5, True)[0][0] == 2
    assert intent.session_item_knn(past, 4.0, 0.9)[0].tolist() == [5] + [-1] * 9
    assert intent.popular(past, 4.0, 1.85)[0][:2].tolist() == [5, 2]
    assert intent.popular(past, 4.0, 1.0)[0][0] == 2


def test_the_shop_of_the_benchmark_is_that_of_the_command(intent, monkeypatch):
    monkeypatch.setattr(intent, "SHOP", {**intent.SHOP, "customers": 60, "days": 60})
    shop = intent.synthetic_shop()
    assert shop.shape[1] <= 240
    assert shop.days.max() < 60
    assert set(shop.kinds.tolist()) == {PURCHASE, VIEW, CART, 3}
    assert (np.diff(shop.users) >= 0).all()
    assert (np.diff(shop.days)[np.diff(shop.users) == 0] >= 0).all()
