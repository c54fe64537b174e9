"""`train recommend` chooses on validation periods and reports the test period."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest

from models.recommend.fit_cache import fit_cached
from training.holdout import HoldoutSplit, HoldoutSplitter
from training.jobs.base import TrainingContext
from training.selection.candidates import select_candidates
from training.selection.parameters import SHORT_SEARCH, short_search
from training.tasks import TASKS
from training.tasks.base import make_recommender

END = datetime(2024, 5, 30)


@pytest.fixture(scope="module")
def splitter(shop, settings):
    return HoldoutSplitter(TrainingContext(shop, END, settings, lambda line: None))


def test_every_task_is_summed_up_with_its_interval(trained):
    report = trained.results["recommend"].report
    found = {task.task: task for task in report.tasks}
    assert set(found) <= set(TASKS)
    home = found["home"]
    assert home.metric == "ndcg@10"
    assert home.value.low <= home.value.value <= home.value.high
    assert home.value.value == pytest.approx(report.slices[f"home: {home.model}"]["ndcg@10"].value)
    assert home.ahead_of_other.value == pytest.approx(home.value.value - home.other_value.value)
    assert home.simplest == "popular"
    assert report.as_dict()["tasks"][0]["task"] == report.tasks[0].task


@pytest.fixture(scope="module")
def selection(splitter, settings) -> SimpleNamespace:
    """The candidates chosen with a small budget, which are left out, and the validation splits on which they were chosen."""
    seen: list[HoldoutSplit] = []
    validation = HoldoutSplitter.validation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            HoldoutSplitter,
            "validation",
            lambda self, back=1, **given: seen.append(validation(self, back, **given)) or seen[-1],
        )
        few = settings.recommend.model_copy(update={"budget_cpu_seconds": 0.1})
        selected, left_out = select_candidates(few, 0, splitter, lambda line: None)
    return SimpleNamespace(selected=selected, left_out=left_out, seen=seen)


def test_nothing_of_the_test_period_is_seen_by_the_choice(splitter, selection):
    """The splits on which candidates are chosen end where the test period begins, each before the one after it."""
    assert "two_stage" in selection.left_out
    assert selection.selected["home"].choice.winner in selection.selected["home"].choice.values
    test = splitter.test()
    starts = [split.start for split in selection.seen]
    assert starts == sorted(starts, reverse=True)
    assert all(split.train.as_of == split.start < test.start for split in selection.seen)
    assert all(split.holdout.age_days.max() <= splitter.horizon_days for split in selection.seen)
    assert test.train.interactions.age_days.min() > 0


def test_cold_items_are_drawn_several_times(splitter, selection):
    """Each draw hides other items, so that other customers are examples; a customer counts once."""
    task, split = TASKS["cold items"], splitter.validation()
    users = [task.examples(split.train, split.holdout, draw).users for draw in range(task.draws)]
    assert task.draws == 3
    assert selection.selected["cold items"].customers == len(np.unique(np.concatenate(users))) > max(map(len, users))


def test_a_winner_is_unfitted(splitter, selection):
    again = selection.selected["home"].model
    assert fit_cached(type(again)(**again.get_params()), splitter.test().train).n_items_ > 0


def test_a_better_half_life_is_found_and_noise_changes_nothing(splitter, settings):
    """Items are popular for a week only: the window of 7 days is better beyond noise than the one of 28 days."""
    validation, lines = splitter.validation(), []
    train = validation.train
    rng, n = np.random.default_rng(0), 4_000
    ages = rng.uniform(0.1, 56.0, n).astype(np.float32)
    week = (ages // 7).astype(np.int64)
    items = ((week * 11 + rng.integers(0, 8, n)) % min(train.n_items, 90)).astype(np.int32)
    users = rng.integers(0, train.n_users, n).astype(np.int32)
    data = replace(
        train.interactions, users=users, items=items, age_days=ages, weights=np.ones(n, np.float32), orders=None
    )
    data = replace(data, quantities=None, amounts=None, discounts=None)
    order = np.lexsort((data.items, data.users))
    fleeting = replace(train, interactions=data.where(order), auxiliary=None, returned=None)
    later = np.repeat(np.arange(train.n_users, dtype=np.int32), 3)
    wanted = rng.integers(0, 8, len(later)).astype(np.int32)  # those of the newest week
    ones = np.ones(len(later), np.float32)
    holdout = replace(validation.holdout, users=later, items=wanted, age_days=ones, weights=ones, orders=None)
    holdout = replace(holdout, quantities=None, amounts=None, discounts=None, types=None)
    found = short_search(
        settings.recommend, 0, replace(validation, train=fleeting, holdout=holdout), 100.0, lines.append
    )
    assert found["popular"]["window_days"] == 7.0
    assert "popular.window_days 7.0" in lines[-1]
    given = settings.recommend.model_copy(update={"models": {"popular": {"window_days": 28.0}}})
    kept = short_search(given, 0, replace(validation, train=fleeting, holdout=holdout), 100.0, lambda line: None)
    assert "window_days" not in kept.get("popular", {}), "parameters of the settings stay"
    assert short_search(settings.recommend, 0, validation, 0.0, lines.append) == {}, "nothing can be paid for"
    for name, parameters in SHORT_SEARCH.items():
        assert set(parameters) <= set(make_recommender(name, settings.recommend, 0).get_params())
