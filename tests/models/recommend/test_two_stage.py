"""The second stage: what it may see, what it learns, and what it answers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from features.interactions import EarlierCutoff, Interactions, TrainingSet
from models.recommend import base
from models.recommend.base import ItemFilter, Query
from models.recommend.bpr import BPRRecommender
from models.recommend.fit_cache import fit_cached
from models.recommend.ials import ImplicitALSRecommender
from models.recommend.popular import PopularRecommender
from models.recommend.ranking import examples as examples_module
from models.recommend.ranking import item_sums
from models.recommend.ranking.boosters import TREES_FILE
from models.recommend.ranking.boosting import binned
from models.recommend.ranking.candidates import merge_candidates, stage_features, stage_lists
from models.recommend.ranking.examples import ExampleSampler, RankingExamples, sampled_negatives
from models.recommend.ranking.features import FEATURES, features
from models.recommend.ranking.histories import Histories
from models.recommend.ranking.history_tables import GROUP_FEATURES, PAIR_FEATURES, USER_FEATURES
from models.recommend.ranking.item_statistics import ITEM_FEATURES, ItemStatistics, item_groups, item_statistics
from models.recommend.ranking.item_sums import ItemSums
from models.recommend.ranking.prices import PRICE_ITEM_FEATURES
from models.recommend.ranking.spool import without_gaps
from models.recommend.ranking.two_stage import SHARED_BY_RANKERS, TwoStageRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import ArtifactError, DataError, UsageError
from training.evaluation.metrics import ranking_metrics

ROOT = Path(__file__).resolve().parents[3]
STAGES = (("repeat", {}, 30), ("popular", {"window_days": 28.0}, 10), ("ials", {"factors": 8, "iterations": 4}, 20))
NEW_STAGES = (("ials", {"factors": 8, "iterations": 4}, 30), ("popular", {}, 20))
QUICK = {"rounds": 40, "learning_rate": 0.15, "depth": 4, "min_child_weight": 5.0, "n_jobs": 1}
DAYS = 196


def lines_of_shop(seed=0, n_users=150, n_items=60):
    """Every customer has some items bought on a clock of its own, some it has given up, and buys something else now and then.

    Recency and own gap tell what is due; counts alone are misled by what was given up.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        taste = rng.permutation(n_items)[:12]
        for place, item in enumerate(taste.tolist()):
            gap = (9.0, 21.0, 45.0)[place % 3]
            stopped = 80.0 if place % 2 else 0.0  # nothing of these in the last 80 days
            age = stopped + rng.uniform(0, gap)
            while age < DAYS + 28:
                rows.append((user, item, age))
                age += gap * rng.uniform(0.85, 1.15)
        rows += [
            (user, int(item), float(age))
            for item, age in zip(rng.integers(0, n_items, 8), rng.uniform(0, DAYS + 28, 8), strict=True)
        ]
    return np.array(rows), n_users, n_items


@pytest.fixture(scope="module")
def shop_and_truth():
    """A training set as of 28 days before the end, and what was taken in these 28 days."""
    rows, n_users, n_items = lines_of_shop()
    ages = rows[:, 2] - 28.0
    before, after = rows[ages > 0], rows[ages <= 0]
    train = TrainingSet.from_arrays(
        before[:, 0].astype(int),
        before[:, 1].astype(int),
        n_users=n_users,
        n_items=n_items,
        age_days=before[:, 2] - 28.0,
    )
    truth = TrainingSet.from_arrays(
        after[:, 0].astype(int), after[:, 1].astype(int), n_users=n_users, n_items=n_items
    ).interactions.matrix()
    truth.data[:] = 1.0
    return train, truth


@pytest.fixture(scope="module")
def model(shop_and_truth):
    return TwoStageRecommender(stages=STAGES, **QUICK).fit(shop_and_truth[0])


def mean_ndcg(model, truth, **given):
    users = np.flatnonzero(np.diff(truth.indptr))
    return float(ranking_metrics(model.recommend(users, 10, **given).ids, truth[users], 10)["ndcg"].mean())


# ---- features ----------------------------------------------------------------------------------------------------


