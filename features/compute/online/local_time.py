"""Days and hours of moments in one time zone, with NumPy: the same as `features.compute.local_time` in an engine.

The offset from UTC changes a few times a year. These changes are found once for each year and zone, so that a request
only searches in a short array.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import DATE_SHIFT_SECONDS
from qianmian.times import SECONDS_PER_DAY
from qianmian.timezones import UTC_ZONE

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def local_seconds(
    seconds: NDArray[np.int64], timezone: str, date_only: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Seconds since 1970 on the clock of a time zone; rows that are only a date get midnight of that date.

    Parameters
    ----------
    seconds : ndarray of int64, shape (rows,)
        Seconds since 1970, UTC.
    timezone : str
        IANA name, or UTC.
    date_only : ndarray of bool, shape (rows,), optional
        Rows without a clock time.

    Examples
    --------
    >>> noon = np.array([1_720_000_800])
    >>> str(np.datetime64(int(local_seconds(noon, "America/New_York")[0]), "s"))
    '2024-07-03T06:00:00'
    """
    local = seconds if timezone == UTC_ZONE else seconds + _offsets(seconds, timezone)
    if date_only is None or not date_only.any():
        return local
    shifted = (seconds + DATE_SHIFT_SECONDS) // SECONDS_PER_DAY * SECONDS_PER_DAY
    return np.where(date_only & (local % SECONDS_PER_DAY != 0), shifted, local)


def _offsets(seconds: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """Seconds that the clock of the zone is ahead of UTC at each moment."""
    if not len(seconds):
        return seconds
    years = np.unique(seconds.astype("datetime64[s]").astype("datetime64[Y]")).astype(np.int64) + 1970
    parts = [_offset_changes(timezone, int(year)) for year in years]
    moments, offsets = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    return np.asarray(offsets[np.searchsorted(moments, seconds, side="right") - 1])


@lru_cache(maxsize=1024)
def _offset_changes(timezone: str, year: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The moments of a year from which on the offset is another one, the first of January included; both shape (n,)."""
    zone = ZoneInfo(timezone)
    begin = round((datetime(year, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
    days = 366 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 365

    def offset(second: int) -> int:
        local = (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        return round(local.total_seconds()) if local is not None else 0

    found = [(begin, offset(begin))]
    for day in range(days):
        low = begin + day * SECONDS_PER_DAY
        high = low + SECONDS_PER_DAY - (day == days - 1)
        now = offset(high)
        if now != found[-1][1]:
            found.append((_first_second(low, high, offset), now))
    moments, offsets = zip(*found, strict=True)
    return np.array(moments, dtype=np.int64), np.array(offsets, dtype=np.int64)


def _first_second(low: int, high: int, offset: Callable[[int], int]) -> int:
    """The first second in ``(low, high]`` with the offset of the last one, if the offset changes once between them."""
    new = offset(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if offset(middle) == new else (middle, high)
    return high
