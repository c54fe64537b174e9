"""The task of `replenish`: repeated purchases only, the first two weeks only, and the metrics besides ranking."""

from __future__ import annotations

import numpy as np
import pytest

from features.interactions import Interactions, TrainingSet
from models.recommend.replenish.model import ReplenishRecommender
from qianmian.model_settings import RecommendSettings
from training.bootstrap import CLASSIFICATION
from training.tasks.base import make_recommender
from training.tasks.replenish import HORIZON_DAYS, MIN_PURCHASE_DAYS, TASK, concordance_index, examples

WINDOW = 28


def lines(users, items, ages, shape) -> Interactions:
    m = len(users)
    return Interactions(
        np.array(users, np.int32), np.array(items, np.int32), np.array(ages, np.float32), np.ones(m, np.float32), shape
    )


def small() -> TrainingSet:
    """Purchase days: user 0 items 0 (three), 1 (two) and 2 (one); user 1 item 0 (two); user 2 item 1 (one)."""
    users, items = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2, 0, 0, 1, 1]
    return TrainingSet.from_arrays(
        np.array(users),
        np.array(items),
        n_users=3,
        n_items=3,
        age_days=np.array([5.5, 15.5, 25.5, 3.5, 30.5, 4.5, 2.5, 9.5, 1.2, 1.7]),
    )


def test_examples_are_repeated_purchases_of_the_next_two_weeks():
    soon, late = WINDOW - 2.0, 5.0
    holdout = lines([0, 0, 0, 1, 2], [0, 1, 2, 0, 1], [soon, late, soon, late, soon], (3, 3))
    holdout = Interactions(
        *(getattr(holdout, name) for name in ("users", "items")),
        np.append(holdout.age_days[:-1], 27.9).astype(np.float32),
        holdout.weights,
        (3, 3),
    )
    task_examples = examples(small(), holdout, 0)
    assert task_examples.users.tolist() == [0]  # user 1 buys too late, user 2 bought on one day only
    # item 1 is bought too late, item 2 was bought once
    assert task_examples.truth.toarray().tolist() == [[1.0, 0.0, 0.0]]
    assert task_examples.exclude is not None
    assert [part.tolist() for part in task_examples.exclude] == [[2]]
    ranked = task_examples.recommend_with(
        make_recommender("replenish", RecommendSettings(), 0).fit(task_examples.train), 3
    )
    assert set(ranked.ids[0].tolist()) == {0, 1, -1}


def test_no_examples_without_repurchases():
    holdout = lines([2], [0], [27.5], (3, 3))
    assert len(examples(small(), holdout, 0)) == 0


@pytest.fixture(scope="module")
def town() -> tuple[TrainingSet, Interactions]:
    """Items bought regularly, every 4 to 40 days, and the purchases of the next four weeks."""
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
    train = TrainingSet.from_arrays(users[past], items[past], n_users=120, n_items=6, age_days=200 - days[past])
    return train, lines(users[~past], items[~past], 228 - days[~past], (120, 6))


def test_the_repurchase_model_wins_on_regular_purchases(town):
    """On regular purchases the model beats all simple baselines, hits the day, and is calibrated."""
    train, holdout = town
    task_examples = TASK.examples(train, holdout, 0)
    values = {}
    for name, model in TASK.candidates(RecommendSettings(), 0).items():
        values[name] = TASK.extra_metrics(model.fit(task_examples.train), task_examples, holdout)
    best = float(np.nanmean(values["replenish"]["sooner_first"]))
    assert best > 0.79  # within two weeks, items with cycles of 4 and 7 days are certain, in any order
    for name in list(values)[1:]:
        assert best > float(np.nanmean(values[name]["sooner_first"])) + 0.02, name
        assert set(values[name]) == {"sooner_first"}
    errors = {
        name: float(np.nanmean(found)) for name, found in values["replenish"].items() if name.startswith("day_error")
    }
    assert errors["day_error"] < 3.0
    assert errors["day_error"] <= errors["day_error_own_gap"] + 0.2
    assert errors["day_error"] < errors["day_error_middle"] / 2
    assert all(found.shape == (len(task_examples),) for found in values["replenish"].values())
    held = calibration_metrics(ReplenishRecommender(HORIZON_DAYS).fit(train), holdout)
    assert held["ece"] < 0.08
    assert held["brier"] < held["brier_base"] / 2
    assert held["bought"] == pytest.approx(held["probability"], abs=0.05)


def calibration_metrics(model: ReplenishRecommender, holdout: Interactions) -> dict[str, float]:
    """Measure the calibration over all pairs with purchases on at least `MIN_PURCHASE_DAYS` days.

    Returns
    -------
    dict
        ``ece`` (ten equally filled bins), ``brier``, ``brier_base`` (of the share of bought pairs), ``probability``
        (mean) and ``bought`` (share), for the horizon of the model, which the test period must cover.
    """
    n_users = holdout.shape[0]
    chances = model.purchase_probabilities_
    rows = np.repeat(np.arange(n_users), np.diff(chances.indptr))
    often = model.times_ >= MIN_PURCHASE_DAYS
    soon = holdout.where(holdout.age_days > np.ceil(holdout.age_days.max()) - model.horizon_days)
    bought = np.isin(
        rows[often] * holdout.shape[1] + chances.indices[often],
        soon.users.astype(np.int64) * holdout.shape[1] + soon.items,
    )
    chance, y = chances.data[often].astype(np.float64), bought.astype(np.int64)
    share = float(y.mean())
    return {
        **{name: CLASSIFICATION[name](y, chance) for name in ("ece", "brier")},
        "brier_base": share * (1.0 - share),
        "probability": float(chance.mean()),
        "bought": share,
    }


def test_sooner_first_is_the_concordance_index():
    """Compared with a count over all pairs of each customer; a tie counts as half right."""
    rng = np.random.default_rng(3)
    rows = np.sort(rng.integers(0, 6, 60))
    positions, days = rng.integers(0, 20, 60), rng.integers(1, 9, 60).astype(float)
    got = concordance_index(rows, positions, days, 7)
    for row in range(7):
        at = np.flatnonzero(rows == row)
        told = [
            (positions[i] < positions[j]) + 0.5 * (positions[i] == positions[j])
            for i in at
            for j in at
            if days[i] < days[j]
        ]
        assert got[row] == pytest.approx(np.mean(told)) if told else np.isnan(got[row])
    assert np.isnan(concordance_index(np.empty(0, int), np.empty(0, int), np.empty(0), 2)).all()