def tables(lines, n_items=4, category=("a/x", "a/y", "a/x", "")):
    codes = item_groups({"category": np.array(category), "brand": np.array(["b", "", "b", "c"])})
    histories = Histories.of(lines, codes)
    return histories, ItemStatistics.of(
        ItemSums.of(lines, codes), codes, np.full((n_items, len(PRICE_ITEM_FEATURES)), 2.0, np.float32)
    )


def named(histories, statistics, user, item):
    return dict(
        zip(FEATURES, features(histories, statistics, np.array([user]), np.array([item]))[0].tolist(), strict=True)
    )


def test_features_by_hand():
    lines = Interactions(
        np.zeros(6, np.int32),
        np.array([0, 0, 0, 0, 2, 1], np.int32),
        np.array([5, 5, 15, 35, 5, 90], np.float32),
        np.ones(6, np.float32),
        (2, 4),
        np.array([9, 9, 8, 7, 9, 3], np.int32),
        np.array([1, 1, 4, 3, 1, 1], np.float32),
        np.full(6, 2.0, np.float32),
    )
    found = named(*tables(lines), 0, 0)
    assert found["orders"] == 3  # two lines of one order are one
    assert (found["orders_28d"], found["orders_56d"]) == (2, 3)
    assert (found["days_since_last"], found["days_since_first"]) == (5, 35)
    assert (found["last_gap"], found["gap_before"], found["mean_gap"]) == (10, 20, 15)
    assert found["due"] == pytest.approx(5 / 15)
    assert found["gap_variation"] == pytest.approx(5 / 15)
    assert found["decayed_45d"] == pytest.approx(sum(2 ** (-age / 45) for age in (5, 15, 35)))
    assert found["share_of_orders"] == 1.0  # of the three orders since its first
    assert found["quantity"] == pytest.approx((2 + 4 + 3) / 3)
    assert found["amount"] == pytest.approx((4 + 2 + 2) / 3)
    assert (found["user_orders"], found["user_days_since_last"], found["user_distinct_items"]) == (4, 5, 3)
    assert (found["item_customers"], found["item_price"]) == (1, 2)
    assert found["category_mean_gap"] == 15  # items 0 and 2 were in the same order once
    assert found["category_items"] == 2
    assert found["category_above_items"] == 3
    never = named(*tables(lines), 0, 3)
    assert (never["orders"], never["decayed_45d"], never["share_of_category"]) == (0, 0, 0)
    assert never["category_decayed_120d"] == 0  # its category is unknown
    assert np.isnan([never["days_since_last"], never["due"], never["orders_since_last"], never["category_trend"]]).all()
    assert np.isnan(named(*tables(lines), 1, 0)["user_days_since_last"])


def test_days_stand_in_for_orders_nobody_knows():
    lines = Interactions(
        np.zeros(3, np.int32),
        np.array([0, 0, 0], np.int32),
        np.array([5.1, 5.6, 9], np.float32),
        np.ones(3, np.float32),
        (1, 4),
    )
    found = named(*tables(lines), 0, 0)
    assert found["orders"] == 2
    assert np.isnan(found["quantity"])


def test_a_feature_for_every_name(shop_and_truth):
    train = shop_and_truth[0]
    codes = item_groups(train.item_attributes)
    histories = Histories.of(train.interactions, codes)
    statistics = item_statistics(train)
    table = features(histories, statistics, np.arange(train.n_users), np.zeros(train.n_users, np.int64))
    assert table.shape == (train.n_users, len(FEATURES))
    assert len(set(FEATURES)) == len(FEATURES)
    assert not np.isinf(table).any()
    widths = (
        histories.pairs.shape[1],
        histories.users.shape[1],
        statistics.table.shape[1],
        histories.groups.shape[1],
    )
    assert widths == (len(PAIR_FEATURES), len(USER_FEATURES), len(ITEM_FEATURES), len(GROUP_FEATURES))


