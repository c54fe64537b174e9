"""Uplift on arrays: metrics with known values, average effects, refusals, and the choice of what ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from qianmian.errors import DataError
from training.uplift import metrics
from training.uplift.choice import AT_RANDOM, GAIN, SHIPS, choose
from training.uplift.effect import average_effect, difference_in_means
from training.uplift.fitting import choose_simplest, fit_learners
from training.uplift.nuisance import cross_fit, estimate_propensity, pseudo_outcomes
from training.uplift.resampled import resampled_metric
from training.uplift.trial import Trial, check


def trial_of(n=1_200, seed=0, effect=2.0, money=False):
    """Customers of whom half are contacted at random; only those with x0 > 0 react."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    treated = rng.random(n) < 0.5
    linear = -1.0 + 0.5 * X[:, 1] + effect * treated * (X[:, 0] > 0)
    outcome = (rng.random(n) < expit(linear)).astype(np.float64)
    return Trial(X, treated, outcome * 30.0 * rng.lognormal(size=n) if money else outcome, None, ["x0", "x1", "x2"])


# ---- metrics ---------------------------------------------------------------------------------------------------------

Y = np.array([0, 0, 0, 0, 1, 0, 0, 1, 1, 1], dtype=np.float64)
TREATED = np.arange(10) >= 5
SCORES = np.tile([0.0, 0.1, 0.2, 0.3, 0.4], 2)


def test_qini_and_auuc_of_two_customers():
    y, score, treated = np.array([0.0, 1.0]), np.array([0.1, 0.3]), np.array([True, False])
    assert metrics.qini_coefficient(y, score, treated) == 1.0
    assert metrics.auuc(y, score, treated) == 0.0


def test_qini_of_total_has_the_value_of_causalml_in_its_order_of_equal_scores():
    """causalml sorts the rows with equal scores somehow; .088636 has the contacted first at .3 and .2 and last elsewhere."""
    first = np.where(np.isin(SCORES, (0.2, 0.3)), TREATED, ~TREATED)
    assert metrics.qini_of_total(Y, SCORES + 1e-6 * first, TREATED) == pytest.approx(0.088636, abs=1e-6)
    assert metrics.qini_of_total(Y, SCORES, TREATED) == pytest.approx(1 / 11)


def test_a_perfect_order_has_a_qini_of_one_and_its_reverse_less_than_zero():
    perfect = np.where(TREATED, Y, -Y)
    assert metrics.qini_coefficient(Y, perfect, TREATED) == pytest.approx(1.0)
    assert metrics.qini_coefficient(Y, -perfect, TREATED) < 0


@pytest.mark.parametrize("metric", [metrics.qini_coefficient, metrics.auuc, metrics.qini_of_total])
def test_the_order_of_the_rows_does_not_matter_and_a_constant_score_has_zero(metric):
    order = np.random.default_rng(0).permutation(10)
    assert metric(Y[order], SCORES[order], TREATED[order]) == pytest.approx(metric(Y, SCORES, TREATED))
    assert metric(Y, np.full(10, 0.3), TREATED) == pytest.approx(0.0)


def test_scoring_another_model_changes_nothing_and_random_scores_are_zero_on_average():
    trial = trial_of(400)
    rng = np.random.default_rng(1)
    random = [rng.random(400) for _ in range(200)]
    alone = metrics.qini_coefficient(trial.outcome, trial.X[:, 0].astype(float), trial.treated)
    values = [metrics.qini_coefficient(trial.outcome, score, trial.treated) for score in random]
    assert metrics.qini_coefficient(trial.outcome, trial.X[:, 0].astype(float), trial.treated) == alone
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200) < 0.05 < alone


def test_equal_weights_change_no_curve():
    for curve in (metrics.qini_curve, metrics.uplift_curve):
        k, plain = curve(Y, SCORES, TREATED)
        assert np.allclose(curve(Y, SCORES, TREATED, np.ones(10)), (k, plain))
        assert (k[0], plain[0]) == (0.0, 0.0)
    assert metrics.qini_curve(Y, SCORES, TREATED)[1].tolist() == [0, 0, 1, 2, 2, 2]


