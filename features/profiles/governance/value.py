"""What each tag is worth: the bits it tells about a business goal, alone and on top of the tags already kept.

*Alone*: mutual information of the tag and the outcome, corrected for the bias of counting (Miller 1955), with a bootstrap interval
of the customers, beside what a tag without any connection would show (the outcome dealt out anew).

*On top*: tags are picked greedily. Each pick is the tag that most lowers the surprise (log loss in bits a customer) at the outcome
of customers a model has not seen, given the tags picked before; it ends when no tag clearly does. Being measured on unseen customers,
a copy of a picked tag adds nothing and noise adds less than nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from features.profiles.governance.encoding import Coded, encode_all, entropy_bits, mutual_information
from features.profiles.tags.declare import TagValue
from qianmian.errors import DataError

DRAWS = 400
MOST_CUSTOMERS = 100_000  # more are sampled: the intervals are narrow by then
MOST_PICKED = 10
FOLDS = 5
SHORTLIST = 3  # candidates of a step that are fitted in full
SURE = 0.05  # chance of picking a tag that adds nothing, over all candidates of a step
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TagWorth:
    """The worth of one tag.

    Attributes
    ----------
    bits, low, high : float
        Information about the outcome, and its 95 % interval; an interval that includes 0 is no evidence of any.
    chance : float
        What 95 % of unconnected tags with the same values stay under, in bits.
    share : float
        `bits` ÷ the entropy of the outcome.
    values : int
        Number of values it was counted by, unknown being one.
    picked : int or None
        Its place among the picks.
    adds, adds_low, adds_high : float
        Bits a customer on top of the tags picked before it, or of all picks where it is none of them; 95 % interval.
    """

    name: str
    bits: float
    low: float
    high: float
    chance: float
    share: float
    values: int
    picked: int | None = None
    adds: float = 0.0
    adds_low: float = 0.0
    adds_high: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Worth:
    """The worth of all tags.

    Attributes
    ----------
    tags : tuple of TagWorth
        By information, most first.
    picked : tuple of str
        The few that matter, in the order they were picked.
    entropy_bits : float
        The surprise of the outcome when nothing is known.
    told_bits : float
        What all picks together take off it, of unseen customers.
    """

    tags: tuple[TagWorth, ...]
    picked: tuple[str, ...]
    entropy_bits: float
    told_bits: float
    n: int


def worth(
    tags: Mapping[str, Sequence[TagValue]], outcome: Ints, seed: int = 0, most_picked: int = MOST_PICKED
) -> Worth:
    """Rank tags by what they tell about an outcome.

    Parameters
    ----------
    tags : mapping of str to sequence, each (n,)
        Values before the outcome.
    outcome : ndarray of int64, (n,)
        Class of each customer, from 0.
    seed : int
        The same seed and data give the same figures.

    Raises
    ------
    DataError
        Fewer than two outcomes, or too few customers of one.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> told = rng.integers(0, 2, 1000)
    >>> found = worth({"noise": rng.choice(["a", "b"], 1000).tolist(), "telling": [("lo", "hi")[t] for t in told]}, np.where(rng.random(1000) < 0.9, told, 1 - told))
    >>> [tag.name for tag in found.tags], found.picked
    (['telling', 'noise'], ('telling',))
    """
    streams = np.random.default_rng(seed).spawn(3)
    if len(outcome) > MOST_CUSTOMERS:
        kept = np.sort(streams[0].choice(len(outcome), MOST_CUSTOMERS, replace=False))
        tags, outcome = {name: [values[row] for row in kept] for name, values in tags.items()}, outcome[kept]
    _, outcome, kinds = np.unique(outcome, return_inverse=True, return_counts=True)
    if len(kinds) < 2 or kinds.min() < 2 * FOLDS:
        raise DataError(
            "too few customers of an outcome to measure information on",
            got=kinds.tolist(),
            allowed=f"two outcomes, {2 * FOLDS} customers each",
        )
    coded = encode_all(tags)
    classes = int(outcome.max()) + 1
    surprise = float(entropy_bits(np.bincount(outcome).astype(np.float64)))
    alone = [
        _alone(coded.codes[:, tag], outcome, classes, surprise, name, streams[1])
        for tag, name in enumerate(coded.names)
    ]
    picks, rest, told = _pick(coded, outcome.astype(np.int64), classes, streams[2], most_picked)
    on_top: dict[str, tuple[int | None, float, float, float]] = {
        coded.names[tag]: (place, *gain) for place, (tag, gain) in enumerate(picks, start=1)
    }
    on_top |= {coded.names[tag]: (None, *gain) for tag, gain in rest.items()}
    tagged = []
    for one in alone:
        place, adds, low, high = on_top[one.name]
        tagged.append(replace(one, picked=place, adds=adds, adds_low=low, adds_high=high))
    tagged.sort(key=lambda one: (-one.bits, one.name))
    return Worth(tuple(tagged), tuple(coded.names[tag] for tag, _ in picks), surprise, told, len(outcome))


# ---- alone -----------------------------------------------------------------------------------------------------------


def _alone(codes: Ints, outcome: Ints, classes: int, surprise: float, name: str, rng: np.random.Generator) -> TagWorth:
    size = int(codes.max()) + 1
    counts = np.bincount(codes * classes + outcome, minlength=size * classes).reshape(size, classes)
    if size < 2:
        return TagWorth(name, 0.0, 0.0, 0.0, 0.0, 0.0, size)
    n = len(codes)
    counted = float(mutual_information(counts.astype(np.float64)))
    bits = counted - bias(counts)
    # resampling customers with replacement is a multinomial draw of the cells
    again = mutual_information(
        rng.multinomial(n, counts.ravel() / n, size=DRAWS).reshape(DRAWS, size, classes).astype(np.float64)
    )
    # the bootstrap is as much above the counted value as that is above the truth: turning it round takes the bias out twice over
    low, high = 2 * counted - np.quantile(again, [0.975, 0.025])
    # dealing the outcome out anew is a random table with the same margins
    dealt = stats.random_table(counts.sum(axis=1), counts.sum(axis=0), seed=rng).rvs(DRAWS)
    unconnected = mutual_information(dealt.astype(np.float64)) - np.array([bias(table) for table in dealt])
    chance = float(np.quantile(unconnected, 0.95))
    return TagWorth(name, bits, float(low), float(high), chance, bits / surprise if surprise > 0 else 0.0, size)


def bias(counts: NDArray[Any]) -> float:
    """How much counting overstates mutual information, in bits: (cells − rows − columns + 1) ÷ (2 n ln 2), of those that occur."""
    cells, rows, columns = (counts > 0).sum(), (counts.sum(axis=1) > 0).sum(), (counts.sum(axis=0) > 0).sum()
    return float((cells - rows - columns + 1) / (2 * counts.sum() * np.log(2)))


# ---- on top of each other --------------------------------------------------------------------------------------------

Gain = tuple[float, float, float]


def _pick(
    coded: Coded, outcome: Ints, classes: int, rng: np.random.Generator, most: int
) -> tuple[list[tuple[int, Gain]], dict[int, Gain], float]:
    """Greedy picks (tag, gain), the gain of every other tag on top of them, and what the picks tell together."""
    n, candidates = len(outcome), [tag for tag, size in enumerate(coded.sizes) if size > 1]
    shuffled = rng.permutation(n)
    fold = np.empty(n, dtype=np.int64)
    fold[shuffled[np.argsort(outcome[shuffled], kind="stable")]] = np.arange(n) % FOLDS  # every outcome in every fold
    one_hot, wanted = coded.one_hot(), np.eye(classes)[outcome]
    known = _fit(None, outcome, fold, classes)
    start = surprise_bits(known, outcome, fold)
    picks: list[tuple[int, Gain]] = []
    while True:
        left = [tag for tag in candidates if tag not in {picked for picked, _ in picks}]
        gains = dict(zip(left, _steps(coded, one_hot, left, known, wanted, outcome, fold), strict=True))
        if not left or len(picks) == most:
            break
        fitted: dict[int, Floats] = {}
        for tag in sorted(left, key=lambda tag: (-float(gains[tag].mean()), tag))[:SHORTLIST]:
            chosen = [*(picked for picked, _ in picks), tag]
            columns = np.concatenate(
                [np.arange(coded.starts[one], coded.starts[one] + coded.sizes[one]) for one in chosen]
            )
            fitted[tag] = _fit(one_hot[:, columns], outcome, fold, classes)
        best = min(fitted, key=lambda tag: (float(surprise_bits(fitted[tag], outcome, fold).mean()), tag))
        then = fitted[best]
        gain = surprise_bits(known, outcome, fold) - surprise_bits(then, outcome, fold)
        # the best of many looks good by luck: it must stand out among all that were looked at
        if gain.mean() - stats.norm.ppf(1 - SURE / len(left)) * gain.std() / np.sqrt(n) <= 0:
            break
        picks.append((best, interval(gain)))
        known = then
    told = float((start - surprise_bits(known, outcome, fold)).mean())
    rest = {tag: interval(gain) for tag, gain in gains.items()}
    rest |= {tag: (0.0, 0.0, 0.0) for tag in range(len(coded.names)) if tag not in candidates}
    return picks, rest, told


def interval(gains: Floats) -> Gain:
    """The mean and its 95 % interval."""
    half = 1.96 * gains.std() / np.sqrt(len(gains))
    return float(gains.mean()), float(gains.mean() - half), float(gains.mean() + half)


def _fit(columns: sparse.csr_matrix | None, outcome: Ints, fold: Ints, classes: int) -> Floats:
    """Log probabilities (folds, n, classes) by one model a fold that has not seen that fold's customers."""
    from sklearn.linear_model import LogisticRegression

    made = np.empty((FOLDS, len(outcome), classes))
    for number in range(FOLDS):
        seen = fold != number
        if columns is None:
            shares = np.bincount(outcome[seen], minlength=classes) + 0.5
            made[number] = np.log(shares / shares.sum())
        else:
            made[number] = (
                LogisticRegression(solver="newton-cholesky")
                .fit(columns[seen], outcome[seen])
                .predict_log_proba(columns)
            )
    return made


