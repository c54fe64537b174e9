"""A tag of the profile snapshot as a column, to group behaviour analytics by."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from qianmian.errors import UsageError

if TYPE_CHECKING:
    from features.profiles.tags.declare import TagValue

MAX_VALUES = 12  # a number with more distinct values is divided at its quartiles
UNTAGGED = "(none)"


def tag_column(name: str, one_ids: Sequence[str], tags: Mapping[str, Sequence[TagValue]]) -> pa.Table:
    """Table with the columns ``one_id`` and ``tag``, the values of one tag as text.

    Raises
    ------
    UsageError
        The tag is unknown.

    Examples
    --------
    >>> tag_column("member", ["a", "b", "c"], {"member": [True, False, None]})["tag"].to_pylist()
    ['yes', 'no', '(none)']
    """
    if name not in tags:
        raise UsageError(
            "the profiles do not have this tag",
            where="--by",
            got=name,
            allowed=", ".join(sorted(tags)) or "none",
            hint="run `qianmian tags list` for the meaning of each tag",
        )
    values = tags[name]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(set(numbers)) > MAX_VALUES:
        made = _banded(values, np.quantile(np.asarray(numbers, dtype=np.float64), [0.25, 0.5, 0.75]))
    else:
        made = [_text(value) for value in values]
    return pa.table({"one_id": pa.array(list(one_ids), pa.string()), "tag": pa.array(made, pa.string())})


def _banded(values: Sequence[TagValue], edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[str]:
    edges = np.unique(edges)
    names = [
        f"1: < {edges[0]:g}",
        *(f"{i + 2}: {low:g} to < {high:g}" for i, (low, high) in enumerate(itertools.pairwise(edges))),
    ]
    names.append(f"{len(edges) + 1}: ≥ {edges[-1]:g}")
    numbers = np.array([np.nan if value is None or isinstance(value, str) else float(value) for value in values])
    band = np.searchsorted(edges, np.nan_to_num(numbers), side="right")
    return [UNTAGGED if missing else names[place] for place, missing in zip(band, np.isnan(numbers), strict=True)]


def _text(value: TagValue) -> str:
    if value is None:
        return UNTAGGED
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
