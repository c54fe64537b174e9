"""The time range of a table without the rows of wrong clocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

OUTLIER_SHARE = 0.001
OUTLIER_GAP_DAYS = 30


def typical_time_range(days: Sequence[tuple[date, int]]) -> tuple[datetime | None, datetime | None]:
    """Midnights before and after the rows without outliers (None without rows): wrong clocks do not extend the history.

    At either end, days that together hold at most `OUTLIER_SHARE` of the rows are left out. At the later end they are
    left out only after a gap of more than `OUTLIER_GAP_DAYS` days, so that a last day with few rows is never lost.

    Parameters
    ----------
    days : sequence of (date, int)
        Number of rows per day, in order of the days.

    Examples
    --------
    >>> rows_per_day = [(date(2001, 1, 1), 1), (date(2017, 1, 1), 5000), (date(2017, 1, 3), 1), (date(2037, 1, 1), 1)]
    >>> begin, end = typical_time_range(rows_per_day)
    >>> f"{begin:%Y-%m-%d} {end:%Y-%m-%d}"
    '2017-01-01 2017-01-04'
    """
    if not days:
        return None, None
    allowance = OUTLIER_SHARE * sum(count for _, count in days)
    low, outliers = 0, days[0][1]
    while outliers <= allowance and low < len(days) - 1:
        low += 1
        outliers += days[low][1]
    high, outliers = len(days), 0
    for at in range(len(days) - 1, low, -1):
        outliers += days[at][1]
        if outliers > allowance:
            break
        if (days[at][0] - days[at - 1][0]).days > OUTLIER_GAP_DAYS:
            high = at
    begin, end = days[low][0], days[high - 1][0] + timedelta(days=1)
    return datetime(begin.year, begin.month, begin.day), datetime(end.year, end.month, end.day)
