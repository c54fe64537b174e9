"""No split leaks relevant items into the training data, and each split evaluates the documented users."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.interactions import TrainingSet
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import DataError, UsageError
from training.evaluation.protocols import (
    hold_out,
    last_basket_split,
    lightgcn_split,
    sort_items_by_popularity,
    time_split,
    user_folds,
)

QUICK = settings(deadline=None, max_examples=40)


def purchases(seed, n_users=12, n_items=9, m=150):
    """Orders of 1 to 4 lines at whole and fractional ages in days; no two orders of a customer have the same time."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, n_users, m), (rng.random(m) ** 2 * n_items).astype(int)
    orders = rng.integers(0, 5, m)  # order numbers are unique per customer, and larger ones are later
    ages = (6 - orders) * 10 + users * 0.25
    return TrainingSet.from_arrays(users, items, n_users=n_users, n_items=n_items, age_days=ages, orders=orders)


def lines(data, which=None):
    """All lines as (user, item of the data before the split, age)."""
    rows = data.interactions
    items = rows.items if which is None else which[rows.items]
    return list(zip(rows.users.tolist(), items.tolist(), rows.age_days.tolist(), strict=True))


def pairs(split, users=None):
    rows, columns = split.truth.nonzero()
    return {(int(user), int(item)) for user, item in zip(split.users[rows], split.source_items[columns], strict=True)}


# ---- time ------------------------------------------------------------------------------------------------------------


@QUICK
@given(
    st.integers(0, 10_000), st.sampled_from([5.0, 10.0, 12.75, 20.0]), st.sampled_from([0.0, 10.0]), st.integers(1, 4)
)
def test_no_row_at_or_after_the_cutoff_is_in_the_training_data(seed, horizon, ends, least):
    data = purchases(seed)
    cut = horizon + ends
    before = [(user, item, age) for user, item, age in lines(data) if age > cut]
    window = {(user, item) for user, item, age in lines(data) if ends < age <= cut}
    enough = {item for item in range(9) if len({user for user, i, _ in before if i == item}) >= least}
    history = {user for user, item, _ in before if item in enough}
    right = {(user, item) for user, item in window if item in enough and user in history}
    if not right:
        with pytest.raises(DataError):
            time_split(data, horizon, end_offset_days=ends, min_item_customers=least)
        return
    split = time_split(data, horizon, end_offset_days=ends, min_item_customers=least)
    assert sorted(lines(split.train, split.source_items)) == sorted(
        (user, item, age - cut) for user, item, age in before if item in enough
    )
    assert (split.train.interactions.age_days > 0).all()
    assert pairs(split) == right
    assert set(split.source_items.tolist()) == enough
    assert split.train.user_features is None


def test_ties_are_not_broken_by_rows_after_the_cutoff():
    # item 1 is the most popular in the test period, item 0 before it
    data = TrainingSet.from_arrays(
        [0, 1, 2, 2, 0, 1, 2],
        [0, 0, 0, 1, 1, 1, 1],
        n_users=3,
        n_items=2,
        age_days=[40.0, 40.0, 40.0, 40.0, 1.0, 1.0, 1.0],
    )
    split = time_split(data.with_interactions(data.interactions), 28)
    assert split.source_items.tolist() == [0, 1]
    turned = TrainingSet.from_arrays(
        data.interactions.users, 1 - data.interactions.items, n_users=3, n_items=2, age_days=data.interactions.age_days
    )
    assert time_split(turned, 28).source_items.tolist() == [1, 0]
    assert time_split(turned, 28).train.item_customers.tolist() == [3, 1]


def test_attributes_follow_their_items():
    data = purchases(3)
    data.item_attributes["category"] = np.array([f"c{item}" for item in range(9)])
    train, items = sort_items_by_popularity(data, 5)
    assert train.item_attributes["category"].tolist() == [f"c{item}" for item in items]
    assert train.item_ids.tolist() == items.astype(str).tolist()
    assert (np.diff(train.item_customers) <= 0).all()
    rows = train.interactions
    assert (np.diff(rows.users.astype(np.int64) * train.n_items + rows.items) >= 0).all(), "a training set is sorted"


def test_a_time_split_needs_time_and_a_window():
    untimed = TrainingSet.from_arrays([0, 0], [0, 0], n_users=1, n_items=1)
    with pytest.raises(DataError, match="no timestamps"):
        time_split(untimed, 28)
    with pytest.raises(UsageError):
        time_split(purchases(0), 0)
    with pytest.raises(DataError, match="no customer has both"):
        time_split(TrainingSet.from_arrays([0, 1], [0, 0], n_users=2, n_items=1, age_days=[40.0, 1.0]), 28)


