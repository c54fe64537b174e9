"""The next basket where the right answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Query
from models.recommend.next_basket.model import NextBasketRecommender
from models.recommend.next_basket.orders import Orders
from qianmian.errors import UsageError


def baskets_of(*customers, n_items, gap_days=None):
    """A training set of each customer's baskets, the oldest first; with `gap_days` the last one was a day ago."""
    lines = [
        (user, item, place, len(baskets) - 1 - place)
        for user, baskets in enumerate(customers)
        for place, basket in enumerate(baskets)
        for item in basket
    ]
    users, items, orders, back = (np.array(column) for column in zip(*lines, strict=True))
    ages = None if gap_days is None else 1.0 + back * float(gap_days)
    return TrainingSet.from_arrays(users, items, n_users=len(customers), n_items=n_items, orders=orders, age_days=ages)


def scores(model, users, recent_interactions=None, elapsed_days=0.0):
    return model._scores(
        Query(np.asarray(users, dtype=np.int64), recent_interactions=recent_interactions, elapsed_days=elapsed_days)
    )


def test_what_is_bought_again_depends_on_the_item():
    """Everybody buys milk (0) every time; the other items are bought once in a life."""
    customers = [[[0, 1 + 4 * u + place] for place in range(4)] for u in range(6)]
    model = NextBasketRecommender(neighbour_weight=0.0).fit(baskets_of(*customers, n_items=25))
    assert model.item_rate_[0] > 1.5 * model.item_rate_[1:].max()
    ranked = model.recommend(range(6), 5)
    assert (ranked.ids[:, 0] == 0).all()
    for user, (ids, valid) in enumerate(zip(ranked.ids, ranked.valid, strict=True)):
        assert valid == 5
        assert set(ids[1:].tolist()) == {1 + 4 * user + place for place in range(4)}
        assert ids[1] == 4 + 4 * user  # of what never came back, the latest first


def test_share_and_rates_are_the_formula():
    train = baskets_of([[0], [0, 1], [1]], [[1], [1]], n_items=2, gap_days=10)
    model = NextBasketRecommender(half_life_days=10.0, neighbour_weight=0.0, fresh_half_life_days=1e9).fit(train)
    # shares before each later order; ages 21, 11, 1 and 11, 1
    s = {"b": 0.5 / 1.5, "c0": (0.25 + 0.5) / 1.75, "c1": 0.5 / 1.75, "d": 0.5 / 1.5}
    usual = (3 + 1) / (sum(s.values()) + 2)  # of the shares, 0 came back once, 1 twice
    again = np.array([(1 + 3 * usual) / (s["b"] + s["c0"] + 3), (2 + 3 * usual) / (s["c1"] + s["d"] + 3)])
    np.testing.assert_allclose(model.item_rate_, again, rtol=1e-5)
    customer = (2 + 3) / ((s["b"] + s["c0"]) * again[0] + s["c1"] * again[1] + 3)
    np.testing.assert_allclose(model.customer_rate_[0], customer, rtol=1e-5)
    a, b, c = 2 ** -(np.array([21, 11, 1]) / 10)
    expected = again * customer * np.array([a + b, b + c]) / (1 + a + b + c)
    np.testing.assert_allclose(scores(model, [0])[0], expected, rtol=1e-5)


def test_neighbours_say_what_came_next_not_what_they_have():
    """After 0 and 1 everybody bought 2, whatever they had before; who stands at 0 and 1 now is told 2."""
    others = [[[0, 1], [2], [3 + u]] for u in range(8)]
    model = NextBasketRecommender(neighbour_weight=1.0, neighbours=8).fit(baskets_of(*others, [[0, 1]], n_items=11))
    ranked = model.recommend([8], 1, exclude_purchased=True)
    assert ranked.ids.tolist() == [[2]]
    assert scores(model, [8])[0, 2] == pytest.approx(1.0, abs=1e-5)  # all eight neighbours went on to it


def test_the_weight_is_chosen_by_what_the_customers_did():
    loyal = [[[u], [u], [u], [u]] for u in range(40)]
    assert NextBasketRecommender().fit(baskets_of(*loyal, n_items=40)).weight_ == 0.0
    # nobody buys anything twice and everybody goes through the same items: the neighbours are all there is to go by
    led = [[[place] for place in range(u % 3, u % 3 + 14)] for u in range(60)]
    assert NextBasketRecommender(neighbours=20).fit(baskets_of(*led, n_items=16)).weight_ > 0.0


