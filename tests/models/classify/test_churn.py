"""The churn classifier: scikit-learn's conventions, calibration, reasons, refusals, save and load."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.metrics import brier_score_loss, roc_auc_score

from models.classify.boosting import to_dmatrix
from models.classify.churn import ChurnClassifier
from qianmian.errors import ArtifactError, DataError

QUICK = {"n_estimators": 25, "folds": 3, "min_child_weight": 2.0}


def sample(seed=0, n=1500, f=6):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, f)).astype(np.float32)
    y = (rng.random(n) < 1 / (1 + np.exp(-(1.5 * X[:, 0] - X[:, 1] - 1)))).astype(np.int64)
    for array in (X, y):
        array.flags.writeable = False
    return X, y


@pytest.fixture(scope="module")
def data():
    return sample()


@pytest.fixture(scope="module")
def model(data):
    return ChurnClassifier(**QUICK).fit(*data)


def test_conventions(model, data):
    X, y = data
    fresh = ChurnClassifier(**QUICK)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    assert fresh.fit(X, y) is fresh
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert not hasattr(twin, "booster_")
    assert is_classifier(model)
    assert model.classes_.tolist() == [0, 1]
    assert model.n_features_in_ == 6
    assert twin.set_params(seed=3).seed == 3


def test_same_seed_same_model_and_refit_forgets(model, data):
    again = ChurnClassifier(**QUICK).fit(*sample(seed=9, n=300, f=4)).fit(*data)
    np.testing.assert_array_equal(again.predict_proba(data[0]), model.predict_proba(data[0]))
    other = ChurnClassifier(**QUICK, seed=1).fit(*data)
    assert (other.predict_proba(data[0]) != model.predict_proba(data[0])).any()


def test_nothing_given_is_changed(data):
    X, y = (array.copy() for array in data)
    groups = np.arange(len(y))
    ChurnClassifier(**QUICK).fit(X, y, groups).predict_proba(X)
    np.testing.assert_array_equal(X, data[0])
    np.testing.assert_array_equal(y, data[1])


def test_probabilities_are_calibrated_and_useful(model):
    X, y = sample(seed=1, n=4000)
    p = model.predict_proba(X)
    assert p.shape == (4000, 2)
    assert p.dtype == np.float64
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    churn = p[:, 1]
    assert roc_auc_score(y, churn) > 0.8
    assert brier_score_loss(y, churn) < y.mean() * (1 - y.mean()) - 0.03
    assert abs(churn.mean() - y.mean()) < 0.03
    for third in np.array_split(np.argsort(churn), 3):
        assert abs(churn[third].mean() - y[third].mean()) < 0.07
    np.testing.assert_array_equal(model.predict(X), (churn >= 0.5).astype(int))


def test_calibration_mends_an_overconfident_model():
    """Hundreds of deep trees on noise: the raw margin is far too sure, the calibrated probability is not."""
    X, y = sample(n=600)
    rash = ChurnClassifier(
        n_estimators=150, max_depth=6, learning_rate=0.3, min_child_weight=0.1, reg_lambda=0.0, folds=3
    ).fit(X, y)
    new_X, new_y = sample(seed=2, n=2000)
    raw = 1 / (1 + np.exp(-rash.booster_.predict(to_dmatrix(new_X), output_margin=True)))
    assert rash.calibration_[0] < 0.7
    assert brier_score_loss(new_y, rash.predict_proba(new_X)[:, 1]) < brier_score_loss(new_y, raw) - 0.01


def test_reasons_add_up_to_the_log_odds(model, data):
    X = data[0][:200]
    reasons = model.explain(X)
    assert reasons.shape == X.shape
    slope, intercept = model.calibration_
    bias = model.booster_.predict(to_dmatrix(X), pred_contribs=True)[:, -1]
    p = model.predict_proba(X)[:, 1]
    np.testing.assert_allclose(reasons.sum(axis=1) + slope * bias + intercept, np.log(p / (1 - p)), atol=1e-4)
    assert np.abs(reasons).mean(axis=0).argmax() == 0
    assert np.corrcoef(reasons[:, 0], X[:, 0])[0, 1] > 0.8


def test_batch_equals_single(model, data):
    X = data[0][:20]
    np.testing.assert_array_equal(np.concatenate([model.predict_proba(row[None]) for row in X]), model.predict_proba(X))
    np.testing.assert_allclose(np.concatenate([model.explain(row[None]) for row in X]), model.explain(X), atol=1e-6)


def test_trees_of_the_weeks_give_the_probability_of_churn(tmp_path):
    """Customers order in each of four weeks with a chance of their own, which their first column tells."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 3)).astype(np.float32)
    weeks = rng.binomial(4, 1 / (1 + np.exp(-X[:, 0])))
    y = (weeks == 0).astype(np.int64)
    model = ChurnClassifier(**QUICK, target="weeks").fit(X[:2000], y[:2000], weeks=weeks[:2000])
    p = model.predict_proba(X[2000:])[:, 1]
    assert p.mean() == pytest.approx(y[2000:].mean(), abs=0.02)
    assert roc_auc_score(y[2000:], p) > 0.8
    assert np.corrcoef(model.explain(X[:200])[:, 0], X[:200, 0])[0, 1] < -0.8  # fewer weeks, more churn
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(ChurnClassifier.load(tmp_path / "model").log_odds(X), model.log_odds(X))
    with pytest.raises(DataError, match="weeks"):
        ChurnClassifier(**QUICK, target="weeks").fit(X, y)