def test_nothing_after_a_cut_reaches_its_examples(shop_and_truth):
    """What happens after a cut moves the labels of that cut, never a feature: stages and statistics are of what lies before."""
    train, _ = shop_and_truth
    model = TwoStageRecommender(stages=STAGES, **QUICK, negatives_per_positive=100.0)  # all candidates are examples
    before = model._sampler().at_cut(train, 56.0)
    data = train.interactions
    rng = np.random.default_rng(1)
    after = data.age_days <= 56.0
    items, weights = data.items.copy(), data.weights.copy()
    items[after] = rng.permutation(items[after])
    weights[after] = 7.0
    changed = train.with_interactions(replace(data, items=items, weights=weights))
    # the same customers are asked: those who did anything in the window
    after_change = model._sampler().at_cut(changed, 56.0)
    np.testing.assert_array_equal(before.groups, after_change.groups)
    np.testing.assert_array_equal(before.features, after_change.features)
    assert (before.labels != after_change.labels).any()


def test_labels_are_what_was_had_within_the_horizon(shop_and_truth):
    """The share of positives among own items is that counted by hand; nothing later than the horizon counts."""
    train, _ = shop_and_truth
    data = train.interactions
    model = TwoStageRecommender(stages=(("repeat", {}, 1000),), **QUICK)
    labels = model._sampler().at_cut(train, 56.0).labels
    window = (data.age_days <= 56.0) & (data.age_days > 28.0)
    pairs = data.users.astype(int) * train.n_items + data.items
    again = np.intersect1d(np.unique(pairs[window]), np.unique(pairs[data.age_days > 56.0]))
    assert labels.sum() == len(again)


def test_an_item_too_few_had_by_a_cut_is_no_candidate_there(shop_and_truth):
    """The catalogue of an earlier cut is that of the customers then: what became popular since cannot be an answer."""
    train, _ = shop_and_truth
    data = train.interactions
    late = data.items == 5
    ages = np.where(late, data.age_days % 20.0 + 0.1, data.age_days).astype(np.float32)
    ages[np.flatnonzero(late)[0]] = 120.0  # one customer had it early
    model = TwoStageRecommender(stages=(("popular", {}, 1000),), negatives_per_positive=1e9, **QUICK)
    examples = model._sampler().at_cut(train.with_interactions(replace(data, age_days=ages)), 56.0)
    per_customer = np.bincount(examples.groups)
    assert set(per_customer.tolist()) == {train.n_items - 1}


# ---- candidates --------------------------------------------------------------------------------------------------


def test_union_has_every_item_once_and_says_who_put_it_there(shop_and_truth):
    train, _ = shop_and_truth
    stages = [
        RepeatPurchaseRecommender().fit(train),
        PopularRecommender().fit(train),
        ImplicitALSRecommender(factors=8).fit(train),
    ]
    query = Query(np.array([0, 3, 7]))
    lists = stage_lists(stages, [5, 6, 7], query, ItemFilter())
    found = merge_candidates(lists, [True, False, False])
    for row in range(3):
        ids = found.ids[row][found.ids[row] >= 0].tolist()
        assert ids == sorted({item for listed, _ in lists for item in listed[row].tolist() if item >= 0})
        own = set(lists[0][0][row].tolist())
        for item, source in zip(ids, found.source[row].tolist(), strict=False):
            assert (source == 0) == (item in own)
            assert item in lists[source][0][row]


def test_ranks_do_not_depend_on_what_a_call_leaves_out(shop_and_truth):
    train, _ = shop_and_truth
    stages = [ImplicitALSRecommender(factors=8).fit(train)]
    query = Query(np.array([0, 3]))
    lists = stage_lists(stages, [10], query, ItemFilter())
    ids = lists[0][0].astype(np.int64)
    columns = stage_features(stages, [10], query, ids, lists)
    np.testing.assert_array_equal(columns[:, :, 1], np.tile(np.arange(10.0), (2, 1)))
    turned = stage_features(stages, [10], query, ids[:, ::-1], lists)
    np.testing.assert_array_equal(turned[:, ::-1, 1], columns[:, :, 1])


# ---- the model ---------------------------------------------------------------------------------------------------