def test_the_weight_is_not_chosen_on_the_answers_it_is_asked_for():
    """What the neighbours bought last, the probed customer among them, is shut out of the choice."""
    # of each customer the last order is all their own, so that only their own state knows it
    customers = [[[0], [0], [0], [1 + u]] for u in range(40)]
    model = NextBasketRecommender().fit(baskets_of(*customers, n_items=41))
    assert model.weight_ == 0.0  # with its own answer in sight, a neighbour would win


def test_time_counts_in_days_and_untimed_orders_are_spaced():
    baskets = ([[0], [1]], [[1], [0]], [[0], [1]])
    spaced = NextBasketRecommender(days_per_order=7.0).fit(baskets_of(*baskets, n_items=2))
    timed = NextBasketRecommender().fit(
        TrainingSet.from_arrays(
            np.array([0, 0, 1, 1, 2, 2]),
            np.array([0, 1, 1, 0, 0, 1]),
            n_users=3,
            n_items=2,
            age_days=np.array([14.0, 7.0] * 3),
        )
    )
    np.testing.assert_allclose(scores(spaced, range(3)), scores(timed, range(3)), rtol=1e-6)


def test_lines_of_a_day_are_an_order_where_none_is_known():
    lines = Interactions(
        np.zeros(4, np.int32),
        np.array([0, 1, 1, 2], np.int32),
        np.array([9.2, 9.7, 3.0, 3.0], np.float32),
        np.ones(4, np.float32),
        (2, 3),
    )
    orders = Orders.of(lines, None)
    assert orders.baskets.toarray().tolist() == [[1, 1, 0], [0, 1, 1]]
    assert orders.starts.tolist() == [0, 2, 2]
    np.testing.assert_allclose(orders.ages, [9.7, 3.0], rtol=1e-6)


@pytest.mark.parametrize("gap_days", [None, 5.0])
def test_folding_in_is_having_known_it(gap_days):
    """Told after the fit or known at the fit: the customer's share and taste are the same (ρ and the states are those of the fit)."""
    rng = np.random.default_rng(3)
    customers = [[rng.choice(12, 3, replace=False).tolist() for _ in range(5)] for _ in range(12)]
    whole = baskets_of(*customers, n_items=12, gap_days=gap_days)
    lines = whole.interactions
    late = (lines.users == 4) & (lines.orders >= 3)
    before = NextBasketRecommender(neighbour_weight=0.7).fit(whole.with_interactions(lines.where(~late)))
    told = lines.where(late)
    told = replace(told, users=np.zeros_like(told.users), shape=(1, 12))
    after = NextBasketRecommender(neighbour_weight=0.7).fit(whole)
    after.item_rate_, after.customer_rate_, after.idf_ = before.item_rate_, before.customer_rate_, before.idf_
    after.states_, after.next_baskets_ = before.states_, before.next_baskets_
    after.state_at_fit_ = after._current_state(Query(np.arange(12)))
    np.testing.assert_allclose(scores(before, [4], told), scores(after, [4]), rtol=1e-4)
    assert not np.allclose(scores(before, [4], told), scores(before, [4]))


def test_a_stranger_is_answered_from_what_was_just_bought():
    customers = [[[0, 1], [2, 3]] for _ in range(6)] + [[[4, 5], [6, 7]] for _ in range(6)]
    model = NextBasketRecommender(neighbour_weight=1.0, neighbours=6).fit(baskets_of(*customers, n_items=8))
    recent_interactions = Interactions(
        np.zeros(2, np.int32), np.array([4, 5], np.int32), np.zeros(2, np.float32), np.ones(2, np.float32), (1, 8)
    )
    assert set(
        model.recommend([-1], 2, recent_interactions=recent_interactions, exclude_purchased=True).ids[0].tolist()
    ) == {6, 7}
    assert model.recommend([-1], 2).valid.tolist() == [0]


def test_what_is_told_later_lets_the_old_fade():
    train = baskets_of([[0], [0], [0]], [[1], [1]], n_items=3, gap_days=7)
    model = NextBasketRecommender(neighbour_weight=0.0).fit(train)
    recent_interactions = Interactions(
        np.zeros(1, np.int32), np.array([2], np.int32), np.zeros(1, np.float32), np.ones(1, np.float32), (1, 3)
    )
    soon, late = scores(model, [0], recent_interactions, 1.0)[0], scores(model, [0], recent_interactions, 400.0)[0]
    assert late[0] < soon[0]
    assert late[2] > soon[2]  # the share of the orders that had it


