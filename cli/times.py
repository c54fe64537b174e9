"""Dates on the command line, and the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qianmian.errors import UsageError

if TYPE_CHECKING:
    from cli.console import Output
    from features.data.lake import Lake


def parse_as_of(text: str | None) -> datetime | None:
    """Parse a date or ISO time to naive UTC; None for None or an empty text.

    Raises
    ------
    UsageError
        The text is not a date.

    Examples
    --------
    >>> parse_as_of("2017-12-01")
    datetime.datetime(2017, 12, 1, 0, 0)
    >>> parse_as_of("2017-12-01T08:30:00+08:00")
    datetime.datetime(2017, 12, 1, 0, 30)
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            "invalid date",
            where="--as-of",
            got=text,
            allowed="YYYY-MM-DD or an ISO time such as 2017-12-01T08:30:00+00:00",
            hint=f"use a valid date ({error})",
        ) from error
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def as_of_or_default(lake: Lake, text: str | None) -> datetime:
    """Parse `text`; default: the midnight after the last row of the lake, or today if no row has a date."""
    return parse_as_of(text) or (
        lake.default_as_of if lake.has_timestamps else utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    )


def note_empty_days(output: Output, lake: Lake, moment: datetime) -> None:
    """Print a note if `moment` is days after the end of the data, because those days look like inactivity.

    A second note names rows that lie behind a long stretch without rows: the default cutoff does not follow them.
    """
    for table, stretches in lake.empty_stretches().items():
        for stretch in stretches:
            output.step(f"note: {table}: {stretch.text}; rows with a wrong clock do not set the default --as-of")
    last, end = lake.last, lake.typical_end
    if last is None or end is None:
        return
    last = min(last, end)
    if (moment - last).days >= 2:
        days = (moment - last).days
        output.step(
            f"note: the data ends {last:%Y-%m-%d}, so all customers look inactive "
            f"in the {days} days up to {moment:%Y-%m-%d}"
        )


def utc_now() -> datetime:
    """Return the current time in naive UTC; only the command line reads the clock."""
    return datetime.now(UTC).replace(tzinfo=None)