# ---- baskets ---------------------------------------------------------------------------------------------------------


@QUICK
@given(st.integers(0, 10_000), st.integers(0, 2))
def test_the_last_basket_is_never_in_train(seed, earlier):
    data = purchases(seed)
    rows, split = data.interactions, last_basket_split(data, skip_last=earlier)
    wanted_train, right = [], set()
    for user in range(data.n_users):
        mine = [(int(o), int(i)) for u, o, i in zip(rows.users, rows.orders, rows.items, strict=True) if u == user]
        baskets = sorted({order for order, _ in mine})
        asked = baskets[-1 - earlier] if len(baskets) > earlier else None
        older = [(user, order, item) for order, item in mine if asked is not None and order < asked]
        wanted_train += older
        if older:
            right |= {(user, item) for order, item in mine if order == asked}
    train = split.train.interactions
    assert sorted(zip(train.users.tolist(), train.orders.tolist(), train.items.tolist(), strict=True)) == sorted(
        wanted_train
    )
    assert pairs(split) == right


def test_baskets_must_be_known():
    with pytest.raises(DataError, match="basket"):
        last_basket_split(TrainingSet.from_arrays([0, 0], [0, 1], n_users=1, n_items=2))


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_the_lightgcn_split_excludes_training_items():
    split = lightgcn_split((np.array([0, 0, 1]), np.array([0, 1, 1])), (np.array([0, 2]), np.array([2, 1])), n_items=4)
    assert (split.train.n_users, split.train.n_items) == (3, 4)
    assert pairs(split) == {(0, 2), (2, 1)}
    answer = split.recommend_with(PopularRecommender().fit(split.train), 4)
    assert {0, 1}.isdisjoint(answer.ids[0].tolist())
    assert answer.ids[1, 0] == 1, "a user without training rows may get every item"
    assert split.history().toarray().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]


@QUICK
@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_a_random_split_leaves_every_customer_an_item(seed, share):
    data = purchases(seed)
    every = {(user, item) for user, item, _ in lines(data)}
    train, after = hold_out(data, share=share, seed=seed)
    kept = {(user, item) for user, item, _ in lines(train)}
    held = set(zip(after.users.tolist(), after.items.tolist(), strict=True))
    assert kept & held == set()
    assert kept | held == every
    for user in range(data.n_users):
        n = sum(1 for of, _ in every if of == user)
        out = sum(1 for of, _ in held if of == user)
        assert out == (min(max(round(share * n), 1), n - 1) if n > 1 else 0)
    again = hold_out(data, share=share, seed=seed)[1]
    assert set(zip(again.users.tolist(), again.items.tolist(), strict=True)) == held


# ---- customers -------------------------------------------------------------------------------------------------------


@QUICK
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_folds_partition_the_customers_and_keep_them_out(seed, folds):
    data = purchases(seed)
    every = {(user, item) for user, item, _ in lines(data)}
    several = {user for user, _ in every if sum(1 for of, _ in every if of == user) > 1}
    asked = []
    for split in user_folds(data, folds=folds, seed=seed):
        assert set(split.users.tolist()).isdisjoint(split.train.interactions.users.tolist())
        told = {
            (int(split.users[row]), int(item))
            for row, item in zip(split.recent_interactions.users, split.recent_interactions.items, strict=True)
        }
        right = pairs(split)
        assert told & right == set()
        assert told | right == {(user, item) for user, item in every if user in set(split.users.tolist())}
        assert (np.diff(split.recent_interactions.matrix().indptr) > 0).all(), "every user has recent interactions"
        assert split.recent_interactions.shape == (len(split), data.n_items)
        asked += split.users.tolist()
    assert sorted(asked) == sorted(several)


def test_a_fold_is_ranked_from_recent_interactions():
    data = purchases(5)
    split = next(user_folds(data, folds=3))
    answer = split.recommend_with(RepeatPurchaseRecommender().fit(split.train), 9)
    interacted = split.history().toarray() > 0
    assert not any(interacted[row, item] for row, ids in enumerate(answer.ids) for item in ids if item >= 0), (
        "recent interactions are not relevant items"
    )
    with pytest.raises(UsageError):
        next(user_folds(data, folds=1))
