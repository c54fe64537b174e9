"""The contract of every registered recommender. Whatever is added to `RECOMMENDERS` is tested here."""

from __future__ import annotations

import pickle
from typing import get_type_hints

import numpy as np
import pytest

from features.interactions import Interactions
from models.recommend import RECOMMENDERS
from models.recommend.base import Evidence, Query, Recommender
from models.recommend.evidence import PURCHASE_EVIDENCE
from qianmian.errors import ArtifactError, DataError, InvalidRequest, UsageError

SMALL = {
    "ials": {"factors": 8, "iterations": 3},
    "hybrid": {"factors": 8, "epochs": 3},
    "chain": {
        "stages": [
            ("repeat", {}),
            ("ials", {"factors": 8, "iterations": 3}),
            ("hybrid", {"factors": 8, "epochs": 3}),
            ("popular", {}),
        ]
    },
    "two_stage": {
        "rounds": 40,
        "stages": [("repeat", {}, 25), ("popular", {}, 10), ("ials", {"factors": 8, "iterations": 3}, 25)],
    },
    # this shop has no visits of several items within half an hour
    "session": {"horizon_days": 28.0},
    "session_knn": {"visit_gap_minutes": 20 * 1440.0},
    "session_transitions": {"visit_gap_minutes": 20 * 1440.0},
    "blend": {"components": [("repeat", {}, 0.6), ("ials", {"factors": 8, "iterations": 3}, 0.4)]},
}
NEEDS_A_PAST = {"two_stage", "session"}  # learns from earlier cuts of the history, and refuses data that have none


def refused(name, train):
    """Whether the model has to refuse data without a past to learn from, and does."""
    if name not in NEEDS_A_PAST:
        return False
    with pytest.raises(DataError, match="train the ranker|no times|no earlier visits"):
        make(name).fit(train)
    return True


def make(name):
    return RECOMMENDERS[name](**SMALL.get(name, {}))


