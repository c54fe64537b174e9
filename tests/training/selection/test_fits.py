"""`SharedFits`: what stays in memory between the tasks of a round."""

import sys
import threading

import numpy as np
import pytest

from features.interactions import EarlierCutoff, TrainingSet
from models.recommend.blend import BlendRecommender
from models.recommend.bpr import BPRRecommender
from models.recommend.complement import ComplementRecommender
from models.recommend.fit_cache import fit_cached, fit_key
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import DataError
from training.selection.fits import SharedFits


@pytest.fixture
def train() -> TrainingSet:
    ages = np.tile([1.0, 40.0], 20)
    return TrainingSet.from_arrays(np.repeat(np.arange(20), 2), np.arange(40) % 5, n_users=20, n_items=5, age_days=ages)


def test_a_fit_is_freed_after_the_last_task_that_needs_it(train):
    shared, own = BPRRecommender(factors=2, iterations=1), ComplementRecommender()
    stage, other = RepeatPurchaseRecommender(), RepeatPurchaseRecommender(half_life_days=3.0)
    ranker = TwoStageRecommender(stages=[("repeat", {}, 10)])
    fits = SharedFits(
        train, {"one": {"a": shared, "b": own, "c": stage, "d": other, "e": ranker}, "two": {"a": shared}}
    )
    fitted = {model.name: fit_cached(model, train) for model in (shared, own, other, stage)}
    fits.free("one")
    assert fit_cached(shared, train) is fitted["bpr"], "the other task needs it"
    assert fit_cached(own, train) is not fitted["complement"]
    fits.free("two")
    assert fit_cached(shared, train) is not fitted["bpr"]
    assert fit_cached(stage, train) is fitted["repeat"], "rankers of a later cutoff read it"
    assert fit_key(other) not in train._memo


def test_components_of_a_blend_are_fits_of_its_task(train):
    shared, own = BPRRecommender(factors=2, iterations=1), ComplementRecommender()
    blend = BlendRecommender([(model.name, model.get_params(), 0.5) for model in (shared, own)])
    fits = SharedFits(train, {"one": {"a": shared}, "two": {"blend": blend}})
    fitted = fits.fit(shared, train, "one")
    fits.free("one")
    assert fits.fit(blend, train, "two").models_[0] is fitted, "the blend of another task needs it"
    fits.free("two")
    assert {fit_key(model) for model in (shared, own, blend)}.isdisjoint(train._memo)


def test_fits_on_a_training_set_of_its_own_are_freed_but_not_those_of_rankers(train):
    ranker, own = TwoStageRecommender(stages=[("repeat", {}, 10)]), ComplementRecommender()
    fits = SharedFits(train, {"one": {"a": ranker}, "two": {"a": own, "b": RepeatPurchaseRecommender()}})
    past = train.with_earlier_cutoff(28.0)  # a cutoff of the rankers too
    for model in (own, RepeatPurchaseRecommender()):
        fits.fit(model, past, "two")
    fits.free_on(past, {"a": own, "b": RepeatPurchaseRecommender()})
    assert fit_key(own) not in past._memo
    assert fit_key(RepeatPurchaseRecommender()) in past._memo, "the stage of a ranker"


def test_a_ranker_that_cannot_be_fitted_is_not_waited_for(train):
    fits = SharedFits(train, {"one": {"a": TwoStageRecommender(horizon_days=90.0)}}, is_last=True)
    past = train.with_earlier_cutoff(28.0)
    with pytest.raises(DataError, match="too short"):
        fits.fit(TwoStageRecommender(horizon_days=90.0), train, "one")
    assert train.with_earlier_cutoff(28.0) is not past


def test_earlier_cutoffs_are_freed_after_the_last_task_with_a_ranker(train):
    ranker = TwoStageRecommender()
    fits = SharedFits(train, {"one": {"a": ranker}, "two": {"a": ranker}, "three": {"a": ComplementRecommender()}})
    past = train.with_earlier_cutoff(28.0)
    fits.free("three")
    fits.free("one")
    assert train.with_earlier_cutoff(28.0) is past
    fits.free("two")
    assert train.with_earlier_cutoff(28.0) is not past


@pytest.mark.parametrize("is_last", [False, True])
def test_an_earlier_training_set_stays_only_for_rankers_that_follow(train, is_last):
    past = train.with_earlier_cutoff(28.0)
    train.remember_earlier(EarlierCutoff(28.0, past, train.interactions))
    past.memoize(("ranking examples", 0.0), list)
    past.memoize("histories", list)
    SharedFits(train, {"one": {"a": TwoStageRecommender()}}, is_last=is_last).free("one")
    assert (train.earlier is None) is is_last
    assert [key for key in past._memo if key == "histories"] == (["histories"] if is_last else [])
    assert any(key[0] == "ranking examples" for key in past._memo)


def test_earlier_cutoffs_are_freed_when_the_last_ranker_is_fitted(train, monkeypatch):
    ranker = TwoStageRecommender()
    fits = SharedFits(train, {"one": {"a": ranker}, "two": {"a": ranker, "b": ComplementRecommender()}})
    monkeypatch.setattr(TwoStageRecommender, "_fit", lambda self, train: None)
    past = train.with_earlier_cutoff(28.0)
    fits.fit(ranker, train, "one")
    fits.fit(ComplementRecommender(), train, "two")
    assert train.with_earlier_cutoff(28.0) is past
    fits.fit(ranker, train, "two")
    assert train.with_earlier_cutoff(28.0) is not past


def test_values_may_be_added_while_earlier_cutoffs_are_freed(train):
    """A dict that grows while it is read raises; a short switch interval makes that certain within a second."""
    interval, stop = sys.getswitchinterval(), threading.Event()

    def add_values() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            train.memoize(number, int)
            train.release(number - 50)

    threads = [threading.Thread(target=add_values) for _ in range(3)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(3_000):
            train.forget_earlier_cutoffs()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
