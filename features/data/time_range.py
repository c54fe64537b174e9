"""The time range that a table really covers: rows with a wrong clock lie far from it, behind a stretch without rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

import duckdb

OUTLIER_GAP_DAYS = 30  # a shorter stretch without rows is never a sign of a wrong clock
OUTLIER_SHARE = 0.01  # more than this share of the rows is never a wrong clock
OUTLIER_RATE = 0.01  # outliers come at less than this share of the rate of the other rows
DAYS_PER_MONTH = 30.44
DayCounts = Sequence[tuple[date, int]]


@dataclass(frozen=True)
class EmptyStretch:
    """A long stretch without rows, with few rows on its far side.

    Attributes
    ----------
    after : bool
        True if the few rows are later than the others, False if they are earlier.
    start, end : date
        The days with rows on either side of the stretch.
    rows : int
        Number of rows on the far side.
    first, last : date
        First and last day of these rows.
    """

    after: bool
    start: date
    end: date
    rows: int
    first: date
    last: date

    @property
    def text(self) -> str:
        """The stretch in words, for a warning.

        Examples
        --------
        >>> july, november = date(2024, 7, 31), date(2026, 11, 1)
        >>> EmptyStretch(True, july, november, 1, november, november).text
        'the last 27 months hold 1 row (2026-11-01); all others end 2024-07-31'
        """
        days = ((self.last - self.start) if self.after else (self.end - self.first)).days
        length = f"{round(days / DAYS_PER_MONTH)} months" if days >= 60 else f"{days} days"
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        when = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        others = f"end {self.start}" if self.after else f"begin {self.end}"
        return f"the {'last' if self.after else 'first'} {length} hold {rows} ({when}); all others {others}"


def empty_stretches(days: DayCounts) -> list[EmptyStretch]:
    """Stretches that separate rows with outlying times from the others: at most one before and one after them.

    The days are divided where more than `OUTLIER_GAP_DAYS` days have no row. From the part with the most rows, the
    range grows in both directions. It ends before a gap if the k rows beyond it are at most `OUTLIER_SHARE` of all
    rows and come at less than `OUTLIER_RATE` of the rate of the R rows inside, which cover L days::

        k / gap_days < OUTLIER_RATE · R / L

    A shop that closed for some months and opened again is therefore inside as soon as it has sold, after the gap, what
    it used to sell in a hundredth of the gap: in one day after three months.

    Parameters
    ----------
    days : sequence of (date, int)
        Number of rows per day, in order of the days; every number is positive.

    Examples
    --------
    >>> weekly = [(date(2024, 1, 1) + timedelta(days=7 * week), 60) for week in range(30)]
    >>> [stretch.text for stretch in empty_stretches([*weekly, (date(2026, 11, 1), 1)])]
    ['the last 27 months hold 1 row (2026-11-01); all others end 2024-07-22']
    >>> empty_stretches([*weekly, (date(2025, 3, 1), 60)])
    []
    """
    if not days:
        return []
    starts = [0, *(at for at in range(1, len(days)) if _gap(days, at) > OUTLIER_GAP_DAYS), len(days)]
    parts = list(pairwise(starts))
    counts = [sum(count for _, count in days[low:high]) for low, high in parts]
    total = sum(counts)
    first = last = max(range(len(parts)), key=lambda part: (counts[part], part))

    def is_outlying(rows: int, gap_days: int) -> bool:
        inside = sum(counts[first : last + 1])
        length = (days[parts[last][1] - 1][0] - days[parts[first][0]][0]).days + 1
        return rows <= OUTLIER_SHARE * total and rows / gap_days < OUTLIER_RATE * inside / length

    grows = True
    while grows:
        grows = False
        if last + 1 < len(parts) and not is_outlying(sum(counts[last + 1 :]), _gap(days, parts[last + 1][0])):
            last, grows = last + 1, True
        if first > 0 and not is_outlying(sum(counts[:first]), _gap(days, parts[first][0])):
            first, grows = first - 1, True
    found = []
    low, high = parts[first][0], parts[last][1]
    if low > 0:
        found.append(
            EmptyStretch(False, days[low - 1][0], days[low][0], sum(counts[:first]), days[0][0], days[low - 1][0])
        )
    if high < len(days):
        found.append(
            EmptyStretch(True, days[high - 1][0], days[high][0], sum(counts[last + 1 :]), days[high][0], days[-1][0])
        )
    return found


def typical_time_range(days: DayCounts) -> tuple[datetime | None, datetime | None]:
    """Midnights before and after the rows without outliers (None without rows): wrong clocks do not extend the history.

    Outliers are the few rows on the far side of an empty stretch (`empty_stretches`).

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
    begin, end = days[0][0], days[-1][0]
    for stretch in empty_stretches(days):
        if stretch.after:
            end = stretch.start
        else:
            begin = stretch.end
    end += timedelta(days=1)
    return datetime(begin.year, begin.month, begin.day), datetime(end.year, end.month, end.day)


def rows_per_day(connection: duckdb.DuckDBPyConnection, relation: str) -> list[tuple[date, int]]:
    """Number of dated rows of a relation per day, in order of the days."""
    return connection.execute(
        f"SELECT ts::DATE, count(*) FROM {relation} WHERE ts IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()


def _gap(days: DayCounts, at: int) -> int:
    """Days from the day before index `at` to that day."""
    return (days[at][0] - days[at - 1][0]).days
