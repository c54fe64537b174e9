"""The churn model that is registered: derived columns, the mean of its members, reasons, shifts by week, old files."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.profiles.purchase_process.process import PurchaseProcess
from models.classify.churn import ChurnClassifier
from models.classify.churn_model import ChurnModel, Member
from models.classify.logistic import LogisticClassifier
from models.classify.rhythm import COUNT_COLUMNS, PROCESS, RHYTHM_FEATURES, SEASON, TREND, Design, day_number
from qianmian.errors import DataError

AS_OF = datetime(2024, 3, 1)


def sample(seed=0, n=800):
    """Customers who churn after a long silence."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(2.0, 10.0, size=(n, len(RHYTHM_FEATURES))).astype(np.float32)
    y = (rng.random(n) < 1 / (1 + np.exp(-(X[:, 0] - 20) / 8))).astype(np.int64)
    return X, y


@pytest.fixture(scope="module")
def model():
    X, y = sample()
    design = Design(RHYTHM_FEATURES, 28.0, PurchaseProcess(10.0))
    columns = ((*COUNT_COLUMNS, *SEASON), (PROCESS,))
    days = np.full(len(X), day_number(AS_OF)) - np.arange(len(X)) % 300
    trees = ChurnClassifier(n_estimators=20, folds=2).fit(design.columns(X, columns[0], days), y)
    logistic = LogisticClassifier().fit(design.columns(X, columns[1], days), y)
    members = (Member("trees", columns[0], trees), Member("logistic", columns[1], logistic))
    return ChurnModel(design, members, day_number(AS_OF), (0.0, 1.0, -1.0))


def test_derived_columns_have_the_right_values():
    X = np.zeros((1, len(RHYTHM_FEATURES)), dtype=np.float32)
    X[0, [RHYTHM_FEATURES.index(name) for name in ("orders_28d", "orders_56d")]] = 3, 4
    design = Design(RHYTHM_FEATURES)
    quarter = day_number(datetime(1970, 4, 2, 7, 30))  # a quarter of a year after the start
    found = design.columns(X, (TREND, *SEASON), quarter)
    np.testing.assert_allclose(found, [[(3 + 1) / (1 + 1), 1.0, 0.0]], atol=1e-6)
    assert design.owners((TREND, "orders_91d", PROCESS, *SEASON)) == [3, 5, 0, -1, -1]


def test_the_process_column_is_the_log_odds_of_no_order():
    process, columns = PurchaseProcess(10.0), {"orders_total": 5.0, "days_since_first_order": 50.0}
    columns |= {"days_since_last_order": 12.0, "orders_28d": 2.0, "orders_91d": 5.0, "orders_365d": 5.0}
    X = np.array([[columns.get(name, 0.0) for name in RHYTHM_FEATURES]], dtype=np.float32)
    returns = process.order_probability({name: np.array([value]) for name, value in columns.items()}, 28.0)
    found = Design(RHYTHM_FEATURES, 28.0, process).columns(X, (PROCESS,), 0.0)
    np.testing.assert_allclose(found[0], np.log((1 - returns) / returns), rtol=1e-5)


def test_shifts_move_the_log_odds_by_week(model):
    X, _ = sample(seed=1, n=50)
    log_odds = {}
    for days in (0, 3.5, 7, 14, 70):
        p = model.predict_proba(X, AS_OF + timedelta(days=days))[:, 1]
        log_odds[days] = np.log(p / (1 - p)) - model.unshifted(X, day_number(AS_OF) + days)
    for days, shift in ((0, 0.0), (3.5, 0.5), (7, 1.0), (14, -1.0), (70, -1.0)):
        np.testing.assert_allclose(log_odds[days], shift, atol=1e-6)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X, AS_OF))


def test_reasons_are_those_of_the_members(model):
    X, _ = sample(seed=2, n=60)
    reasons = model.explain(X)
    assert reasons.shape == X.shape
    assert np.abs(reasons).mean(axis=0).argmax() == 0  # the silence
    unread = [RHYTHM_FEATURES.index(name) for name in ("amount_28d", "gap_days_std")]
    assert not reasons[:, unread].any()


def test_contributions_of_a_logistic_regression_add_up():
    X, y = sample()
    linear = LogisticClassifier().fit(X, y)
    np.testing.assert_allclose(linear.explain(X).sum(axis=1) + linear.intercept_, linear.log_odds(X), atol=1e-3)
    np.testing.assert_allclose(linear.explain(X).mean(axis=0), 0.0, atol=1e-4)
    assert linear.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=0.01)
    with pytest.raises(DataError, match="too few customers"):
        LogisticClassifier().fit(X, (np.arange(len(y)) < 19).astype(int))


def test_save_and_load(model, tmp_path):
    X, _ = sample(seed=3, n=40)
    model.save(tmp_path)
    loaded = ChurnModel.load(tmp_path)
    later = AS_OF + timedelta(days=10)
    np.testing.assert_allclose(loaded.predict_proba(X, later), model.predict_proba(X, later), atol=1e-9)
    np.testing.assert_allclose(loaded.explain(X), model.explain(X), atol=1e-6)
    assert loaded.get_params() == model.get_params()


def test_trees_of_an_earlier_version_load_and_predict_the_same(tmp_path):
    X, y = sample()
    alone = ChurnClassifier(n_estimators=20, folds=2).fit(X, y)
    alone.save(tmp_path)
    loaded = ChurnModel.load(tmp_path)
    np.testing.assert_allclose(loaded.predict_proba(X, datetime(2030, 1, 1)), alone.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(loaded.explain(X), alone.explain(X), atol=1e-6)
