"""Information of each tag about a business target, in bits: alone, and in addition to the tags already selected.

*Alone*: mutual information of the tag and the outcome, corrected for the bias of the plug-in estimate (Miller 1955),
with a bootstrap interval over customers, and with the 95 % quantile under independence (the outcome permuted).

*In addition*: tags are selected greedily (forward selection). Each step selects the tag that most reduces the log loss,
in bits per customer, on held-out customers, given the tags selected before. The selection ends when no tag reduces it
significantly. Because the log loss is measured on held-out customers, a copy of a selected tag adds nothing, and a tag
without information adds a negative amount.
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
MAX_CUSTOMERS = 100_000  # larger data sets are sampled, because the intervals are narrow enough
MAX_SELECTED_TAGS = 10
FOLDS = 5
SHORTLIST = 3  # candidates per step for which a full model is fitted
SELECTION_ALPHA = 0.05  # probability of selecting a tag without information, over all candidates of a step
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TagInformation:
    """Information of one tag about the outcome.

    Attributes
    ----------
    bits, low, high : float
        Mutual information in bits and its 95 % interval; an interval that includes 0 is no evidence of information.
    chance : float
        95 % quantile of the bits of independent tags with the same value counts.
    share : float
        `bits` ÷ entropy of the outcome.
    values : int
        Number of distinct values, including unknown.
    picked : int or None
        Position in the selection, from 1; None if not selected.
    adds, adds_low, adds_high : float
        Bits per customer in addition to the tags selected before it, or to all selected tags; with 95 % interval.
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
        """The values as JSON-compatible data."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class InformationGain:
    """Information of all tags about the outcome.

    Attributes
    ----------
    tags : tuple of TagInformation
        Tags by `bits`, descending.
    picked : tuple of str
        Selected tags, in the order of selection.
    entropy_bits : float
        Entropy of the outcome.
    information_bits : float
        Reduction of the log loss on held-out customers by all selected tags, in bits per customer.
    n : int
        Number of customers.
    """

    tags: tuple[TagInformation, ...]
    picked: tuple[str, ...]
    entropy_bits: float
    information_bits: float
    n: int


def information_gain(
    tags: Mapping[str, Sequence[TagValue]], outcome: Ints, seed: int = 0, max_selected: int = MAX_SELECTED_TAGS
) -> InformationGain:
    """Rank tags by their information about an outcome.

    Parameters
    ----------
    tags : mapping of str to sequence, each of length n
        Values of the tags at the begin of the horizon.
    outcome : ndarray of int64, shape (n,)
        Class of each customer, from 0.
    seed : int
        Random seed.
    max_selected : int
        Maximum number of selected tags.

    Raises
    ------
    DataError
        There are fewer than two classes, or a class has too few customers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.integers(0, 2, 1000)
    >>> tags = {"noise": rng.choice(["a", "b"], 1000).tolist(), "signal": [("lo", "hi")[bit] for bit in signal]}
    >>> gain = information_gain(tags, np.where(rng.random(1000) < 0.9, signal, 1 - signal))
    >>> [tag.name for tag in gain.tags], gain.picked
    (['signal', 'noise'], ('signal',))
    """
    streams = np.random.default_rng(seed).spawn(3)
    if len(outcome) > MAX_CUSTOMERS:
        kept = np.sort(streams[0].choice(len(outcome), MAX_CUSTOMERS, replace=False))
        tags, outcome = {name: [values[row] for row in kept] for name, values in tags.items()}, outcome[kept]
    _, outcome, kinds = np.unique(outcome, return_inverse=True, return_counts=True)
    if len(kinds) < 2 or kinds.min() < 2 * FOLDS:
        raise DataError(
            "too few customers of an outcome to estimate the information of tags",
            got=kinds.tolist(),
            allowed=f"at least two outcomes with {2 * FOLDS} customers each",
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
    # resampling customers with replacement is equivalent to a multinomial sample of the cells
    samples = rng.multinomial(n, counts.ravel() / n, size=BOOTSTRAP_SAMPLES)
    bootstrap = mutual_information(samples.reshape(BOOTSTRAP_SAMPLES, size, classes).astype(np.float64))
    # basic bootstrap: reflecting the quantiles at the plug-in value corrects its bias and that of the bootstrap
    low, high = 2 * counted - np.quantile(bootstrap, [0.975, 0.025])
    # permuting the outcome is equivalent to a random table with the same margins
    permuted_tables = stats.random_table(counts.sum(axis=1), counts.sum(axis=0), seed=rng).rvs(BOOTSTRAP_SAMPLES)
    null_bias = np.array([bias(table) for table in permuted_tables])
    null_information = mutual_information(permuted_tables.astype(np.float64)) - null_bias
    chance = float(np.quantile(null_information, 0.95))
    share = bits / target_entropy if target_entropy > 0 else 0.0
    return TagInformation(name, bits, float(low), float(high), chance, share, size)


def bias(counts: NDArray[Any]) -> float:
    """Bias of the plug-in mutual information in bits (Miller 1955): (cells − rows − columns + 1) ÷ (2 n ln 2).

    Only non-empty cells, rows and columns count.
    """
    cells, rows, columns = (counts > 0).sum(), (counts.sum(axis=1) > 0).sum(), (counts.sum(axis=0) > 0).sum()
    return float((cells - rows - columns + 1) / (2 * counts.sum() * np.log(2)))


# ---- in addition to the selected tags --------------------------------------------------------------------------------

Gain = tuple[float, float, float]


def _select_greedily(
    encoded: EncodedTags, outcome: Ints, classes: int, rng: np.random.Generator, most: int
) -> tuple[list[tuple[int, Gain]], dict[int, Gain], float]:
    """Selected tags with their gains, the gains of the other tags, and the total gain of the selection."""
    n, candidates = len(outcome), [tag for tag, size in enumerate(encoded.sizes) if size > 1]
    shuffled = rng.permutation(n)
    fold = np.empty(n, dtype=np.int64)
    fold[shuffled[np.argsort(outcome[shuffled], kind="stable")]] = np.arange(n) % FOLDS  # stratified folds
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
        # Bonferroni correction: the best of many candidates is large by chance
        if gain.mean() - stats.norm.ppf(1 - SELECTION_ALPHA / len(left)) * gain.std() / np.sqrt(n) <= 0:
            break
        selection.append((best, interval(gain)))
        log_probabilities = then
    total_gain = float((start - log_loss_bits(log_probabilities, outcome, fold)).mean())
    rest = {tag: interval(gain) for tag, gain in gains.items()}
    rest |= {tag: (0.0, 0.0, 0.0) for tag in range(len(encoded.names)) if tag not in candidates}
    return selection, rest, total_gain


def interval(gains: Floats) -> Gain:
    """Mean of the gains and its 95 % interval."""
    half = 1.96 * gains.std() / np.sqrt(len(gains))
    return float(gains.mean()), float(gains.mean() - half), float(gains.mean() + half)


def _fit(columns: sparse.csr_matrix | None, outcome: Ints, fold: Ints, classes: int) -> Floats:
    """Log probabilities, shape (folds, n, classes): the model of each fold is fitted on the other folds."""
    from sklearn.linear_model import LogisticRegression

    made = np.empty((FOLDS, len(outcome), classes))
    for number in range(FOLDS):
        seen = fold != number
        if columns is None:
            shares = np.bincount(outcome[seen], minlength=classes) + 0.5
            made[number] = np.log(shares / shares.sum())
        else:
            model = LogisticRegression(solver="newton-cholesky").fit(columns[seen], outcome[seen])
            made[number] = model.predict_log_proba(columns)
    return made


def log_loss_bits(log_p: Floats, outcome: Ints, fold: Ints) -> Floats:
    """Log loss in bits of each customer, shape (n,), by the model of the customer's fold."""
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
    """Approximate gains in bits of each customer, shape (n,), per tag.

    Each value of the tag shifts the log odds of the current model by one Newton step.
    """
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
