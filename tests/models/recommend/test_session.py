"""Models of a session on small trails whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import INTERACTION_TYPES, Interactions, TrainingSet
from models.recommend.session.examples import divided_visits, period_examples
from models.recommend.session.features import SessionStatistics
from models.recommend.session.links import transitions, visit_links
from models.recommend.session.model import SessionRecommender
from models.recommend.session.neighbours import SessionItemKNNRecommender, SessionTransitionsRecommender
from models.recommend.session.trails import Trails
from qianmian.errors import DataError

MINUTE = 1.0 / 1440.0
VIEW, CART, PURCHASE = (INTERACTION_TYPES.index(name) for name in ("view", "cart", "purchase"))


def interactions(rows, n_users, n_items, *, typed=True):
    """Interactions of rows (user, item, age in days, type)."""
    users, items, ages, kinds = (np.array(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Interactions(
        np.asarray(users, np.int32),
        np.asarray(items, np.int32),
        np.asarray(ages, np.float32),
        np.ones(len(users), np.float32),
        (n_users, n_items),
        types=np.asarray(kinds, np.int8) if typed else None,
    )


def training(rows, n_users, n_items):
    """A training set whose target is purchases, and whose other rows are auxiliary."""
    bought = [row for row in rows if row[3] == PURCHASE]
    other = [row for row in rows if row[3] != PURCHASE]
    empty = TrainingSet.from_arrays([], [], n_users=n_users, n_items=n_items)
    return replace(
        empty,
        interactions=interactions(bought, n_users, n_items, typed=False),
        auxiliary=interactions(other, n_users, n_items),
    )


def pairs_in_visits(n_users=40, n_items=20, visits=6, seed=0):
    """Visits in which the even item 2i is viewed, then the odd item 2i + 1; the pairs are drawn at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        for visit in range(visits):
            at, first = 1.0 + 3.0 * visit + rng.random(), 2 * int(rng.integers(n_items // 2))
            rows += [(user, first, at, VIEW), (user, first + 1, at - MINUTE, VIEW)]
    return rows


def test_visits_end_after_half_an_hour_and_go_across_tables():
    bought, viewed = (
        interactions([(0, 2, 0.5, 0)], 1, 3, typed=False),
        [(0, 0, 0.5 + 20 * MINUTE, VIEW), (0, 1, 2.0, VIEW)],
    )
    trails = Trails.of(bought, interactions(viewed, 1, 3), shape=(1, 3))
    assert trails.items.tolist() == [1, 0, 2]
    assert trails.kinds.tolist() == [VIEW, VIEW, PURCHASE]
    assert trails.visits().tolist() == [0, 1, 1]
    assert trails.last_visits().items.tolist() == [0, 2]
    assert trails.before(0.5).items.tolist() == [1, 0]


def test_links_have_a_direction_only_where_time_has_one():
    rows = [(user, item, 1.0 - place * MINUTE, VIEW) for user in range(3) for place, item in enumerate((0, 1, 2))]
    trails = Trails.of(interactions(rows, 3, 3), shape=(3, 3))
    near, follow = visit_links(trails).toarray(), transitions(trails, steps=1).toarray()
    np.testing.assert_allclose(near, [[0, 1, 1], [1, 0, 1], [1, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(follow, [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_a_stranger_with_one_view_is_shown_what_follows_it():
    train = training(pairs_in_visits(), 40, 20)
    seen = interactions([(0, 6, MINUTE, VIEW)], 1, 20)
    for model in (SessionTransitionsRecommender(), SessionItemKNNRecommender()):
        model.fit(train)
        assert model.auxiliary_types == ("view",)
        assert model.recommend([-1], 1, recent_auxiliary=seen).ids[0].tolist() == [7]
        assert model.recommend([-1], 1, items=[np.array([6])]).ids[0].tolist() == [7]  # the same as a context item
    blend = SessionRecommender().fit(train)
    shown = blend.recommend([-1], 3, recent_auxiliary=seen)
    assert shown.ids[0][0] == 7
    assert blend.recommend([-1], 20).valid[0] >= 5  # without any event, popular items


def test_the_newer_item_of_a_visit_counts_more():
    model = SessionTransitionsRecommender(decay=0.5).fit(training(pairs_in_visits(), 40, 20))
    seen = interactions([(0, 2, 3 * MINUTE, VIEW), (0, 8, MINUTE, VIEW)], 1, 20)
    assert model.recommend([-1], 2, recent_auxiliary=seen).ids[0].tolist() == [9, 3]


def test_an_old_visit_is_not_continued():
    model = SessionTransitionsRecommender().fit(training(pairs_in_visits(), 40, 20))
    seen = interactions([(0, 2, 2.0, VIEW), (0, 8, MINUTE, VIEW)], 1, 20)
    assert model.recommend([-1], 2, recent_auxiliary=seen).ids[0].tolist() == [9, -1]


def test_examples_of_visits_know_nothing_of_what_comes_then():
    rows = [(0, 5, 20.0, VIEW), (0, 0, 1.0, VIEW), (0, 1, 1.0 - MINUTE, VIEW), (0, 2, 1.0 - 2 * MINUTE, VIEW)]
    rows += [(0, 4, 0.2, VIEW)]  # a later visit of one item is no example, and does not belong to the divided one
    trails = Trails.of(interactions(rows, 1, 6), shape=(1, 6))
    for seed in range(8):
        found = divided_visits(trails, 7.0, np.random.default_rng(seed))
        given, then = found.trails.items.tolist(), sorted(found.truth.indices.tolist())
        assert (given, then) in (([5, 0], [1, 2]), ([5, 0, 1], [2]))
        assert found.trails.ages.min() == pytest.approx(MINUTE, rel=1e-3)
        assert found.since_cutoff().items.tolist() == given[1:]


def test_examples_of_a_period_count_the_wanted_types_only():
    rows = [(0, 0, 9.5, VIEW), (0, 1, 1.5, VIEW), (0, 2, 0.6, PURCHASE), (0, 3, 0.5, VIEW)]
    train = training(rows, 1, 4)
    first = next(
        period_examples(Trails.of_training(train), 1.0, np.array([PURCHASE], np.int8), np.random.default_rng(0))
    )
    assert first.trails.items.tolist() == [0, 1]
    np.testing.assert_allclose(first.trails.ages, [8.5, 0.5])
    assert first.truth.indices.tolist() == [2]
    anything = next(period_examples(Trails.of_training(train), 1.0, None, np.random.default_rng(0)))
    assert sorted(anything.truth.indices.tolist()) == [2, 3]


def test_what_is_learnt_from_the_next_purchases():
    """Every cart is bought the day after, views never are: the item in the cart ranks first, however new the views."""
    rows = []
    for user in range(60):
        day = 2.0 + user % 6
        items = [(user * 3 + step) % 30 for step in range(3)]
        rows += [
            (user, items[0], day + 0.5, CART),
            (user, items[1], day + 0.3, VIEW),
            (user, items[2], day + 0.2, VIEW),
        ]
        rows += [(user, items[0], day - 0.5, PURCHASE)]
    rows += [(60, 11, 0.9, CART), (60, 12, 0.2, VIEW), (60, 13, 0.1, VIEW)]
    model = SessionRecommender(horizon_days=1.0, predicts="target").fit(training(rows, 61, 30))
    assert model.recommend([60], 1).ids[0].tolist() == [11]


def test_statistics_of_a_sample_are_those_of_whole_rows():
    trails = Trails.of(interactions(pairs_in_visits(), 40, 20), shape=(40, 20))
    some = trails.sampled(240)
    assert 0 < len(np.unique(some.rows)) < 40
    assert len(some) == 12 * len(np.unique(some.rows))  # of each drawn row, all entries
    assert SessionStatistics.of(trails, np.zeros(20, np.int64)).by_category.shape == (1, 20)


def test_orders_alone_are_refused_where_visits_are_needed():
    orders = TrainingSet.from_arrays([0, 0, 1], [0, 1, 0], n_users=2, n_items=2)
    with pytest.raises(DataError, match="only orders"):
        SessionItemKNNRecommender(orders_are_visits=False).fit(orders)
    assert SessionItemKNNRecommender().fit(orders).recommend([1], 1).ids.tolist() == [[1]]
