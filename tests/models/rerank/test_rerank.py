"""Controls over lists: limits, marginal relevance, promotions, exploration; against slow and plain versions of the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ranked import Ranked, top_k
from models.recommend.fallback import FallbackChain
from models.recommend.popular import PopularRecommender
from models.rerank import (
    Cap,
    ExplorationPolicy,
    PathSimilarity,
    PromotedItems,
    RerankOptions,
    VectorSimilarity,
    explore,
    interleave,
    item_vectors,
    quotas,
    rank_within_class,
    rerank,
    select,
    slate,
)
from qianmian.errors import UsageError

SEEDS = st.integers(0, 10_000)


def asker(scores: np.ndarray, log: list | None = None):
    """A model that knows a score for everything; −inf is no candidate."""

    def ask(rows, many, items):
        if log is not None:
            log.append((len(rows), many))
        left = scores[rows].astype(np.float32)
        if items is not None:
            left[:, ~items] = -np.inf
        ids, values = top_k(left, many)
        return Ranked.of(ids, values, np.zeros(ids.shape, np.int8), many, ("model",))

    return ask


def ranking(seed: int, n: int = 4, m: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, m))


# ---- places ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=5))
def test_places_are_spread_evenly(counts):
    counts = np.array(counts)
    width = int(counts.sum(axis=1).max()) + 2
    classes = interleave(counts, width)
    for row, wanted in zip(classes, counts, strict=True):
        total = wanted.sum()
        assert np.bincount(row[row >= 0], minlength=3).tolist() == wanted.tolist()
        assert (row[total:] == -1).all()
        for end in range(1, total + 1):
            for one in range(3):  # every beginning has its share, to within a place or two
                assert abs((row[:end] == one).sum() - wanted[one] * end / total) < 2
    assert rank_within_class(classes, 0)[classes == 0].max(initial=0) == max(counts[:, 0].max() - 1, 0)


# ---- limits and marginal relevance -----------------------------------------------------------------------------------


def plain_check(ids, found, steps, caps, selected, mmr, similarity, scale):
    """Every choice of one list is allowed and as good as any other then; nothing was left where the list ends."""
    counts = [Counter(int(cap.groups[item]) for item in selected) for cap in caps]
    chosen: list[int] = []
    for step in range(steps):
        free = [
            p
            for p, item in enumerate(ids)
            if item >= 0
            and item not in selected
            and p not in chosen
            and all(
                cap.groups[item] < 0 or count[int(cap.groups[item])] < cap.limit
                for cap, count in zip(caps, counts, strict=True)
            )
        ]
        if not free:
            assert found[step:] == [-1] * (steps - step)
            return
        near = {p: max((similarity[ids[p], ids[q]] for q in chosen), default=0.0) for p in free}
        worth = {p: -p if mmr is None else mmr * (1 - p / scale) - (1 - mmr) * near[p] for p in free}
        assert found[step] in free
        assert worth[found[step]] >= max(worth.values()) - 1e-6
        chosen.append(found[step])
        for cap, count in zip(caps, counts, strict=True):
            count[int(cap.groups[ids[chosen[-1]]])] += 1


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 4), st.sampled_from([None, 0.0, 0.3, 1.0]), st.integers(0, 3))
def test_every_choice_is_the_best_one_allowed(seed, limit, most_too, mmr, already):
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.normal(size=(3, 14)), axis=1)[:, :11]
    ids[1, 6:] = -1
    caps = [Cap("a", rng.integers(-1, 4, 14), limit), Cap("b", rng.integers(-1, 3, 14), most_too)]
    vectors = rng.integers(-2, 3, (14, 3)).astype(np.float32)
    vectors[0] = 0
    similarity = VectorSimilarity(vectors)
    cosine = np.maximum(similarity.unit @ similarity.unit.T, 0)
    selected = np.stack([rng.permutation(14)[:3] for _ in range(3)])
    selected[:, already:] = -1
    found = select(ids, 8, caps=caps, selected=selected, mmr=mmr, similarity=similarity, scale=20)
    for row in range(3):
        held = [item for item in selected[row].tolist() if item >= 0]
        plain_check(ids[row].tolist(), found[row].tolist(), 8, caps, held, mmr, cosine, 20)


def test_marginal_relevance_takes_the_different_one_first():
    vectors = np.array([[1, 0], [1, 0.05], [0, 1], [1, -0.05]], dtype=np.float32)
    ranked = np.array([[0, 1, 3, 2]])
    for mmr, expected in ((1.0, [0, 1, 3, 2]), (0.5, [0, 2, 1, 3]), (0.0, [0, 2, 1, 3])):
        chosen = select(ranked, 4, mmr=mmr, similarity=VectorSimilarity(vectors), scale=50)
        assert ranked[0, chosen[0]].tolist() == expected, mmr


def test_category_levels_in_common():
    # GROCERY/SOUP/CANNED, GROCERY/TEA/GREEN, GROCERY/SOUP, MEAT, unknown
    levels = np.array([[0, 0, 0], [0, 1, 1], [0, 0, -1], [1, -1, -1], [-1, -1, -1]])
    to = PathSimilarity(levels).within(np.array([[0, 1, 2, 3, 4, -1]]))
    assert to(np.array([0])) == pytest.approx(np.array([[1, 1 / 3, 2 / 3, 0, 0, 0]]))
    assert to(np.array([4])).tolist() == [[0.0] * 6], "unknown is like nothing, itself included"


def test_vectors_come_from_the_first_model_that_has_any(shop):
    assert item_vectors(PopularRecommender().fit(shop)) is None
    chain = FallbackChain([("repeat", {}), ("ials", {"factors": 4, "iterations": 2}), ("popular", {})]).fit(shop)
    vectors = item_vectors(chain)
    assert vectors is not None
    assert vectors.shape[0] == shop.n_items
    broken = VectorSimilarity(np.array([[np.nan, 1], [1, 0], [0, 0]], np.float32))
    assert np.isfinite(broken.unit).all()


# ---- promotions ------------------------------------------------------------------------------------------------------


def promotion(name: str, percent: float, items: list[int], n_items: int = 40) -> PromotedItems:
    mask = np.zeros(n_items, bool)
    mask[items] = True
    return PromotedItems(name, mask, percent)


def test_promotions_get_their_share_spread_evenly_and_their_best_items():
    scores = ranking(0)
    both = (promotion("a", 20, list(range(20, 30))), promotion("b", 30, list(range(30, 40))))
    found = rerank(asker(scores), 4, 10, RerankOptions(promotions=both))
    assert (found.ranked.valid == 10).all()
    for row in range(4):
        ids, by = found.ranked.ids[row], found.promotion[row]
        assert Counter(by.tolist()) == {0: 2, 1: 3, -1: 5}
        assert len(set(ids.tolist())) == 10
        for number, (low, high) in enumerate(((20, 30), (30, 40))):
            own = low + np.argsort(-scores[row, low:high], kind="stable")
            assert ids[by == number].tolist() == own[: (by == number).sum()].tolist()
        rest = [item for item in np.argsort(-scores[row]).tolist() if item not in ids[by >= 0]]
        assert ids[by < 0].tolist() == rest[:5]
        assert ids[by < 0][0] == ids[0], "the first place is not for sale"
        assert np.diff(np.flatnonzero(by >= 0)).max() <= 3
        np.testing.assert_array_equal(found.ranked.scores[row], scores[row, ids].astype(np.float32))


def test_a_promotion_without_items_leaves_its_places_to_the_others():
    scores = ranking(1)
    scores[0, 20:] = -np.inf  # nothing of the promotion may be shown to the first customer
    found = rerank(asker(scores), 4, 10, RerankOptions(promotions=(promotion("a", 40, list(range(20, 40))),)))
    assert (found.ranked.valid == 10).all()
    assert (found.promotion >= 0).sum(axis=1).tolist() == [0, 4, 4, 4]


@pytest.mark.parametrize(
    ("percents", "k", "expected"),
    [
        ([100], 3, [3]),
        ([50, 50], 5, [3, 2]),
        ([0], 10, [0]),
        ([4], 10, [0]),
        ([5], 10, [1]),
        ([33.3, 33.3, 33.4], 10, [3, 3, 3]),
        ([60, 40], 1, [1, 0]),
    ],
)
def test_places_of_promotions(percents, k, expected):
    assert quotas([promotion(str(p), p, [0]) for p in percents], k) == expected


def test_everything_promoted_and_too_little_of_it():
    found = rerank(asker(ranking(2)), 4, 6, RerankOptions(promotions=(promotion("a", 100, [3, 4, 5, 6]),)))
    assert (found.ranked.valid == 6).all()
    assert (found.promotion >= 0).sum(axis=1).tolist() == [4] * 4


# ---- exploration -----------------------------------------------------------------------------------------------------

CASES = [
    # candidates, places, share, pool
    (40, 10, 0.2, 20),
    (40, 10, 0.05, 5),
    (40, 10, 0.25, 4),
    (40, 10, 0.35, 3),
    (12, 10, 0.5, 20),
    (10, 10, 0.3, 20),
    (6, 10, 0.3, 20),
    (40, 10, 1.0, 30),
    (40, 10, 0.9, 2),
    (40, 10, 0.0, 5),
    (3, 1, 0.5, 2),
    (1, 1, 1.0, 1),
    (0, 5, 0.5, 3),
    (40, 1, 0.1, 10),
    (40, 10, 0.7, 10),
]


@pytest.mark.parametrize(("candidates", "places", "share", "pool"), CASES)
def test_frequencies_match_the_propensities(candidates, places, share, pool):
    n = 40_000
    draws = np.random.default_rng(7).random((n, 1 + pool))
    found = explore(np.full(n, candidates), np.full(n, places), places, ExplorationPolicy(share, pool), draws)
    length = min(candidates, places)
    assert ((found.order >= 0).sum(axis=1) == length).all()
    if not length:
        return
    order, at, inside = found.order[:, :length], found.propensity[:, :length], found.slate_propensity[:, :length]
    assert (np.sort(order, axis=1)[:, 1:] > np.sort(order, axis=1)[:, :-1]).all(), "nothing stands twice"
    counts = np.zeros((length, candidates))
    for place in range(length):
        counts[place] = np.bincount(order[:, place], minlength=candidates)
    frequency, told, told_inside = counts / n, np.zeros((length, candidates)), np.zeros(candidates)
    for place in range(length):
        told[place, order[:, place]] = at[:, place]  # the same item at the same place always says the same
        assert (told[place, order[:, place]] == at[:, place]).all()
        told_inside[order[:, place]] = inside[:, place]
        assert told[place].sum() == pytest.approx(1.0, abs=0.02), (
            "the probabilities of a place add up, rare items never drawn aside"
        )
    error = 5 * np.sqrt(np.maximum(told * (1 - told), 1e-9) / n) + 1e-9
    assert (np.abs(frequency - told) <= error).all()
    present = counts.sum(axis=0) / n
    error = 5 * np.sqrt(np.maximum(told_inside * (1 - told_inside), 1e-9) / n) + 1e-9
    assert (np.abs(present - told_inside) <= error).all()
    assert told_inside.sum() == pytest.approx(length, abs=0.05)
    assert found.explored.sum() / n == pytest.approx(min(share * length, pool), abs=0.02)


def test_exploration_within_a_list_with_limits_and_promotions():
    scores, groups = ranking(3, n=2), np.arange(40) % 8
    rerank_options = RerankOptions(
        caps=(Cap("brand", groups, 3),),
        promotions=(promotion("a", 20, list(range(30, 40))),),
        exploration=ExplorationPolicy(0.25, 6),
    )
    assert rerank_options.draws == 7
    draws = np.random.default_rng(0).random((2, rerank_options.draws))
    found = rerank(asker(scores), 2, 10, rerank_options, draws)
    again = rerank(asker(scores), 2, 10, rerank_options, draws)
    np.testing.assert_array_equal(found.ranked.ids, again.ranked.ids)
    assert found.exploration_result is not None
    assert (found.exploration_result.propensity[found.promotion >= 0] == 1).all()
    assert (found.exploration_result.explored.sum(axis=1) == 2).all()
    assert found.exploration_result.propensity[found.exploration_result.explored] == pytest.approx(1 / 6)
    for row in range(2):
        assert max(Counter(groups[found.ranked.ids[row]].tolist()).values()) <= 3
    other = rerank(asker(scores), 2, 10, rerank_options, np.random.default_rng(1).random((2, rerank_options.draws)))
    assert (found.ranked.ids != other.ranked.ids).any()
    with pytest.raises(UsageError, match="draws"):
        rerank(asker(scores), 2, 10, rerank_options)


# ---- all together ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    SEEDS,
    st.integers(1, 12),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 0.4]),
)
def test_a_list_that_can_be_full_is_full(seed, k, limit, promoting, exploring, small, mmr):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(5, 30))
    scores[rng.random((5, 30)) < 0.3] = -np.inf
    groups = rng.integers(-1, 6, 30)
    rerank_options = RerankOptions(
        caps=(Cap("brand", groups, limit),),
        mmr=mmr,
        similarity=VectorSimilarity(rng.normal(size=(30, 4)).astype(np.float32)),
        promotions=(promotion("a", 30, list(range(15)), 30),) if promoting else (),
        exploration=ExplorationPolicy(0.3, 4) if exploring else None,
    )
    draws = rng.random((5, rerank_options.draws)) if exploring else None
    with pytest.MonkeyPatch.context() as patched:
        if small:  # blocks of a row, and asking again and again
            patched.setattr(slate, "CELLS", 3)
        patched.setattr(slate, "MMR_LEAST", 5)
        log: list = []
        found = rerank(asker(scores, log), 5, k, rerank_options, draws)
    assert max(rows for rows, _ in log) == (1 if small else 5)
    for row in range(5):
        ids = found.ranked.ids[row][found.ranked.ids[row] >= 0]
        eligible = np.flatnonzero(np.isfinite(scores[row]))
        possible = sum(
            min(limit, count) if group >= 0 else count for group, count in Counter(groups[eligible].tolist()).items()
        )
        assert len(ids) == found.ranked.valid[row] == min(k, possible)
        assert len(set(ids.tolist())) == len(ids)
        assert set(ids.tolist()) <= set(eligible.tolist())
        assert all(count <= limit for group, count in Counter(groups[ids].tolist()).items() if group >= 0)
        assert (found.ranked.ids[row, len(ids) :] == -1).all()
        assert (found.ranked.scores[row, : len(ids)] == scores[row, ids].astype(np.float32)).all()
        if found.ranked.valid[row] < k:
            assert found.candidates[row] == len(eligible)
            assert found.kept[row] <= k


def test_lists_do_not_depend_on_who_is_asked_about_with_them():
    scores, rerank_options = (
        ranking(5, n=6),
        RerankOptions(caps=(Cap("x", np.arange(40) % 3, 2),), exploration=ExplorationPolicy(0.3, 5)),
    )
    draws = np.random.default_rng(2).random((6, rerank_options.draws))
    together = rerank(asker(scores), 6, 5, rerank_options, draws)
    for row in range(6):
        alone = rerank(asker(scores[[row]]), 1, 5, rerank_options, draws[[row]])
        assert alone.ranked.ids[0].tolist() == together.ranked.ids[row].tolist()
        assert alone.exploration_result is not None
        assert together.exploration_result is not None
        assert alone.exploration_result.propensity[0].tolist() == together.exploration_result.propensity[row].tolist()


def test_no_controls_are_no_controls():
    assert not RerankOptions()
    assert RerankOptions(mmr=0.0)
    found = rerank(asker(ranking(4)), 4, 7, RerankOptions())
    np.testing.assert_array_equal(found.ranked.ids, top_k(ranking(4).astype(np.float32), 7)[0])


def test_nobody_and_nothing():
    found = rerank(asker(np.empty((0, 4))), 0, 3, RerankOptions(caps=(Cap("x", np.zeros(4, int), 1),)))
    assert found.ranked.ids.shape == (0, 3)
    everything_barred = rerank(
        asker(np.full((2, 4), -np.inf)), 2, 3, RerankOptions(promotions=(promotion("a", 50, [0], 4),))
    )
    assert (everything_barred.ranked.ids == -1).all()
