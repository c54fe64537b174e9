"""How `train churn` chooses: past moments, rhythm features of many moments, levels of the season, the simplest model."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.synthetic import Synthetic
from features.definitions import FEATURES
from features.profiles.purchase_process.process import PurchaseProcess
from models.classify.churn import ChurnClassifier
from models.classify.rhythm import CHURN_FEATURES, day_number
from models.classify.risk_bands import RiskBands
from qianmian.model_settings import LifecycleSettings
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.churn.choice import RecipeValidation, choose_recipe
from training.churn.history import OrderHistory
from training.churn.levels import OWN, RECENT, SEASON, SEASON_DRIFT, Rates, choose_level, missed, target_rate
from training.churn.recipes import LOGISTIC, MEAN, RECIPES, MemberRecipe, Recipe, TrainingRows, can_fit, fit_member
from training.churn.report import by_band, evaluate, in_words
from training.churn.snapshots import ChurnRows, Snapshots, moments
from training.classify.slices import predicted_and_observed
from training.jobs import JOBS
from training.jobs.base import EvaluatedModel, TrainingContext

END = datetime(2024, 7, 1)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    ingest(workspace, Synthetic(customers=150, days=200, seed=2), Settings(), now=datetime(2027, 1, 1))
    return Builder(Lake(workspace), [one for one in FEATURES if one.name in CHURN_FEATURES])


def test_features_of_the_history_are_those_of_the_profiles(builder):
    history = OrderHistory.read(builder.views(END), with_categories=True)
    for as_of in (datetime(2024, 3, 1), datetime(2024, 6, 3, 12)):
        profile = builder.build(as_of).matrix()
        found = history.features(as_of, CHURN_FEATURES)
        places = {one_id: place for place, one_id in enumerate(history.one_ids.tolist())}
        rows = [row for row, one_id in enumerate(profile.one_ids.tolist()) if one_id in places]
        assert len(rows) > 100
        mine = found[[places[profile.one_ids[row]] for row in rows]]
        for j, name in enumerate(CHURN_FEATURES):
            np.testing.assert_allclose(mine[:, j], profile.column(name)[rows], rtol=1e-3, atol=2e-2, err_msg=name)


def test_orders_of_a_sample_are_those_of_its_customers(builder):
    everyone, some = (OrderHistory.read(builder.views(END), size) for size in (None, 20))
    assert len(some.one_ids) == 20
    kept = np.isin(everyone.one_ids, some.one_ids)
    np.testing.assert_array_equal(everyone.features(END)[kept], some.features(END))
    np.testing.assert_array_equal(np.diff(everyone.starts)[kept], np.diff(some.starts))


def test_moments_are_thinned_and_not_cut():
    last = datetime(2024, 6, 1)
    found = moments(datetime(2021, 1, 1), last)
    steps = {later - earlier for earlier, later in zip(found, found[1:], strict=False)}
    assert steps == {timedelta(days=days) for days in (7, 14, 28)}
    assert found[0] < datetime(2021, 1, 29)
    assert {last, last - timedelta(days=364), last - timedelta(days=728)} <= set(found)
    assert moments(last, last - timedelta(days=1)) == []


# ---- levels ----------------------------------------------------------------------------------------------------------


class Known(Snapshots):
    """Snapshots of 200 customers of whom 20 % churn, and 60 % in December."""

    def __init__(self, growth: float = 0.0) -> None:
        super().__init__(None, 28, 56, END, datetime(2022, 1, 1), (), (), LifecycleSettings())  # type: ignore[arg-type]
        self.growth = growth

    def rows(self, as_of: datetime) -> ChurnRows:
        share = 0.6 if as_of.month == 12 else 0.2 + self.growth * (as_of.year == 2024)
        y = (np.arange(200) < share * 200).astype(np.int64)
        return ChurnRows(np.zeros((200, 0), np.float32), y, np.arange(200), np.full(200, day_number(as_of)))


def test_the_rate_of_the_same_weeks_a_year_earlier():
    rates = Rates(Known(), END)
    assert target_rate(SEASON, rates, datetime(2024, 12, 16)) == pytest.approx(0.6, abs=0.01)
    assert target_rate(SEASON, rates, datetime(2024, 3, 1)) == pytest.approx(0.2, abs=0.01)
    assert target_rate(SEASON, rates, datetime(2022, 6, 1)) is None  # the history begins later
    assert target_rate(SEASON, rates, datetime(2025, 7, 15)) is None  # its outcomes are not known yet
    assert rates.rate(END - timedelta(days=27)) is None
    assert rates.rate(END - timedelta(days=28)) is not None


def test_the_drift_against_a_year_earlier():
    drifting = Rates(Known(growth=0.2), END)
    assert drifting.drift(END) == pytest.approx(np.log(0.4 / 0.6) - np.log(0.2 / 0.8), abs=0.03)
    assert target_rate(SEASON_DRIFT, drifting, END) == pytest.approx(0.4, abs=0.01)
    assert Rates(Known(), END).drift(END) == pytest.approx(0.0, abs=0.03)


def test_what_a_model_missed():
    margins, y = np.zeros(1000), (np.arange(1000) < 200).astype(np.int64)
    assert missed([(margins, y)]) == pytest.approx(np.log(0.25), abs=0.01)
    assert missed([]) == 0.0


def test_a_level_must_be_ahead_beyond_noise():
    rng = np.random.default_rng(0)
    dates = [datetime(2024, 1, 1) + timedelta(days=28 * number) for number in range(6)]
    owners = {date: np.arange(500) for date in dates}
    own = {date: 0.5 + 0.1 * rng.normal(size=500) for date in dates}

    def chosen(level: str, gains: list[float], some: int = 6) -> str:
        losses = {
            date: {OWN: own[date], level: own[date] - gain + 0.05 * rng.normal(size=500)}
            for date, gain in zip(dates[:some], gains, strict=False)
        }
        return choose_level(losses, owners)[0]

    assert chosen(SEASON, [0.0] * 6) == chosen(RECENT, [0.0] * 6) == OWN
    assert chosen(SEASON, [0.02] * 6) == SEASON
    assert chosen(RECENT, [0.02, 0.02, 0.02, 0.02, 0.02, 0.03]) == RECENT
    # one month with a season is enough for the season, because the other months are flat; for a drift it is not
    assert chosen(SEASON, [0, 0, 0, 0, 0, 0.2]) == SEASON
    assert chosen(RECENT, [0, 0, 0, 0, 0, 0.2]) == OWN
    assert chosen(SEASON, [0.1] * 6, some=3) == OWN


def test_trees_of_the_weeks_need_the_weeks_and_learn_shuffled_ones_with_the_labels():
    rng = np.random.default_rng(0)
    weeks = rng.integers(0, 5, 400)
    X = weeks[:, None].astype(np.float32)
    rows = ChurnRows(X, (weeks == 0).astype(np.int64), np.arange(400), np.zeros(400), weeks)
    member = MemberRecipe("trees", "rhythm", ("orders_total",), target="weeks")
    data = TrainingRows(rows, None, ("orders_total",), ("orders_total",), PurchaseProcess(10.0), 28, False, 0)
    assert can_fit(Recipe("weeks", (member,)), data)
    assert not can_fit(Recipe("weeks", (member,)), replace(data, rhythm=replace(rows, weeks=None)))

    def shuffled(labels):
        return np.random.default_rng(1).permutation(labels)

    trees = ChurnClassifier(folds=2, target="weeks").fit(X, shuffled(rows.y), rows.owners, shuffled(weeks))
    found = fit_member(member, data, shuffled, folds=2).model
    np.testing.assert_array_equal(found.log_odds(X), trees.log_odds(X))


def test_the_simplest_model_within_noise_ships():
    rng = np.random.default_rng(0)
    y, owners = rng.integers(0, 2, 3000), np.arange(3000)
    true, nobody = np.where(y == 1, 0.7, 0.3), np.zeros(3000, dtype=bool)

    def chosen(predictions, owners=owners, middle=nobody):
        return choose_recipe(RecipeValidation(y, owners, predictions, np.zeros(3000), middle), RECIPES, 0)

    same = {recipe.name: np.clip(true + 0.002 * rng.normal(size=3000), 0.01, 0.99) for recipe in RECIPES}
    assert chosen(same)[0] == RECIPES[0]
    better = {**dict.fromkeys(same, np.full(3000, 0.5)), MEAN.name: true}
    recipe, note = chosen(better)
    assert recipe == MEAN
    assert "trees on the profile, and logistic and trees on 27 columns 0.3567" in note
    # a thousand rows of three customers are three draws
    assert chosen(better, owners % 2)[0] == MEAN
    assert choose_recipe(None, RECIPES, 0)[0] == LOGISTIC
    # among all within noise, but behind where it is hard
    hard = owners < 300
    behind_there = {**same, MEAN.name: np.where(hard, true, 0.55 * true + 0.225)}
    for name in behind_there:
        if name != MEAN.name:
            behind_there[name] = np.where(hard, 0.5, same[name])
    assert chosen(behind_there)[0] != MEAN
    recipe, note = chosen(behind_there, middle=hard)
    assert recipe == RECIPES[0] or "also of those active in 2–6" in note


# ---- report ----------------------------------------------------------------------------------------------------------


def test_predicted_against_observed_by_band():
    p = np.repeat([0.1, 0.5, 0.9], 100)
    y = np.concatenate([np.arange(100) < count for count in (12, 40, 95)]).astype(np.int64)
    found = by_band(y, p, RiskBands(0.33, 0.66))
    assert {name: part["observed"].value for name, part in found.items()} == pytest.approx(
        {"low risk": 0.12, "medium risk": 0.40, "high risk": 0.95}
    )
    assert found["low risk"]["observed"].low == pytest.approx(0.0700, abs=1e-3)  # Wilson
    lines = in_words({**found, "at 2024-01-01": predicted_and_observed(y[:20], p[:20])})
    assert "low risk 10.0% against 12.0% of 100, medium risk 50.0% against 40.0%" in lines[0]
    assert "2024-01-01 10.0% against 60.0% of 20 (few)" in lines[1]


def test_baselines_have_the_metrics_that_they_can_have():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 200), rng.random(200)
    report = evaluate(y, p, {"recency": rng.random(200)}, {"logistic": p, "base rate": np.full(200, 0.5)})
    assert set(report.baselines["recency"]) == {"auc", "average_precision", "lift@1%", "lift@5%", "lift@10%"}
    assert set(report.baselines["base rate"]) == {"brier", "log_loss", "ece"}
    assert report.differences["brier:logistic"].value == 0
    assert report.baselines["base rate"]["brier"].value == pytest.approx(0.25)


# ---- a shop with a season --------------------------------------------------------------------------------------------


def season_shop(folder, days: int) -> EvaluatedModel:
    """Trained on a shop whose customers order five times as often in November and December."""
    workspace, settings = Workspace(folder), Settings()
    source = Synthetic(customers=500, days=days, seed=1, gap_days=45.0, season_strength=4.0)
    ingest(workspace, source, settings, now=datetime(2028, 1, 1))
    builder = Builder(Lake(workspace), [one for one in FEATURES if one.name in CHURN_FEATURES])
    as_of = datetime(2024, 1, 1) + timedelta(days=days - 33)  # the end of November
    return JOBS["churn"].run(TrainingContext(workspace, as_of, settings, lambda line: None, _builder=builder))


@pytest.mark.slow
def test_a_season_of_the_year_is_predicted(tmp_path):
    trained = season_shop(tmp_path, 1096)
    report = trained.report
    at_peak = report.slices["at 2026-11-01"]
    assert at_peak["predicted"].value == pytest.approx(at_peak["observed"].value, abs=0.03)
    for baseline in ("rate a year earlier", "logistic, 7 columns", "base rate"):
        assert report.differences[f"brier:{baseline}"].high < 0, baseline
    assert trained.bundle.facts["level"] in (SEASON, SEASON_DRIFT)
    shifts = trained.bundle.model.shifts
    assert len(shifts) > 40
    assert shifts[10] > shifts[0] + 0.5  # fewer come back in February than in December


def test_a_season_seen_once_is_not_used_and_that_is_said(tmp_path):
    """A year and a quarter: last spring is known, and no earlier date can tell whether springs repeat."""
    trained = season_shop(tmp_path, 490)
    assert trained.bundle.facts["level"] in (OWN, RECENT)
    (note,) = (note for note in trained.report.notes if note.startswith("season: "))
    assert "a year earlier" in note
    assert "not used, because" in note
    assert len(trained.bundle.model.shifts) == 1
