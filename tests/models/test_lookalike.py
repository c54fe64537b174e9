"""The lookalike expander on a population with a segment planted in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from models import lookalike
from models.lookalike import SHRINKAGE, SHRINKAGE_OF_ONE, LookalikeExpander, _standard_ranks, _top_k
from models.persist import save_arrays
from qianmian.errors import InvalidRequest
from qianmian.interruption import checking
from qianmian.workspace import write_json

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
    return LookalikeExpander(factors=8).fit(*data)


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
    model = LookalikeExpander(factors=8)
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
    again = LookalikeExpander(factors=8).fit(*population(seed=4)).fit(*data)  # the arrays cannot be written to
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
    model = LookalikeExpander(factors=4).fit(profile, interactions)
    rows, scores = model.expand(np.arange(5), 10)
    assert len(rows) == 10
    assert np.isfinite(scores).all()


def test_the_weights_are_those_of_the_least_squares_of_positive_unlabelled_data(data, model, seeds):
    """The ridge regression of "is a seed" on the centred columns has the same direction."""
    X = model.space_.astype(np.float64) - model.space_.mean(axis=0, dtype=np.float64)
    target = np.isin(np.arange(N), seeds).astype(float)
    penalty = N * (SHRINKAGE + SHRINKAGE_OF_ONE / len(seeds))
    expected = np.linalg.solve(X.T @ X + penalty * np.eye(X.shape[1]), X.T @ (target - target.mean()))
    weights = model.seed_weights(seeds)
    np.testing.assert_allclose(weights / np.linalg.norm(weights), expected / np.linalg.norm(expected), atol=1e-5)


def test_ranks_are_standardised_and_the_scale_of_a_feature_does_not_matter(data, seeds):
    profile, interactions = data
    ranks = _standard_ranks(profile)
    np.testing.assert_allclose(ranks.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(ranks.std(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(_standard_ranks(4 * profile), ranks)
    np.testing.assert_array_equal(_standard_ranks(np.full((4, 1), 7.0, np.float32)), np.zeros((4, 1)))


def test_categories_help_to_find_who_buys_them(data, seeds):
    profile, interactions = data
    constant = np.zeros((N, 1), np.float32)
    of_items = np.repeat(np.arange(3), 10)  # the segment buys the third category
    categories = interactions @ sparse.csr_matrix((np.ones(30, np.float32), (np.arange(30), of_items)), shape=(30, 3))
    model = LookalikeExpander(factors=8, category_factors=2).fit(constant, None, categories)
    assert model.space_.shape == (N, 3)
    rest = np.setdiff1d(np.arange(N), seeds)
    assert roc_auc_score(rest < SEGMENT, model.score(seeds)[rest]) > 0.9


def test_the_best_rows_are_those_of_a_sort_also_with_ties():
    scores = np.random.default_rng(0).integers(0, 9, 200).astype(np.float32)
    order = np.lexsort((np.arange(200), -scores))
    for wanted in (1, 17, 50, 200):
        np.testing.assert_array_equal(_top_k(scores, wanted), order[:wanted])


def test_scores_of_several_seeds_are_those_of_each_and_do_not_depend_on_the_blocks(model, seeds, monkeypatch):
    several = model.scores([seeds, seeds[:10]])
    monkeypatch.setattr(lookalike, "BLOCK", 7)
    np.testing.assert_allclose(several[:, 0], model.score(seeds), atol=1e-5)
    np.testing.assert_allclose(several[:, 1], model.score(seeds[:10]), atol=1e-5)


def test_the_auc_and_the_reach_of_the_evidence_are_known_values(model):
    """One split, computed again by scikit-learn and a sort."""
    seeds = np.arange(SEGMENT)
    evidence = model.evidence(seeds, 100, splits=1)
    given, hidden = np.array_split(np.random.default_rng(0).permutation(seeds), 2)
    rest = np.setdiff1d(np.arange(N), given)
    scores, truth = model.score(given)[rest], np.isin(rest, hidden)
    assert evidence.auc[0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    found = truth[np.argsort(-scores, kind="stable")].cumsum() / truth.sum()
    assert evidence.recall_at_size[0] == pytest.approx(found[99])
    assert evidence.reach[3]["found"] == pytest.approx(found[int(np.ceil(0.1 * len(rest))) - 1])
    assert evidence.reach[3]["lift"] == pytest.approx(evidence.reach[3]["found"] / 0.1, rel=0.01)
    assert all(point["low"] <= point["found"] <= point["high"] for point in evidence.reach)


def test_a_random_seed_is_not_separable_and_a_segment_is(model):
    rng = np.random.default_rng(5)
    claimed = [model.evidence(rng.permutation(N)[:60], 80).separable for _ in range(60)]
    assert sum(claimed) <= 3
    assert model.evidence(np.arange(SEGMENT), 80).separable


def test_identical_customers_cannot_be_told_apart(model):
    same = LookalikeExpander().fit(np.ones((60, 4), np.float32))
    assert model.tells_apart
    assert not same.tells_apart
    evidence = same.evidence(np.arange(20), 10)
    assert evidence.auc == (0.5, 0.5, 0.5)
    assert not evidence.separable


def test_a_model_of_an_earlier_version_is_read(model, seeds, tmp_path):
    """It has the space without its covariance, and the parameters of bagged classifiers."""
    save_arrays(tmp_path / "state.npz", {"space": model.space_, "embedding": model.space_[:, :2]})
    params = {"factors": 8, "bags": 10, "embedding_weight": 0.3, "regularization": 0.02, "seed": 0}
    write_json(tmp_path / "params.json", {"params": params})
    loaded = LookalikeExpander.load(tmp_path)
    np.testing.assert_allclose(loaded.score(seeds), model.score(seeds), atol=1e-6)


def test_the_work_can_end_between_two_blocks(model, seeds, monkeypatch):
    class Unwanted(Exception):
        pass

    checks = 0

    def check():
        nonlocal checks
        checks += 1
        if checks == 3:
            raise Unwanted

    monkeypatch.setattr(lookalike, "BLOCK", 200)
    with checking(check), pytest.raises(Unwanted):
        model.score(seeds)
