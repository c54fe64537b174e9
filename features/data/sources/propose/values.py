"""What the values of a column look like: times in which format, numbers with which decimal sign, e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from features.data.personal_values import EMAIL_PATTERN

CLOCK = r".*\d:\d{2}"
CLOCK_WITH_OFFSET = CLOCK + r"(\.\d+)? ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)"
SHARE = 0.9  # of the values that must have the form
# (pattern, strptime format); the ISO forms that ingest reads by itself have no format
TIME_FORMS: tuple[tuple[str, str | None], ...] = (
    (r"\d{4}-\d{2}-\d{2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)? ?(Z|UTC|[+-]\d{2}:?\d{2})?", None),
    (r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}:\d{2}", "%Y/%m/%d %H:%M:%S"),
    (r"\d{4}/\d{1,2}/\d{1,2} \d{1,2}:\d{2}", "%Y/%m/%d %H:%M"),
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
    (r"\d{8}", "%Y%m%d"),
    (r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}:\d{2}", "%d.%m.%Y %H:%M:%S"),
    (r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}", "%d.%m.%Y %H:%M"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
    (r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}", "%d/%m/%Y %H:%M"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "%d/%m/%Y"),
    (r"\d{1,2}/\d{1,2}/\d{2} \d{1,2}:\d{2}", "%d/%m/%y %H:%M"),
    (r"\d{1,2}/\d{1,2}/\d{2}", "%d/%m/%y"),
)


@dataclass(frozen=True)
class TimeForm:
    """How the times of a column are read.

    Attributes
    ----------
    expression : str
        Template over ``{}``, the quoted column.
    question : str or None
        What the values leave open.
    """

    expression: str
    question: str | None = None


def time_form(values: Sequence[str]) -> TimeForm | None:
    """The form of the times of a column, None if its values are no times.

    Examples
    --------
    >>> time_form(["31/12/2023 10:00", "01/02/2024 11:00"]).expression
    "strptime({}, '%d/%m/%Y %H:%M')"
    >>> time_form(["1433221332117"]).expression
    'to_timestamp({} / 1000)'
    """
    values = [value.strip() for value in values if value.strip()]
    if not values:
        return None
    if _mostly(values, r"1\d{12}"):
        return TimeForm("to_timestamp({} / 1000)")
    if _mostly(values, r"1\d{9}"):
        return TimeForm("to_timestamp({})")
    matching = [form for pattern, form in TIME_FORMS if _mostly(values, pattern)]
    if not matching:
        return None
    form = matching[0]
    if form is None:
        return TimeForm("{}")
    if not form.startswith("%d/"):
        return TimeForm(f"strptime({{}}, '{form}')") if _parses(values, form) else None
    month_first = form.replace("%d/%m", "%m/%d")
    fitting = [name for name in (form, month_first) if _parses(values, name)]
    if not fitting:
        return None
    question = None if len(fitting) == 1 else "is the first number the day (%d/%m) or the month (%m/%d)?"
    return TimeForm(f"strptime({{}}, '{fitting[0]}')", question)


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


def _parses(values: Sequence[str], form: str) -> bool:
    failed = 0
    for value in values:
        try:
            datetime.strptime(value, form)  # noqa: DTZ007 - only whether it can be parsed
        except ValueError:
            failed += 1
    return failed <= (1 - SHARE) * len(values)
