"""The values that a parameter of a model may be searched over."""

from __future__ import annotations

from collections.abc import Mapping
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


# of boosted trees of one outcome a customer, by the names of XGBoost's scikit-learn interface
TREE_SPACE: Mapping[str, Range] = {
    "n_estimators": Range(50, 400),
    "max_depth": Range(2, 6),
    "learning_rate": Range(0.02, 0.2, log=True),
    "min_child_weight": Range(2.0, 200.0, log=True),
    "subsample": Range(0.5, 1.0),
    "reg_lambda": Range(0.5, 50.0, log=True),
}
