"""Who the customer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from features.tags.declare import Columns, Tag
from qianmian.config import Settings

ATTRIBUTES = ("gender", "age_band", "income_band", "region", "city", "member_tier")


def attribute(name: str) -> Callable[[Columns, Settings], NDArray[Any]]:
    """The profile attribute itself."""
    return lambda columns, _: columns[f"profile_{name}"]


TAGS = tuple(
    Tag(name, "basic", f"{name.replace('_', ' ')} as the source gives it", (f"profile_{name}",), attribute(name)) for name in ATTRIBUTES
)