@pytest.fixture(scope="module", params=list(RECOMMENDERS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, shop):
    return make(name).fit(shop)


@pytest.fixture
def users(shop):
    return np.arange(shop.n_users)


def history(shop, user):
    return set(shop.interactions.items[shop.interactions.users == user].tolist())


def equal(one, other):
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_array_equal(one.source, other.source)
    assert one.sources == other.sources


def well_formed(ranked, k, n_items):
    """What holds of every answer: shape, no item twice, padding at the end only, scores that fall and are numbers, sources that are."""
    assert ranked.ids.shape == ranked.scores.shape == ranked.source.shape == (len(ranked.valid), k)
    assert (ranked.ids.dtype, ranked.scores.dtype, ranked.valid.dtype, ranked.source.dtype) == (
        np.int32,
        np.float32,
        np.int32,
        np.int8,
    )
    for ids, scores, valid, source in zip(ranked.ids, ranked.scores, ranked.valid, ranked.source, strict=True):
        assert (ids[:valid] >= 0).all()
        assert (ids[:valid] < n_items).all()
        assert (ids[valid:] == -1).all()
        assert len(set(ids[:valid].tolist())) == valid
        assert np.isfinite(scores[:valid]).all()
        assert np.isneginf(scores[valid:]).all()
        assert (np.diff(scores[:valid]) <= 0).all()
        assert (source[:valid] >= 0).all()
        assert (source[:valid] < len(ranked.sources)).all()
        assert (source[valid:] == -1).all()


def test_name_is_the_registered_one(name, model):
    assert model.name == name
    assert RECOMMENDERS[name].name == name


@pytest.mark.parametrize("k", [1, 5, 25])
def test_lists_are_well_formed(model, shop, users, k):
    well_formed(model.recommend(users, k), k, shop.n_items)


def test_a_list_is_the_start_of_a_longer_one(model, shop, users):
    short, long = model.recommend(users, 4), model.recommend(users, 11)
    np.testing.assert_array_equal(short.ids, long.ids[:, :4])
    np.testing.assert_array_equal(short.scores, long.scores[:, :4])


def test_more_than_there_is_pads(model, shop, users):
    everything = model.recommend(users, shop.n_items)
    more = model.recommend(users, shop.n_items + 7)
    well_formed(more, shop.n_items + 7, shop.n_items)
    np.testing.assert_array_equal(more.ids[:, : shop.n_items], everything.ids)
    np.testing.assert_array_equal(more.valid, everything.valid)
    assert more.valid.max() <= shop.n_items


def test_warm_users_get_full_lists(name, model, shop):
    valid = model.recommend(np.arange(shop.n_users - 4), 5).valid
    if name == "repeat":
        assert valid.tolist() == [min(5, len(history(shop, user))) for user in range(shop.n_users - 4)]
    elif model.returns_partial_lists:
        assert valid.max() == 5
    else:
        assert (valid == 5).all()


def test_allowed_items_only_and_the_list_still_full(name, model, shop, users):
    allowed = np.zeros(shop.n_items, dtype=bool)
    allowed[[1, 4, 9, 16, 20, 24]] = True
    ranked = model.recommend(users, 5, allowed=allowed)
    well_formed(ranked, 5, shop.n_items)
    assert allowed[ranked.ids[ranked.ids >= 0]].all()
    for user in range(shop.n_users - 4):
        can = (
            history(shop, user) & set(np.flatnonzero(allowed).tolist()) if name == "repeat" else np.flatnonzero(allowed)
        )
        assert ranked.valid[user] == min(5, len(can)) or (model.returns_partial_lists and name != "repeat")


def test_nothing_allowed_gives_nothing(model, shop, users):
    ranked = model.recommend(users, 3, allowed=np.zeros(shop.n_items, dtype=bool))
    assert not ranked.valid.any()
    assert (ranked.ids == -1).all()


def test_filtering_keeps_the_order_of_the_rest(model, shop, users):
    """A filter takes items away and never moves the others."""
    allowed = np.arange(shop.n_items) % 3 != 0
    everything, some = model.recommend(users, shop.n_items), model.recommend(users, shop.n_items, allowed=allowed)
    for full, kept in zip(everything.ids, some.ids, strict=True):
        assert [item for item in full.tolist() if item >= 0 and allowed[item]] == kept[kept >= 0].tolist()


def test_exclude_leaves_out_per_user(model, shop, users):
    free = model.recommend(users, 3)
    exclude = [row[row >= 0] for row in free.ids]
    rest = model.recommend(users, 3, exclude=exclude)
    well_formed(rest, 3, shop.n_items)
    long = model.recommend(users, 6)
    for row, given, expected in zip(rest.ids, exclude, long.ids, strict=True):
        assert not set(row[row >= 0].tolist()) & set(given.tolist())
        np.testing.assert_array_equal(row, expected[3:])  # the next three move up


def test_exclude_of_nothing_changes_nothing(model, users):
    equal(model.recommend(users, 4), model.recommend(users, 4, exclude=[np.empty(0, dtype=np.int64)] * len(users)))


def test_exclude_purchased(name, model, shop, users):
    ranked = model.recommend(users, shop.n_items, exclude_purchased=True)
    well_formed(ranked, shop.n_items, shop.n_items)
    for user, (ids, valid) in enumerate(zip(ranked.ids, ranked.valid, strict=True)):
        had = history(shop, user)
        assert not had & set(ids[:valid].tolist())
        if not model.returns_partial_lists and user < shop.n_users - 4:
            assert valid == shop.n_items - len(had)


def test_unknown_user(model, shop):
    ranked = model.recommend([-1, 0, -1], 5)
    well_formed(ranked, 5, shop.n_items)
    equal_rows = (ranked.ids[0] == ranked.ids[2]).all()
    assert equal_rows
    np.testing.assert_array_equal(ranked.ids[1], model.recommend([0], 5).ids[0])
    if not model.supports_cold:
        assert ranked.valid[0] == 0


def test_user_without_history_is_answered_by_flag(model, shop):
    cold = np.arange(shop.n_users - 4, shop.n_users - 1)  # no history, but a profile
    valid = model.recommend(cold, 5).valid
    assert (valid == (5 if model.supports_cold else 0)).all()


def test_attributes_of_a_call_are_for_the_unknown_only(model, shop, users):
    given = [{"band": "65+"}] * len(users)
    warm = np.arange(shop.n_users - 4)
    np.testing.assert_array_equal(
        model.recommend(warm, 5).ids, model.recommend(warm, 5, attributes=given[: len(warm)]).ids
    )
    nobody = model.recommend([-1], 5, attributes=[{"band": "65+"}])
    well_formed(nobody, 5, shop.n_items)
    nonsense = model.recommend([-1], 5, attributes=[{"no such attribute": "at all"}])
    equal(nonsense, model.recommend([-1], 5))


def test_batch_equals_single(model, users):
    together = model.recommend(users, 6, exclude_purchased=True)
    for row, user in enumerate(users.tolist()):
        alone = model.recommend([user], 6, exclude_purchased=True)
        np.testing.assert_array_equal(alone.ids[0], together.ids[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)
        np.testing.assert_array_equal(alone.source[0], together.source[row])


def test_batches_of_any_size_are_one(model, users, monkeypatch):
    together = model.recommend(users, 6)
    monkeypatch.setattr("models.recommend.base.BLOCK_CELLS", 70)  # three users at a time
    blocks = model.recommend(users, 6)
    np.testing.assert_array_equal(blocks.ids, together.ids)
    np.testing.assert_array_equal(blocks.source, together.source)


def test_no_users_no_rows(model):
    assert model.recommend([], 3).ids.shape == (0, 3)


def test_the_same_user_twice(model):
    ranked = model.recommend([3, 3], 5)
    np.testing.assert_array_equal(ranked.ids[0], ranked.ids[1])


def test_refit_forgets(name, model, shop, shop_of):
    other = shop_of(seed=5, n_users=17, n_items=9, lines=80)
    refit = make(name).fit(other).fit(shop)
    equal(refit.recommend(np.arange(shop.n_users), 7), model.recommend(np.arange(shop.n_users), 7))
    assert make(name).fit(shop).fit(other).n_items_ == 9


def test_same_seed_same_answer(name, model, shop, users):
    equal(make(name).fit(shop).recommend(users, 10), model.recommend(users, 10))


def test_fit_returns_itself_and_init_only_stores(name, shop):
    fresh = make(name)
    assert not [attribute for attribute in vars(fresh) if attribute.endswith("_")]
    assert fresh.fit(shop) is fresh


def test_a_copy_in_another_process_answers_the_same(model, users):
    """Worker processes of batch scoring receive a pickled copy, also of a model that has answered before."""
    asked = model.recommend(users, 10)
    equal(pickle.loads(pickle.dumps(model)).recommend(users, 10), asked)


def test_save_and_load_are_equal_bit_for_bit(name, model, users, tmp_path, shop):
    model.save(tmp_path / "model")
    loaded = RECOMMENDERS[name].load(tmp_path / "model")
    for options in ({}, {"exclude_purchased": True}, {"attributes": [{"band": "65+"}] * len(users)}):
        equal(loaded.recommend(users, 25, **options), model.recommend(users, 25, **options))
    equal(loaded.recommend([-1], 5), model.recommend([-1], 5))
    if model.supports_similar:
        equal(loaded.similar_items(3, 5), model.similar_items(3, 5))
    assert loaded.get_params() == model.get_params()
    other = next(kind for kind in RECOMMENDERS if kind != name)
    with pytest.raises(ArtifactError, match="another model"):
        RECOMMENDERS[other].load(tmp_path / "model")


def test_parameters_make_the_same_model(name, model):
    assert type(model)(**model.get_params()).get_params() == model.get_params()


def test_arguments_are_left_alone(name, shop, users, all_arrays):
    before = [array.copy() for array in all_arrays(shop)]
    fitted = make(name).fit(shop)  # its arrays cannot be written to
    allowed, exclude = np.ones(shop.n_items, dtype=bool), [np.array([1, 2])] * len(users)
    for array in (users, allowed, *exclude):
        array.flags.writeable = False
    first = fitted.recommend(users, 5, allowed=allowed, exclude=exclude, exclude_purchased=True)
    for array, old in zip(all_arrays(shop), before, strict=True):
        np.testing.assert_array_equal(array, old)
    # an answer is the caller's own: writing into it does not reach the model
    answer = fitted.recommend(users, 5)
    answer.ids[:], answer.scores[:] = 0, 0.0
    equal(fitted.recommend(users, 5, allowed=allowed, exclude=exclude, exclude_purchased=True), first)


def test_rank_orders_the_given_items_as_the_list_does(name, model, shop):
    items = np.array([7, 2, 11, 19])
    for user in (0, 5, shop.n_users - 2):
        ranked = model.rank(user, items)
        assert ranked.ids.shape == (1, 4)
        everything = model.recommend([user], shop.n_items).ids[0]
        assert ranked.ids[0, : ranked.valid[0]].tolist() == [
            item for item in everything.tolist() if item in items.tolist()
        ]


@pytest.mark.parametrize("items", [[-1], [3, 25]])
def test_rank_refuses_items_it_does_not_know(model, items):
    with pytest.raises(InvalidRequest):
        model.rank(0, np.array(items))


def test_similar_items(model, shop):
    if not model.supports_similar:
        with pytest.raises(UsageError, match="similar"):
            model.similar_items(0, 3)
        return
    for item in (0, 12):
        ranked = model.similar_items(item, 6)
        well_formed(ranked, 6, shop.n_items)
        assert item not in ranked.ids
        assert ranked.scores[0, 0] <= 1.0 + 1e-5
    padded = model.similar_items(0, shop.n_items + 3)
    well_formed(padded, shop.n_items + 3, shop.n_items)
    assert padded.valid[0] <= shop.n_items - 1
    for item, k in ((-1, 3), (shop.n_items, 3), (0, 0)):
        with pytest.raises(InvalidRequest):
            model.similar_items(item, k)


@pytest.mark.parametrize(
    "call",
    [
        {"users": [0], "k": 0},
        {"users": [0], "k": -1},
        {"users": [-2], "k": 3},
        {"users": [40], "k": 3},
        {"users": [0], "k": 3, "allowed": np.ones(24, dtype=bool)},
        {"users": [0], "k": 3, "exclude": []},
        {"users": [0], "k": 3, "attributes": [None, None]},
        {"users": [0], "k": 3, "exclude": [np.array([25])]},
        {"users": [0], "k": 3, "exclude": [np.array([-1])]},
    ],
)
def test_wrong_calls_are_refused(model, call):
    with pytest.raises(InvalidRequest):
        model.recommend(**call)


@pytest.mark.parametrize(
    ("pairs", "n_users", "n_items"),
    [
        ([(0, 0, 1.0)], 1, 1),
        ([(0, item, 1.0) for item in range(4)], 1, 4),
        ([(user, 0, 1.0) for user in range(4)], 4, 1),
        ([(user, item, 5.0) for user in range(6) for item in range(5)], 6, 5),
        ([(0, 0, 1.0)] * 50 + [(1, 1, 30.0)], 3, 4),
    ],
    ids=["one by one", "one user", "one item", "all the same", "one pair many times"],
)
def test_odd_data(name, training_set_of, pairs, n_users, n_items):
    train = training_set_of(pairs, n_users, n_items)
    if refused(name, train):
        return
    fitted = make(name).fit(train)
    ranked = fitted.recommend(np.arange(n_users), n_items + 1)
    well_formed(ranked, n_items + 1, n_items)
    known = np.bincount(train.interactions.users, minlength=n_users) > 0
    if not fitted.returns_partial_lists:
        assert (ranked.valid[known] == n_items).all()
    well_formed(fitted.recommend([-1], 2, exclude_purchased=True), 2, n_items)


def test_ids_of_any_alphabet(name, training_set_of, tmp_path):
    items = ["牛奶", "crème brûlée", "😀", "a b", "'; DROP TABLE items"]
    users = ["张三", "Ægir", "Ω", "-1"]
    train = training_set_of(
        [(u, i, 1.0 + u) for u in range(4) for i in range(5) if (u + i) % 2],
        4,
        5,
        item_ids=items,
        user_ids=users,
        categories=["乳品/牛奶", "süß", "😀/😀", "", "/"],
    )
    if refused(name, train):
        return
    fitted = make(name).fit(train)
    fitted.save(tmp_path / "模型 1")
    equal(RECOMMENDERS[name].load(tmp_path / "模型 1").recommend(range(4), 5), fitted.recommend(range(4), 5))


def test_never_a_nan(name, training_set_of):
    """Very old interactions decay to nothing; what is left are still numbers."""
    train = training_set_of([(u, i, 1e6) for u in range(5) for i in range(4)], 5, 4)
    if refused(name, train):
        return
    ranked = make(name).fit(train).recommend([0, 1, -1], 4)
    assert not np.isnan(ranked.scores).any()
    well_formed(ranked, 4, 4)


def recent_interactions(rows, items, n, n_items, age_days=0.5):
    """What the users in these rows of a call did after the fit."""
    m = len(rows)
    return Interactions(
        np.array(rows, np.int32),
        np.array(items, np.int32),
        np.full(m, age_days, np.float32),
        np.ones(m, np.float32),
        (n, n_items),
    )


def test_nothing_since_changes_nothing(model, shop, users):
    none = recent_interactions([], [], len(users), shop.n_items)
    equal(model.recommend(users, 6, recent_interactions=none), model.recommend(users, 6))


def test_what_was_had_since_counts_as_had(model, shop, users):
    had = recent_interactions([0, 0, 3], [2, 5, 7], len(users), shop.n_items)
    ranked = model.recommend(users, shop.n_items, recent_interactions=had, elapsed_days=3.0, exclude_purchased=True)
    assert not {2, 5} & set(ranked.ids[0].tolist())
    assert 7 not in ranked.ids[3]
    assert 7 not in model.recommend(users, shop.n_items, recent_interactions=had, exclude_purchased=True).ids[3]


def test_fold_in(model, shop, users):
    """New events change the answer of a model that can fold them in, of that user only, and are enough for one nobody knew."""
    asked = np.array([0, 1, -1])
    happened = recent_interactions([0] * 30 + [2] * 5, [24] * 30 + [3] * 5, 3, shop.n_items)
    before = model.recommend(asked, 6, elapsed_days=1.0)  # time alone may move items
    after = model.recommend(asked, 6, recent_interactions=happened, elapsed_days=1.0)
    well_formed(after, 6, shop.n_items)
    np.testing.assert_array_equal(before.ids[1], after.ids[1])
    if not model.supports_fold_in:
        equal(before, after)
        return
    assert (before.ids[0] != after.ids[0]).any() or (before.scores[0] != after.scores[0]).any()
    assert after.valid[2]
    for row, user in enumerate(asked.tolist()):
        mine = happened.where(happened.users == row)
        alone = model.recommend(
            [user],
            6,
            recent_interactions=recent_interactions([0] * len(mine.users), mine.items, 1, shop.n_items),
            elapsed_days=1.0,
        )
        np.testing.assert_array_equal(alone.ids[0], after.ids[row])
        np.testing.assert_allclose(alone.scores[0], after.scores[row], rtol=1e-4)


def test_scores_at_are_the_scores_of_the_list(model, shop):
    """The second stage asks for the scores of given items; they are those the list was ordered by."""
    query = Query(np.array([0, 5]))
    dense = model._scores(query)
    ids = np.array([[3, 0, -1], [24, 7, 11]])
    given = model._score_items(query, ids)
    assert given.shape == (2, 3)
    assert np.isneginf(given[0, 2])
    np.testing.assert_allclose(
        given[ids >= 0], np.take_along_axis(dense, np.maximum(ids, 0), axis=1)[ids >= 0], rtol=1e-4, atol=1e-6
    )


def test_since_of_other_users_is_refused(model, shop):
    with pytest.raises(InvalidRequest, match="recent_interactions"):
        model.recommend([0, 1], 3, recent_interactions=recent_interactions([0], [1], 1, shop.n_items))


# ---- capabilities ----------------------------------------------------------------------------------------------------


def similar_items(model):
    return model.similar_items(3, 5)


def item_vectors(model):
    return model.item_vectors()


def evidence(model):
    """Of a few users and all items, also with an item that the list goes with, and later."""
    pairs = [(user, item) for user in (-1, 0, 5, 9, 38, 39) for item in range(model.n_items_)]
    return [
        [model.evidence(user, item) for user, item in pairs],
        [model.evidence(user, item, items=np.array([(item + 15) % model.n_items_])) for user, item in pairs],
        [model.evidence(user, item, elapsed_days=2.0) for user, item in pairs],
    ]


def purchase_counts(model):
    return [model.purchase_counts(user) for user in (-1, 0, 5, 39)]


def expected_days(model):
    users = np.repeat(np.arange(10), model.n_items_)
    items = np.tile(np.arange(model.n_items_), 10)
    return [model.expected_days(users, items), model.expected_days(users, items, 7.0)]


def score_unseen(model):
    described = [{"category": "c1/d2", "brand": "b1"}, {"category": "c1"}, {}]
    return [model.score_unseen(user, described) for user in (-1, 0, 5, 39)]


def similar_to(model):
    return model.similar_to({"category": "c1/d2", "brand": "b1", "price": 2.0}, 5)


FLAGS = {
    "supports_similar": similar_items,
    "supports_item_vectors": item_vectors,
    "supports_evidence": evidence,
    "supports_purchase_counts": purchase_counts,
    "supports_expected_days": expected_days,
    "supports_score_unseen": score_unseen,
    "supports_similar_to": similar_to,
}


def same(one, other):
    """Equal bit for bit: lists, arrays, evidence or several of them."""
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if one is None or isinstance(one, dict):
        return one == other
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    equal(one, other)
    return True


def test_every_flag_is_tested():
    flags = {name for name in vars(Recommender) if name.startswith("supports_")}
    assert flags == {*FLAGS, "supports_cold", "supports_fold_in", "supports_purchase_evidence"}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_capability_works_where_declared_and_says_so_where_not(model, flag, tmp_path):
    call = FLAGS[flag]
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    if getattr(model, flag):
        assert same(call(loaded), call(model))
        return
    for one in (model, loaded):
        with pytest.raises(UsageError, match=f"'{model.name}' does not support {call.__name__}"):
            call(one)


def declaring(flag):
    """For the recommenders that declare a capability."""
    names = [name for name in RECOMMENDERS if getattr(RECOMMENDERS[name], flag)]
    return pytest.mark.parametrize("name", names, indirect=True)


@declaring("supports_item_vectors")
def test_item_vectors(model, shop):
    vectors = model.item_vectors()
    assert vectors.ndim == 2
    assert len(vectors) == shop.n_items
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


@declaring("supports_evidence")
def test_evidence_is_typed(model):
    types = get_type_hints(Evidence)
    found = [facts for facts in (facts for call in evidence(model) for facts in call) if facts is not None]
    assert found
    for facts in found:
        assert facts
        for name, value in facts.items():
            assert type(value) is (dict if name == "alike" else types[name])


@declaring("supports_evidence")
def test_evidence_of_an_unknown_user_is_about_the_given_items_only(model):
    for item in range(model.n_items_):
        assert model.evidence(-1, item) is None
        facts = model.evidence(-1, item, items=np.array([(item + 1) % model.n_items_]))
        assert facts is None or set(facts) <= {"with_item", "lift", "alike"}


@declaring("supports_evidence")
def test_purchase_evidence_is_declared(model):
    """Serving asks models that did not rank an item only if they declare it."""
    stated = {name for call in evidence(model) for facts in call for name in facts or ()}
    assert bool(stated.intersection(PURCHASE_EVIDENCE)) == model.supports_purchase_evidence


@declaring("supports_evidence")
def test_evidence_moves_with_time(model):
    now, _, later = evidence(model)
    for one, other in zip(now, later, strict=True):
        for name in {"last_days", "with_days"} & set(one or ()):
            assert other[name] == one[name] + 2.0


@declaring("supports_evidence")
@pytest.mark.parametrize(("user", "item"), [(-2, 0), (40, 0), (0, -1), (0, 25)])
def test_evidence_refuses_what_it_does_not_know(model, user, item):
    with pytest.raises(InvalidRequest, match="outside the training set"):
        model.evidence(user, item)


@declaring("supports_purchase_counts")
def test_purchase_counts(model, shop):
    lines = shop.interactions
    for user in range(shop.n_users):
        items, counts = model.purchase_counts(user)
        expected = np.bincount(lines.items[lines.users == user], minlength=shop.n_items)
        np.testing.assert_array_equal(items, np.flatnonzero(expected))
        np.testing.assert_array_equal(counts, expected[expected > 0])
    assert [len(part) for part in model.purchase_counts(-1)] == [0, 0]
    with pytest.raises(InvalidRequest):
        model.purchase_counts(shop.n_users)


@declaring("supports_expected_days")
def test_expected_days(model, shop):
    days, within = expected_days(model)
    assert days.dtype == within.dtype == np.float64
    assert days.shape == within.shape == (10 * shop.n_items,)
    had = [item in history(shop, user) for user in range(10) for item in range(shop.n_items)]
    np.testing.assert_array_equal(np.isfinite(days), had)
    assert (days[had] > 0).all()
    assert (within[had] > 0).all()
    assert (within[had] <= 7.0).all()


@declaring("supports_score_unseen")
def test_score_unseen(model, shop):
    for scores in score_unseen(model):
        assert scores.shape == (3,)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
    assert model.score_unseen(0, []).shape == (0,)
    with pytest.raises(InvalidRequest):
        model.score_unseen(shop.n_users, [{}])


@declaring("supports_similar_to")
def test_similar_to(model, shop):
    well_formed(similar_to(model), 5, shop.n_items)
    allowed = np.arange(shop.n_items) < 2
    assert model.similar_to({"brand": "b1"}, 4, allowed=allowed).valid.tolist() == [2]
    with pytest.raises(InvalidRequest):
        model.similar_to({"brand": "b1"}, 0)
    with pytest.raises(InvalidRequest):
        model.similar_to({"no such attribute": "at all"}, 3)


def test_attribute_names_are_those_that_change_an_answer(name, model, shop, tmp_path):
    names = {attribute for part in model.with_submodels() for attribute in part.attribute_names}
    assert names in (set(), {"band=18-24", "band=65+"})
    assert isinstance(model.attribute_names, tuple)
    plain = model.recommend([-1], shop.n_items)
    told = model.recommend([-1], shop.n_items, attributes=[{"band": "65+"}])
    changed = plain.ids.tobytes() != told.ids.tobytes() or plain.scores.tobytes() != told.scores.tobytes()
    assert changed == bool(names)
    model.save(tmp_path / "model")
    assert type(model).load(tmp_path / "model").attribute_names == model.attribute_names


def test_submodels(name, model, tmp_path):
    model.save(tmp_path / "model")
    for one in (model, type(model).load(tmp_path / "model")):
        assert isinstance(one.submodels, tuple)
        assert list(one.with_submodels())[0] is one
        assert len(list(one.with_submodels())) == 1 + len(one.submodels)
        assert [part.name for part in one.submodels] == [
            stage[0] for stage in one.get_params().get("stages" if name != "blend" else "components") or []
        ]
        assert {(part.n_users_, part.n_items_) for part in one.submodels} <= {(model.n_users_, model.n_items_)}
