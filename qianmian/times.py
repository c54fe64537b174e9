"""Moments as numbers, conversions between days and seconds, days between two moments, and the staleness check."""

from __future__ import annotations

from datetime import datetime, timedelta

SECONDS_PER_DAY = 86_400
MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_DAY = SECONDS_PER_DAY * MICROSECONDS_PER_SECOND
EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of a naive UTC moment.

    Examples
    --------
    >>> microseconds(datetime(1970, 1, 2))
    86400000000
    """
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The inverse of `microseconds`.

    Examples
    --------
    >>> from_microseconds(86_400_000_000)
    datetime.datetime(1970, 1, 2, 0, 0)
    """
    return EPOCH + timedelta(microseconds=microseconds)


def days_between(start: datetime, end: datetime) -> float:
    """Days from `start` to `end`, negative if `end` is earlier.

    Examples
    --------
    >>> days_between(datetime(2024, 1, 1), datetime(2024, 1, 2, 12))
    1.5
    """
    return (end - start).total_seconds() / SECONDS_PER_DAY


def is_stale(as_of: datetime, now: datetime, days: float) -> bool:
    """Whether `as_of` is more than `days` days before `now`.

    Examples
    --------
    >>> is_stale(datetime(2024, 1, 1), datetime(2024, 1, 9), 7.0)
    True
    """
    return now - as_of > timedelta(days=days)


def not_in_the_future(moment: datetime, now: datetime) -> datetime:
    """A moment, or the last full hour if it has not come yet.

    Profiles as of the midnight after the last row of a shop that trades today would say that nobody does anything until
    then, and what customers do meanwhile would count for nothing.

    Examples
    --------
    >>> now = datetime(2026, 5, 2, 15, 40)
    >>> not_in_the_future(datetime(2026, 5, 3), now), not_in_the_future(datetime(2026, 5, 2), now)
    (datetime.datetime(2026, 5, 2, 15, 0), datetime.datetime(2026, 5, 2, 0, 0))
    """
    return moment if moment <= now else now.replace(minute=0, second=0, microsecond=0)
