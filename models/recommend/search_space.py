"""The values that a parameter of a recommender may be searched over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both inclusive; integers where both limits are int.

    Attributes
    ----------
    low, high : float
        Limits of the range.
    log : bool
        Whether to sample on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """A finite set of values."""

    values: tuple[str | float | bool | None, ...]
