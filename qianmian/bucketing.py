"""Deterministic assignment: a hash places each user in [0, 1), and each variant of an experiment has a range of it.

Both hash versions are those of GrowthBook's SDKs, so that experiments that began there keep their assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

from qianmian.errors import UsageError

FNV_OFFSET, FNV_PRIME, UINT32 = 2166136261, 16777619, 2**32
TOLERANCE = 1e-9  # of sums of weights


def fnv1a32(text: str) -> int:
    """32-bit FNV-1a hash of a text in UTF-8 (Fowler, Noll & Vo; RFC 9923).

    Examples
    --------
    >>> hex(fnv1a32("a"))
    '0xe40c292c'
    """
    found = FNV_OFFSET
    for byte in text.encode():
        found = (found ^ byte) * FNV_PRIME % UINT32
    return found


def bucket_of(seed: str, value: str, version: Literal[1, 2] = 2) -> float:
    """Place of a user in [0, 1), the same at every call.

    Parameters
    ----------
    seed : str
        Of the experiment: another seed shuffles the users anew.
    value : str
        What is assigned, such as a user id.
    version : {1, 2}
        1 has thousandths, and similar seeds may assign alike; 2 has ten-thousandths and is free of that.

    Examples
    --------
    >>> bucket_of("seed", "a"), bucket_of("", "a", version=1)
    (0.0505, 0.22)
    """
    if version == 1:
        return fnv1a32(value + seed) % 1_000 / 1_000
    return fnv1a32(str(fnv1a32(seed + value))) % 10_000 / 10_000


def bucket_ranges(weights: Sequence[float], coverage: float = 1.0) -> list[tuple[float, float]]:
    """The range ``[low, high)`` of each variant; less coverage shortens every range and moves none of their begins.

    Parameters
    ----------
    weights : sequence of float
        Share of each variant; they sum to 1.
    coverage : float
        Share of the users that take part, 0 to 1.

    Raises
    ------
    UsageError
        The weights are negative or do not sum to 1, or the coverage is not between 0 and 1.

    Examples
    --------
    >>> bucket_ranges([0.5, 0.5], coverage=0.5)
    [(0.0, 0.25), (0.5, 0.75)]
    """
    if not 0 <= coverage <= 1:
        raise UsageError("a coverage is a share of the users", got=coverage, allowed="0 to 1")
    _require_shares(weights)
    bounds = [0.0, *accumulate(weights)]
    return [(low, low + coverage * (high - low)) for low, high in pairwise(bounds)]


def with_floor(weights: Sequence[float], floor: float) -> list[float]:
    """Probabilities with a floor, so that every variant keeps being explored: pᵢ = f + (1 − n f) wᵢ.

    Parameters
    ----------
    weights : sequence of float, length n
        They sum to 1.
    floor : float
        Least probability f of a variant, 0 to 1/n.

    Raises
    ------
    UsageError
        The floor does not leave a probability for every variant, or the weights do not sum to 1.

    Examples
    --------
    >>> with_floor([1.0, 0.0], 0.1)
    [0.9, 0.1]
    """
    _require_shares(weights)
    count = len(weights)
    if not 0 <= floor <= 1 / count:
        raise UsageError("the floor is too high", got=floor, allowed=f"0 to {1 / count:.4g} for {count} variants")
    return [floor + (1 - count * floor) * weight for weight in weights]


def _require_shares(weights: Sequence[float]) -> None:
    if not weights or min(weights) < 0 or abs(sum(weights) - 1) > TOLERANCE:
        raise UsageError("weights are shares that sum to 1", got=list(weights))
