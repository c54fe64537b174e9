"""The calibrated classifier: encodings of hand-made columns, planted probabilities, contributions, save and load."""

from __future__ import annotations

import numpy as np
import pytest

from models.classify.calibrated import CalibratedClassifier, out_of_fold_log_odds, platt_scaling
from models.classify.column_encoding import ColumnEncoding
from models.classify.propensity import PropensityModel
from models.classify.rhythm import probability
from qianmian.errors import DataError, UsageError

CATEGORICAL = (False, True, False)


@pytest.fixture(scope="module")
def planted():
    """A number with missing values, a category of three, and noise; the probability follows the first two."""
    rng = np.random.default_rng(1)
    n = 1500
    number, category, noise = rng.gamma(2, 10, n), rng.integers(0, 3, n), rng.normal(size=n)
    missing = rng.random(n) < 0.1
    p = probability(np.where(missing, 0.5, 1.5 - 0.8 * np.log1p(number)) + np.array([-1.0, 0.0, 1.0])[category])
    X = np.column_stack([np.where(missing, np.nan, number), category, noise]).astype(np.float32)
    return X, (rng.random(n) < p).astype(np.int64), p


@pytest.fixture(scope="module")
def model(planted):
    return CalibratedClassifier(categorical=CATEGORICAL).fit(*planted[:2])


def test_an_encoding_has_a_spline_an_indicator_of_missing_values_and_one_for_each_frequent_level():
    codes = np.repeat([0, 1, 2, -1], [40, 30, 5, 5])  # the level 2 is rare
    X = np.column_stack([np.arange(80.0), codes]).astype(np.float32)
    X[3, 0] = np.nan
    encoding = ColumnEncoding.of(X, (False, True))
    assert encoding.levels == (None, (0, 1))
    assert len(encoding.knots[0]) == 4
    assert encoding.tree_columns(X).shape == (80, 3)
    assert np.isnan(encoding.tree_columns(X)[3, 0])
    linear = encoding.linear_columns(X)
    assert encoding.linear_sources().tolist() == [0] * 6 + [1] * 2
    assert linear[3, 0] == pytest.approx(encoding.middles[0])
    assert linear[:, 5].tolist() == [1.0 if row == 3 else 0.0 for row in range(80)]
    assert linear[-1, 6:].tolist() == [0.0, 0.0], "an unknown or rare category has no indicator"
    assert ColumnEncoding.from_dict(encoding.as_dict()) == encoding


def test_it_finds_planted_probabilities_and_is_calibrated(planted, model):
    X, y, truth = planted
    p = model.predict_proba(X)[:, 1]
    assert np.corrcoef(p, truth)[0, 1] > 0.95
    assert p.mean() == pytest.approx(y.mean(), abs=0.02)
    assert np.abs(model.explain(X)).mean(axis=0)[2] < 0.2 * np.abs(model.explain(X)).mean(axis=0)[0]


@pytest.mark.parametrize("members", [("logistic",), ("trees",), ("logistic", "trees")])
def test_contributions_add_up_to_the_log_odds_but_for_a_constant(planted, members):
    X, y, _ = planted
    model = CalibratedClassifier(members, CATEGORICAL).fit(X, y)
    rest = model.log_odds(X) - model.explain(X).sum(axis=1)
    assert np.ptp(rest) < 1e-3


def test_a_saved_classifier_predicts_the_same_and_a_seed_decides_everything(planted, model, tmp_path):
    X, y, _ = planted
    model.save(tmp_path / "model")
    loaded = CalibratedClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.explain(X), model.explain(X))
    assert not list(tmp_path.rglob("*.pkl"))
    again = CalibratedClassifier(categorical=CATEGORICAL).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_out_of_fold_rows_of_a_customer_are_predicted_without_the_customer():
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(100), 4)
    X = owners[:, None].astype(np.float32)  # the number is the customer, whose label is a coin
    y = np.repeat(rng.integers(0, 2, 100), 4)
    by_customer = out_of_fold_log_odds(X, y, owners, (False,), 0, ("trees",))["trees"]
    by_row = out_of_fold_log_odds(X, y, None, (False,), 0, ("trees",))["trees"]
    gap = [float(found[y == 1].mean() - found[y == 0].mean()) for found in (by_customer, by_row)]
    assert gap[0] < 0.2 < gap[1]


def test_platt_scaling_undoes_a_wrong_level(planted):
    _, y, truth = planted
    log_odds = np.log(truth / (1 - truth))
    slope, intercept = platt_scaling(2 * log_odds + 1, y)
    assert slope == pytest.approx(0.5, abs=0.1)
    assert intercept == pytest.approx(-0.5, abs=0.2)


def test_too_few_rows_of_an_answer_are_refused(planted):
    X, y, _ = planted
    few = np.zeros_like(y)
    few[:19] = 1
    with pytest.raises(DataError, match="at least 20 of each outcome"):
        CalibratedClassifier(categorical=CATEGORICAL).fit(X, few)
    with pytest.raises(DataError, match="more than one customer"):
        CalibratedClassifier(categorical=CATEGORICAL).fit(X, y, np.zeros(len(y)))


def test_a_propensity_model_reads_the_columns_of_each_target(planted, tmp_path):
    X, y, _ = planted
    first = CalibratedClassifier(("logistic",)).fit(np.nan_to_num(X[:, [0]]), y)
    second = CalibratedClassifier(("logistic",)).fit(X[:, [1, 2]], y)
    model = PropensityModel(("brand=a", "event=cart"), ((0,), (1, 2)), (first, second))
    model.save(tmp_path / "model")
    loaded = PropensityModel.load(tmp_path / "model")
    assert loaded.targets == model.targets
    p = loaded.predict_proba(X[:50])
    np.testing.assert_array_equal(p[:, 1], second.predict_proba(X[:50, 1:])[:, 1])
    found = loaded.explain(X[:50], "event=cart")
    assert (found[:, 0] == 0).all()
    assert (found[:, 1] != 0).any()
    with pytest.raises(UsageError, match="no such target"):
        loaded.explain(X[:5], "event=view")