def test_uplift_at_a_share_counts_customers_at_the_limit_in_part():
    assert metrics.uplift_at(Y, SCORES, TREATED, 0.4) == pytest.approx(0.5)
    assert metrics.uplift_at(Y, SCORES, TREATED, 1.0) == pytest.approx(0.4)
    assert metrics.uplift_at(Y, np.zeros(10), TREATED, 0.3) == pytest.approx(0.4), "nobody is preferred"


def test_policy_gains_of_everybody_of_nobody_and_at_random():
    pseudo = np.array([4.0, 2.0, 0.0, -2.0])
    assert metrics.policy_gains(pseudo, pseudo, (0.0, 0.25, 0.5, 1.0)).tolist() == [0.0, 1.0, 1.5, 1.0]
    assert metrics.policy_gains(pseudo, np.zeros(4), (0.5,)).tolist() == [0.5]
    budgets = np.linspace(0, 1, 201)
    gains = metrics.policy_gains(pseudo, pseudo, budgets) - budgets * pseudo.mean()
    assert metrics.gains_over_random(pseudo, pseudo).mean() == pytest.approx(np.trapezoid(gains, budgets), abs=1e-2)


def test_the_interval_of_splits_allows_for_their_overlap():
    values = np.array([1.0, 2.0, 3.0, np.nan])
    found = resampled_metric(values, 0.3, 10)
    assert found.high - found.value == pytest.approx(4.302653 * np.sqrt(1 / 3 + 0.3 / 0.7), rel=1e-6)
    assert np.isnan(resampled_metric(values[-1:], 0.3, 10).value)


# ---- effects ---------------------------------------------------------------------------------------------------------


def test_difference_in_means_has_the_variance_of_each_arm():
    found = difference_in_means(np.array([1.0, 2.0, 3.0, 0.0, 0.0, 3.0]), np.array([True] * 3 + [False] * 3))
    assert (found.value, found.standard_error) == (pytest.approx(1.0), pytest.approx(np.sqrt(1 / 3 + 3 / 3)))
    assert found.high - found.low == pytest.approx(2 * 1.959964 * found.standard_error)


def test_strata_and_propensities_correct_the_difference_in_means():
    """Customers with x0 > 0 buy more and are contacted more often; the contact does nothing."""
    rng = np.random.default_rng(0)
    n = 3_000
    X = rng.normal(size=(n, 2)).astype(np.float32)
    propensity = np.where(X[:, 0] > 0, 0.8, 0.2)
    treated = rng.random(n) < propensity
    outcome = (rng.random(n) < np.where(X[:, 0] > 0, 0.6, 0.2)).astype(np.float64)
    plain = Trial(X, treated, outcome, None, ["x0", "x1"])
    assert average_effect(plain, 0).low > 0.1
    estimated = estimate_propensity(X, treated, 0)
    assert abs(estimated - propensity).mean() < 0.05
    for one in (
        replace(plain, propensity=propensity),
        replace(plain, propensity=estimated),
        replace(plain, strata=(X[:, 0] > 0).astype(np.int64)),
    ):
        effect = average_effect(one, 0)
        assert abs(effect.value) < 3 * effect.standard_error < 0.1


def test_pseudo_outcomes_are_unbiased_with_wrong_outcome_models():
    trial = trial_of(20_000, effect=1.0)
    right = trial.outcome[trial.treated].mean() - trial.outcome[~trial.treated].mean()
    assert pseudo_outcomes(trial, np.full(20_000, 7.0), np.full(20_000, -3.0)).mean() == pytest.approx(right, abs=1e-6)


