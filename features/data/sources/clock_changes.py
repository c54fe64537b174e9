"""When the clocks of a time zone change: hours that they skip, and hours that they show twice."""

from __future__ import annotations

import functools
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

FIRST_YEAR, LAST_YEAR = 1900, 2100  # after it, the rule of the last year goes on
_STEP = timedelta(days=5)  # no zone changes its clocks twice within it


@dataclass(frozen=True)
class ClockChange:
    """One change of the clocks of a zone.

    Attributes
    ----------
    at : datetime
        First moment with the new offset, naive UTC.
    before, after : timedelta
        Offset from UTC before and after it.
    """

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def skipped(self) -> tuple[datetime, datetime] | None:
        """Local times that do not exist, from the first up to the end; None if the clocks went back."""
        return (self.at + self.before, self.at + self.after) if self.after > self.before else None

    @property
    def repeated(self) -> tuple[datetime, datetime] | None:
        """Naive UTC begin and end of the second run of the local times that occur twice; None if none do."""
        return (self.at, self.at + (self.before - self.after)) if self.after < self.before else None


@functools.lru_cache(maxsize=16)
def clock_changes(timezone: str) -> tuple[ClockChange, ...]:
    """All changes of the clocks of a zone, in order of time.

    Examples
    --------
    >>> [change] = [change for change in clock_changes("Europe/London") if change.at.year == 2024 and change.skipped]
    >>> change.skipped
    (datetime.datetime(2024, 3, 31, 1, 0), datetime.datetime(2024, 3, 31, 2, 0))
    """
    return tuple(_changes(zoneinfo.ZoneInfo(timezone)))


def _changes(zone: zoneinfo.ZoneInfo) -> Iterator[ClockChange]:
    moment, last = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)
    while moment < last:
        later = moment + _STEP
        before, after = _offset(zone, moment), _offset(zone, later)
        if before != after:
            low, high = moment, later
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
            yield ClockChange(high.replace(tzinfo=None), before, after)
        moment = later


def _offset(zone: zoneinfo.ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


@functools.lru_cache(maxsize=16)
def skipped_hours(timezone: str) -> tuple[int, ...]:
    """Hours of the day (0–23) that the clocks of the zone have skipped at least once, in whole or in part."""
    hours: set[int] = set()
    for change in clock_changes(timezone):
        if change.skipped:
            begin, end = change.skipped
            moment = begin.replace(minute=0, second=0, microsecond=0)
            while moment < end:
                hours.add(moment.hour)
                moment += timedelta(hours=1)
    return tuple(sorted(hours))
