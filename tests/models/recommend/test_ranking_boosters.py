"""Rankers of several objectives: their scale, their mean, what is saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xgboost as xgb

from models.recommend.ranking.boosters import TREES_FILE, Boosters, check_features
from models.recommend.ranking.boosting import LIST_OBJECTIVE, fit_boosters
from models.recommend.ranking.examples import RankingExamples
from models.recommend.ranking.spool import SpooledRows
from models.recommend.ranking.xgboost_trees import joined
from qianmian.errors import ArtifactError

TREES = {"eta": 0.3, "max_depth": 3, "max_bin": 32, "seed": 0, "nthread": 1}
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    X = rng.random((600, 3)).astype(np.float32)
    y = (rng.random(600) < X[:, 0] * 0.6).astype(np.float32)
    rows = SpooledRows(3)
    rows.append(X)
    return RankingExamples([rows], y, np.repeat(np.arange(60), 10), np.where(y > 0, 1.0, 3.0).astype(np.float32))


def alone(examples, objective, ref=None, **columns):
    matrix = xgb.QuantileDMatrix(examples.features, label=examples.labels, max_bin=32, feature_names=NAMES, ref=ref)
    matrix.set_info(**columns)
    more = LIST_OBJECTIVE if objective.startswith("rank:") else {}
    return xgb.train({"objective": objective, "tree_method": "hist", **more, **TREES}, matrix, 10)


@pytest.mark.parametrize("objectives", [("binary:logistic", "rank:ndcg"), ("rank:ndcg", "binary:logistic")])
def test_each_ranker_is_what_it_would_be_alone_and_the_score_is_their_mean(examples, objectives):
    fitted = fit_boosters([examples], NAMES, objectives, 10, TREES)
    X = examples.features
    margins = [
        alone(examples, "binary:logistic", weight=examples.weights).inplace_predict(X, predict_type="margin"),
        alone(examples, "rank:ndcg", qid=examples.groups).inplace_predict(X, predict_type="margin"),
    ]
    spreads = [np.sqrt(np.mean(margin.reshape(60, 10).var(axis=1))) for margin in margins]  # lists of ten
    np.testing.assert_allclose(fitted.scales, spreads, rtol=1e-4)
    expected = np.mean([margin / spread for margin, spread in zip(margins, spreads, strict=True)], axis=0)
    np.testing.assert_allclose(fitted.scores(X), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(fitted.scores(X[:7]), fitted.scores(X)[:7])  # whatever else is ranked


def test_rankers_of_several_samples_are_averaged(examples, tmp_path):
    half = replace(
        examples,
        parts=[SpooledRows(3)],
        labels=examples.labels[:300],
        groups=examples.groups[:300],
        weights=examples.weights[:300],
    )
    half.parts[0].append(examples.features[:300])
    X = examples.features
    both = fit_boosters([examples, half], NAMES, ("binary:logistic", "rank:ndcg"), 10, TREES)
    bins = xgb.QuantileDMatrix(X, max_bin=32, feature_names=NAMES)
    expected = [
        alone(part, objective, ref=bins, **columns)
        for part in (examples, half)
        for objective, columns in (("binary:logistic", {"weight": part.weights}), ("rank:ndcg", {"qid": part.groups}))
    ]
    margins = [booster.inplace_predict(X, predict_type="margin") for booster in expected]
    sizes = (60, 60, 30, 30)  # lists of ten
    spreads = [
        np.sqrt(np.mean(margin[: 10 * lists].reshape(lists, 10).var(axis=1)))
        for margin, lists in zip(margins, sizes, strict=True)
    ]
    np.testing.assert_allclose(both.scales, spreads, rtol=1e-4)
    scaled = [margin / scale for margin, scale in zip(margins, both.scales, strict=True)]
    np.testing.assert_allclose(both.scores(X), np.mean(scaled, axis=0), rtol=1e-3, atol=1e-4)
    both.save(tmp_path)
    again = Boosters.load(tmp_path, both.scales, reads_gaps=False)
    np.testing.assert_array_equal(again.scores(X), both.scores(X))


def test_saved_rankers_score_the_same(examples, tmp_path):
    fitted = fit_boosters([examples], NAMES, ("binary:logistic", "rank:pairwise"), 5, TREES)
    fitted.save(tmp_path)
    again = Boosters.load(tmp_path, fitted.scales, reads_gaps=False)
    np.testing.assert_array_equal(again.scores(examples.features), fitted.scores(examples.features))
    with pytest.raises(ArtifactError, match="other features"):
        check_features(tmp_path)
    (tmp_path / TREES_FILE).unlink()  # as an earlier version saved them
    earlier = Boosters.load(tmp_path, fitted.scales, reads_gaps=False)
    np.testing.assert_array_equal(earlier.scores(examples.features), fitted.scores(examples.features))
    assert (earlier.names, again.names) == (fitted.names, fitted.names) == (tuple(NAMES), tuple(NAMES))
    with pytest.raises(ArtifactError, match="other features"):
        check_features(tmp_path)
    fitted.save(tmp_path)
    (tmp_path / "booster_1.ubj").unlink()
    with pytest.raises(ArtifactError):
        Boosters.load(tmp_path, fitted.scales, reads_gaps=False)


def test_missing_values_are_below_all_others(examples):
    """A missing value ranks as a smaller value than any; boosters of earlier versions read it as NaN."""
    fitted = fit_boosters([examples], NAMES, ("binary:logistic",), 10, TREES)
    X = examples.features
    X[:, 0], low = np.nan, X.copy()
    low[:, 0] = -1e6
    np.testing.assert_array_equal(fitted.scores(X), fitted.scores(low))
    earlier = replace(fitted, reads_gaps=True)
    expected = fitted.boosters[0].inplace_predict(X, predict_type="margin") / fitted.scales[0]
    np.testing.assert_array_equal(earlier.scores(X), expected)


def test_margins_that_do_not_differ_have_a_scale(examples):
    fitted = fit_boosters([examples], NAMES, ("binary:logistic",), 3, {**TREES, "min_child_weight": 1e6})
    assert fitted.scales.tolist() == [1.0]
    assert np.isfinite(fitted.scores(examples.features)).all()


@pytest.mark.parametrize(
    "objectives", [("binary:logistic", "rank:ndcg"), ("rank:pairwise", "binary:logistic", "rank:ndcg")]
)
def test_joined_rankers_have_the_margins_of_each_to_the_last_bit(examples, objectives):
    fitted = fit_boosters([examples], NAMES, objectives, 20, TREES)
    rows = np.concatenate([examples.features, np.full((1, 3), np.nan, np.float32)])
    together = joined(fitted.boosters).inplace_predict(rows, predict_type="margin")
    for place, booster in enumerate(fitted.boosters):
        alone_margin = booster.inplace_predict(rows, predict_type="margin")
        np.testing.assert_array_equal(together[:, place], alone_margin)
        assert alone_margin.std() > 0
