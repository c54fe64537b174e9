"""The evaluation tasks: relevant items lie after the cutoff, training data before it, and nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.fit_cache import fit_cached
from qianmian.errors import ConfigError
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.holdout import interactions_between
from training.jobs.base import TrainingContext
from training.tasks import TASKS
from training.tasks.base import check_models, make_recommender, parameters_of, with_parameters

END = datetime(2024, 5, 30)
START = END - timedelta(days=28)


@pytest.fixture(scope="module")
def context(shop, settings):
    return TrainingContext(shop, END, settings, lambda line: None)


@pytest.fixture(scope="module")
def train(context) -> TrainingSet:
    return context.training_set(START, min_item_customers=2)


@pytest.fixture(scope="module")
def holdout(context, train):
    return interactions_between(context, train, START, END)


# the examples of a session are visits before the period (`test_tasks_session.py`)
@pytest.fixture(scope="module", params=[name for name in TASKS if name != "session"])
def task(request):
    return TASKS[request.param]


@pytest.fixture(scope="module")
def examples(task, train, holdout) -> EvaluationSplit:
    return task.examples(train, holdout, 0)


def test_interactions_between_are_those_of_the_test_period(train, holdout):
    assert len(holdout.users)
    assert holdout.shape == train.interactions.shape
    assert holdout.age_days.min() > 0
    assert holdout.age_days.max() <= 28.0
    assert train.as_of == START


def test_every_example_has_relevant_items_of_the_test_period(task, train, holdout, examples):
    assert examples.truth.shape == (len(examples.users), train.n_items)
    assert (np.diff(examples.truth.indptr) > 0).all()
    assert set(np.unique(examples.truth.data)) == {1.0}
    took = interaction_matrix(holdout.users, holdout.items, holdout.shape)
    per_user = np.bincount(holdout.users, minlength=train.n_users)
    assert (per_user[examples.users] > 0).all()
    # item indices may differ in the task; the number of relevant items per customer may not
    assert (np.diff(examples.truth.indptr) <= np.diff(took.indptr)[examples.users]).all()


def test_the_same_seed_gives_the_same_examples(task, train, holdout, examples):
    again = task.examples(train, holdout, 0)
    np.testing.assert_array_equal(again.users, examples.users)
    assert (again.truth != examples.truth).nnz == 0


def test_later_rows_are_not_in_the_training_data(examples, train):
    """The training data of the models are a subset of the interactions before the test period."""
    assert len(examples.train.interactions.users) <= len(train.interactions.users)
    assert examples.train.as_of == START
    assert examples.train.interactions.age_days.min() > 0


def test_candidates_are_unfitted_and_end_with_a_baseline(task, settings):
    candidates = task.candidates(settings.recommend, 0)
    assert len(candidates) >= 2
    assert all(not hasattr(model, "n_items_") for model in candidates.values())
    assert set(task.tuned_models) <= {model.name for model in candidates.values()}
    for name in task.fallbacks:
        make_recommender(name, settings.recommend, 0) if name not in TASKS else TASKS[name]


def test_relevant_items_of_discover_are_never_purchased_before(train, holdout):
    task_examples = TASKS["discover"].examples(train, holdout, 0)
    interacted = interaction_matrix(train.interactions.users, train.interactions.items, holdout.shape)[
        task_examples.users
    ]
    assert task_examples.truth.multiply(interacted).nnz == 0
    assert task_examples.exclude_purchased


def test_cold_customers_have_no_history_left(train, holdout):
    task_examples = TASKS["cold customers"].examples(train, holdout, 0)
    assert not np.isin(task_examples.train.interactions.users, task_examples.users).any()
    assert np.isin(train.interactions.users, task_examples.users).any()
    others = TASKS["cold customers"].examples(train, holdout, 1).users
    assert others.shape == task_examples.users.shape
    assert others.tolist() != task_examples.users.tolist()


def test_cold_items_have_no_history_and_a_random_order(train, holdout):
    task_examples = TASKS["cold items"].examples(train, holdout, 0)
    assert not task_examples.allowed[task_examples.train.interactions.items].any()
    assert task_examples.allowed[task_examples.truth.indices].all()
    place = {item: i for i, item in enumerate(task_examples.train.item_ids.tolist())}
    assert set(place) == set(train.item_ids.tolist())
    before = np.array([place[item] for item in train.item_ids.tolist()])
    assert abs(np.corrcoef(before, np.arange(train.n_items))[0, 1]) < 0.5
    for name, values in train.item_attributes.items():
        np.testing.assert_array_equal(task_examples.train.item_attributes[name][before], values, err_msg=name)
    interacted = {
        (user, str(train.item_ids[item]))
        for user, item in zip(train.interactions.users, train.interactions.items, strict=True)
    }
    rows = np.repeat(task_examples.users, np.diff(task_examples.truth.indptr))
    assert not interacted & {
        (user, str(task_examples.train.item_ids[item]))
        for user, item in zip(rows, task_examples.truth.indices, strict=True)
    }


def test_fits_are_shared(train):
    settings = RecommendSettings()
    first = fit_cached(make_recommender("repeat", settings, 0), train)
    assert fit_cached(make_recommender("repeat", settings, 0), train) is first
    assert fit_cached(make_recommender("repeat", settings, 0, half_life_days=None), train) is not first
    assert fit_cached(make_recommender("repeat", settings, 0), train.with_earlier_cutoff(7)) is not first
    assert fit_cached(make_recommender("repeat", settings, 0), train.with_interactions(train.interactions)) is not first
    rankers = [
        make_recommender(
            "two_stage", settings, 0, rounds=3, cuts=1, stages=[("repeat", {}, 30), ("popular", {}, 30)], target=target
        )
        for target in ("any", "new")
    ]
    one, other = (fit_cached(ranker, train) for ranker in rankers)
    assert one is not other
    assert one.models_[0] is other.models_[0], "both are trained on the same data"
    assert one.statistics_ is other.statistics_
    again = make_recommender(
        "two_stage", settings, 0, rounds=3, cuts=1, stages=[("repeat", {}, 30), ("popular", {}, 30)]
    ).fit(replace(train))
    users = np.arange(train.n_users)
    # a shared model equals one that is not shared
    np.testing.assert_array_equal(again.recommend(users, 5).ids, one.recommend(users, 5).ids)


def test_settings_of_models():
    settings = RecommendSettings(models={"ials": {"factors": 7}, "popular": {"window_days": 3}})
    check_models(settings)
    assert make_recommender("ials", settings, 5).get_params()["factors"] == 7
    assert make_recommender("ials", settings, 5).get_params()["seed"] == 5
    assert make_recommender("popular", settings, 5).window_days == 3
    assert make_recommender("popular", RecommendSettings(), 5).window_days == 28.0
    assert make_recommender("popular", settings, 5, window_days=None).window_days is None
    chosen = with_parameters(settings, {"ials": {"factors": 9, "iterations": 2}, "repeat": {"half_life_days": 3.0}})
    assert chosen.models["ials"] == {"factors": 7, "iterations": 2}  # values of the settings are kept
    assert chosen.models["repeat"] == {"half_life_days": 3.0}
    assert "half_life_days" in parameters_of(type(make_recommender("repeat", settings, 0)))


def test_settings_of_unknown_models_are_rejected():
    with pytest.raises(ConfigError) as caught:
        check_models(RecommendSettings(models={"ials": {"factor": 7}, "nonsense": {}, "repeat": {"a": 1, "b": 2}}))
    assert len(caught.value.problems) == 4
    assert "recommend.models.ials.factor" in str(caught.value)
    assert "nonsense" in str(caught.value)


def test_a_model_that_is_fitted_again_does_not_change_what_is_cached(train):
    """One unfitted candidate is compared on several training sets."""
    model = make_recommender("repeat", RecommendSettings(), 0)
    first = fit_cached(model, train)
    counts = first.counts_.copy()
    later = fit_cached(model, train.with_earlier_cutoff(30.0))
    assert later is not first
    assert (first.counts_ != counts).nnz == 0
    assert later.counts_.nnz < counts.nnz
    assert not hasattr(model, "counts_"), "the given model stays unfitted"
