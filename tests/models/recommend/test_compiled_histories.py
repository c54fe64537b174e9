"""The extension gives the tables of histories and the features of NumPy to the last bit, for random purchases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.interactions import Interactions
from models.recommend.ranking import compiled
from models.recommend.ranking.compiled_histories import compiled_features, compiled_tables
from models.recommend.ranking.features import FEATURES, look_up_features
from models.recommend.ranking.histories import Histories
from models.recommend.ranking.history_tables import GROUPS, history_tables
from models.recommend.ranking.item_statistics import ITEM_FEATURES, ItemStatistics


def purchases(rng, users, items, lines, *, orders, days, gaps, columns, in_order):
    """Random lines; with few days, several orders have the same age, and with `gaps`, values are unknown."""

    def values(low):
        drawn = rng.normal(3, 2, lines).clip(low).astype(np.float32)  # amounts of 0 and below, which tell no price
        drawn[rng.random(lines) < gaps] = np.nan
        return drawn

    ages = (rng.random(lines) * days).astype(np.float32)
    ages = np.where(rng.random(lines) < 0.5, np.floor(ages), ages)
    owner, bought = rng.integers(0, users, lines), rng.integers(0, items, lines) ** 2 // items
    by = np.lexsort((ages, bought, owner)) if in_order else slice(None)
    return Interactions(
        owner.astype(np.int32)[by],
        bought.astype(np.int32)[by],
        ages[by],
        np.ones(lines, dtype=np.float32),
        (users, items),
        rng.integers(-3, 1 + lines // 3, lines).astype(np.int32) if orders else None,
        quantities=values(0) if "q" in columns else None,
        amounts=values(-1) if "a" in columns else None,
        discounts=values(-1) if "d" in columns else None,
    )


def statistics(rng, items, codes):
    table = rng.normal(1, 1, (items, len(ITEM_FEATURES))).astype(np.float32)
    table[rng.random(table.shape) < 0.2] = np.nan
    widths = [int(code.max(initial=-1)) + 1 for code in codes.values()]
    return ItemStatistics(table, codes, tuple(rng.random(width).astype(np.float32) for width in widths))


def assert_same_bits(one, other):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    np.testing.assert_array_equal(one, other)  # NaN in the same places, all other numbers equal
    np.testing.assert_array_equal(np.signbit(one) & (one == 0), np.signbit(other) & (other == 0))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    users=st.integers(0, 6),
    items=st.sampled_from([1, 3, 40, 70_000]),
    lines=st.sampled_from([0, 1, 2, 31, 32, 33, 200, 1_500]),
    orders=st.booleans(),
    days=st.sampled_from([1, 10, 400]),
    gaps=st.sampled_from([0.0, 0.3, 1.0]),
    columns=st.sets(st.sampled_from("qad")),
    in_order=st.booleans(),
)
def test_tables_and_features_are_those_of_numpy(seed, users, items, lines, orders, days, gaps, columns, in_order):
    rng = np.random.default_rng(seed)
    made = purchases(
        rng, max(users, 1), items, lines if users else 0, orders=orders, days=days, gaps=gaps, columns=columns,
        in_order=in_order,
    )  # fmt: skip
    made = made if users else Interactions(made.users, made.items, made.age_days, made.weights, (0, items))
    codes = {name: rng.integers(-1, max(1, items // 4), items) for name in GROUPS}
    reference = history_tables(made, codes)
    for table, expected in zip(compiled_tables(made, codes), reference, strict=True):
        assert_same_bits(table, expected)
    histories, items_now = Histories(*reference), statistics(rng, items, codes)
    pairs = 50 if users else 0
    rows, ids = rng.integers(0, max(users, 1), pairs), rng.integers(0, items, pairs)
    if lines and users:  # half of the pairs were bought
        rows[:25], ids[:25] = made.users[:25].repeat(25)[:25], made.items[:25].repeat(25)[:25]
    out, expected = (np.empty((pairs, len(FEATURES)), dtype=np.float32) for _ in range(2))
    compiled_features(histories, items_now, rows, ids, out)
    with np.errstate(all="ignore"):
        look_up_features(histories, items_now, rows, ids, expected)
    assert_same_bits(out, expected)


def test_the_history_of_a_customer_does_not_depend_on_who_is_with_them():
    rng = np.random.default_rng(3)
    made = purchases(rng, 5, 30, 400, orders=True, days=90, gaps=0.1, columns="qad", in_order=True)
    codes = {name: rng.integers(-1, 6, 30) for name in GROUPS}
    everyone = compiled_tables(made, codes)
    for user in range(5):
        alone = made.where(made.users == user)
        alone = Interactions(**{**vars(alone), "users": np.zeros_like(alone.users), "shape": (1, 30)})
        assert_same_bits(compiled_tables(alone, codes)[2][0], everyone[2][user])


def test_arrays_that_do_not_fit_together_are_refused():
    rng = np.random.default_rng(0)
    made = purchases(rng, 2, 9, 50, orders=True, days=90, gaps=0.0, columns="q", in_order=True)
    codes = {name: rng.integers(-1, 3, 9) for name in GROUPS}
    refused = pytest.raises(ValueError, match="do not fit together")
    with refused:
        compiled_tables(made, {**codes, "brand": codes["brand"][1:]})
    with refused:
        compiled_tables(made, {**codes, "brand": codes["brand"] + 9})
    with refused:
        compiled_tables(Interactions(**{**vars(made), "items": made.items + 9}), codes)
    with refused:
        compiled_tables(Interactions(**{**vars(made), "users": made.users - 1}), codes)
    with refused:
        compiled_tables(Interactions(**{**vars(made), "quantities": made.quantities[1:]}), codes)
    histories, items = Histories(*compiled_tables(made, codes)), statistics(rng, 9, codes)
    rows, ids = np.array([0, 1]), np.array([0, 8])
    out = np.empty((2, len(FEATURES)), dtype=np.float32)
    compiled_features(histories, items, rows, ids, out)
    for wrong in ((rows + 1, ids, out), (rows, ids + 1, out), (rows, ids[1:], out), (rows, ids, out[1:])):
        with refused:
            compiled_features(histories, items, *wrong)
    with pytest.raises(TypeError):
        compiled._features.features(rows)
