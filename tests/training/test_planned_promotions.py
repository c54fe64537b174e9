"""Training warns of a plan that knows what sold, and of one that no past moment knew."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.data.sources.files import FileSource
from features.interactions import TrainingSet
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.models.recommend.promoted_shop import promotions_of
from training.holdout import HoldoutSplit
from training.jobs import recommend
from training.jobs.base import TrainingContext
from training.planned_promotions import promotion_notes

N_ITEMS, HORIZON = 400, 28
BUILDER = SimpleNamespace(states={"promotions": SimpleNamespace(rows=100)})


@pytest.fixture(scope="module")
def sales():
    """Sales before and after a cutoff, of items of which the popular ones sell nearly always."""
    rng = np.random.default_rng(0)
    chance = 1.2 / np.arange(1, N_ITEMS + 1) ** 0.4 / 3
    before, after = ((rng.random((30, N_ITEMS)) < chance / 4).nonzero() for _ in range(2))
    train, later = (
        TrainingSet.from_arrays(users, items, n_users=30, n_items=N_ITEMS, age_days=np.full(len(items), age))
        for (users, items), age in ((before, 10.0), (after, 0.0))
    )
    return train, later.interactions


def notes(sales, items):
    train, later = sales
    planned = promotions_of([(int(item), "mailer", -2, -9, 5, 1.0) for item in items], N_ITEMS)
    split = HoldoutSplit(replace(train, promotions=planned), later, "2024-03-01 to 2024-03-29", datetime(2024, 3, 1))
    return promotion_notes(BUILDER, split, HORIZON)


def test_an_honest_plan_is_silent(sales):
    rng = np.random.default_rng(1)
    sold = np.unique(sales[1].items)
    assert 100 < len(sold) < N_ITEMS - 100
    assert notes(sales, rng.permutation(N_ITEMS)[:80]) == ()
    assert notes(sales, np.arange(60)) == ()  # the bestsellers, nearly all of which sell again
    assert notes(sales, np.arange(N_ITEMS)) == ()  # all items are promoted
    assert notes(sales, rng.permutation(N_ITEMS)[:380]) == ()


def test_a_plan_of_what_sold_is_said_to_know_it(sales):
    sold = np.unique(sales[1].items)
    (text,) = notes(sales, sold)
    assert text.startswith("warning: the promotions planned for 2024-03-01 to 2024-03-29 name 100% of the items that")
    assert "and 0% of those that did not" in text
    assert "`known_at`" in text


def test_a_plan_of_a_part_of_what_sold_is_said_too(sales):
    rng = np.random.default_rng(2)
    sold = np.unique(sales[1].items)
    (text,) = notes(sales, sold[rng.random(len(sold)) < 0.6])
    assert "items nobody had bought for 28 days, of which 100% sold" in text
    assert "name 100% of the items that sold" not in text


def test_a_table_that_no_past_moment_knew_is_said(sales):
    train, later = sales
    split = HoldoutSplit(train, later, "", datetime(2024, 3, 1))
    (text,) = promotion_notes(BUILDER, split, HORIZON)
    assert text.startswith("promotions: none of the 100 was known before 1970-01-01")
    assert promotion_notes(SimpleNamespace(states={}), split, HORIZON) == ()


def test_training_says_so_before_it_chooses(tmp_path, monkeypatch):
    """A table made from the sales, with a `known_at` that pretends to be a plan."""
    workspace = Workspace(tmp_path / "shop")
    ingest(workspace, SOURCES["synthetic"](customers=150, days=120, seed=3), Settings())
    lake = Lake(workspace)
    end = lake.default_as_of
    sales = (
        f"SELECT DISTINCT item_id, ts::DATE AS start FROM transactions WHERE ts >= TIMESTAMP '{end}' - INTERVAL 28 DAY "
        "AND item_id IS NOT NULL"
    )
    lake.connect().con.execute(f"COPY ({sales}) TO '{tmp_path / 'sales.csv'}'")
    (tmp_path / "plan.yaml").write_text(
        "source: plan\ntimezone: UTC\ntables:\n  promotions:\n    path: sales.csv\n    columns: {item_id: item_id, "
        "start: start, end: start::TIMESTAMP + INTERVAL 1 DAY, known_at: start::TIMESTAMP - INTERVAL 40 DAY}\n",
        encoding="utf-8",
    )
    ingest(workspace, FileSource(tmp_path / "plan.yaml"), Settings())

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(recommend, "_select_parameters", stop)
    said: list[str] = []
    with pytest.raises(Stopped):
        recommend.run(context := TrainingContext(workspace, end, Settings(), said.append))
    assert context.facts("recommend")["promotions_digest"] == lake.states()["promotions"].digest
    (warning,) = [line for line in said if line.startswith("warning: the promotions planned for")]
    assert "name 100% of the items that sold and 0% of those that did not" in warning
