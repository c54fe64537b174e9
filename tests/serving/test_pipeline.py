"""One pipeline: in a plan of many customers, each customer gets the same list as alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import Interactions
from models.ranked import Ranked
from models.recommend.base import Query
from models.recommend.scene import SCENES
from models.rerank import Slate
from serving.recommending.pipeline import explain_short_list, make_slate
from serving.recommending.plan import RecommendationPlan
from serving.recommending.request_options import parse_list_options
from serving.recommending.rows import PROMOTION, make_rows

K = 6
EVERYONE = np.array([3, -1, 0, 7, 12])


def recent_of(users, n, n_items):
    """The customers `users` (of n) bought items 2 and 9 a day ago."""
    rows = np.repeat(np.asarray(users, dtype=np.int32), 2)
    items = np.tile(np.array([2, 9], dtype=np.int32), len(users))
    ones = np.ones(len(rows), dtype=np.float32)
    return Interactions(rows, items, ones, ones, (n, n_items), np.arange(len(rows), dtype=np.int32))


@pytest.fixture
def plan(champions):
    def make(users=EVERYONE, purchasers=(), scene="home", **options) -> RecommendationPlan:
        champion = champions.models["recommend"]
        recent_interactions = (
            recent_of(purchasers, len(users), len(champion.bundle.item_ids)) if len(purchasers) else None
        )
        query = Query(
            users, recent_interactions=recent_interactions, elapsed_days=2.0 if recent_interactions is not None else 0.0
        )
        plan = RecommendationPlan(champion, SCENES[scene], champion.catalogue.model(scene), query)
        return plan.with_options(parse_list_options(options))

    return make


def lists_of(rows):
    return [rows.columns[rows.lists == number].tolist() for number in range(len(EVERYONE))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"purchased": "never"},
        {"purchased": "only"},
        {"purchased": "only", "diversity": {"max_per": {"category/1": 2}}},
        {"promotions": [{"name": "home weeks", "filter": {"category": "home"}, "percent": 30}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("excluded", [(), (0, 4)], ids=["all", "some excluded"])
def test_many_customers_and_one(plan, options, excluded):
    together = replace(plan(purchasers=[1, 3], **options), excluded=np.array(excluded, dtype=np.int64))
    found = lists_of(make_rows(together, make_slate(together, K, lists=np.arange(len(EVERYONE)))))
    assert any(found)
    assert not {*excluded} & {column for columns in found for column in columns}
    for number, user in enumerate(EVERYONE):
        alone = plan(np.array([user]), [0] if number in (1, 3) else [], **options)
        alone = replace(alone, excluded=together.excluded)
        assert make_rows(alone, make_slate(alone, K)).columns.tolist() == found[number]


def test_some_lists_of_a_plan(plan):
    whole = plan(purchasers=[1, 3], purchased="only")
    every = lists_of(make_rows(whole, make_slate(whole, K, lists=np.arange(len(EVERYONE)))))
    some = make_rows(whole, make_slate(whole, K, lists=np.array([1, 3])), 1)
    assert some.columns[some.lists == 0].tolist() == every[1]
    assert sorted(every[1]) == [2, 9], "an unknown user has only the recent interactions"


def test_rows_say_the_place_the_source_and_the_promotion(plan):
    ids = np.array([[4, 2, -1], [-1, -1, -1], [7, -1, -1]], dtype=np.int32)
    scores = np.where(ids >= 0, 0.12345678, -np.inf).astype(np.float32)
    ranked = Ranked(ids, scores, (ids >= 0).sum(axis=1), np.where(ids >= 0, 1, -1).astype(np.int8), ("a", "b"))
    promotion = np.array([[-1, 0, -1], [-1, -1, -1], [-1, -1, -1]])
    rows = make_rows(plan(), Slate(ranked, promotion, None, ranked.valid, ranked.valid))
    assert rows.lists.tolist() == [0, 0, 2]
    assert rows.positions.tolist() == [0, 1, 0]
    assert rows.columns.tolist() == [4, 2, 7]
    assert rows.scores.tolist() == [0.123457] * 3
    assert [rows.source_names[source] for source in rows.sources.tolist()] == ["b", PROMOTION, "b"]
    assert rows.expected_on is None
    assert len(rows) == 3


def test_a_short_list_says_what_each_step_left(plan):
    some = plan(np.array([0]), purchased="only")
    some = replace(some, excluded=np.array([0, 1], dtype=np.int64))
    slate = make_slate(some, 500)
    said = explain_short_list(some, slate)
    assert "exclude leaves" in said
    assert f"keeping only previously purchased items leaves {int(slate.ranked.valid[0])}" in said
