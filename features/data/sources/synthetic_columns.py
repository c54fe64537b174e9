"""Columns of the synthetic tables: ids, timestamps and accounts."""

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
    """Replace `person` by the source and user id of the account: the first one, or the second where `second` is 1."""
    person = columns["person"]
    account = np.where(second == 1, accounts["second"][person], accounts["first"][person])
    rest = {name: values for name, values in columns.items() if name != "person"}
    return {"source": accounts["source"][account], "source_user_id": accounts["source_user_id"][account], **rest}


def timestamps(days: Floats | Sequence[float]) -> NDArray[np.datetime64]:
    """Convert days since the start to timestamps in whole seconds; NaN becomes NaT."""
    offset = np.asarray(days, dtype=np.float64)
    known = np.isfinite(offset)
    seconds = np.where(known, np.floor(np.where(known, offset, 0.0) * SECONDS_PER_DAY), 0.0).astype("timedelta64[s]")
    return np.where(known, START_TIME + seconds, np.datetime64("NaT", "us"))


def make_ids(prefix: str, numbers: Ints, width: int = 6) -> NDArray[Any]:
    """Make ids of equal length: the prefix and the zero-padded number."""
    return np.char.add(prefix, np.char.zfill(numbers.astype(str), width))


def join_ids(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Join two string arrays with a hyphen."""
    return np.char.add(np.char.add(left, "-"), right)