def test_beats_every_stage_it_is_fed_by(model, shop_and_truth):
    _, truth = shop_and_truth
    ours = mean_ndcg(model, truth)
    for stage in model.models_:
        assert ours > mean_ndcg(stage, truth) + 0.02, stage.name


@pytest.mark.parametrize("objective", ["rank:ndcg", "rank:pairwise"])
def test_ranking_objectives_learn_too(shop_and_truth, objective):
    train, truth = shop_and_truth
    ranker = TwoStageRecommender(stages=STAGES, objectives=[objective], cuts=2, **QUICK).fit(train)
    assert mean_ndcg(ranker, truth) > mean_ndcg(ranker.models_[1], truth) + 0.05


def test_new_never_shows_what_was_had(shop_and_truth):
    train, _ = shop_and_truth
    model = TwoStageRecommender(target="new", stages=NEW_STAGES, **QUICK).fit(train)
    history = train.interactions.matrix()
    ranked = model.recommend(np.arange(train.n_users), train.n_items)
    rows, places = np.nonzero(ranked.ids >= 0)
    assert not np.asarray(history[rows, ranked.ids[rows, places]]).any()
    assert (ranked.valid > 5).all()
    item = int(ranked.ids[0, 0])
    recent_interactions = Interactions(
        np.zeros(1, np.int32),
        np.array([item], np.int32),
        np.ones(1, np.float32),
        np.ones(1, np.float32),
        (1, train.n_items),
    )
    assert item not in model.recommend([0], 10, recent_interactions=recent_interactions, elapsed_days=2.0).ids
    given = model._score_items(Query(np.array([0])), np.array([[item, int(history[0].indices[0])]]))
    assert np.isfinite(given[0, 0])
    assert np.isneginf(given[0, 1])


def test_what_was_just_bought_on_a_clock_falls(model, shop_and_truth):
    """Of an item bought every 45 days and due now, buying it today lowers the chance of the next 28 days."""
    train, _ = shop_and_truth
    histories = Histories.of(train.interactions, model.statistics_.codes)
    table = histories.pairs[:-1]
    gap, last = table[:, PAIR_FEATURES.index("mean_gap")], table[:, PAIR_FEATURES.index("days_since_last")]
    slow = np.flatnonzero((gap > 40) & (gap < 50) & (last > 30) & (last < 50))[:20]
    users, items = histories.pair_keys[slow] // train.n_items, histories.pair_keys[slow] % train.n_items
    query, n = Query(users), len(slow)
    before = model._score_items(query, items[:, None])
    recent_interactions = Interactions(
        np.arange(n, dtype=np.int32),
        items.astype(np.int32),
        np.full(n, 0.1, np.float32),
        np.ones(n, np.float32),
        (n, train.n_items),
    )
    after = model._score_items(Query(users, recent_interactions=recent_interactions, elapsed_days=0.1), items[:, None])
    assert n >= 10
    assert np.mean(after < before) > 0.7


def test_folding_in_is_what_a_later_fit_would_have_counted(shop_and_truth, model):
    """The customer's tables with `recent_interactions` are those of one history: the old lines older by what has passed, the new ones beside them."""
    train, _ = shop_and_truth
    data = train.interactions
    recent = (data.users == 4) & (data.age_days <= 20.0)
    past = TwoStageRecommender(stages=STAGES, **QUICK).fit(train.with_earlier_cutoff(20.0))
    mine = data.where(recent)
    recent_interactions = replace(mine, users=np.zeros(len(mine.users), np.int32), shape=(1, train.n_items))
    query = Query(np.array([4]), recent_interactions=recent_interactions, elapsed_days=20.0)
    ids = np.arange(train.n_items)
    given = past._features(query, np.zeros(train.n_items, np.int64), ids)
    whole = model._features(Query(np.array([4])), np.zeros(train.n_items, np.int64), ids)
    of_customer = [FEATURES.index(name) for name in (*PAIR_FEATURES, *USER_FEATURES)]
    np.testing.assert_allclose(given[:, of_customer], whole[:, of_customer], rtol=1e-4, atol=1e-4)


