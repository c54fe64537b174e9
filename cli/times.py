"""Dates as people type them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qianmian.errors import UsageError

if TYPE_CHECKING:
    from cli.console import Output
    from features.data.lake import Lake


def parse_as_of(text: str | None) -> datetime | None:
    """Naive UTC of a date or ISO time; None for nothing.

    Raises
    ------
    UsageError
        When it is no date.

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
            "that is not a date",
            where="--as-of",
            got=text,
            allowed="YYYY-MM-DD or an ISO time such as 2017-12-01T08:30:00+00:00",
            hint=f"give a day of the calendar ({error})",
        ) from error
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def as_of_or_default(lake: Lake, text: str | None) -> datetime:
    """What was asked for, else the midnight after the last row of the lake, else, where nothing is dated, the last midnight."""
    return parse_as_of(text) or (
        lake.default_as_of if lake.has_timestamps else utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    )


def note_empty_days(output: Output, lake: Lake, moment: datetime) -> None:
    """Say so where `moment` lies days after the data's end: those days look as if everybody had stayed away."""
    last = lake.last
    if last is not None and (moment - last).days >= 2:
        output.step(
            f"note: the data ends {last:%Y-%m-%d}; the {(moment - last).days} days up to {moment:%Y-%m-%d} look silent"
        )


def utc_now() -> datetime:
    """The clock, as naive UTC. Only this floor reads it."""
    return datetime.now(UTC).replace(tzinfo=None)
