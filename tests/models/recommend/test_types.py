"""Models that learn from several types of interaction: weights by type, recent interactions, and ranker features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interaction_types import EVENT_WEIGHTS, INTERACTION_TYPES
from features.interactions import Interactions, TrainingSet, sorted_interactions
from models.persist import load_json
from models.recommend import RECOMMENDERS
from models.recommend.base import Query
from models.recommend.popular import PopularRecommender
from models.recommend.ranking.item_statistics import item_groups
from models.recommend.ranking.two_stage import TYPED_STAGES, TwoStageRecommender
from models.recommend.ranking.type_features import TypedInteractions, type_feature_names
from models.recommend.repeat import OwnEventsRecommender, RepeatPurchaseRecommender
from models.recommend.sampling import learning_sample
from qianmian.errors import UsageError
from qianmian.workspace import write_json

PURCHASE, VIEW, CART = (INTERACTION_TYPES.index(name) for name in ("purchase", "view", "cart"))
WEIGHTS = {"view": 0.5, "cart": 2.0}
WEIGHTED = ("repeat", "own_events", "ials", "item_knn", "ease", "spectral")


def interactions(rows, shape, typed):
    """Interactions from rows of (user, item, age in days, type, visit)."""
    users, items, ages, kinds, visits = (np.array(column) for column in zip(*rows, strict=True))
    return sorted_interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        ages.astype(np.float32),
        np.ones(len(rows), np.float32),
        shape,
        visits.astype(np.int32),
        types=kinds.astype(np.int8) if typed else None,
    )


def shop(bought, met, n_users=4, n_items=5):
    """A training set of purchases and of auxiliary interactions."""
    shape = (n_users, n_items)
    data = TrainingSet.from_arrays(np.zeros(1), np.zeros(1), n_users=n_users, n_items=n_items)
    return replace(
        data,
        interactions=interactions(bought, shape, typed=False),
        auxiliary=interactions(met, shape, typed=True),
        item_attributes={**data.item_attributes, "category": np.array(["a", "a", "b", "b", "b"][:n_items])},
    )


SMALL = shop(
    [(0, 0, 4.0, PURCHASE, 0), (0, 0, 8.0, PURCHASE, 1), (1, 1, 2.0, PURCHASE, 2), (2, 2, 1.0, PURCHASE, 3)],
    [(0, 1, 1.0, VIEW, 0), (0, 1, 2.0, CART, 1), (0, 0, 1.0, VIEW, 0), (3, 2, 4.0, VIEW, 2), (2, 2, 3.0, CART, 3)],
)


def random_shop(seed=0, n_users=60, n_items=30):
    rng = np.random.default_rng(seed)
    bought, met = [], []
    for user in range(n_users):
        for visit in range(10):
            age = 2.0 + 9 * visit + 4 * rng.random()
            seen = rng.choice(n_items, 4, replace=False)
            met += [(user, item, age + 0.01 * place, VIEW, 10 * user - visit + 9) for place, item in enumerate(seen)]
            met.append((user, seen[0], age, CART, 10 * user - visit + 9))
            bought.append((user, seen[0], age - 0.5, PURCHASE, 10 * user - visit + 9))
    data = shop(bought, met, n_users, n_items=5)
    shape = (n_users, n_items)
    attributes = {"category": np.array(["abc"[item % 3] for item in range(n_items)]), "brand": np.full(n_items, "")}
    return replace(
        data,
        item_ids=np.arange(n_items).astype(np.str_),
        interactions=replace(data.interactions, shape=shape),
        auxiliary=replace(data.auxiliary, shape=shape),
        item_attributes={**attributes, "price": np.full(n_items, np.nan, np.float32)},
    )


@pytest.fixture(scope="module")
def random_data():
    return random_shop()


# ---- weights of types ------------------------------------------------------------------------------------------------


def test_own_items_of_all_types_are_candidates():
    model = OwnEventsRecommender(half_life_days=None, type_weights=WEIGHTS).fit(SMALL)
    found = model.recommend([0, 3, 2], 3)
    assert found.ids.tolist() == [[0, 1, -1], [2, -1, -1], [2, -1, -1]]
    # two purchases and a view of item 0, a view and a cart of item 1
    assert found.scores[0, :2].tolist() == [2.5, 2.5]
    assert found.scores[1:, 0].tolist() == [0.5, 3.0]
    halved = OwnEventsRecommender(half_life_days=2.0, type_weights=WEIGHTS).fit(SMALL).recommend([0], 2)
    assert halved.ids.tolist() == [[1, 0]]
    expected = [0.5 * 2**-0.5 + 2 * 2**-1, 2**-2 + 2**-4 + 0.5 * 2**-0.5]
    np.testing.assert_allclose(halved.scores[0], expected, rtol=1e-6)


def test_own_events_by_default_weigh_as_events_do():
    own = OwnEventsRecommender().fit(SMALL)
    assert (own.half_life_days, own.type_weights) == (7.0, EVENT_WEIGHTS)
    assert set(own.auxiliary_types) == set(INTERACTION_TYPES)
    assert RepeatPurchaseRecommender().fit(SMALL).auxiliary_types == ()


def test_purchase_counts_and_evidence_are_of_purchases_alone():
    model = OwnEventsRecommender().fit(SMALL)
    items, counts = model.purchase_counts(0)
    assert (items.tolist(), counts.tolist()) == ([0], [2])
    assert model.evidence(0, 0)["times"] == 2
    assert model.evidence(0, 1) is None


def test_what_was_only_viewed_may_still_be_recommended():
    found = OwnEventsRecommender().fit(SMALL).recommend([0], 3, exclude_purchased=True)
    assert found.ids.tolist() == [[1, -1, -1]]


def test_popularity_counts_customers_of_each_type():
    assert PopularRecommender().fit(SMALL).item_scores_.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    weighted = PopularRecommender(type_weights=WEIGHTS).fit(SMALL).item_scores_
    assert weighted.tolist() == [1.5, 3.5, 3.5, 0.0, 0.0]
    recent = PopularRecommender(window_days=2.0, type_weights={"view": 1.0}).fit(SMALL).item_scores_
    assert recent.tolist() == [1.0, 2.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", WEIGHTED)
def test_without_weights_auxiliary_interactions_change_nothing(random_data, name):
    params = {"type_weights": None} | ({"components": 8} if name == "spectral" else {})
    with_them = RECOMMENDERS[name](**params).fit(random_data)
    without = RECOMMENDERS[name](**params).fit(replace(random_data, auxiliary=None))
    users = np.arange(random_data.n_users)
    np.testing.assert_array_equal(with_them.recommend(users, 8).ids, without.recommend(users, 8).ids)
    recent = one_view(random_data, len(users))
    ignored = with_them.recommend(users, 8, recent_auxiliary=recent)
    np.testing.assert_array_equal(ignored.ids, without.recommend(users, 8).ids)


def one_view(data, rows, item=3):
    return interactions([(0, item, 0.1, VIEW, 0)], (rows, data.n_items), typed=True)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_types_are_learnt_saved_and_folded_in(random_data, name, tmp_path):
    params = {"type_weights": WEIGHTS} | ({"components": 8} if name == "spectral" else {})
    model = RECOMMENDERS[name](**params).fit(random_data)
    target_alone = RECOMMENDERS[name](**{**params, "type_weights": None}).fit(random_data)
    users = np.arange(random_data.n_users)
    found = model.recommend(users, 8)
    assert (found.ids != target_alone.recommend(users, 8).ids).any()
    model.save(tmp_path / name)
    assert load_json(tmp_path / name / "params.json")["params"]["type_weights"] == WEIGHTS
    loaded = RECOMMENDERS[name].load(tmp_path / name)
    np.testing.assert_array_equal(loaded.recommend(users, 8).ids, found.ids)
    stranger = loaded.recommend([-1], 5, recent_auxiliary=one_view(random_data, 1))
    assert stranger.ids[0, 0] >= 0  # a view alone is a history
    own = loaded._counts_now(Query(np.array([-1]), recent_auxiliary=one_view(random_data, 1)))
    half_life = model.half_life_days
    decayed = 0.5 if half_life is None else 0.5 * 2 ** (-0.1 / half_life)
    assert own[0, 3] == pytest.approx(decayed, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in WEIGHTED if name != "own_events"])
def test_bundles_of_earlier_versions_load(random_data, name, tmp_path):
    """They have no weights of types among their parameters."""
    model = RECOMMENDERS[name](**({"components": 8} if name == "spectral" else {})).fit(random_data)
    model.save(tmp_path)
    described = load_json(tmp_path / "params.json")
    assert described["params"].pop("type_weights") is None
    write_json(tmp_path / "params.json", described)
    loaded = RECOMMENDERS[name].load(tmp_path)
    np.testing.assert_array_equal(loaded.recommend([0, 1], 5).ids, model.recommend([0, 1], 5).ids)


def test_a_sample_of_customers_keeps_their_auxiliary_interactions(random_data):
    sample = learning_sample(random_data, 300)
    assert len(sample.interactions) + len(sample.auxiliary) <= 300
    assert set(sample.auxiliary.users.tolist()) == set(sample.interactions.users.tolist())


def test_impossible_weights_are_refused_by_the_fit():
    with pytest.raises(UsageError, match="unknown type of interaction"):
        OwnEventsRecommender(type_weights={"glance": 1.0}).fit(SMALL)


# ---- features by type ------------------------------------------------------------------------------------------------


def named(data, user, item, query=None, typed=None):
    typed = typed or TypedInteractions.of(data)
    row, query = (0, Query(np.array([user]))) if query is None else (user, query)
    codes = item_groups(data.item_attributes)
    values = typed.features(query, "purchase", codes, np.array([row]), np.array([item]))[0]
    return dict(zip(type_feature_names(typed.present), values.tolist(), strict=True))


def test_features_by_type_by_hand():
    """One customer: a visit 10 days ago, an order 5 days ago, a visit of an hour today."""
    hour = 1 / 24
    data = shop(
        [(0, 0, 5.0, PURCHASE, 0)],
        [
            (0, 0, 10.0, VIEW, 0),
            (0, 1, 10.0 + hour, CART, 0),
            (0, 0, 0.5, VIEW, 1),
            (0, 0, 0.5 + hour, VIEW, 1),
            (0, 1, 0.5 + 2 * hour, VIEW, 1),
            (1, 0, 1.0, VIEW, 2),
        ],
    )
    found = named(data, 0, 0)
    assert found["item_view_days_since_last"] == 0.5
    assert found["item_view_last_visit"] == 2
    assert found["item_view_since_order"] == 2
    expected = 2**-10 + 2**-0.5 + 2 ** -(0.5 + hour)
    assert found["item_view_1d"] == pytest.approx(expected, rel=1e-5)
    assert found["item_purchase_days_since_last"] == 5
    assert found["item_purchase_since_order"] == 0  # the order itself is not since the order
    assert np.isnan(found["item_cart_days_since_last"])
    assert found["item_cart_last_visit"] == found["item_cart_7d"] == 0
    assert found["category_cart_days_since_last"] == pytest.approx(10 + hour)  # item 1 is of the same category
    assert found["category_view_last_visit"] == 3
    assert found["user_view_last_visit"] == 3
    assert found["item_last_type"] == VIEW
    assert found["item_last_type_days"] == 0.5
    assert found["user_order_days"] == 5
    assert np.isnan(found["brand_view_days_since_last"])  # no brand is known
    assert found["item_all_view_1d"] == pytest.approx(expected + 2**-1, rel=1e-5)
    assert found["item_all_purchase_7d"] == pytest.approx(2 ** (-5 / 7), rel=1e-5)
    carted = named(data, 0, 1)
    assert (carted["item_cart_since_order"], carted["item_last_type"]) == (0, VIEW)
    unmet = named(data, 0, 3)
    assert np.isnan(unmet["item_view_days_since_last"])
    assert np.isnan(unmet["item_last_type"])
    assert unmet["user_view_since_order"] == 3
    stranger = named(data, -1, 0)
    assert stranger["user_view_1d"] == 0
    assert np.isnan(stranger["user_order_days"])


def test_one_type_has_no_features():
    bought = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=1, n_items=1)
    assert TypedInteractions.of(bought) is None


def test_all_types_as_target_have_the_same_features(random_data):
    """Visits and orders aside, it does not matter which types are the target."""
    bought = replace(random_data.interactions, types=np.full(len(random_data.interactions), PURCHASE, np.int8))
    together = replace(random_data, interactions=bought.merged(random_data.auxiliary), auxiliary=None, target="any")
    one, other = TypedInteractions.of(random_data), TypedInteractions.of(together)
    assert one.present == other.present
    left, right = named(random_data, 4, 7, typed=one), named(random_data, 4, 7, typed=other)
    same = [name for name in left if not name.endswith("last_visit")]
    np.testing.assert_allclose([left[name] for name in same], [right[name] for name in same], rtol=1e-5)


def test_features_at_an_earlier_cutoff_know_nothing_later(random_data):
    past = random_data.with_earlier_cutoff(30.0)
    typed = TypedInteractions.of(past, TypedInteractions.of(random_data).present)
    later = random_data.auxiliary.age_days <= 30.0
    changed = replace(
        random_data, auxiliary=random_data.auxiliary.where(~later), interactions=random_data.interactions
    ).with_earlier_cutoff(30.0)
    again = TypedInteractions.of(changed, typed.present)
    for user, item in ((0, 3), (5, 9), (11, 20)):
        np.testing.assert_array_equal(
            list(named(random_data, user, item, typed=typed).values()),
            list(named(random_data, user, item, typed=again).values()),
        )


def test_recent_interactions_give_the_features_of_a_later_fit(random_data):
    """Features of a query with the interactions since the fit are those of a fit at the moment of the query."""
    days, users = 12.0, np.arange(8)
    past = random_data.with_earlier_cutoff(days)
    typed, now = TypedInteractions.of(past), TypedInteractions.of(random_data)

    def recent(of: Interactions) -> Interactions:
        kept = of.where((of.age_days <= days) & (of.users < 8))
        return replace(kept, shape=(8, random_data.n_items))

    query = Query(users, None, recent(random_data.interactions), days, None, recent(random_data.auxiliary))
    for user, item in ((0, 3), (5, 9), (7, 20)):
        folded = named(random_data, user, item, query=query, typed=typed)
        refitted = named(random_data, user, item, query=Query(users), typed=now)
        compared = [name for name in folded if not name.startswith("item_all_")]  # those of items stay
        np.testing.assert_allclose(
            [folded[name] for name in compared], [refitted[name] for name in compared], rtol=1e-4, err_msg=str(item)
        )


# ---- the ranker ------------------------------------------------------------------------------------------------------

QUICK = {"rounds": 30, "depth": 3, "min_child_weight": 2.0, "n_jobs": 1, "horizon_days": 15.0}


@pytest.fixture(scope="module")
def ranker(random_data):
    return TwoStageRecommender(**QUICK).fit(random_data)


def test_the_ranker_has_features_and_candidates_of_all_types(ranker):
    names = ranker._feature_names()
    assert set(type_feature_names((PURCHASE, VIEW, CART))) <= set(names)
    assert len(names) == ranker.boosters_.boosters[0].num_features()
    assert set(ranker.sources) >= {name for name, _, _ in TYPED_STAGES}
    assert set(ranker.auxiliary_types) == {"purchase", "view", "cart"}


def test_the_ranker_without_auxiliary_interactions_is_as_before(random_data):
    plain = TwoStageRecommender(**QUICK).fit(replace(random_data, auxiliary=None))
    assert not [name for name in plain._feature_names() if "_view_" in name]
    assert "own_events" not in plain.sources
    assert plain.auxiliary_types == ()


def test_the_ranker_is_saved_with_its_types(ranker, random_data, tmp_path):
    ranker.save(tmp_path)
    loaded = TwoStageRecommender.load(tmp_path)
    users = np.arange(random_data.n_users)
    left, right = ranker.recommend(users, 8), loaded.recommend(users, 8)
    np.testing.assert_array_equal(left.ids, right.ids)
    np.testing.assert_array_equal(left.scores, right.scores)


def test_a_view_changes_the_list_of_the_ranker(ranker, random_data):
    lists = [
        ranker.recommend([-1], random_data.n_items, recent_auxiliary=one_view(random_data, 1, item)).ids[0].tolist()
        for item in (3, 9)
    ]
    assert 3 in lists[0]
    assert lists[0] != lists[1]
    assert ranker.recommend([-1], 5).ids.tolist() == [[-1] * 5]
