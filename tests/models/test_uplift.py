"""`UpliftModel`: what is saved is what predicts, in little room; and how interactions are shrunk."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from models.classify.column_encoding import ColumnEncoding
from models.uplift.interactions import VARIANCES, InteractionRegression, posterior_mean
from models.uplift.learners import LEARNERS, LearnerRows, fit_arms, winsorised
from models.uplift.regressions import ridge
from models.uplift.uplift_model import UpliftModel
from qianmian.errors import UsageError


def rows_of(n=600, seed=0, is_binary=True):
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(n, 2)), rng.integers(0, 3, n)]).astype(np.float32)
    X[::11, 0] = np.nan
    treated = rng.random(n) < 0.5
    outcome = rng.random(n) < expit(-0.5 + treated * X[:, 1])
    outcome = outcome.astype(np.float64) * (1.0 if is_binary else 50.0)
    encoding = ColumnEncoding.of(X, (False, False, True))
    arms = fit_arms(encoding, X, treated, outcome, is_binary=is_binary, seed=seed)
    pseudo = np.where(treated, 2.0, -2.0) * outcome
    return LearnerRows(X, treated, outcome, pseudo, arms, is_binary, encoding, seed)


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_saved_model_predicts_the_same_in_little_room(name, is_binary, tmp_path):
    rows = rows_of(is_binary=is_binary)
    model = UpliftModel(name, ("a", "b", "city"), LEARNERS[name](rows), 0.1, 0.5, 0.02)
    model.save(tmp_path)
    again = UpliftModel.load(tmp_path)
    assert np.array_equal(again.predict(rows.X), model.predict(rows.X))
    assert again.get_params() == model.get_params()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1_000_000
    assert not list(tmp_path.rglob("*.pkl"))


def test_the_same_seed_gives_the_same_model():
    first, second = rows_of(), rows_of()
    for learner in LEARNERS.values():
        one, other = (UpliftModel(terms=learner(rows)).raw(first.X) for rows in (first, second))
        assert np.array_equal(one, other)


def test_other_columns_are_refused():
    with pytest.raises(UsageError, match="do not have the columns"):
        UpliftModel("constant effect", ("a",)).predict(np.zeros((1, 2), np.float32))


def test_interactions_are_shrunk_to_nothing_without_any_and_kept_where_they_are():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4_000, 4)).astype(np.float32)
    treated = rng.random(4_000) < 0.5
    encoding = ColumnEncoding.of(X, (False,) * 4)
    spread = []
    for strength in (0.0, 1.0):
        linear = -0.5 + 0.5 * X[:, 0] + treated * (0.5 + strength * X[:, 1])
        outcome = (rng.random(4_000) < expit(linear)).astype(np.float64)
        found = InteractionRegression.fit(encoding, X, treated, outcome, is_binary=True)
        spread.append(float(np.abs(found.interactions).max()))
    assert spread[0] < 0.1 < spread[1]


def test_a_column_that_matters_is_kept_among_many_that_do_not():
    rng = np.random.default_rng(0)
    X = (rng.random((4_000, 30)) < 0.5).astype(np.float32)
    treated = rng.random(4_000) < 0.5
    outcome = (rng.random(4_000) < expit(-0.5 + treated * (X[:, 7] - 0.5))).astype(np.float64)
    found = InteractionRegression.fit(ColumnEncoding.of(X, (False,) * 30), X, treated, outcome, is_binary=True)
    size = np.abs(found.interactions)  # of standardised columns: 0.5 is true for the eighth
    assert size[7] > 0.4
    assert np.delete(size, 7).mean() < 0.03


def test_interactions_are_the_mean_over_all_variances_of_the_columns():
    """Two correlated groups: every pair of variances has its evidence and its mean in closed form."""
    rng = np.random.default_rng(1)
    D = rng.normal(size=(200, 3)) + 0.5 * rng.normal(size=(200, 1))
    information, gradient = D.T @ D, D.T @ (D @ [0.0, 0.1, 0.2] + rng.normal(size=200))
    evidence, means = [], []
    for first in VARIANCES:
        for second in VARIANCES:
            prior = np.diag([first, second, second])
            within = np.eye(3) + information @ prior
            means.append(prior @ np.linalg.solve(within, gradient))
            evidence.append(-0.5 * np.linalg.slogdet(within)[1] + 0.5 * float(gradient @ means[-1]))
    weights = np.exp(np.array(evidence) - max(evidence))
    exact = weights @ np.array(means) / weights.sum()
    found = [posterior_mean(information, gradient, [slice(0, 1), slice(1, 3)], seed) for seed in range(4)]
    assert np.allclose(np.mean(found, axis=0), exact, atol=0.004)
    assert np.allclose(found, exact, atol=0.012)


def test_uplift_of_money_is_the_same_in_any_currency():
    rows = rows_of(is_binary=False)
    one, other = (
        InteractionRegression.fit(rows.encoding, rows.X, rows.treated, rows.outcome * rate, is_binary=False)
        for rate in (1.0, 100.0)
    )
    assert np.allclose(other.predict(rows.X, 1.0), 100.0 * one.predict(rows.X, 1.0))


def test_ridge_finds_a_line_and_shrinks_noise():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    weights, intercept = ridge(X, 2.0 + 3.0 * X[:, 0] + 0.1 * rng.normal(size=500))
    assert np.allclose(weights, [3.0, 0.0, 0.0], atol=0.05)
    assert intercept == pytest.approx(2.0, abs=0.05)
    weights, _ = ridge(X, rng.normal(size=500))
    assert np.abs(weights).max() < 0.1


def test_amounts_are_winsorised_and_yes_or_no_is_not():
    amounts = np.append(np.zeros(900), np.arange(1.0, 101.0))
    assert winsorised(amounts, is_binary=False).max() == pytest.approx(99.01)
    assert winsorised(np.array([0.0, 1.0]), is_binary=True).tolist() == [0.0, 1.0]
