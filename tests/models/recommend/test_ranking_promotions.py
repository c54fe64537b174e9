"""What the ranker knows of promotions: past and planned ones of an item, and how a customer responds to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.blend import BlendRecommender
from models.recommend.ranking.promotions import PlannedPromotions, promotion_feature_names
from models.recommend.ranking.two_stage import TwoStageRecommender
from qianmian.errors import ArtifactError
from tests.models.recommend.promoted_shop import promotions_of, shop
from training.evaluation.metrics import ranking_metrics

NAN = float("nan")
STAGES = (("repeat", {}, 30), ("popular", {"window_days": 28.0}, 40))
QUICK = {"stages": STAGES, "rounds": 40, "learning_rate": 0.15, "depth": 4, "min_child_weight": 5.0, "n_jobs": 1}


def lines(rows, n_users=2, n_items=3):
    users, items, ages = np.array(rows, dtype=np.float64).T
    train = TrainingSet.from_arrays(
        users.astype(int), items.astype(int), n_users=n_users, n_items=n_items, age_days=ages
    )
    return train.interactions


def table(planned, users, ids, **more):
    columns = planned.features(np.asarray(users), np.asarray(ids), **more)
    return {name: columns[:, place].tolist() for place, name in enumerate(promotion_feature_names(planned.kinds))}


def test_features_by_hand():
    promotions = promotions_of(
        [  # item, kind, start, end, known, reach
            (0, "mailer", 14, 7, 20, 1.0),
            (0, "mailer", -7, -14, 2, 0.5),
            (0, "display", 2, -2, 3, 0.25),
            (1, "display", -30, -40, 3, 1.0),  # too far ahead
        ],
        3,
    )
    planned = PlannedPromotions.of(promotions, ("display", "mailer"), lines([(0, 0, 10), (0, 1, 10), (1, 0, 1)]))
    found = table(planned, [0, 0, 1, -1], [0, 1, 2, 0])
    assert found["promoted_past_share"] == pytest.approx([(7 + 2 * 0.25) / 28, 0, 0, (7 + 2 * 0.25) / 28])
    assert found["promoted_planned_share"] == pytest.approx([(7 * 0.5 + 2 * 0.25) / 28, 0, 0, 4 / 28])
    assert found["promoted_1_mailer_days_since"] == pytest.approx([7, NAN, NAN, 7], nan_ok=True)
    assert found["promoted_1_mailer_days_until"] == pytest.approx([7, NAN, NAN, 7], nan_ok=True)
    assert found["promoted_days_until"] == pytest.approx([0, NAN, NAN, 0], nan_ok=True)  # the display runs
    assert found["promoted_reach_now"] == [0.25, 0, 0, 0.25]
    assert found["promoted_kinds_planned"] == [2, 0, 0, 2]
    # of the two purchases of the first customer, one was in the mailer; that of the second was on display
    assert found["promoted_1_mailer_user_share"] == pytest.approx([0.5, 0.5, 0, NAN], nan_ok=True)
    assert found["promoted_0_display_user_share"] == pytest.approx([0, 0, 0.25, NAN], nan_ok=True)


def test_shares_and_reach_do_not_exceed_one():
    plans = [(0, kind, 20, -20, 30, 0.75) for kind in "abc"]
    found = table(PlannedPromotions.of(promotions_of(plans, 1), (), lines([(0, 0, 10)])), [0], [0])
    assert found["promoted_past_share"] == found["promoted_planned_share"] == found["promoted_reach_now"] == [1]
    assert found["promoted_user_share"] == [1]


def test_a_plan_counts_once_and_as_it_was_known_last():
    once = [(0, "m", 14, -7, 20, 0.5), (1, "m", -7, -14, 20, 0.5)]
    again = [*once, (0, "m", 14, -7, 3, 0.5), (1, "m", -7, -14, 3, 0.75)]  # exported again
    moved = [*once, (0, "m", 21, -14, 30, 1.0, 25.0), (1, "m", -1, -2, 30, 1.0, 3.0)]  # replaced before the cutoff
    bought = lines([(0, 0, 10), (0, 0, 18)])
    expected, *found = (
        table(PlannedPromotions.of(promotions_of(rows, 2), (), bought), [0, 0], [0, 1], elapsed_days=2.0)
        for rows in (once, again, moved)
    )
    assert expected["promoted_user_share"] == [0.25, 0.25]
    for one in found:
        np.testing.assert_equal(one, expected)


def test_a_plan_is_replaced_when_the_change_becomes_known():
    promotions = promotions_of([(0, "m", -7, -14, 20, 1.0, -3.0), (0, "m", -9, -14, -3, 1.0)], 1)
    planned = PlannedPromotions.of(promotions, (), lines([(0, 0, 10)]))
    days = [table(planned, [0], [0], elapsed_days=now)["promoted_days_until"] for now in (0.0, 3.0, 5.0)]
    np.testing.assert_equal(days, [[7], [4], [4]])


def test_at_the_end_of_a_week_the_next_one_runs_alone():
    weeks = promotions_of([(0, "m", 7, 0, 20, 0.5), (0, "m", 0, -7, 20, 0.25), (1, "m", 7, 0, 20, 1.0)], 2)
    found = table(PlannedPromotions.of(weeks, (), lines([(0, 0, 10)])), [0, 0], [0, 1])
    assert found["promoted_reach_now"] == [0.25, 0]
    np.testing.assert_equal(found["promoted_days_since"], [0, 0])
    np.testing.assert_equal(found["promoted_days_until"], [0, NAN])


def test_time_passes_and_plans_become_known_after_the_fit():
    promotions = promotions_of([(0, "m", -7, -14, 2, 1.0), (1, "m", -9, -16, -3, 1.0)], 2)
    planned = PlannedPromotions.of(promotions, (), lines([(0, 0, 10)]))
    days = [table(planned, [0, 0], [0, 1], elapsed_days=now)["promoted_days_until"] for now in (0.0, 3.0, 5.0)]
    np.testing.assert_equal(days, [[7, NAN], [4, NAN], [2, 4]])  # the second is known only after three days


def test_a_shop_without_promotions_has_the_model_it_had():
    train, truth = shop()
    plain = replace(train, promotions=None)
    users = np.flatnonzero(np.diff(truth.indptr))
    first, second = (
        TwoStageRecommender(**QUICK).fit(replace(plain, promotions=given))
        for given in (None, train.promotions.where(train.promotions.items < 0))
    )
    assert first.promotions_ is second.promotions_ is None
    assert not first.reads_promotions
    assert not [name for name in first.boosters_.boosters[0].feature_names if "promoted" in name]
    np.testing.assert_array_equal(first.recommend(users, 10).ids, second.recommend(users, 10).ids)
    assert {name for name in first._state() if "promo" in name} == set()


def ndcg(model, truth, **given):
    users = np.flatnonzero(np.diff(truth.indptr))
    return float(ranking_metrics(model.recommend(users, 10, **given).ids, truth[users], 10)["ndcg"].mean())


@pytest.fixture(scope="module")
def fitted():
    train, truth = shop()
    return train, truth, TwoStageRecommender(**QUICK).fit(train)


def test_a_plan_tells_what_will_be_bought(fitted):
    train, truth, model = fitted
    assert ndcg(model, truth) > ndcg(TwoStageRecommender(**QUICK).fit(replace(train, promotions=None)), truth) + 0.1


def test_what_becomes_known_after_a_cutoff_does_not_reach_its_examples(fitted):
    train, _, model = fitted
    sampler = replace(model._sampler())
    honest = sampler.at_cut(replace(train), 28.0)
    given = train.promotions
    told_later = replace(given, known_days=np.minimum(given.known_days, np.float32(27.5)))
    late = sampler.at_cut(replace(train, promotions=told_later), 28.0)
    width = len(promotion_feature_names(()))
    place = slice(-2 * len(STAGES) - width, -2 * len(STAGES))
    assert np.nanmax(honest.features[:, place]) > 0
    assert np.nan_to_num(late.features[:, place]).max() == 0
    unknown = replace(train, promotions=given.where(given.known_days > 28.0))
    np.testing.assert_array_equal(sampler.at_cut(unknown, 28.0).features, honest.features)


def test_saved_and_read_again(fitted, tmp_path):
    train, truth, model = fitted
    users = np.flatnonzero(np.diff(truth.indptr))
    model.save(tmp_path / "model")
    loaded = TwoStageRecommender.load(tmp_path / "model")
    for elapsed in (0.0, 3.0):
        ours, theirs = (one.recommend(users, 10, elapsed_days=elapsed) for one in (model, loaded))
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)
    # the promotions of the lake replace those of the fit; all of them, of which a call reads what is known
    loaded.update_promotions(train.promotions)
    np.testing.assert_array_equal(loaded.recommend(users, 10).ids, model.recommend(users, 10).ids)
    loaded.update_promotions(None)
    assert not np.array_equal(loaded.recommend(users, 10).ids, model.recommend(users, 10).ids)


def test_a_ranker_that_reads_other_features_is_refused(fitted, tmp_path, monkeypatch):
    fitted[2].save(tmp_path / "model")
    monkeypatch.setattr("models.recommend.ranking.promotions.ITEM", ("past_share", "reach_now"))
    with pytest.raises(ArtifactError, match="other features"):
        TwoStageRecommender.load(tmp_path / "model")


def test_a_model_of_models_passes_promotions_on(fitted):
    train, truth, _ = fitted
    blend = BlendRecommender([("two_stage", QUICK, 0.9), ("popular", {}, 0.1)]).fit(train)
    assert blend.reads_promotions
    before = blend.recommend(np.arange(train.n_users), 10).ids
    blend.update_promotions(None)
    assert not np.array_equal(blend.recommend(np.arange(train.n_users), 10).ids, before)


def test_blocks_of_customers_and_any_name_of_a_kind(monkeypatch):
    train, _ = shop()
    given = replace(train.promotions, kind_names=("[50%] < off",))
    once = PlannedPromotions.of(given, (), train.interactions)
    monkeypatch.setattr("models.recommend.ranking.promotions.BLOCK_LINES", 100)
    np.testing.assert_allclose(PlannedPromotions.of(given, (), train.interactions).response, once.response, rtol=1e-6)
    two = replace(given, kinds=(given.items % 2).astype(np.int16), kind_names=("[50%] < off", "a,b"))
    model = TwoStageRecommender(**QUICK).fit(replace(train, promotions=two))
    assert len(model.recommend([0], 5).ids) == 1
    assert model.promotions_.kinds == ("[50%] < off", "a,b")
