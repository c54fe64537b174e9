"""Types of interactions between customers and items, and what they count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qianmian.errors import UsageError

# `Interactions.types` are positions in this tuple, which bundles store: append only
INTERACTION_TYPES = ("purchase", "view", "cart", "favourite", "search", "share", "message_click")
PURCHASE = "purchase"
ANY = "any"  # the target that consists of all types
AUTO = "auto"  # the target is chosen from the data
EVENT_WEIGHTS = {
    "view": 1.0,
    "search": 1.0,
    "message_click": 1.0,
    "share": 2.0,
    "favourite": 3.0,
    "cart": 3.0,
    "purchase": 5.0,
}  # where all types are the target


def type_names(target: str) -> tuple[str, ...]:
    """The types of interactions that a target consists of.

    Examples
    --------
    >>> type_names("view"), len(type_names("any"))
    (('view',), 7)
    """
    return INTERACTION_TYPES if target == ANY else (target,)


def target_of(facts: Mapping[str, Any]) -> str:
    """The target of a bundle from its facts; earlier bundles tell it by the table that they learnt from."""
    return str(facts.get("target", ANY if facts.get("interactions") == "events" else PURCHASE))


def checked_type_weights(type_weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of types, checked.

    Raises
    ------
    UsageError
        A type is unknown, or a weight is negative or not finite.
    """
    for name, weight in type_weights.items():
        if name not in INTERACTION_TYPES:
            raise UsageError("unknown type of interaction", got=name, allowed=", ".join(INTERACTION_TYPES))
        if not (np.isfinite(weight) and weight >= 0):
            raise UsageError(f"the weight of the type {name} must be a number ≥ 0", got=weight)
    return dict(type_weights)
