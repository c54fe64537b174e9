"""Large shops: models learn from a sample of whole customers, and what they hold at a time does not grow with the shop."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend import SINGLE_STAGE, sampling
from models.recommend.ranking import item_sums
from models.recommend.ranking.boosting import RowIterator
from models.recommend.ranking.item_sums import ItemSums
from models.recommend.ranking.spool import SpooledRows
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.sampling import learning_sample

N_USERS, N_ITEMS = 240, 24
GROUPS = ("category", "category_above", "brand")


def shop(n_users=N_USERS, seed=0):
    """Half of the customers buy the first half of the items, the others the second half, in weekly orders."""
    rng = np.random.default_rng(seed)
    rows = [
        (user, int(item), 7.0 * order + rng.uniform(0, 2) + 0.1)
        for user in range(n_users)
        for order in range(12)
        for item in (user % 2) * (N_ITEMS // 2) + rng.choice(N_ITEMS // 2, 4, replace=False)
    ]
    users, items, ages = (np.array(column) for column in zip(*rows, strict=True))
    return TrainingSet.from_arrays(users, items, n_users=n_users, n_items=N_ITEMS, age_days=ages)


@pytest.fixture
def few(monkeypatch):
    """An eighth of the interactions is the sample that models learn from."""
    monkeypatch.setattr(sampling, "LEARNING_LINES", 1_500)


def test_sample_has_whole_customers_and_is_the_same_every_time(few):
    train = shop()
    sample, again = learning_sample(train), learning_sample(shop())
    assert learning_sample(train) is sample
    np.testing.assert_array_equal(sample.interactions.users, again.interactions.users)
    before = np.bincount(train.interactions.users)
    kept = np.bincount(sample.interactions.users, minlength=N_USERS)
    assert set(kept[kept > 0] - before[kept > 0]) == {0}
    assert 1_400 < len(sample.interactions.users) <= 1_500
    assert (sample.n_users, sample.n_items) == (train.n_users, train.n_items)


def test_sample_of_a_shop_whose_only_customer_has_too_much():
    train = TrainingSet.from_arrays(np.zeros(9, int), np.arange(9), n_users=2, n_items=9)
    assert len(learning_sample(train, 5).interactions.users) == 9


LEARNING = ("ials", "item_knn", "spectral", "ease", "complement", "next_basket", "hybrid")


@pytest.mark.parametrize("name", LEARNING)
def test_customers_outside_the_sample_get_their_lists(few, name):
    """What is learnt from an eighth of the customers serves all of them: everyone is shown items of the own half."""
    train = shop()
    sampled = np.bincount(learning_sample(train).interactions.users, minlength=N_USERS) > 0
    model = SINGLE_STAGE[name](**({"components": 4} if name == "spectral" else {})).fit(train)
    others = np.flatnonzero(~sampled)
    ranked = model.recommend(others, 5)
    shown = ranked.ids >= 0
    own = (ranked.ids >= N_ITEMS // 2) == (others % 2 == 1)[:, None]
    assert shown.any(axis=1).all()
    assert own[shown].mean() > 0.9


def test_sampled_item_factors_with_all_customers_folded_in(few):
    """The factors of every customer are the exact half-step from the item factors, as for interactions after the fit."""
    train = shop()
    model = SINGLE_STAGE["ials"](factors=4).fit(train)
    np.testing.assert_allclose(model.user_factors_, model.solve(train.interactions.matrix(120.0)), rtol=1e-5)
    assert np.abs(model.user_factors_).sum(axis=1).min() > 0


def test_replenishment_of_blocks_of_customers_is_that_of_one_block(monkeypatch):
    from models.recommend.replenish import model as replenish

    train = shop(60)
    whole = replenish.ReplenishRecommender(horizon_days=7).fit(train)
    monkeypatch.setattr(replenish, "BLOCK_LINES", 100)
    blocks = replenish.ReplenishRecommender(horizon_days=7).fit(train)
    for name, values in whole._state().items():
        np.testing.assert_array_equal(blocks._state()[name], values, err_msg=name)


def peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_item_sums_does_not_grow_with_the_customers(monkeypatch):
    monkeypatch.setattr(item_sums, "BLOCK_LINES", 2_000)
    codes = {name: np.zeros(N_ITEMS, dtype=np.int64) for name in GROUPS}
    small, large = shop(60).interactions, shop(600).interactions
    assert peak_bytes(lambda: ItemSums.of(large, codes)) < 1.5 * peak_bytes(lambda: ItemSums.of(small, codes))


def test_features_of_examples_are_never_in_memory_together():
    block, n_blocks = np.ones((1_000, 50), dtype=np.float32), 40
    rows = SpooledRows(50)
    for _ in range(n_blocks):
        rows.append(block)
    labels = np.zeros(len(rows), dtype=np.float32)
    names = [f"f{place}" for place in range(50)]
    seen = []

    def read():
        iterator = RowIterator([rows], {"label": labels}, names)
        while iterator.next(lambda data, label, feature_names: seen.append((data.shape, len(label)))):
            pass

    assert peak_bytes(read) < 4 * block.nbytes
    assert seen == [((1_000, 50), 1_000)] * n_blocks


def test_a_ranker_learns_from_sampled_customers_with_the_statistics_of_all():
    """The item statistics of the examples count every customer, and the same seed asks the same customers."""
    train = shop(200)
    one, other = (
        TwoStageRecommender(stages=(("popular", {}, 24),), users_per_cut=20, horizon_days=14.0)
        ._sampler()
        .at_cut(train, 14.0)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.features, other.features)
    names = TwoStageRecommender(stages=(("popular", {}, 24),))._feature_names()
    customers = one.features[:, names.index("item_customers")]
    assert len(np.unique(one.groups)) == 20
    assert customers.max() > 80


@pytest.mark.parametrize("name", [*SINGLE_STAGE, "two_stage"])
def test_an_estimated_cost_grows_no_faster_than_the_shop(name):
    """Four times the customers cost at most about four times; what is learnt from a sample stops to grow at all."""
    from models.recommend import RECOMMENDERS

    small, large = shop(60), shop(240)
    model = RECOMMENDERS[name]()
    for estimate in (model.estimated_cpu_seconds, model.estimated_peak_bytes):
        assert 0 < estimate(small) <= estimate(large) <= 4.5 * estimate(small)
