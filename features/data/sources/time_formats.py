"""Which format times have that are not ISO 8601, and the expression that reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_CLOCK = r"(?:[ T,]+(?P<clock>\d{1,2}:\d{2}(?P<seconds>:\d{2}(?:\.\d+)?)?)(?P<half> ?[AaPp][Mm])?)?"
_ORDERED = re.compile(rf"(?P<a>\d{{1,2}})(?P<sep>[/.-])(?P<b>\d{{1,2}})(?P=sep)(?P<year>\d{{4}}|\d{{2}}){_CLOCK}")
_CHINESE = re.compile(
    r"\d{4}年\d{1,2}月\d{1,2}日(?P<blank> ?)(?:(?P<clock>\d{1,2}:\d{2}(?P<seconds>:\d{2})?)"
    r"|(?P<words>\d{1,2}[时点]\d{1,2}分(?P<word_seconds>\d{1,2}秒)?))?"
)
_DOTTED = re.compile(rf"\d{{4}}\.\d{{1,2}}\.\d{{1,2}}{_CLOCK}")
_HALF_DAYS = re.compile(rf"\d{{4}}(?P<sep>[/-])\d{{1,2}}(?P=sep)\d{{1,2}}{_CLOCK}")
_MONTHS = re.compile(
    r"\d{1,2}(?P<sep>[ -])(?P<month>[A-Za-z]{3,9})\.?(?P=sep)(?P<year>\d{4}|\d{2})" + _CLOCK,
)
# digits of an epoch time between 1973 and 2286, and what it is divided by
_EPOCHS = {"seconds": (9, 10, 1), "milliseconds": (12, 13, 1000), "microseconds": (15, 16, 10**6)}
_EXCEL_DAYS = (20_000, 80_000)  # 1954 to 2119


@dataclass(frozen=True)
class TimeFormat:
    """What times look like.

    Attributes
    ----------
    looks_like : str
        Name of the format.
    expressions : tuple of str
        Expressions that read it: several where the values do not tell day and month apart, none if formats are mixed.
    """

    looks_like: str
    expressions: tuple[str, ...]


def guess(values: Iterable[str], column: str) -> TimeFormat | None:
    """Format of most of the values, and the expression over `column` that reads it; None if it is not known.

    Examples
    --------
    >>> guess(["12/31/2024 8:26"], "date")
    TimeFormat(looks_like='month/day/year', expressions=("strptime(date, '%m/%d/%Y %H:%M')",))
    >>> guess(["1433221332117"], "date").expressions
    ('to_timestamp(date / 1000)',)
    """
    texts = [text for text in (value.strip() for value in values) if text]
    for reader in (_compact, _epoch, _excel, _ordered, _chinese, _dotted, _half_days, _months):
        found = reader(texts, column)
        if found is not None:
            return found
    return None


def _mostly(texts: Sequence[str], holds: Callable[[str], object]) -> list[str]:
    """The texts that hold, if they are most of them."""
    chosen = [text for text in texts if holds(text)]
    return chosen if texts and len(chosen) > len(texts) / 2 else []


def _compact(texts: Sequence[str], column: str) -> TimeFormat | None:
    formats = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    day = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d)?)?")
    chosen = _mostly(texts, day.fullmatch)
    lengths = {len(text) for text in chosen}
    if len(lengths) != 1:
        return None
    return TimeFormat("year, month and day without separators", (f"strptime({column}, '{formats[lengths.pop()]}')",))


def _epoch(texts: Sequence[str], column: str) -> TimeFormat | None:
    for unit, (fewest, most, divisor) in _EPOCHS.items():
        if _mostly(texts, re.compile(rf"[1-9]\d{{{fewest - 1},{most - 1}}}(\.\d+)?").fullmatch):
            seconds = f"{column} / {divisor}" if divisor > 1 else column
            return TimeFormat(f"{unit} since 1970", (f"to_timestamp({seconds})",))
    return None


def _excel(texts: Sequence[str], column: str) -> TimeFormat | None:
    days = re.compile(r"\d{5}(\.\d+)?")
    if not _mostly(
        texts, lambda text: days.fullmatch(text) and _EXCEL_DAYS[0] <= float(text.partition(".")[0]) <= _EXCEL_DAYS[1]
    ):
        return None
    days_and_clock = f"TIMESTAMP '1899-12-30' + to_seconds(round({column} * 86400))"
    return TimeFormat("Excel's days since 1900", (days_and_clock,))


def _clock_format(found: Iterable[re.Match[str]]) -> str:
    """Format of the clock times; that of the last one that has one."""
    for match in reversed(list(found)):
        parts = match.groupdict()
        if parts.get("clock"):
            half = parts.get("half") or ""
            fraction = ".%f" if "." in (parts.get("seconds") or "") else ""
            seconds = f":%S{fraction}" if parts.get("seconds") else ""
            blank = " " if half.startswith(" ") else ""
            return f" {'%I' if half else '%H'}:%M{seconds}{blank}{'%p' if half else ''}"
    return ""


def _ordered(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = [match for text in texts if (match := _ORDERED.fullmatch(text))]
    if len(found) * 2 <= len(texts):
        return None
    sep, clock = found[-1]["sep"], _clock_format(found)
    year = "%y" if len(found[-1]["year"]) == 2 else "%Y"
    first, second = max(int(match["a"]) for match in found), max(int(match["b"]) for match in found)

    def read(*parts: str) -> str:
        return f"strptime({column}, '{sep.join(parts)}{clock}')"

    if first > 31:
        return TimeFormat(f"year{sep}month{sep}day", (read("%y", "%m", "%d"),))
    day_first, month_first = read("%d", "%m", year), read("%m", "%d", year)
    if first > 12 and second > 12:
        return TimeFormat(f"day{sep}month{sep}year and month{sep}day{sep}year, both in one column", ())
    if first > 12 or sep == ".":
        return TimeFormat(f"day{sep}month{sep}year", (day_first,))
    if second > 12:
        return TimeFormat(f"month{sep}day{sep}year", (month_first,))
    return TimeFormat(
        f"day{sep}month{sep}year or month{sep}day{sep}year (no value tells which)", (day_first, month_first)
    )


def _chinese(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = [match for text in texts if (match := _CHINESE.fullmatch(text))]
    if len(found) * 2 <= len(texts):
        return None
    last = found[-1]
    clock = ""
    if last["clock"]:
        clock = f"%H:%M{':%S' if last['seconds'] else ''}"
    elif last["words"]:
        clock = f"%H{'点' if '点' in last['words'] else '时'}%M分{'%S秒' if last['word_seconds'] else ''}"
    blank = last["blank"] if clock else ""
    return TimeFormat("year, month and day in Chinese", (f"strptime({column}, '%Y年%m月%d日{blank}{clock}')",))


def _dotted(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = [match for text in texts if (match := _DOTTED.fullmatch(text))]
    if len(found) * 2 <= len(texts):
        return None
    return TimeFormat("year.month.day", (f"strptime({column}, '%Y.%m.%d{_clock_format(found)}')",))


def _half_days(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = [match for text in texts if (match := _HALF_DAYS.fullmatch(text)) and match["half"]]
    if len(found) * 2 <= len(texts):
        return None
    date = found[-1]["sep"].join(("%Y", "%m", "%d"))
    return TimeFormat("twelve hours with AM and PM", (f"strptime({column}, '{date}{_clock_format(found)}')",))


def _months(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = [match for text in texts if (match := _MONTHS.fullmatch(text))]
    if len(found) * 2 <= len(texts):
        return None
    last = found[-1]
    parts = ("%d", "%B" if len(last["month"]) > 3 else "%b", "%y" if len(last["year"]) == 2 else "%Y")
    date = last["sep"].join(parts)
    return TimeFormat("months in words", (f"strptime({column}, '{date}{_clock_format(found)}')",))


def too_late(seconds: float) -> TimeFormat | None:
    """The format of a time that is far in the future, because a smaller unit was taken for seconds since 1970.

    Examples
    --------
    >>> too_late(1433221332117.0).looks_like
    'milliseconds taken for seconds'
    """
    for unit, (_, _, divisor) in _EPOCHS.items():
        if divisor > 1 and 10**8 <= seconds / divisor < 10**10:
            return TimeFormat(f"{unit} taken for seconds", (f"to_timestamp(column / {divisor})",))
    return None
