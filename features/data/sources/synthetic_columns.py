"""Columns of made-up tables: ids, times, and whose account a row is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qianmian.times import SECONDS_PER_DAY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START_TIME = np.datetime64("2024-01-01T00:00:00", "us")


def with_account(columns: Mapping[str, Any], accounts: Mapping[str, Any], second: Ints) -> dict[str, Any]:
    """`person` replaced by the source and id of the account used: the first, or the second where `second` is 1."""
    person = columns["person"]
    account = np.where(second == 1, accounts["second"][person], accounts["first"][person])
    rest = {name: values for name, values in columns.items() if name != "person"}
    return {"source": accounts["source"][account], "source_user_id": accounts["source_user_id"][account], **rest}


def timestamps(days: Floats | Sequence[float]) -> NDArray[np.datetime64]:
    """Days since the start → whole seconds; not a number → not a time."""
    offset = np.asarray(days, dtype=np.float64)
    known = np.isfinite(offset)
    seconds = np.where(known, np.floor(np.where(known, offset, 0.0) * SECONDS_PER_DAY), 0.0).astype("timedelta64[s]")
    return np.where(known, START_TIME + seconds, np.datetime64("NaT", "us"))


def make_ids(prefix: str, numbers: Ints, width: int = 6) -> NDArray[Any]:
    """Ids of equal length."""
    return np.char.add(prefix, np.char.zfill(numbers.astype(str), width))


def join_ids(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Two texts with a hyphen between them."""
    return np.char.add(np.char.add(left, "-"), right)