def test_sampled_customers_are_enough(shop_and_truth):
    train, truth = shop_and_truth
    few = TwoStageRecommender(stages=STAGES, users_per_cut=60, **QUICK)
    assert len(np.unique(few._sampler().at_cut(train, 28.0).groups)) == 60
    assert mean_ndcg(few.fit(train), truth) > mean_ndcg(few.models_[1], truth)


def test_negatives_beyond_what_is_asked_for_are_sampled_and_weighed():
    y = np.array([1.0] * 10 + [0.0] * 1000, dtype=np.float32)
    kept, weights = sampled_negatives(y, 20.0, seed=0)
    assert y[kept].sum() == 10, "no positive is lost"
    assert 150 < (y[kept] == 0).sum() < 250
    assert weights[y[kept] == 1].tolist() == [1.0] * 10
    np.testing.assert_allclose(weights[y[kept] == 0], 5.0)
    for few in (200.0, 100.0):
        kept, weights = sampled_negatives(y, few, seed=0)
        assert kept.all()
        assert (weights == 1).all()
    assert sampled_negatives(np.zeros_like(y), 20.0, seed=0)[0].all()


def test_sampled_negatives_have_the_features_and_lists_they_had(shop_and_truth):
    """Sampling happens before the features are computed; the rows that stay are those of all candidates."""
    train, _ = shop_and_truth
    every = TwoStageRecommender(stages=STAGES, negatives_per_positive=1e9, **QUICK)._sampler().at_cut(train, 28.0)
    few = TwoStageRecommender(stages=STAGES, negatives_per_positive=1.0, **QUICK)._sampler().at_cut(train, 28.0)
    kept, _ = sampled_negatives(every.labels, 1.0, seed=0)
    assert len(few) < len(every) / 2
    np.testing.assert_array_equal(few.features, every.features[kept])
    np.testing.assert_array_equal(few.labels, every.labels[kept])
    np.testing.assert_array_equal(few.groups, every.groups[kept])


def test_blocks_of_customers_give_the_examples_of_one_block(monkeypatch, shop_and_truth):
    train, _ = shop_and_truth
    sampler = TwoStageRecommender(stages=STAGES, **QUICK)._sampler()
    whole = sampler.at_cut(train, 28.0)
    monkeypatch.setattr(base, "BLOCK_CELLS", 7 * train.n_items)
    blocks = sampler.at_cut(replace(train), 28.0)
    assert len(list(blocks.parts[0].blocks())) > 10
    np.testing.assert_array_equal(blocks.features, whole.features)
    np.testing.assert_array_equal(blocks.groups, whole.groups)


def test_item_sums_of_blocks_of_customers_are_those_of_all(monkeypatch, shop_and_truth):
    train, _ = shop_and_truth
    codes = item_groups({**train.item_attributes, "category": np.array(["a/x", "a/y", "b"] * 20)})
    whole = ItemSums.of(train.interactions, codes)
    monkeypatch.setattr(item_sums, "BLOCK_LINES", 100)
    blocks = ItemSums.of(train.interactions, codes)
    for field in fields(ItemSums):
        one, other = getattr(whole, field.name), getattr(blocks, field.name)
        if field.name == "within":
            one, other = list(one.values()), list(other.values())
        several = field.name in ("within", "group_recent")
        for left, right in zip(one, other, strict=True) if several else [(one, other)]:
            np.testing.assert_allclose(left, right, rtol=1e-12)
    assert whole.group_recent[0].sum() > 0


def test_examples_are_read_from_disk_in_blocks(shop_and_truth):
    """A ranker learns from the same bins whether the rows come at once or in blocks."""
    train, truth = shop_and_truth
    sampler = TwoStageRecommender(stages=STAGES, **QUICK)._sampler()
    examples, names = sampler.samples(train, False)[0], TwoStageRecommender(stages=STAGES)._feature_names()
    features = without_gaps(examples.features)
    streamed = binned(examples, names, bins=64, threads=1)
    at_once = xgb.QuantileDMatrix(features, label=examples.labels, max_bin=64, feature_names=names)
    assert streamed.num_row() == at_once.num_row() == len(examples)
    assert streamed.feature_names == names
    np.testing.assert_array_equal(streamed.get_label(), examples.labels)
    params = {"objective": "binary:logistic", "max_depth": 4, "max_bin": 64, "nthread": 1}
    rows = xgb.DMatrix(features, feature_names=names)
    one, other = (xgb.train(params, matrix, 20).predict(rows) for matrix in (streamed, at_once))
    assert np.corrcoef(one, other)[0, 1] > 0.99


