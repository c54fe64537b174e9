"""`DemandClassifier` on planted newcomers."""

from __future__ import annotations

import numpy as np
import pytest

from models.classify.demand import LOGISTIC, LOOKED_CONTENT, LOOKED_LEVEL, RULE, DemandClassifier
from qianmian.schema import DEMAND_TYPES

COLUMNS = (LOOKED_LEVEL, LOOKED_CONTENT, "events")


def planted(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Newcomers who look at what they will be, with noise."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, n)
    level = np.array([-0.2, 0.2, 0.0, 0.0])[kinds] + rng.normal(0, 0.1, n)
    content = np.array([0.02, 0.02, 0.4, 0.02])[kinds] + rng.uniform(0, 0.05, n)
    return np.column_stack([level, content, rng.poisson(20, n)]).astype(np.float32), np.array(DEMAND_TYPES)[kinds]


@pytest.mark.parametrize("method", [RULE, LOGISTIC])
def test_planted_types_are_found_and_probabilities_sum_to_one(method):
    X, types = planted(800)
    model = DemandClassifier(method, COLUMNS, 1.0).fit(X, types)
    later, truth = planted(500, seed=1)
    found = model.predict_proba(later)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert (np.array(DEMAND_TYPES)[found.argmax(axis=1)] == truth).mean() > 0.6


def test_the_rule_is_shrunk_to_the_shares_of_all():
    X, types = planted(8)
    found = DemandClassifier(RULE, COLUMNS).fit(X, types).predict_proba(X)
    assert found.max() < 0.75  # no group of two or three newcomers is certain


@pytest.mark.parametrize("n_types", [1, 2, 3])
def test_types_that_nobody_had_are_unlikely(n_types):
    X, types = planted(400)
    kept = np.isin(types, DEMAND_TYPES[:n_types])
    model = DemandClassifier(LOGISTIC, COLUMNS).fit(X[kept], types[kept])
    found = model.predict_proba(X[kept])
    assert found[:, n_types:].mean() < 0.02
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize("method", [RULE, LOGISTIC])
def test_a_saved_model_says_the_same(method, tmp_path):
    X, types = planted(200)
    model = DemandClassifier(method, COLUMNS).fit(X, types)
    model.save(tmp_path)
    np.testing.assert_array_equal(DemandClassifier.load(tmp_path).predict_proba(X), model.predict_proba(X))


def test_data_without_contents_still_have_the_rule():
    X, types = planted(300)
    model = DemandClassifier(RULE, COLUMNS[:1]).fit(X[:, :1], types)
    assert set(model.groups(X[:, :1]).tolist()) <= {0, 1, 3}