def test_a_customers_snapshots_stay_in_one_fold():
    """The same customer a hundred times: without groups the held-out rows are known by heart and the margin is trusted too much."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(60), 20)
    X, y = (
        rng.normal(size=(60, 5))[who].astype(np.float32),
        rng.integers(0, 2, 60)[who],
    )  # outcomes have nothing to do with X
    settings = {**QUICK, "n_estimators": 60, "max_depth": 6}
    grouped = ChurnClassifier(**settings).fit(X, y, groups=who)
    alone = ChurnClassifier(**settings).fit(X, y)
    assert alone.calibration_[0] > 0.8
    assert grouped.calibration_[0] < 0.5


@pytest.mark.parametrize("positives", [0, 19, 281, 300])
def test_too_few_of_one_outcome(positives):
    X = np.zeros((300, 2), np.float32)
    with pytest.raises(DataError, match="too few customers") as caught:
        ChurnClassifier(**QUICK).fit(X, (np.arange(300) < positives).astype(int))
    assert caught.value.hint
    assert caught.value.got == min(positives, 300 - positives)


def test_fewer_customers_than_folds():
    """Many snapshots of few customers: as many folds as there are customers; one alone cannot be held out."""
    X, y = sample(n=200)
    fitted = ChurnClassifier(**{**QUICK, "folds": 5}).fit(X, y, groups=np.arange(200) % 3)
    assert np.isfinite(fitted.predict_proba(X)).all()
    with pytest.raises(DataError, match="customer"):
        ChurnClassifier(**QUICK).fit(X, y, groups=np.zeros(200))


def test_save_and_load(model, data, tmp_path):
    model.save(tmp_path / "a b")
    loaded = ChurnClassifier.load(tmp_path / "a b")
    np.testing.assert_array_equal(loaded.predict_proba(data[0]), model.predict_proba(data[0]))
    np.testing.assert_array_equal(loaded.explain(data[0]), model.explain(data[0]))
    assert loaded.get_params() == model.get_params()
    assert loaded.n_features_in_ == 6
    assert loaded.classes_.tolist() == [0, 1]


def test_a_broken_booster_is_an_artifact_error(model, tmp_path):
    model.save(tmp_path)
    (tmp_path / "booster.json").write_text('{"half": ')
    with pytest.raises(ArtifactError) as caught:
        ChurnClassifier.load(tmp_path)
    assert "rollback" in caught.value.hint
