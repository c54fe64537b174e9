"""The extension gives the margins of XGBoost to the last bit, for random boosters and rows, missing values included."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from models.recommend.ranking import boosters
from models.recommend.ranking.boosting import LIST_OBJECTIVE, boosters_of
from models.recommend.ranking.compiled import COMPILED
from models.recommend.ranking.flat_trees import MAX_DEPTH, FlatTrees
from models.recommend.ranking.spool import MISSING

OBJECTIVES = ("binary:logistic", "rank:ndcg", "reg:squarederror")


def table(rng, rows, columns, gaps, *, coarse):
    X = rng.normal(size=(rows, columns)).astype(np.float32)
    if coarse:  # values that are thresholds
        X = np.round(X, 1)
    X[rng.random(X.shape) < gaps] = np.nan
    return X


def booster(rng, X, objective, depth, rounds, base_score):
    y = (np.nan_to_num(X[:, 0]) + rng.normal(size=len(X)) > 0.5).astype(np.float32)
    matrix = xgb.DMatrix(X, y)
    more = {} if base_score is None else {"base_score": base_score}
    if objective.startswith("rank:"):
        matrix.set_info(qid=np.repeat(np.arange(len(X)), 10)[: len(X)])
        more |= LIST_OBJECTIVE
    given = {"objective": objective, "max_depth": depth, "eta": 0.4, "nthread": 1, "min_child_weight": 0.1, **more}
    return xgb.train(given, matrix, rounds)


def test_the_extension_was_built():
    """An installation builds it; only code that was copied to another platform goes without."""
    assert COMPILED


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.sampled_from([1, 2, 15, 16, 17, 33, 90]),
    columns=st.integers(1, 9),
    gaps=st.sampled_from([0.0, 0.2, 1.0]),
    depth=st.integers(1, MAX_DEPTH),
    chosen=st.lists(st.sampled_from(OBJECTIVES), min_size=1, max_size=3),
    base_score=st.sampled_from([None, 0.1, 0.5]),
    coarse=st.booleans(),
)
def test_margins_are_those_of_xgboost(seed, rows, columns, gaps, depth, chosen, base_score, coarse):
    rng = np.random.default_rng(seed)
    X = table(rng, 200, columns, gaps, coarse=coarse)
    fitted = tuple(booster(rng, X, objective, depth, 7, base_score) for objective in chosen)
    both = boosters_of(fitted, np.ones(len(fitted), np.float32), reads_gaps=True)
    asked = table(rng, rows, columns, gaps, coarse=coarse)
    asked[rng.random(asked.shape) < 0.05] = np.inf
    expected = np.column_stack(
        [one.inplace_predict(asked, predict_type="margin", validate_features=False) for one in fitted]
    )
    flat = both.flat
    if flat is None:  # a booster without a split
        assert all("]" not in tree for one in fitted for tree in one.get_dump())
        return
    np.testing.assert_array_equal(flat.margins(asked), expected)
    np.testing.assert_array_equal(both._margins(asked), expected)


def test_values_that_stand_for_missing_ones():
    rng = np.random.default_rng(0)
    X = table(rng, 300, 4, 0.3, coarse=False)
    fitted = booster(rng, np.where(np.isnan(X), MISSING, X), "binary:logistic", 4, 20, None)
    both = boosters_of((fitted,), np.ones(1, np.float32), reads_gaps=False)
    asked = table(rng, 50, 4, 0.3, coarse=False)
    expected = fitted.inplace_predict(np.where(np.isnan(asked), MISSING, asked), predict_type="margin")
    np.testing.assert_array_equal(both._margins(asked)[:, 0], expected)


def test_few_rows_and_many_have_the_same_scores(monkeypatch):
    rng = np.random.default_rng(1)
    X = table(rng, 300, 5, 0.1, coarse=False)
    both = boosters_of(tuple(booster(rng, X, name, 5, 9, None) for name in OBJECTIVES), np.array([1, 2, 3], np.float32))
    few = both.scores(X)
    monkeypatch.setattr(boosters, "FEW_ROWS", 0)
    monkeypatch.setattr(boosters, "FEW_THREADS", 0)
    np.testing.assert_array_equal(both.scores(X), few)
    monkeypatch.setattr(boosters, "FEW_ROWS", 10_000)
    monkeypatch.setattr(boosters, "COMPILED", False)
    np.testing.assert_array_equal(both.scores(X), few)


def test_trees_that_are_too_deep_or_differ_in_number_are_left_to_xgboost():
    rng = np.random.default_rng(2)
    X = table(rng, 400, 3, 0.0, coarse=False)
    deep = booster(rng, X, "reg:squarederror", MAX_DEPTH + 1, 3, None)
    assert boosters_of((deep,), np.ones(1, np.float32)).flat is None
    np.testing.assert_array_equal(
        boosters_of((deep,), np.ones(1, np.float32)).scores(X), deep.inplace_predict(X, predict_type="margin")
    )
    trees = json.loads(deep.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    assert FlatTrees.of([trees, trees[:2]], [0.0, 0.0], 3) is None
    assert FlatTrees.of([], [], 3) is None


def test_arrays_that_do_not_fit_are_refused():
    rng = np.random.default_rng(3)
    X = table(rng, 50, 3, 0.0, coarse=False)
    flat = boosters_of((booster(rng, X, "reg:squarederror", 3, 3, None),), np.ones(1, np.float32)).flat
    for wrong in (X[:, :2], X.astype(np.float64), X[0]):
        with pytest.raises(ValueError, match="rows of 3 float32 columns"):
            flat.margins(wrong)
    from models.recommend.ranking import _trees

    arrays = flat.features, flat.thresholds, flat.gap_right, flat.leaves, flat.starts
    out = np.empty((50, 1), np.float32)
    beyond = np.full_like(flat.features, 3)
    for held, width, depth in (
        ((beyond, *arrays[1:]), 3, 3),
        ((*arrays[:3], flat.leaves[:, :-1].copy(), flat.starts), 3, 3),
        (arrays, 3, 4),
        (arrays, 0, 3),
        (arrays, 3, 0),
        ((*arrays[:4], np.empty(0, np.float32)), 3, 3),
    ):
        with pytest.raises(ValueError, match="do not fit together"):
            _trees.margins(X, *held, width, depth, float("nan"), out)
    with pytest.raises(ValueError, match="do not fit together"):
        _trees.margins(X, *arrays, 3, 3, float("nan"), out[:-1])
