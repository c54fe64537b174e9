"""`SharedFits`: what stays in memory between the tasks of a round."""

import numpy as np
import pytest

from features.interactions import EarlierCutoff, TrainingSet
from models.recommend.base import fit_cached
from models.recommend.bpr import BPRRecommender
from models.recommend.complement import ComplementRecommender
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from training.selection.fits import SharedFits


@pytest.fixture
def train() -> TrainingSet:
    ages = np.tile([1.0, 40.0], 20)
    return TrainingSet.from_arrays(np.repeat(np.arange(20), 2), np.arange(40) % 5, n_users=20, n_items=5, age_days=ages)


def test_a_fit_is_freed_after_the_last_task_that_needs_it(train):
    shared, own = BPRRecommender(factors=2, iterations=1), ComplementRecommender()
    stage = RepeatPurchaseRecommender()
    fits = SharedFits(train, {"one": {"a": shared, "b": own, "c": stage}, "two": {"a": shared}})
    fitted = {model.name: fit_cached(model, train) for model in (shared, own, stage)}
    fits.free("one")
    assert fit_cached(shared, train) is fitted["bpr"], "the other task needs it"
    assert fit_cached(own, train) is not fitted["complement"]
    fits.free("two")
    assert fit_cached(shared, train) is not fitted["bpr"]
    assert fit_cached(stage, train) is fitted["repeat"], "rankers of a later cutoff read it"


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