def surprise_bits(log_p: Floats, outcome: Ints, fold: Ints) -> Floats:
    """Log loss of each customer by the model that has not seen them, (n,) in bits."""
    rows = np.arange(len(outcome))
    return np.asarray(-log_p[fold, rows, outcome] / np.log(2), dtype=np.float64)


def _steps(
    coded: Coded, one_hot: sparse.csr_matrix, tags: list[int], known: Floats, wanted: Floats, outcome: Ints, fold: Ints
) -> list[Floats]:
    """How much less each customer surprises, (n,) a tag, when each value of the tag may shift the model's log odds by one Newton step."""
    classes = wanted.shape[1]
    before = surprise_bits(known, outcome, fold)
    after = np.empty((len(tags), len(outcome)))
    for number in range(FOLDS):
        seen, unseen = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        p = np.exp(known[number])
        Z = one_hot[seen].T.tocsr()
        slope, bend = Z @ (wanted[seen] - p[seen]), Z @ (p[seen] * (1 - p[seen]))
        shift = (classes - 1) / classes * np.asarray(slope) / (np.asarray(bend) + 1.0)
        for place, tag in enumerate(tags):
            moved = known[number][unseen] + shift[coded.starts[tag] + coded.codes[unseen, tag]]
            moved -= np.logaddexp.reduce(moved, axis=1, keepdims=True)
            after[place, unseen] = -moved[np.arange(len(unseen)), outcome[unseen]] / np.log(2)
    return list(before - after)
