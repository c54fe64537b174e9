"""The lookalike expander on a population with a segment planted in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from models.lookalike import LookalikeExpander, separate
from qianmian.errors import InvalidRequest
from qianmian.interruption import checking

N, SEGMENT = 800, 120


def population(seed=0):
    """The first 120 spend more (second feature) and buy the last ten of thirty items more often."""
    rng = np.random.default_rng(seed)
    member = np.arange(N) < SEGMENT
    profile = rng.lognormal(1.0, 1.0, (N, 5)).astype(np.float32)
    profile[member, 1] *= 8
    rate = np.full((N, 30), 0.15)
    rate[member, 20:] = 0.6
    interactions = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    for array in (profile, interactions.data, interactions.indices, interactions.indptr):
        array.flags.writeable = False
    return profile, interactions


@pytest.fixture(scope="module")
def data():
    return population()


@pytest.fixture(scope="module")
def model(data):
    return LookalikeExpander(factors=8, bags=5).fit(*data)


@pytest.fixture
def seeds():
    return np.random.default_rng(1).permutation(SEGMENT)[:40]


def test_finds_the_rest_of_the_segment(model, seeds):
    rows, scores = model.expand(seeds, SEGMENT - len(seeds))
    assert (rows < SEGMENT).mean() > 0.7  # 80 of 760 by chance
    assert not set(rows.tolist()) & set(seeds.tolist())
    assert len(set(rows.tolist())) == len(rows)
    assert (np.diff(scores) <= 0).all()
    assert ((scores > 0) & (scores <= 1)).all()


@pytest.mark.parametrize("which", ["profile", "taste"])
def test_either_half_alone_is_enough(data, seeds, which):
    profile, interactions = data
    model = LookalikeExpander(factors=8, bags=5)
    model = model.fit(profile) if which == "profile" else model.fit(np.zeros((N, 1), np.float32), interactions)
    rest = np.setdiff1d(np.arange(N), seeds)
    assert roc_auc_score(rest < SEGMENT, model.score(seeds)[rest]) > 0.85


def test_members_hidden_among_the_unlabelled_do_not_spoil_it(model):
    """Positive-unlabelled: twenty seeds, a hundred unknown members among those taken as negatives."""
    seeds = np.arange(20)
    rest = np.arange(20, N)
    assert roc_auc_score(rest < SEGMENT, model.score(seeds)[rest]) > 0.9


def test_evidence(model, seeds):
    evidence = model.evidence(np.arange(SEGMENT), 100, splits=4)
    mean, low, high = evidence.auc
    assert 0.9 < low <= mean <= high <= 1
    assert evidence.recall_at_size[0] > 0.8
    assert evidence.lift_at_size[0] == pytest.approx(evidence.recall_at_size[0] * (N - SEGMENT // 2) / 100)
    found = [point["found"] for point in evidence.reach]
    assert found == sorted(found)
    assert [point["share"] for point in evidence.reach] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    assert evidence.splits == 4


def test_evidence_of_a_random_seed_is_chance(model):
    seeds = np.random.default_rng(3).permutation(N)[:100]
    evidence = model.evidence(seeds, 80)
    assert 0.35 < evidence.auc[0] < 0.65
    assert evidence.lift_at_size[0] < 2


def test_evidence_of_everybody_is_finite(model):
    evidence = model.evidence(np.arange(N), 10_000)
    assert np.isfinite([*evidence.auc, *evidence.recall_at_size, *evidence.lift_at_size]).all()
    assert evidence.recall_at_size[0] == 1.0


def test_more_than_there_are(model, seeds):
    rows, scores = model.expand(seeds, N * 5)
    assert len(rows) == len(scores) == N - len(seeds)
    assert sorted([*rows.tolist(), *seeds.tolist()]) == list(range(N))


def test_exclude(model, seeds):
    first, _ = model.expand(seeds, 30)
    second, _ = model.expand(seeds, 30, exclude=first)
    both, _ = model.expand(seeds, 60)
    assert not set(first.tolist()) & set(second.tolist())
    np.testing.assert_array_equal(both, np.concatenate([first, second]))
    nobody, _ = model.expand(seeds, 5, exclude=np.arange(N))
    assert len(nobody) == 0


def test_the_order_of_seeds_and_doubles_do_not_matter(model, seeds):
    np.testing.assert_array_equal(model.score(seeds), model.score(np.concatenate([seeds[::-1], seeds[:5]])))


def test_everybody_a_seed(model):
    assert np.isfinite(model.score(np.arange(N))).all()
    assert len(model.expand(np.arange(N), 5)[0]) == 0


def test_same_seed_same_answer_and_nothing_changed(data, model, seeds):
    again = LookalikeExpander(factors=8, bags=5).fit(*population(seed=4)).fit(*data)  # the arrays cannot be written to
    seeds.flags.writeable = False
    np.testing.assert_array_equal(again.score(seeds), model.score(seeds))
    np.testing.assert_array_equal(model.score(seeds), model.score(seeds))


@pytest.mark.parametrize(
    "call",
    [
        {"seeds": [], "size": 5},
        {"seeds": [0], "size": 0},
        {"seeds": [-1], "size": 5},
        {"seeds": [N], "size": 5},
        {"seeds": [0], "size": 5, "exclude": np.array([-1])},
    ],
)
def test_wrong_calls_are_refused(model, call):
    with pytest.raises(InvalidRequest):
        model.expand(np.array(call.pop("seeds"), dtype=np.int64), **call)


def test_save_and_load(model, seeds, tmp_path):
    model.save(tmp_path / "m")
    loaded = LookalikeExpander.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.score(seeds), model.score(seeds))
    assert loaded.get_params() == model.get_params()


@pytest.mark.parametrize(
    "profile", [np.ones((30, 2), np.float32), np.zeros((30, 1), np.float32)], ids=["all the same", "all zero"]
)
@pytest.mark.parametrize(
    "interactions",
    [None, sparse.csr_matrix((30, 0)), sparse.csr_matrix((30, 3)), sparse.csr_matrix(np.ones((30, 4)))],
    ids=["none", "no items", "empty", "all items"],
)
def test_odd_populations(profile, interactions):
    model = LookalikeExpander(factors=4, bags=2).fit(profile, interactions)
    rows, scores = model.expand(np.arange(5), 10)
    assert len(rows) == 10
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("regularization", [0.02, 1.0])
def test_the_classifier_is_that_of_scikit_learn(data, seeds, regularization):
    X = np.log1p(data[0])
    positive = np.isin(np.arange(N), seeds)
    reference = LogisticRegression(C=regularization, class_weight="balanced", max_iter=200, tol=1e-6).fit(X, positive)
    weights, intercept = separate(X, positive, regularization, tolerance=1e-6)
    np.testing.assert_allclose(X @ weights + intercept, reference.decision_function(X), atol=1e-3)


def test_the_work_can_end_between_two_steps(model, seeds):
    class Unwanted(Exception):
        pass

    checks = 0

    def check():
        nonlocal checks
        checks += 1
        if checks == 30:
            raise Unwanted

    with checking(check), pytest.raises(Unwanted):
        model.score(seeds)
