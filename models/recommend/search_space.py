"""The values that a parameter of a recommender may be searched over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, whole ones where both are int.

    Attributes
    ----------
    log : bool
        Search the exponent.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """Values that are tried one by one."""

    values: tuple[str | float | bool | None, ...]
