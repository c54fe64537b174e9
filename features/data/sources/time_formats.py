"""Which format times have that are not ISO 8601, and the expression that reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from features.data.lake import literal
from features.data.sources.time_words import HALVES, half_days, month_words, zone_names

_DAY = r"(?P<day>\d{1,2})"
_MONTH = r"(?P<month>\d{1,2})"
_YEAR = r"(?P<year>\d{4}|\d{2})"
_LONG_YEAR = r"(?P<year>\d{4})"
_TIME = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6}))?)?"
_CLOCK = rf"(?:[ T,]+{_TIME}(?: ?(?P<half>[AaPp][Mm]))?)?"
_ORDERED = re.compile(rf"(?P<a>\d{{1,2}})(?P<sep>[/.-])(?P<b>\d{{1,2}})(?P=sep){_YEAR}{_CLOCK}")
_EAST_ASIAN = re.compile(
    rf"{_LONG_YEAR}[年년] ?{_MONTH}[月월] ?{_DAY}[日일](?: ?{_TIME}"
    r"| ?(?P<hour2>\d{1,2})[时点時시] ?(?P<minute2>\d{1,2})[分분](?: ?(?P<second2>\d{1,2})[秒초])?)?"
)
_DOTTED = re.compile(rf"{_LONG_YEAR}\. ?{_MONTH}\. ?{_DAY}\.?{_CLOCK}")
_YEAR_FIRST = re.compile(rf"{_LONG_YEAR}(?P<sep>[/-]){_MONTH}(?P=sep){_DAY}{_CLOCK}")
_WITH_HALF = re.compile(
    rf"{_LONG_YEAR}[年년./-] ?{_MONTH}[月월./-] ?{_DAY}[日일.]? ?(?P<half>(?:{'|'.join(HALVES)}) ?){_TIME}"
)
_WORD = r"[^\W\d_]+"
_END = (  # the clock with points or colons, the half of the day, and a zone or a word such as `Uhr`
    r"(?:(?P<gap>,? (?:at |um )?|T)(?P<hour>\d{1,2})(?P<c>[:.])(?P<minute>\d{2})"
    r"(?:(?P=c)(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6}))?)?(?: ?(?P<half>[AaPp][Mm]))?"
    rf"(?P<zone> ?[+-]\d{{2}}:?\d{{2}}| [A-Z]{{3,4}})?(?: {_WORD}\.?)?)?"
)
_DAY_AND_WORD = re.compile(
    rf"(?:(?P<weekday>{_WORD}),? )?{_DAY}\.?[ /-](?:de )?(?P<word>{_WORD})\.?(?: de |[ ,/-]+){_YEAR}{_END}"
)
_WORD_AND_DAY = re.compile(rf"(?:(?P<weekday>{_WORD}),? )?(?P<word>{_WORD})\.?[ /-]{_DAY},?[ /-]{_YEAR}{_END}")
_CODES = {"month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S", "fraction": "%f", "half": "%p"}
# digits of an epoch time between 1973 and 2286, and what it is divided by
_EPOCHS = {
    "seconds": (9, 10, 1),
    "milliseconds": (12, 13, 1000),
    "microseconds": (15, 16, 10**6),
    "nanoseconds": (18, 19, 10**9),
}
_MAX_FORMATS = 3  # of one column, for example with and without seconds
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
    assumes : str
        What the expressions take for granted, such as the offset of a named zone; empty if nothing.
    """

    looks_like: str
    expressions: tuple[str, ...]
    assumes: str = ""


def guess(values: Iterable[str], column: str) -> TimeFormat | None:
    """Format of most of the values, and the expressions over `column` that read them; None if it is not known.

    Every expression was tried on the values.

    Examples
    --------
    >>> guess(["12/31/2024 8:26"], "date")
    TimeFormat(looks_like='month/day/year', expressions=("strptime(date, '%m/%d/%Y %H:%M')",), assumes='')
    >>> guess(["1433221332117"], "date").expressions
    ('to_timestamp(date / 1000)',)
    """
    texts = [text for text in (value.strip() for value in values) if text]
    for reader in _READERS:
        found = reader(texts, column)
        if found is None:
            continue
        tried = reader(texts, "v")
        kept = [
            expression
            for expression, probe in zip(found.expressions, tried.expressions if tried else (), strict=True)
            if _reads(probe, texts)
        ]
        if kept or not found.expressions:
            return replace(found, expressions=tuple(kept))
    return None


def _reads(expression: str, texts: Sequence[str]) -> bool:
    """Whether an expression over the column `v` gives a time for most of the texts."""
    with duckdb.connect() as connection:
        for kind in ("VARCHAR", "DOUBLE"):
            column = f"SELECT TRY_CAST(unnest(?) AS {kind}) AS v"
            try:
                row = connection.execute(
                    f"SELECT count(TRY({expression})) * 2 > count(*) FROM ({column})", [list(texts)]
                ).fetchone()
            except duckdb.BinderException:  # arithmetic over texts
                continue
            return bool(row and row[0])
    return False