def test_cross_fitting_is_deterministic_and_takes_missing_values_and_categories():
    trial = trial_of(300)
    X = np.column_stack([trial.X, np.arange(300) % 3]).astype(np.float32)
    X[::7, 1] = np.nan
    mixed = replace(trial, X=X, names=[*trial.names, "city"], categorical=(False, False, False, True))
    assert np.array_equal(cross_fit(mixed, 1).pseudo, cross_fit(mixed, 1).pseudo)
    assert np.isfinite(cross_fit(mixed, 1).pseudo).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_trial_that_can_be_learnt_from_is_accepted():
    check(trial_of())
    check(trial_of(money=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trial: {"treated": np.zeros(1_200, bool)}, "no customer was contacted"),
        (lambda trial: {"treated": np.ones(1_200, bool)}, "no customer was not contacted"),
        (lambda trial: {"treated": np.arange(1_200) < 10}, "too few customers were contacted.*at least 30"),
        (lambda trial: {"outcome": np.ones(1_200)}, "the outcome is the same for all"),
        (lambda trial: {"outcome": np.full(1_200, np.nan)}, "missing or not finite"),
        (lambda trial: {"outcome": trial.treated * (np.arange(1_200) % 2.0)}, "too few .* one of the two outcomes"),
        (lambda trial: {"X": np.ones((1_200, 3), np.float32)}, "the same features"),
        (lambda trial: {"X": np.empty((1_200, 0), np.float32)}, "the same features"),
        (lambda trial: {"propensity": np.where(trial.treated, 0.99, 0.01)}, "do not overlap"),
        (lambda trial: {"strata": trial.treated.astype(np.int64)}, "do not overlap"),
    ],
)
def test_a_trial_that_cannot_be_learnt_from_is_refused_with_what_would_be_enough(change, message):
    trial = trial_of()
    with pytest.raises(DataError, match=message) as refused:
        choose(replace(trial, **change(trial)), 0)
    assert refused.value.hint


# ---- the choice ------------------------------------------------------------------------------------------------------


def test_what_ships_finds_those_who_react():
    trial = trial_of()
    lines: list[str] = []
    found = choose(trial, 0, lines.append, splits=3)
    own = found.evaluation
    assert own.usable
    assert own.reason == ""
    assert own.learners[SHIPS][GAIN].low > 0 == own.learners[AT_RANDOM][GAIN].value
    assert sum(own.chosen_in_splits.values()) == own.splits == len(lines) == 3
    assert own.effect.low > 0.1
    assert [one.decile for one in own.deciles] == list(range(1, 11))
    assert own.deciles[0].observed.value > own.deciles[-1].observed.value
    assert own.policy[-1].over_random.value == pytest.approx(0.0, abs=1e-12)
    assert [one.budget_share for one in own.policy] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    uplift = found.model.predict(trial.X)
    reacts = trial.X[:, 0] > 0
    assert uplift[reacts].mean() - uplift[~reacts].mean() > 0.2
    assert 0 <= own.harmed_share < 0.5


def test_without_an_effect_nothing_is_usable_and_a_sentence_says_so():
    own = choose(trial_of(600, effect=0.0), 0, splits=2).evaluation
    assert not own.usable
    assert "no usable effect" in own.reason


def test_each_learner_finds_who_reacts_to_a_money_outcome():
    trial = trial_of(2_000, effect=3.0, money=True)
    found = fit_learners(trial, 0)
    reacts = trial.X[:, 0] > 0
    for name, model in found.models.items():
        uplift = model.predict(trial.X)
        assert name == "constant effect" or uplift[reacts].mean() > uplift[~reacts].mean(), name
    assert found.models["constant effect"].predict(trial.X[:1])[0] == pytest.approx(found.nuisance.pseudo.mean())


def test_the_simplest_within_noise_ships():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=1_000)
    assert choose_simplest({"constant": np.zeros(1_000), "trees": noise - noise.mean() + 0.01}) == "constant"
    assert choose_simplest({"constant": np.zeros(1_000), "line": noise + 1.0, "trees": noise + 1.001}) == "trees"
    assert choose_simplest({"constant": np.zeros(1_000), "line": noise + 1.0, "trees": -noise + 1.01}) == "line"
