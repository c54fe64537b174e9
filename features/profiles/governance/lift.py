"""What a tag says about a business target in customers: the outcome of those for whom it is most, and least, likely.

The values of a tag are ordered by the outcome of the customers who have them. The order is learnt on other customers
than those it is measured on (cross-fitting), so that a tag with many values shows no effect that is only chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.analytics.rates import Z_95, rate
from features.profiles.governance.encoding import encode
from features.profiles.tags.declare import TagValue

END_SHARE = 0.1  # share of the customers at either end
FOLDS = 5
PRIOR = 10.0  # customers with the mean outcome that are added to each value, so that rare values are not extreme
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TagEnd:
    """The customers at one end of a tag.

    Attributes
    ----------
    values : tuple of str
        The tag values at this end, the most extreme first, until they cover `END_SHARE` of the customers.
    mean, low, high : float
        Mean outcome of the customers at this end, with its 95 % interval: a share for yes or no, else an amount.
    """

    values: tuple[str, ...]
    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """The end as JSON-compatible data."""
        return {**self.__dict__, "values": list(self.values)}


@dataclass(frozen=True)
class TagLift:
    """The outcome at both ends of one tag.

    Attributes
    ----------
    most, least : TagEnd
        The tenth of the customers for whom the outcome is most, and least, likely by this tag alone.
    lift : float or None
        Mean outcome of `most` ÷ that of all customers; None if that is 0.
    """

    most: TagEnd
    least: TagEnd
    lift: float | None

    def as_dict(self) -> dict[str, Any]:
        """The ends as JSON-compatible data."""
        return {"most": self.most.as_dict(), "least": self.least.as_dict(), "lift": self.lift}


def tag_lifts(tags: Mapping[str, Sequence[TagValue]], outcome: Floats, seed: int = 0) -> dict[str, TagLift]:
    """The outcome at both ends of each tag.

    Parameters
    ----------
    tags : mapping of str to sequence, each of length n
        Values of the tags at the begin of the horizon.
    outcome : ndarray of float64, shape (n,)
        Outcome of each customer: 0 or 1, or an amount.
    seed : int
        Seed of the folds.

    Returns
    -------
    dict of str to TagLift
        Only tags with at least two values, unknown included.

    Examples
    --------
    >>> bought = np.array([1.0, 0.0] * 100)
    >>> found = tag_lifts({"tells": ["a", "b"] * 100, "same": ["x"] * 200}, bought)
    >>> list(found), found["tells"].most.values, found["tells"].most.mean, found["tells"].lift
    (['tells'], ('a',), 1.0, 2.0)
    """
    n, overall = len(outcome), float(outcome.mean())
    fold = np.random.default_rng(seed).permutation(np.arange(n) % FOLDS)
    found = {}
    for name, values in tags.items():
        codes, labels = encode(values)
        if len(labels) < 2:
            continue
        weights = {1: np.zeros(n), -1: np.zeros(n)}
        for number in range(FOLDS):
            inside = fold == number
            means = _means(codes[~inside], outcome[~inside], len(labels))
            for sign, weight in weights.items():
                weight[inside] = _end_weights(sign * means[codes[inside]])
        order = np.argsort(_means(codes, outcome, len(labels)), kind="stable")
        shares = np.bincount(codes, minlength=len(labels)) / n
        most, least = (
            _end(outcome, weights[sign], [labels[code] for code in ranked], shares[ranked])
            for sign, ranked in ((1, order[::-1]), (-1, order))
        )
        found[name] = TagLift(most, least, most.mean / overall if overall else None)
    return found


def _means(codes: Ints, outcome: Floats, size: int) -> Floats:
    """Mean outcome of each value, shape (size,), drawn to that of all customers where the value is rare."""
    sums, counts = (np.bincount(codes, weights=weight, minlength=size) for weight in (outcome, np.ones(len(codes))))
    return np.asarray((sums + PRIOR * outcome.mean()) / (counts + PRIOR))


def _end_weights(scores: Floats) -> Floats:
    """Weights, shape (n,), of the `END_SHARE` · n customers with the highest scores; tied customers share theirs."""
    wanted = END_SHARE * len(scores)
    levels, place, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.asarray(np.clip((wanted - before) / counts, 0.0, 1.0)[place] if len(levels) else scores)


def _end(outcome: Floats, weights: Floats, ranked: Sequence[str], shares: Floats) -> TagEnd:
    mean = float(np.average(outcome, weights=weights))
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    if np.isin(outcome, (0.0, 1.0)).all():  # the interval of a share is never empty, even at 0 or 1 (Wilson 1927)
        share = rate(mean * effective, effective)
        low, high = share.low, share.high
    else:
        half = Z_95 * np.sqrt(float(np.average((outcome - mean) ** 2, weights=weights)) / effective)
        low, high = mean - half, mean + half
    reached = int(np.searchsorted(np.cumsum(shares), END_SHARE - 1e-9)) + 1
    return TagEnd(tuple(ranked[:reached]), mean, float(low), float(high))
