"""What the values of a column look like: times in which format, numbers with which decimal sign, e-mail addresses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from features.data.lake import literal
from features.data.personal_values import EMAIL_PATTERN
from features.data.sources.casting_times import utc_of_text
from features.data.sources.expressions import ExpressionChecker, in_expression
from features.data.sources.numbers import COMMA_ONLY, EITHER, POINT_ONLY, number, plain_number
from features.data.sources.time_formats import guess

CLOCK = r".*\d:\d{2}"
CLOCK_WITH_OFFSET = CLOCK + r"(\.\d+)? ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)"
SHARE = 0.9  # of the values that must have the form
DAY_OR_MONTH = "is the first number the day (%d) or the month (%m)?"
# numbers are taken for times only if they are a day (20240131) or an instant since 2001 in (milli)seconds
_IS_NUMBER, _NUMBER_AS_TIME = r"\d+(\.\d+)?", r"(19|20)\d{6}|1\d{9}(\d{3})?"


@dataclass(frozen=True)
class TimeReading:
    """How the times of a column are read.

    Attributes
    ----------
    expression : str
        Right side of the mapping: the column, or an expression over it.
    question : str or None
        What the values leave open.
    """

    expression: str
    question: str | None = None


def time_reading(values: Sequence[str], name: str, expression: str | None = None) -> TimeReading | None:
    """How ingest reads the times of the column `name`; None if most of its values are no times.

    Parameters
    ----------
    expression : str, optional
        Expression that gives the values, if the column alone does not.

    Examples
    --------
    >>> print(time_reading(["31/12/2023 10:00", "01/02/2024 11:00"], "Paid at").expression)
    strptime("Paid at", '%d/%m/%Y %H:%M')
    >>> time_reading(["1433221332117"], "ts").expression
    'to_timestamp(ts / 1000)'
    >>> time_reading(["2024-01-31T10:00Z"], "Paid at")
    TimeReading(expression='Paid at', question=None)
    """
    texts = [value.strip() for value in values if value.strip()]
    if _share_read(texts, utc_of_text("v", "UTC")) >= SHARE:  # by ingest itself
        return TimeReading(expression or name)
    found = guess(texts, f"({expression})" if expression and expression != name else in_expression(name))
    if found is None:
        return None
    if not found.expressions:
        return TimeReading(expression or name, f"the times look like {found.looks_like}: export them in one format")
    checker = ExpressionChecker({"v": "VARCHAR"})
    tried = guess(texts, "v")
    readable = []
    for text, probe in zip(found.expressions, tried.expressions if tried else (), strict=True):
        with contextlib.suppress(ValueError):  # an expression that ingest refuses
            if _share_read(texts, checker.check(probe).value) >= SHARE:
                readable.append(text)
    if not readable:
        return None
    question = DAY_OR_MONTH if len(readable) > 1 else f"is it right that {found.assumes}?" if found.assumes else None
    return TimeReading(readable[0], question)


def is_time(values: Sequence[str]) -> bool:
    """Whether the values of a column without a name are times, and no numbers that could be ids."""
    texts = [value.strip() for value in values if value.strip()]
    if _mostly(texts, _IS_NUMBER) and not _mostly(texts, _NUMBER_AS_TIME):
        return False
    return time_reading(texts, "v") is not None


def unread_times(values: Sequence[str]) -> list[str]:
    """The values that ingest does not read as times without an expression."""
    texts = list(dict.fromkeys(value.strip() for value in values if value.strip()))
    with duckdb.connect() as connection:
        connection.register("texts", pa.table({"v": texts}))
        rows = connection.execute(f"SELECT v FROM texts WHERE TRY({utc_of_text('v', 'UTC')}) IS NULL").fetchall()
    return [str(text) for (text,) in rows]


def _share_read(texts: Sequence[str], value: str) -> float:
    """Share of the texts for which the SQL `value` over their column `v` gives a time."""
    if not texts:
        return 0.0
    with duckdb.connect() as connection:
        connection.register("texts", pa.table({"v": texts}))
        row = connection.execute(f"SELECT count(TRY({value})) / count(*) FROM texts").fetchone()
    return float(row[0]) if row else 0.0


def is_clock_time(values: Sequence[str]) -> bool:
    """Whether the values are clock times without a day."""
    return _mostly([value.strip() for value in values], r"\d{1,2}:\d{2}(:\d{2})?( ?[AaPp][Mm])?")


def has_clock_without_offset(values: Sequence[str]) -> bool:
    """Whether a time has hours and minutes and no offset from UTC, so that its moment depends on a time zone.

    Examples
    --------
    >>> has_clock_without_offset(["2024-01-05 10:00"]), has_clock_without_offset(["2024-01-05 10:00 +0100"])
    (True, False)
    """
    return any(re.match(CLOCK, value) and not re.fullmatch(CLOCK_WITH_OFFSET, value.strip()) for value in values)


@dataclass(frozen=True)
class NumberReading:
    """What ingest can read of a column of numbers.

    Attributes
    ----------
    unread : tuple of str
        Values that are no number with either decimal separator.
    separators : frozenset of str
        Decimal separators of the values that can be read with one only: `.`, `,` or both.
    thousands : str or None
        The sign between three digits and the rest of the values that both separators read: the comma of 1,250.
    whole_units : bool
        Whether a sign of a currency without decimals (yen, won) stands in the values.
    """

    unread: tuple[str, ...]
    separators: frozenset[str]
    thousands: str | None
    whole_units: bool


def number_reading(values: Sequence[str]) -> NumberReading:
    """How ingest reads the numbers of a column.

    Examples
    --------
    >>> number_reading(["12,50 €", "1.250,00", "x"])
    NumberReading(unread=('x',), separators=frozenset({','}), thousands=None, whole_units=False)
    >>> number_reading(["¥1,250"])
    NumberReading(unread=(), separators=frozenset(), thousands=',', whole_units=True)
    """
    texts = list(dict.fromkeys(value.strip() for value in values if value.strip()))
    certain = {".": POINT_ONLY, ",": COMMA_ONLY}
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT t, coalesce({', '.join(number('t', literal(sign)) for sign in certain)}) IS NULL, "
            f"{plain_number('t')} FROM (SELECT unnest(?::VARCHAR[]) AS t)",
            [texts],
        ).fetchall()
    plain = [text for _, unread, text in rows if not unread]
    either = next((text for text in plain if re.fullmatch(EITHER, text)), None)
    return NumberReading(
        tuple(text for text, unread, _ in rows if unread),
        frozenset(sign for sign, form in certain.items() if any(re.fullmatch(form, text) for text in plain)),
        ("," if "," in either else ".") if either else None,
        any(re.search("[¥￥₩円원]", text) for text in texts),
    )


def decimal_key(readings: Sequence[NumberReading]) -> tuple[str | None, bool]:
    """The key `decimal` that the number columns of one table need, and whether it is only a guess.

    Examples
    --------
    >>> decimal_key([number_reading(["12,50"])]), decimal_key([number_reading(["1,250"])])
    ((',', False), ('.', True))
    """
    separators = {sign for reading in readings for sign in reading.separators}
    if separators == {","}:
        return ",", False
    thousands = next((reading.thousands for reading in readings if reading.thousands and not reading.separators), None)
    if thousands is None or len(separators) > 1:
        return None, False
    if separators or any(reading.whole_units for reading in readings):
        return ".", False
    return "." if thousands == "," else ",", True


def is_email(values: Sequence[str]) -> bool:
    """Whether the values are e-mail addresses."""
    return _mostly([value.strip() for value in values if value.strip()], EMAIL_PATTERN)


def _mostly(values: Sequence[str], pattern: str) -> bool:
    matching = sum(re.fullmatch(pattern, value) is not None for value in values)
    return bool(values) and matching >= SHARE * len(values)
