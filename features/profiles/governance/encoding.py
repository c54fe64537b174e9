"""Encoding of tags as small integer codes, to count joint frequencies of tags with each other and with an outcome."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.profiles.tags.declare import TagValue

BINS = 8  # quantile bins of a number
MAX_VALUES = 30  # the rarest values of a text share one code, because very small counts carry no information
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
UNKNOWN, OTHER = "(unknown)", "(other)"


@dataclass(frozen=True)
class EncodedTags:
    """Tags of n customers as codes.

    Attributes
    ----------
    names : tuple of str
        Names of the t tags.
    codes : ndarray of int64, shape (n, t)
        One column per tag; all codes from 0 to its number of labels − 1 occur.
    labels : tuple of tuple of str
        Labels of the codes of each tag.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    labels: tuple[tuple[str, ...], ...]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of codes of each tag, shape (t,)."""
        return np.array([len(labels) for labels in self.labels], dtype=np.int64)

    @property
    def starts(self) -> NDArray[np.int64]:
        """First column of each tag in `one_hot`, shape (t,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def one_hot(self) -> sparse.csr_matrix:
        """One-hot encoding of all tags, shape (n, total number of codes)."""
        n, t = self.codes.shape
        columns = (self.codes + self.starts).ravel()
        return sparse.csr_matrix((np.ones(n * t), columns, np.arange(n + 1) * t), shape=(n, int(self.sizes.sum())))


def encode(values: Sequence[TagValue]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes of one tag, shape (n,), and their labels; numbers and dates are binned, and unknown has its own code.

    Examples
    --------
    >>> codes, labels = encode(["a", None, "b", "a"])
    >>> codes.tolist(), labels
    ([1, 0, 2, 1], ('(unknown)', 'a', 'b'))
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {float, int} and kinds and len(set(values)) > BINS:
        return _bin_numbers(values, lambda edge: f"{edge:.4g}")
    if kinds == {str} and len(set(values)) > BINS and all(DATE.fullmatch(str(value)) for value in values if value):
        days = [date.fromisoformat(str(value)).toordinal() if value else None for value in values]
        return _bin_numbers(days, lambda edge: date.fromordinal(round(edge)).isoformat())
    texts = [UNKNOWN if value is None else str(value) for value in values]
    counted = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    limit = MAX_VALUES if len(counted) <= MAX_VALUES else MAX_VALUES - 1
    kept = {text for text, _ in counted[:limit]}
    shown = [text if text in kept else OTHER for text in texts]
    labels = tuple(sorted(set(shown), key=lambda text: (text not in (UNKNOWN, OTHER), text)))
    code_of = {label: code for code, label in enumerate(labels)}
    return np.array([code_of[text] for text in shown], dtype=np.int64), labels


def _bin_numbers(values: Sequence[TagValue], text: Callable[[float], str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    known = ~np.isnan(numbers)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, BINS + 1)[1:-1]))
    codes = np.where(known, np.searchsorted(edges, numbers, side="right") + 1, 0)
    between = [f"{text(low)} to {text(high)}" for low, high in itertools.pairwise(edges)]
    names = [UNKNOWN, f"under {text(edges[0])}", *between, f"from {text(edges[-1])}"]
    present, codes = np.unique(codes, return_inverse=True)
    return codes.astype(np.int64), tuple(names[code] for code in present)


def encode_tags(tags: Mapping[str, Sequence[TagValue]]) -> EncodedTags:
    """Encode all tags, in the order of the mapping."""
    made = [encode(values) for values in tags.values()]
    n = len(next(iter(tags.values()))) if tags else 0
    codes = np.column_stack([codes for codes, _ in made]) if made else np.empty((n, 0), dtype=np.int64)
    return EncodedTags(tuple(tags), codes, tuple(labels for _, labels in made))


def entropy_bits(counts: NDArray[np.float64], axis: int | tuple[int, ...] = -1) -> NDArray[np.float64]:
    """Shannon entropy of counts over some axes, in bits.

    Examples
    --------
    >>> float(entropy_bits(np.array([1.0, 1.0, 2.0])))
    1.5
    """
    total = counts.sum(axis=axis, keepdims=True)
    share = counts / np.where(total > 0, total, 1.0)
    return np.asarray(-(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=axis), dtype=np.float64)


def mutual_information(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Plug-in mutual information (biased upwards) of contingency tables of shape (…, k, c), in bits.

    It is H(rows) + H(columns) − H(cells).

    Examples
    --------
    >>> float(mutual_information(np.array([[5.0, 0.0], [0.0, 5.0]])))
    1.0
    """
    together = entropy_bits(counts, (-2, -1))
    return np.asarray(
        np.maximum(entropy_bits(counts.sum(axis=-1)) + entropy_bits(counts.sum(axis=-2)) - together, 0.0),
        dtype=np.float64,
    )