def test_no_ranker_of_the_latest_cutoff_with_too_few_positives(shop_and_truth, monkeypatch):
    train, _ = shop_and_truth
    sampler = TwoStageRecommender(stages=STAGES, **QUICK)._sampler()
    _, latest = sampler.samples(train, True)
    monkeypatch.setattr(examples_module, "MIN_POSITIVES", int(latest.labels.sum()) + 1)
    assert len(sampler.samples(train, True)) == 1


def test_rankers_of_the_latest_cutoff_alone(shop_and_truth):
    """They learn from the examples of one cutoff; with a single cutoff, and by default for new items, there are none."""
    train, _ = shop_and_truth
    model = TwoStageRecommender(stages=STAGES, **QUICK)
    every, latest = model._sampler().samples(train, True)
    assert len(latest) < len(every)
    np.testing.assert_array_equal(latest.features, every.features[: len(latest)])
    one_cutoff = TwoStageRecommender(stages=STAGES, cuts=1, **QUICK)
    np.testing.assert_array_equal(one_cutoff._sampler().samples(train, False)[0].features, latest.features)
    assert len(model.fit(train).boosters_.boosters) == 4
    alone = one_cutoff.fit(train).boosters_.boosters
    assert len(alone) == 2
    rows = without_gaps(latest.features)
    for ours, theirs in zip(model.boosters_.boosters[2:], alone, strict=True):  # they differ by the bounds of the bins
        assert np.corrcoef(ours.inplace_predict(rows), theirs.inplace_predict(rows))[0, 1] > 0.995
    assert len(TwoStageRecommender(target="new", stages=NEW_STAGES, **QUICK).fit(train).boosters_.boosters) == 2


def test_groups_of_several_cuts_are_different_lists():
    part = RankingExamples([], np.ones(3, np.float32), np.array([0, 0, 1]), np.ones(3, np.float32))
    assert RankingExamples.concatenate([part, part]).groups.tolist() == [0, 0, 1, 2, 2, 3]


