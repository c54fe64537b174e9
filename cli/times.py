"""Dates on the command line, and the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qianmian.errors import UsageError
from qianmian.times import not_in_the_future

if TYPE_CHECKING:
    from cli.console import Output
    from features.data.lake import Lake
    from qianmian.settings import Settings

MISSING_TIMEZONE = "no `timezone` in qianmian.yaml: days and hours are those of UTC"
TIMEZONE_EXAMPLE = "`timezone: Europe/London` (or `timezone: UTC`)"


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
    """Parse `text`; default: the midnight after the last row of the lake, or the last full hour if it is in the future.

    If no row has a date, it is today.
    """
    if (moment := parse_as_of(text)) is not None:
        return moment
    now = utc_now()
    if not lake.has_timestamps:
        return now.replace(hour=0, minute=0, second=0, microsecond=0)
    return not_in_the_future(lake.default_as_of, now)


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


def note_missing_timezone(output: Output, lake: Lake, settings: Settings) -> None:
    """Print a note if the data has times and the settings name no time zone for days and hours."""
    if settings.timezone is None and lake.has_timestamps:
        output.step(f"note: {MISSING_TIMEZONE}; set it in {lake.workspace.config_file}, for example {TIMEZONE_EXAMPLE}")


def utc_now() -> datetime:
    """Return the current time in naive UTC; only the command line reads the clock."""
    return datetime.now(UTC).replace(tzinfo=None)
