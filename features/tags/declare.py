"""What a tag is, and how tags are computed for any number of customers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qianmian.config import Settings

Columns = Mapping[str, NDArray[Any]]
TagValue = str | float | bool | None


@dataclass(frozen=True)
class Tag:
    """One declared tag.

    Attributes
    ----------
    category : str
        One of `qianmian.schema.TAG_CATEGORIES`.
    needs : tuple of str
        Profile features it is made of; a tag whose features are off is absent.
    rule : callable
        Columns of those features, each (n,), and the settings → values (n,), None or '' where the tag does not apply.
    """

    name: str
    category: str
    description: str
    needs: tuple[str, ...]
    rule: Callable[[Columns, Settings], NDArray[Any]]
    owner: str = "profile"
    ttl_days: int = 35


def tag_values(table: pa.Table, tags: Sequence[Tag], settings: Settings | None = None) -> dict[str, list[TagValue]]:
    """Values of each tag for every row of a built profile table; tags the table cannot support are left out."""
    chosen = settings or Settings()
    present = set(table.column_names)
    values: dict[str, list[TagValue]] = {}
    for tag in tags:
        if present.issuperset(tag.needs):
            columns = {name: np.asarray(table[name].to_pylist()) for name in tag.needs}
            values[tag.name] = [_plain(value) for value in tag.rule(columns, chosen)]
    return values


def _plain(value: Any) -> TagValue:
    plain = value.item() if isinstance(value, np.generic) else value
    if plain == "" or (isinstance(plain, float) and not np.isfinite(plain)):
        return None
    return round(plain, 4) if isinstance(plain, float) else plain
