"""What the values of a column look like: times in which format, numbers with which decimal sign, e-mail addresses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from features.data.lake import quote
from features.data.personal_values import EMAIL_PATTERN
from features.data.sources.casting_times import utc_of_text
from features.data.sources.expressions import ExpressionChecker, in_expression
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


def time_reading(values: Sequence[str], name: str) -> TimeReading | None:
    """How ingest reads the times of the column `name`; None if most of its values are no times.

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
    column = in_expression(name)
    if _share_read(texts, name, utc_of_text(quote(name), "UTC")) >= SHARE:  # by ingest itself
        return TimeReading(name)
    found = guess(texts, column)
    if found is None:
        return None
    if not found.expressions:
        return TimeReading(name, f"the times look like {found.looks_like}: export them in one format")
    checker = ExpressionChecker({name: "VARCHAR"})
    readable = []
    for text in found.expressions:
        with contextlib.suppress(ValueError):
            if _share_read(texts, name, checker.check(text).value) >= SHARE:
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


def _share_read(texts: Sequence[str], name: str, value: str) -> float:
    """Share of the texts of a column for which the SQL `value` gives a time."""
    if not texts:
        return 0.0
    with duckdb.connect() as connection:
        connection.register("texts", pa.table({name: texts}))
        row = connection.execute(f"SELECT count(TRY({value})) / count(*) FROM texts").fetchone()
    return float(row[0]) if row else 0.0


def has_clock_without_offset(values: Sequence[str]) -> bool:
    """Whether a time has hours and minutes and no offset from UTC, so that its moment depends on a time zone.

    Examples
    --------
    >>> has_clock_without_offset(["2024-01-05 10:00"]), has_clock_without_offset(["2024-01-05 10:00 +0100"])
    (True, False)
    """
    return any(re.match(CLOCK, value) and not re.fullmatch(CLOCK_WITH_OFFSET, value.strip()) for value in values)


def has_decimal_comma(values: Sequence[str]) -> bool:
    """Whether a column of numbers uses a comma before the decimals: 12,50 or 1.250,00.

    Examples
    --------
    >>> has_decimal_comma(["12,50", "1.250,00", "25"]), has_decimal_comma(["1,250.00"])
    (True, False)
    """
    values = [value.strip() for value in values if value.strip()]
    number = r"-?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?"
    return bool(values) and _mostly(values, number) and any(re.fullmatch(r".*,\d{1,2}", value) for value in values)


def is_number(values: Sequence[str]) -> bool:
    """Whether the values are numbers, with a point or a comma before the decimals."""
    return _mostly([value.strip() for value in values if value.strip()], r"[-+]?[\d.,' ]*\d[\d.,' ]*")


def is_email(values: Sequence[str]) -> bool:
    """Whether the values are e-mail addresses."""
    return _mostly([value.strip() for value in values if value.strip()], EMAIL_PATTERN)


def _mostly(values: Sequence[str], pattern: str) -> bool:
    matching = sum(re.fullmatch(pattern, value) is not None for value in values)
    return bool(values) and matching >= SHARE * len(values)
