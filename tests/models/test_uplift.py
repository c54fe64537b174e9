"""`UpliftModel`: what is saved is what predicts, in little room; and how interactions are shrunk."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from models.classify.column_encoding import ColumnEncoding
from models.uplift.interactions import InteractionRegression
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