def test_saved_with_orders_quantities_and_any_names(tmp_path, shop_and_truth):
    train, _ = shop_and_truth
    data = train.interactions
    full = replace(
        data,
        orders=np.floor(data.age_days.max() - data.age_days).astype(np.int32),
        quantities=np.ones(len(data.users), np.float32),
        amounts=np.where(np.arange(len(data.users)) % 5, 2.5, np.nan).astype(np.float32),
    )
    names = np.array([f"商品 {item}/😀" for item in range(train.n_items)])
    named_train = replace(
        train,
        interactions=full,
        item_ids=names,
        item_attributes={**train.item_attributes, "category": np.array(["乳品/牛奶", "茶"] * 30)},
    )
    fitted = TwoStageRecommender(stages=STAGES, **QUICK).fit(named_train)
    fitted.save(tmp_path / "模型")
    loaded = TwoStageRecommender.load(tmp_path / "模型")
    users = np.arange(train.n_users)
    one, other = fitted.recommend(users, 15), loaded.recommend(users, 15)
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.source, other.source)
    program = (
        "import sys; from pathlib import Path; from models.recommend.ranking.two_stage import TwoStageRecommender; "
        "print(TwoStageRecommender.load(Path(sys.argv[1])).recommend([0], 15).ids.tolist(), 'xgboost' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "模型")]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert elsewhere.stdout.strip() == f"{one.ids[:1].tolist()} False", "a process that ranks does not import XGBoost"
    (tmp_path / "模型" / TREES_FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError):
        TwoStageRecommender.load(tmp_path / "模型")


def test_no_past_no_second_stage(shop_and_truth):
    train, _ = shop_and_truth
    data = train.interactions
    with pytest.raises(DataError, match="no time"):
        TwoStageRecommender(**QUICK).fit(train.with_interactions(replace(data, age_days=np.zeros_like(data.age_days))))
    with pytest.raises(DataError, match="too short"):
        TwoStageRecommender(**QUICK).fit(train.with_interactions(data.where(data.age_days < 40)))


@pytest.mark.parametrize("wrong", [{"target": "old"}, {"objectives": ["reg:squarederror"]}, {"objectives": []}])
def test_parameters_are_checked(shop_and_truth, wrong):
    with pytest.raises(UsageError, match="unknown"):
        TwoStageRecommender(**wrong).fit(shop_and_truth[0])


def test_rankers_share_an_earlier_cutoff_that_exists(monkeypatch, shop_and_truth):
    """A ranker of today reads the examples that the ranker of the period before has made."""
    made = []
    examples = ExampleSampler._examples
    monkeypatch.setattr(
        ExampleSampler,
        "_examples",
        lambda self, past, later, known: made.append(past.as_of) or examples(self, past, later, known),
    )
    train, _ = shop_and_truth
    ages = train.interactions.age_days
    past = replace(train.with_earlier_cutoff(28.0))  # built by itself: it shares nothing yet
    later = train.interactions.where(ages <= 28.0)
    ranker = TwoStageRecommender(stages=STAGES, cuts=2, **QUICK)
    ranker.fit(past)
    assert len(made) == 2, "the cutoffs 28 and 56 days before the earlier one"
    now = replace(train)
    now.remember_earlier(EarlierCutoff(28.0, past, later))
    shared = TwoStageRecommender(stages=STAGES, cuts=2, **QUICK).fit(now)
    assert len(made) == 3, "only the data between the two cutoffs give new examples"
    alone = TwoStageRecommender(stages=STAGES, cuts=2, **QUICK).fit(replace(train))
    users = np.arange(train.n_users)
    np.testing.assert_array_equal(shared.recommend(users, 10).ids, alone.recommend(users, 10).ids)


def test_a_copy_with_other_interactions_has_no_earlier_cutoff(shop_and_truth):
    """Else a task that hides interactions would learn from them."""
    train = replace(shop_and_truth[0])
    train.remember_earlier(EarlierCutoff(28.0, train.with_earlier_cutoff(28.0), train.interactions))
    assert train.earlier is not None
    assert train.with_interactions(train.interactions).earlier is None
    assert replace(train, item_ids=train.item_ids).earlier is None


def test_forgetting_frees_models_and_earlier_cutoffs_and_keeps_what_rankers_read(shop_and_truth):
    train = replace(shop_and_truth[0])
    TwoStageRecommender(stages=STAGES, **QUICK).fit(train)
    fit_cached(BPRRecommender(factors=4, iterations=1), train)
    past = train.with_earlier_cutoff(28.0)
    train.forget(SHARED_BY_RANKERS)
    held = {key[:2] if isinstance(key, tuple) else key for key in train._memo}
    assert ("model", "bpr") not in held
    assert ("model", "ials") in held
    assert any(key[0] == "ranking examples" for key in train._memo if isinstance(key, tuple))
    assert train.with_earlier_cutoff(28.0) is not past
    assert not train.with_earlier_cutoff(28.0)._memo


def test_examples_outlive_the_data_they_were_made_of(shop_and_truth, monkeypatch):
    made, examples = [], ExampleSampler._examples
    monkeypatch.setattr(
        ExampleSampler,
        "_examples",
        lambda self, past, later, known: made.append(past.as_of) or examples(self, past, later, known),
    )
    train = replace(shop_and_truth[0])
    users = np.arange(train.n_users)
    first = TwoStageRecommender(stages=STAGES, cuts=2, **QUICK).fit(train)
    train.forget_earlier_cutoffs()
    second = TwoStageRecommender(stages=STAGES, cuts=2, **QUICK).fit(train)
    assert len(made) == 2
    np.testing.assert_array_equal(first.recommend(users, 10).scores, second.recommend(users, 10).scores)
