"""The next-stage classifier."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from models.classify.lifecycle import NextStageClassifier
from qianmian.errors import DataError
from qianmian.schema import LIFECYCLE_STAGES

QUICK = {"n_estimators": 40, "learning_rate": 0.2, "min_child_weight": 1.0}


def sample(seed=0, n=900):
    """Stages move one on when the first feature is high; `today` alone tells the rest."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    at = rng.integers(1, 4, n)
    names = np.array(LIFECYCLE_STAGES)
    today, then = names[at], names[at + (X[:, 0] > 0.3)]
    for array in (X, today, then):
        array.flags.writeable = False
    return X, today, then


@pytest.fixture(scope="module")
def data():
    return sample()


@pytest.fixture(scope="module")
def model(data):
    return NextStageClassifier(**QUICK).fit(*data)


def test_conventions(model, data):
    fresh = NextStageClassifier(**QUICK)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    assert fresh.fit(*data) is fresh
    assert clone(model).get_params() == model.get_params()
    assert model.classes_.tolist() == sorted(["new", "active", "loyal", "at_risk"])


def test_refit_forgets_and_seeds_repeat(model, data):
    X, today, then = data
    other = np.where(then == "new", "lost", then)
    again = NextStageClassifier(**QUICK).fit(X[:, :2], today, other).fit(X, today, then)
    np.testing.assert_array_equal(again.predict_proba(X, today), model.predict_proba(X, today))


def test_probabilities(model):
    X, today, then = sample(seed=1)
    p = model.predict_proba(X, today)
    assert p.shape == (len(X), 4)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert (model.predict(X, today) == then).mean() > 0.9
    np.testing.assert_array_equal(model.predict(X, today), model.classes_[p.argmax(axis=1)])


def test_todays_stage_is_used(model, data):
    X = np.zeros((2, 4), np.float32)
    assert model.predict(X, np.array(["new", "loyal"])).tolist() == ["new", "loyal"]


def test_two_stages_are_enough_and_one_is_not(data):
    X, today, then = data
    two = NextStageClassifier(**QUICK).fit(X, today, np.where(then == "at_risk", "lost", "active"))
    assert two.predict_proba(X, today).shape == (len(X), 2)
    with pytest.raises(DataError, match="same lifecycle stage") as caught:
        NextStageClassifier(**QUICK).fit(X, today, np.full(len(X), "active"))
    assert caught.value.hint


def test_batch_equals_single(model, data):
    X, today = data[0][:10], data[1][:10]
    single = np.concatenate([model.predict_proba(X[i : i + 1], today[i : i + 1]) for i in range(10)])
    np.testing.assert_array_equal(single, model.predict_proba(X, today))


def test_save_and_load(model, data, tmp_path):
    model.save(tmp_path / "m")
    loaded = NextStageClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(*data[:2]), model.predict_proba(*data[:2]))
    assert loaded.classes_.tolist() == model.classes_.tolist()
    assert loaded.get_params() == model.get_params()
