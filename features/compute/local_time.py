"""Days and hours of moments in the time zone of the workspace, as Ibis expressions for each engine."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.compute.algebra import DATE_SHIFT_SECONDS
from qianmian.timezones import UTC_ZONE


@ibis.udf.scalar.builtin(name="timezone", signature=((str, "timestamp"), "timestamp('UTC')"))
def zoned_moment(timezone, local):  # type: ignore[no-untyped-def]
    """The DuckDB function `timezone` of a local time: its moment."""


@ibis.udf.scalar.builtin(name="timezone", signature=((str, "timestamp('UTC')"), "timestamp"))
def local_time_of(timezone, moment):  # type: ignore[no-untyped-def]
    """The DuckDB function `timezone` of a moment: its local time."""


@ibis.udf.scalar.builtin(signature=((str, str, "timestamp"), "timestamp"))
def convert_timezone(source, target, local):  # type: ignore[no-untyped-def]
    """The Spark function `convert_timezone`."""


class LocalTime:
    """The clock of one time zone, with summer time, in DuckDB.

    Parameters
    ----------
    timezone : str
        IANA name, or UTC.
    """

    def __init__(self, timezone: str = UTC_ZONE) -> None:
        self.timezone = timezone

    def local(self, ts: ir.TimestampValue) -> ir.TimestampValue:
        """Date and clock time of UTC moments."""
        return self._converted(ts, UTC_ZONE, self.timezone)

    def utc(self, local: ir.TimestampValue) -> ir.TimestampValue:
        """The inverse of `local`; a clock time that summer time leaves out is read as the moment an hour later."""
        return self._converted(local, self.timezone, UTC_ZONE)

    def with_calendar(self, t: ir.Table) -> ir.Table:
        """Add `hour`, `weekday` (Monday is 0), `day` and `week` (its Monday) of `ts`.

        A row that is only a date (`date_only`) has no hour, and its day is that date.
        """
        t = t.mutate(local=self.local(t.ts))
        if self.timezone != UTC_ZONE:
            t = t.view()  # keeps the query from repeating the conversion for each column
        hour = t.local.hour()
        if "date_only" not in t.columns:
            t = t.mutate(hour=hour)
        else:
            only_date = t.date_only.fill_null(False)
            # the midnight of a source in the zone of the workspace needs no shift
            needs_shift = only_date & (t.local != t.local.truncate("D"))
            shifted = (t.ts + ibis.interval(seconds=DATE_SHIFT_SECONDS)).truncate("D")
            t = t.mutate(
                local=ibis.ifelse(needs_shift, shifted, t.local),
                hour=ibis.ifelse(only_date, ibis.null(hour.type()), hour),
            )
        return t.mutate(
            weekday=t.local.day_of_week.index(), day=t.local.date(), week=t.local.truncate("W").date()
        ).drop("local")

    def _converted(self, ts: ir.TimestampValue, source: str, target: str) -> ir.TimestampValue:
        return ts if source == target else self._in_zone(ts, source, target)

    def _in_zone(self, ts: ir.TimestampValue, source: str, target: str) -> ir.TimestampValue:
        return local_time_of(target, zoned_moment(source, ts))


class SparkLocalTime(LocalTime):
    """The same clock in Spark."""

    def _in_zone(self, ts: ir.TimestampValue, source: str, target: str) -> ir.TimestampValue:
        return convert_timezone(source, target, ts)