def _mostly(texts: Sequence[str], holds: Callable[[str], object]) -> list[str]:
    """The texts that hold, if they are most of them."""
    chosen = [text for text in texts if holds(text)]
    return chosen if texts and len(chosen) > len(texts) / 2 else []


def _matches(texts: Sequence[str], pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The matches of the texts, if most of them match."""
    found = [match for text in texts if (match := pattern.fullmatch(text))]
    return found if len(found) * 2 > len(texts) else []


def _format_of(match: re.Match[str], codes: Mapping[str, str]) -> str:
    """Format of `strptime` for one time: the codes of its groups, and the text between them."""
    parts = match.groupdict()
    codes = {**_CODES, "year": "%Y" if len(parts.get("year") or "") == 4 else "%y", **codes}
    if parts.get("half"):
        codes["hour"] = "%I"
    text, at = "", 0
    for group in sorted((name for name in parts if parts[name] is not None), key=match.start):
        code = codes.get(group.rstrip("2"))
        if code:
            text += match.string[at : match.start(group)] + code
            at = match.end(group)
    return text + match.string[at:]


def _strptime(text: str, found: Iterable[re.Match[str]], codes: Mapping[str, str]) -> str:
    """Expression that reads `text` in the most frequent formats of the matches."""
    counted = Counter(_format_of(match, codes) for match in found).most_common(_MAX_FORMATS)
    formats = [literal(written) for written, _ in counted]
    return f"strptime({text}, {formats[0] if len(formats) == 1 else '[' + ', '.join(formats) + ']'})"


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


def _ordered(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = _matches(texts, _ORDERED)
    if not found:
        return None
    sep = found[-1]["sep"]
    first, second = max(int(match["a"]) for match in found), max(int(match["b"]) for match in found)

    def read(a: str, b: str) -> str:
        return _strptime(column, found, {"a": a, "b": b})

    if first > 31:
        return TimeFormat(f"year{sep}month{sep}day", (_strptime(column, found, {"a": "%y", "b": "%m", "year": "%d"}),))
    day_first, month_first = read("%d", "%m"), read("%m", "%d")
    if first > 12 and second > 12:
        return TimeFormat(f"day{sep}month{sep}year and month{sep}day{sep}year, both in one column", ())
    if first > 12 or sep == ".":
        return TimeFormat(f"day{sep}month{sep}year", (day_first,))
    if second > 12:
        return TimeFormat(f"month{sep}day{sep}year", (month_first,))
    return TimeFormat(
        f"day{sep}month{sep}year or month{sep}day{sep}year (no value tells which)", (day_first, month_first)
    )


def _east_asian(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = _matches(texts, _EAST_ASIAN)
    if not found:
        return None
    language = "Korean" if "년" in found[0].string else "Chinese or Japanese"
    return TimeFormat(f"year, month and day in {language}", (_strptime(column, found, {}),))


def _dotted(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = _matches(texts, _DOTTED)
    return TimeFormat("year.month.day", (_strptime(column, found, {}),)) if found else None


def _year_first(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = [match for match in _matches(texts, _YEAR_FIRST) if match["half"] or "," in match.string]
    if len(found) * 2 <= len(texts):  # ingest reads the others by itself
        return None
    looks_like = "twelve hours with AM and PM" if found[-1]["half"] else "a comma before the fraction of a second"
    return TimeFormat(looks_like, (_strptime(column, found, {}),))


def _with_half(texts: Sequence[str], column: str) -> TimeFormat | None:
    found = _matches(texts, _WITH_HALF)
    if not found:
        return None
    text = half_days((match["half"].strip() for match in found), column)
    return TimeFormat("halves of a day in words", (_strptime(text, found, {"half": "%p "}),))


def _months(texts: Sequence[str], column: str) -> TimeFormat | None:
    for pattern in (_DAY_AND_WORD, _WORD_AND_DAY):
        found = _matches(texts, pattern)
        months = month_words((match["word"] for match in found), column) if found else None
        if months is None:
            continue
        code, text = months
        zones = [match["zone"] for match in found if match["zone"]]
        known = zone_names(zones, text) if zones else (text, "")
        if known is None:
            return TimeFormat(f"months in words with a zone that may mean several: {zones[0].strip()}", ())
        if text != column:  # the expression reads small letters, and takes the first word for the month
            if any(match["weekday"] for match in found):
                return None
            found = _matches([match.string.lower() for match in found], pattern)
        codes = {"word": code, "weekday": "%a", "zone": " %z" if zones and zones[0].startswith(" ") else "%z"}
        return TimeFormat("months in words", (_strptime(known[0], found, codes),), known[1])
    return None


_READERS = (_compact, _epoch, _excel, _ordered, _east_asian, _dotted, _year_first, _with_half, _months)


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
