"""The task of `replenish`: habits only, the first two weeks only, and what is measured beside the ranking."""

from __future__ import annotations

import numpy as np
import pytest

from features.interactions import Interactions, TrainingSet
from models.recommend.replenish.model import ReplenishRecommender
from qianmian.settings import RecommendSettings
from training.metrics import CLASSIFICATION
from training.tasks.base import make
from training.tasks.replenish import HORIZON_DAYS, LEAST_DAYS, TASK, examples, sooner_first

WINDOW = 28


def lines(users, items, ages, shape) -> Interactions:
    m = len(users)
    return Interactions(
        np.array(users, np.int32), np.array(items, np.int32), np.array(ages, np.float32), np.ones(m, np.float32), shape
    )


def small() -> TrainingSet:
    """User 0: item 0 on three days, item 1 on two, item 2 on one; user 1: item 0 on two days; user 2: item 1 twice on one day."""
    users, items = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2, 0, 0, 1, 1]
    return TrainingSet.of_pairs(
        np.array(users),
        np.array(items),
        n_users=3,
        n_items=3,
        age_days=np.array([5.5, 15.5, 25.5, 3.5, 30.5, 4.5, 2.5, 9.5, 1.2, 1.7]),
    )


def test_habits_and_the_next_two_weeks_only():
    soon, late = WINDOW - 2.0, 5.0
    after = lines([0, 0, 0, 1, 2], [0, 1, 2, 0, 1], [soon, late, soon, late, soon], (3, 3))
    after = Interactions(
        *(getattr(after, name) for name in ("users", "items")),
        np.append(after.age_days[:-1], 27.9).astype(np.float32),
        after.weights,
        (3, 3),
    )
    asked = examples(small(), after, 0)
    assert asked.users.tolist() == [0]  # user 1 buys too late, user 2 had it on one day only
    assert asked.truth.toarray().tolist() == [[1.0, 0.0, 0.0]]  # item 1 comes too late, item 2 was had once
    assert asked.exclude is not None
    assert [part.tolist() for part in asked.exclude] == [[2]]
    ranked = asked.recommend_with(make("replenish", RecommendSettings(), 0).fit(asked.train), 3)
    assert set(ranked.ids[0].tolist()) == {0, 1, -1}


def test_nobody_buys_again():
    after = lines([2], [0], [27.5], (3, 3))
    assert len(examples(small(), after, 0)) == 0


@pytest.fixture(scope="module")
def town() -> tuple[TrainingSet, Interactions]:
    """Items bought every 4 to 40 days, regularly; what comes in the next four weeks."""
    rng = np.random.default_rng(0)
    users, items, days = [], [], []
    for user in range(120):
        for item, cycle in enumerate((4, 7, 12, 20, 30, 40)):
            day = rng.uniform(0, cycle)
            while day < 228:
                users.append(user)
                items.append(item)
                days.append(day)
                day += cycle * np.exp(rng.normal(0, 0.15))
    users, items, days = np.array(users), np.array(items), np.array(days)
    past = days < 200
    train = TrainingSet.of_pairs(users[past], items[past], n_users=120, n_items=6, age_days=200 - days[past])
    return train, lines(users[~past], items[~past], 228 - days[~past], (120, 6))


def test_where_habits_are_regular_the_clock_is_ahead(town):
    """The data it was made for: every one-line baseline loses, the day is hit, the probabilities hold."""
    train, after = town
    asked = TASK.examples(train, after, 0)
    values = {}
    for name, model in TASK.candidates(RecommendSettings(), 0).items():
        values[name] = TASK.extra(model.fit(asked.train), asked, after)
    best = float(np.nanmean(values["replenish"]["sooner_first"]))
    assert best > 0.79  # in two weeks what comes every 4 and every 7 days comes for sure, in whatever order
    for name in list(values)[1:]:
        assert best > float(np.nanmean(values[name]["sooner_first"])) + 0.02, name
        assert set(values[name]) == {"sooner_first"}
    errors = {
        name: float(np.nanmean(found)) for name, found in values["replenish"].items() if name.startswith("day_error")
    }
    assert errors["day_error"] < 3.0
    assert errors["day_error"] <= errors["day_error_own_gap"] + 0.2
    assert errors["day_error"] < errors["day_error_middle"] / 2
    assert all(found.shape == (len(asked),) for found in values["replenish"].values())
    held = calibration(ReplenishRecommender(HORIZON_DAYS).fit(train), after)
    assert held["ece"] < 0.08
    assert held["brier"] < held["brier_base"] / 2
    assert held["bought"] == pytest.approx(held["probability"], abs=0.05)


def calibration(model: ReplenishRecommender, after: Interactions) -> dict[str, float]:
    """How good the probabilities are, over everything any customer had on `LEAST_DAYS` days or more, whether or not they bought anything again.

    Returns
    -------
    dict
        ``ece`` (ten equally filled bins), ``brier`` and that of the share bought (``brier_base``), ``probability`` (the mean) and ``bought`` (the share), for
        the horizon of the model, which the window must cover.
    """
    n_users = after.shape[0]
    chances = model.chances_
    rows = np.repeat(np.arange(n_users), np.diff(chances.indptr))
    often = model.times_ >= LEAST_DAYS
    soon = after.where(after.age_days > np.ceil(after.age_days.max()) - model.horizon_days)
    bought = np.isin(
        rows[often] * after.shape[1] + chances.indices[often], soon.users.astype(np.int64) * after.shape[1] + soon.items
    )
    chance, y = chances.data[often].astype(np.float64), bought.astype(np.int64)
    share = float(y.mean())
    return {
        **{name: CLASSIFICATION[name](y, chance) for name in ("ece", "brier")},
        "brier_base": share * (1.0 - share),
        "probability": float(chance.mean()),
        "bought": share,
    }


def test_sooner_first_is_the_c_index():
    """Against every pair of each customer counted one by one; a tie of places is half right."""
    rng = np.random.default_rng(3)
    rows = np.sort(rng.integers(0, 6, 60))
    places, days = rng.integers(0, 20, 60), rng.integers(1, 9, 60).astype(float)
    got = sooner_first(rows, places, days, 7)
    for row in range(7):
        at = np.flatnonzero(rows == row)
        told = [(places[i] < places[j]) + 0.5 * (places[i] == places[j]) for i in at for j in at if days[i] < days[j]]
        assert got[row] == pytest.approx(np.mean(told)) if told else np.isnan(got[row])
    assert np.isnan(sooner_first(np.empty(0, int), np.empty(0, int), np.empty(0), 2)).all()
