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

from features.profiles.governance.encoding import EncodedTags, encode_tags, entropy_bits, mutual_information
from features.profiles.tags.declare import TagValue
from qianmian.errors import DataError

BOOTSTRAP_SAMPLES = 400
MAX_CUSTOMERS = 100_000  # more are sampled: the intervals are narrow by then
MAX_SELECTED_TAGS = 10
FOLDS = 5
SHORTLIST = 3  # candidates of a step that are fitted in full
SELECTION_ALPHA = 0.05  # chance of picking a tag that adds nothing, over all candidates of a step
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TagInformation:
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
class InformationGain:
    """The worth of all tags.

    Attributes
    ----------
    tags : tuple of TagWorth
        By information, most first.
    picked : tuple of str
        The few that matter, in the order they were picked.
    entropy_bits : float
        The surprise of the outcome when nothing is known.
    information_bits : float
        What all picks together take off it, of unseen customers.
    """

    tags: tuple[TagInformation, ...]
    picked: tuple[str, ...]
    entropy_bits: float
    information_bits: float
    n: int


def information_gain(
    tags: Mapping[str, Sequence[TagValue]], outcome: Ints, seed: int = 0, max_selected: int = MAX_SELECTED_TAGS
) -> InformationGain:
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
    >>> total_gain = rng.integers(0, 2, 1000)
    >>> found = information_gain({"noise": rng.choice(["a", "b"], 1000).tolist(), "telling": [("lo", "hi")[t] for t in total_gain]}, np.where(rng.random(1000) < 0.9, total_gain, 1 - total_gain))
    >>> [tag.name for tag in found.tags], found.picked
    (['telling', 'noise'], ('telling',))
    """
    streams = np.random.default_rng(seed).spawn(3)
    if len(outcome) > MAX_CUSTOMERS:
        kept = np.sort(streams[0].choice(len(outcome), MAX_CUSTOMERS, replace=False))
        tags, outcome = {name: [values[row] for row in kept] for name, values in tags.items()}, outcome[kept]
    _, outcome, kinds = np.unique(outcome, return_inverse=True, return_counts=True)
    if len(kinds) < 2 or kinds.min() < 2 * FOLDS:
        raise DataError(
            "too few customers of an outcome to measure information on",
            got=kinds.tolist(),
            allowed=f"two outcomes, {2 * FOLDS} customers each",
        )
    encoded = encode_tags(tags)
    classes = int(outcome.max()) + 1
    target_entropy = float(entropy_bits(np.bincount(outcome).astype(np.float64)))
    alone = [
        _single_tag_information(encoded.codes[:, tag], outcome, classes, target_entropy, name, streams[1])
        for tag, name in enumerate(encoded.names)
    ]
    selection, rest, total_gain = _select_greedily(encoded, outcome.astype(np.int64), classes, streams[2], max_selected)
    on_top: dict[str, tuple[int | None, float, float, float]] = {
        encoded.names[tag]: (place, *gain) for place, (tag, gain) in enumerate(selection, start=1)
    }
    on_top |= {encoded.names[tag]: (None, *gain) for tag, gain in rest.items()}
    tagged = []
    for one in alone:
        place, adds, low, high = on_top[one.name]
        tagged.append(replace(one, picked=place, adds=adds, adds_low=low, adds_high=high))
    tagged.sort(key=lambda one: (-one.bits, one.name))
    return InformationGain(
        tuple(tagged), tuple(encoded.names[tag] for tag, _ in selection), target_entropy, total_gain, len(outcome)
    )


# ---- alone -----------------------------------------------------------------------------------------------------------


def _single_tag_information(
    codes: Ints, outcome: Ints, classes: int, target_entropy: float, name: str, rng: np.random.Generator
) -> TagInformation:
    size = int(codes.max()) + 1
    counts = np.bincount(codes * classes + outcome, minlength=size * classes).reshape(size, classes)
    if size < 2:
        return TagInformation(name, 0.0, 0.0, 0.0, 0.0, 0.0, size)
    n = len(codes)
    counted = float(mutual_information(counts.astype(np.float64)))
    bits = counted - bias(counts)
    # resampling customers with replacement is a multinomial draw of the cells
    bootstrap = mutual_information(
        rng.multinomial(n, counts.ravel() / n, size=BOOTSTRAP_SAMPLES)
        .reshape(BOOTSTRAP_SAMPLES, size, classes)
        .astype(np.float64)
    )
    # the bootstrap is as much above the counted value as that is above the truth: turning it round takes the bias out twice over
    low, high = 2 * counted - np.quantile(bootstrap, [0.975, 0.025])
    # dealing the outcome out anew is a random table with the same margins
    permuted_tables = stats.random_table(counts.sum(axis=1), counts.sum(axis=0), seed=rng).rvs(BOOTSTRAP_SAMPLES)
    null_information = mutual_information(permuted_tables.astype(np.float64)) - np.array(
        [bias(table) for table in permuted_tables]
    )
    chance = float(np.quantile(null_information, 0.95))
    return TagInformation(
        name, bits, float(low), float(high), chance, bits / target_entropy if target_entropy > 0 else 0.0, size
    )


def bias(counts: NDArray[Any]) -> float:
    """How much counting overstates mutual information, in bits: (cells − rows − columns + 1) ÷ (2 n ln 2), of those that occur."""
    cells, rows, columns = (counts > 0).sum(), (counts.sum(axis=1) > 0).sum(), (counts.sum(axis=0) > 0).sum()
    return float((cells - rows - columns + 1) / (2 * counts.sum() * np.log(2)))


# ---- on top of each other --------------------------------------------------------------------------------------------

Gain = tuple[float, float, float]


def _select_greedily(
    encoded: EncodedTags, outcome: Ints, classes: int, rng: np.random.Generator, most: int
) -> tuple[list[tuple[int, Gain]], dict[int, Gain], float]:
    """Greedy picks (tag, gain), the gain of every other tag on top of them, and what the picks tell together."""
    n, candidates = len(outcome), [tag for tag, size in enumerate(encoded.sizes) if size > 1]
    shuffled = rng.permutation(n)
    fold = np.empty(n, dtype=np.int64)
    fold[shuffled[np.argsort(outcome[shuffled], kind="stable")]] = np.arange(n) % FOLDS  # every outcome in every fold
    one_hot, wanted = encoded.one_hot(), np.eye(classes)[outcome]
    log_probabilities = _fit(None, outcome, fold, classes)
    start = log_loss_bits(log_probabilities, outcome, fold)
    selection: list[tuple[int, Gain]] = []
    while True:
        left = [tag for tag in candidates if tag not in {picked for picked, _ in selection}]
        gains = dict(
            zip(left, _newton_step_gains(encoded, one_hot, left, log_probabilities, wanted, outcome, fold), strict=True)
        )
        if not left or len(selection) == most:
            break
        fitted: dict[int, Floats] = {}
        for tag in sorted(left, key=lambda tag: (-float(gains[tag].mean()), tag))[:SHORTLIST]:
            chosen = [*(picked for picked, _ in selection), tag]
            columns = np.concatenate(
                [np.arange(encoded.starts[one], encoded.starts[one] + encoded.sizes[one]) for one in chosen]
            )
            fitted[tag] = _fit(one_hot[:, columns], outcome, fold, classes)
        best = min(fitted, key=lambda tag: (float(log_loss_bits(fitted[tag], outcome, fold).mean()), tag))
        then = fitted[best]
        gain = log_loss_bits(log_probabilities, outcome, fold) - log_loss_bits(then, outcome, fold)
        # the best of many looks good by luck: it must stand out among all that were looked at
        if gain.mean() - stats.norm.ppf(1 - SELECTION_ALPHA / len(left)) * gain.std() / np.sqrt(n) <= 0:
            break
        selection.append((best, interval(gain)))
        log_probabilities = then
    total_gain = float((start - log_loss_bits(log_probabilities, outcome, fold)).mean())
    rest = {tag: interval(gain) for tag, gain in gains.items()}
    rest |= {tag: (0.0, 0.0, 0.0) for tag in range(len(encoded.names)) if tag not in candidates}
    return selection, rest, total_gain


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


def log_loss_bits(log_p: Floats, outcome: Ints, fold: Ints) -> Floats:
    """Log loss of each customer by the model that has not seen them, (n,) in bits."""
    rows = np.arange(len(outcome))
    return np.asarray(-log_p[fold, rows, outcome] / np.log(2), dtype=np.float64)


def _newton_step_gains(
    encoded: EncodedTags,
    one_hot: sparse.csr_matrix,
    tags: list[int],
    log_probabilities: Floats,
    wanted: Floats,
    outcome: Ints,
    fold: Ints,
) -> list[Floats]:
    """How much less each customer surprises, (n,) a tag, when each value of the tag may shift the model's log odds by one Newton step."""
    classes = wanted.shape[1]
    before = log_loss_bits(log_probabilities, outcome, fold)
    after = np.empty((len(tags), len(outcome)))
    for number in range(FOLDS):
        seen, unseen = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        p = np.exp(log_probabilities[number])
        Z = one_hot[seen].T.tocsr()
        gradient, curvature = Z @ (wanted[seen] - p[seen]), Z @ (p[seen] * (1 - p[seen]))
        shift = (classes - 1) / classes * np.asarray(gradient) / (np.asarray(curvature) + 1.0)
        for place, tag in enumerate(tags):
            moved = log_probabilities[number][unseen] + shift[encoded.starts[tag] + encoded.codes[unseen, tag]]
            moved -= np.logaddexp.reduce(moved, axis=1, keepdims=True)
            after[place, unseen] = -moved[np.arange(len(unseen)), outcome[unseen]] / np.log(2)
    return list(before - after)