def test_a_year_without_an_order_changes_no_taste():
    """Neighbours are found by the direction of the vector: an age that all orders share is none."""
    customers = [[[0, 1], [2], [1]], [[0], [1, 2], [0]]]
    near, far = (baskets_of(*customers, n_items=3, gap_days=3) for _ in range(2))
    far = far.with_interactions(replace(far.interactions, age_days=far.interactions.age_days + np.float32(3650.0)))
    one, other = (NextBasketRecommender().fit(train) for train in (near, far))
    np.testing.assert_allclose(
        one._current_state(Query(np.arange(2)))[1].toarray(),
        other._current_state(Query(np.arange(2)))[1].toarray(),
        rtol=1e-5,
    )
    assert np.isfinite(scores(other, [0, 1])).any()


def test_bounded_by_the_latest():
    rng = np.random.default_rng(0)
    customers = [[rng.choice(20, 3, replace=False).tolist() for _ in range(12)] for _ in range(10)]
    train = baskets_of(*customers, n_items=20, gap_days=4)
    model = NextBasketRecommender(max_states=15, orders_per_customer=3).fit(train)
    assert model.states_.shape == (20, 15)
    orders = model.orders_
    assert (orders.starts[orders.owners[model.next_orders_] + 1] - model.next_orders_ <= 3).all()
    assert orders.ages[model.next_orders_].max() <= 1 + 2 * 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 30))
def test_blocks_and_look_ups_agree(seed, timed, k):
    """Dense scores, single look-ups, lists and small blocks are one answer, and every score is a number ≥ 0."""
    rng = np.random.default_rng(seed)
    customers = [
        [rng.choice(9, rng.integers(1, 4), replace=False).tolist() for _ in range(rng.integers(1, 6))] for _ in range(7)
    ]
    model = NextBasketRecommender(neighbours=5).fit(baskets_of(*customers, n_items=9, gap_days=2.5 if timed else None))
    query = Query(np.array([0, 3, -1, 6, 3]))
    dense = model._scores(query)
    assert (dense[np.isfinite(dense)] >= 0).all()
    assert np.isneginf(dense[2]).all()
    ids = np.tile(np.arange(9), (5, 1))
    np.testing.assert_array_equal(model._score_items(query, ids), dense)
    ranked = model.recommend(query.users, k)
    for row, (found, values, valid) in enumerate(zip(ranked.ids, ranked.scores, ranked.valid, strict=True)):
        np.testing.assert_array_equal(values[:valid], dense[row, found[:valid]])
        assert valid == min(k, int(np.isfinite(dense[row]).sum()))
    for row, user in enumerate(query.users.tolist()):
        np.testing.assert_array_equal(model.recommend([user], k).ids[0], ranked.ids[row])


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_life_days": 0.0},
        {"taste_half_life_days": -1.0},
        {"neighbours": 0},
        {"neighbour_weight": -0.1},
        {"fresh_half_life_days": 0.0},
        {"max_states": 0},
        {"orders_per_customer": 0},
        {"days_per_order": 0.0},
    ],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(UsageError, match="next_basket"):
        NextBasketRecommender(**wrong).fit(baskets_of([[0], [0]], n_items=1))


def test_a_query_is_worked_out_once_and_another_anew():
    model = NextBasketRecommender(neighbour_weight=0.5).fit(baskets_of([[0], [0, 1]], [[1], [2]], n_items=3))
    query = Query(np.array([0, 1]))
    assert model._candidates(query) is model._candidates(query)
    assert (
        model._candidates(query.take(np.array([1]))).toarray().tolist()
        == model._candidates(query)[[1]].toarray().tolist()
    )
    other = NextBasketRecommender(neighbour_weight=0.0).fit(baskets_of([[0], [0, 1]], [[1], [2]], n_items=3))
    assert other._candidates(query) is not model._candidates(query)


def test_evidence_counts_orders_and_tells_the_last_where_there_is_time():
    customers = ([[0], [0, 1], [2]], [[1], [2]])
    timed, untimed = (
        NextBasketRecommender().fit(baskets_of(*customers, n_items=4, gap_days=gap)) for gap in (10, None)
    )
    assert timed.evidence(0, 0) == {"times": 2, "last_days": 11.0}
    assert timed.evidence(1, 2) == {"times": 1, "last_days": 1.0}
    assert timed.evidence(1, 0) is None
    assert timed.evidence(0, 3) is None
    assert untimed.evidence(0, 0) == {"times": 2}
