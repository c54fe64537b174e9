"""SQL that reads texts as times: with an offset from UTC as that instant, without one in a time zone.

A text is read only if it is an ISO 8601 date with a year of four digits, with or without a clock time. Everything else
is no time: a lenient reader takes `12/1/10` for a day of the year 12, and throws an offset away that it does not know.
"""

from __future__ import annotations

from features.data.lake import literal
from features.data.sources.clock_changes import skipped_hours

_DATE = r"\d{4}[-/ ]\d{1,2}[-/ ]\d{1,2}"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
_NAIVE = rf"{_DATE}(?:(?: +|T){_CLOCK})?"
# Z, UTC, GMT, +02, +0200, +02:00, each also after a blank; east of Greenwich is positive, as in ISO 8601
_OFFSET = r" ?(?:[Zz]|UTC|GMT|utc|gmt|([+-])(0\d|1[0-5]):?([0-5]\d)?)"
_ZONED = rf"({_DATE}(?: +|T){_CLOCK}){_OFFSET}"
_ZONED_END = (
    rf"{_CLOCK}{_OFFSET}[\s\p{{Z}}]*$"  # an offset must follow a clock time, because a date also ends like one ("-01")
)
_MIDNIGHT = r"[ T]0?0:00(:00(\.0+)?)? ?([A-Za-z+-]|$)"
# a date and a clock time, and then the name of a zone: an abbreviation, a place, or an offset with a name before it
_NAMED = rf"{_DATE}(?: +|T){_CLOCK}(?:{_OFFSET})? ?[\[(]?(?:[A-Za-z]+/[A-Za-z_/+-]+|[A-Za-z]{{2,5}}(?:[+-]\d.*)?)[\])]?"
NAMED_ZONE = "ends with the name of a time zone, and such a name may mean several: write an offset such as +08:00"

SKIPPED = "does not exist in"


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, {literal(pattern)})"


def trimmed(text: str) -> str:
    """SQL of a text without the blanks around it; null if nothing is left."""
    return f"nullif(trim({text}), '')"


def bound(value: str, name: str, body: str) -> str:
    """SQL of `body`, in which `name` stands for `value`: it is computed once, and only where `body` is.

    DuckDB computes what occurs twice in a query for all rows, also inside TRY and where no row needs it, so that its
    errors stop the query. It does not look into a lambda.
    """
    return f"list_transform([{value}], lambda {name}: {body})[1]"


def has_offset(text: str) -> str:
    """SQL condition: the text ends with a clock time and an offset from UTC, maybe with blanks around it."""
    # no offset has a colon at this place; the pattern costs three times as much as LIKE
    return (
        f"CASE WHEN {text} LIKE '____-__-_____:__:__' THEN false ELSE regexp_matches({text}, {literal(_ZONED_END)}) END"
    )


def utc_of_instant(instant: str) -> str:
    """SQL of the naive UTC time of an instant (TIMESTAMP WITH TIME ZONE); null if it is infinite.

    ``AT TIME ZONE 'UTC'`` gives the same and takes ten times as long, because it asks the calendar of the zone.
    """
    return f"make_timestamp(epoch_us({instant}))"


def names_zone(text: str) -> str:
    """SQL condition: the text is a date and a clock time with the name of a zone, which may mean several offsets."""
    plain = f"{_matches(text, _ZONED)} OR upper(right({text}, 2)) IN ('AM', 'PM')"
    return f"{_matches(text, _NAMED)} AND NOT ({plain})"


def naive_of_text(text: str) -> str:
    """SQL of the local time that a text without an offset shows; null for all other texts."""
    return f"CASE WHEN {_matches(text, _NAIVE)} THEN TRY_CAST({text} AS TIMESTAMP) END"


def utc_of_naive(naive: str, timezone: str) -> str:
    """SQL of the naive UTC time of a local time; null for a local time that the clocks of the zone skip.

    A midnight that does not exist is a date, and becomes the first moment of that day. Of a local time that occurs
    twice, the later one is taken.
    """
    if timezone == "UTC":
        return f"({naive})"
    return _unless_skipped(naive, timezone, utc_of_instant(f"({naive}) AT TIME ZONE {literal(timezone)}"))


def _unless_skipped(naive: str, timezone: str, value: str) -> str:
    skips = skipped(naive, timezone)
    return f"CASE WHEN {skips} THEN NULL ELSE {value} END" if skips != "false" else value


def skipped(naive: str, timezone: str) -> str:
    """SQL condition: the local time does not exist in the zone, because its clocks were put forward over it."""
    hours = skipped_hours(timezone) if timezone != "UTC" else ()
    if not hours:
        return "false"
    back = f"(({naive}) AT TIME ZONE {literal(timezone)}) AT TIME ZONE {literal(timezone)}"
    # nearly all rows are in other hours, and are not converted twice
    return (
        f"coalesce(CASE WHEN hour({naive}) IN ({', '.join(map(str, hours))}) "
        f"THEN ({naive}) <> date_trunc('day', {naive}) AND {back} <> ({naive}) END, false)"
    )


def _instant_of_zoned(text: str) -> str:
    parts = f"regexp_extract({text}, {literal('^' + _ZONED + '$')}, ['time', 'sign', 'hours', 'minutes'])"
    minutes = (
        f"CASE WHEN {parts}.hours = '' THEN 0 ELSE CAST({parts}.sign || '1' AS INTEGER) * "
        f"(CAST({parts}.hours AS INTEGER) * 60 + CAST('0' || {parts}.minutes AS INTEGER)) END"
    )
    # DuckDB reads the usual forms by itself, but no minutes without seconds, no blank before the offset and no +0200
    other = f"(TRY_CAST({parts}.time AS TIMESTAMP) - to_minutes({minutes})) AT TIME ZONE 'UTC'"
    return f"coalesce(TRY_CAST({text} AS TIMESTAMPTZ), {other})"


def _by_form(text: str, naive: str, zoned: str, other: str = "NULL") -> str:
    """SQL of `naive` for a text without an offset, `zoned` for one with an offset, and `other` for all other texts."""
    return (
        f"CASE WHEN {_matches(text, _NAIVE)} THEN {naive} WHEN {_matches(text, _ZONED)} THEN {zoned} ELSE {other} END"
    )


def utc_of_text(text: str, timezone: str, other: str = "NULL") -> str:
    """SQL of the naive UTC time of a text; `other` where the text does not have the form of a time.

    Parameters
    ----------
    text : str
        SQL of the text, without blanks around it.
    timezone : str
        Zone of the texts without an offset.
    """
    naive = utc_of_naive(f"TRY_CAST({text} AS TIMESTAMP)", timezone)
    return _by_form(text, naive, utc_of_instant(_instant_of_zoned(text)), other)


def instant_of_text(text: str, timezone: str, other: str = "NULL") -> str:
    """SQL of the instant (TIMESTAMP WITH TIME ZONE) of a text; `other` where it does not have the form of a time."""
    naive = f"TRY_CAST({text} AS TIMESTAMP)"
    local = _unless_skipped(naive, timezone, f"({naive}) AT TIME ZONE {literal(timezone)}")
    return _by_form(text, local, _instant_of_zoned(text), other)


def instant_of_column(column: str, timezone: str) -> str:
    """SQL of the instant of a text column, with blanks around it or not; null where it is not a time.

    Nearly all cells have no blanks. Only the others are trimmed, in a lambda, which is slow because it compiles its
    patterns for every 2,048 rows.
    """
    return instant_of_text(column, timezone, bound(trimmed(column), "_text", instant_of_text("_text", timezone)))


def is_time(text: str) -> str:
    """SQL condition: the text can be read as a time, whether or not the clocks of the zone skip it."""
    return _by_form(text, f"TRY_CAST({text} AS TIMESTAMP) IS NOT NULL", f"{_instant_of_zoned(text)} IS NOT NULL")


def local_of_utc(utc: str, timezone: str) -> str:
    """SQL of the local time of a naive UTC time."""
    return f"({utc})" if timezone == "UTC" else f"(({utc}) AT TIME ZONE 'UTC') AT TIME ZONE {literal(timezone)}"


def date_of_utc(utc: str, timezone: str) -> str:
    """SQL of the date of a naive UTC time in the zone; a midnight in UTC is a date that was written as a time."""
    if timezone == "UTC":
        return f"CAST({utc} AS DATE)"
    local = f"CAST({local_of_utc(utc, timezone)} AS DATE)"
    return f"CASE WHEN {utc} = date_trunc('day', {utc}) THEN CAST({utc} AS DATE) ELSE {local} END"


def date_of_text(text: str, timezone: str, other: str = "NULL") -> str:
    """SQL of the date of a text; `other` where the text does not have the form of a date or a time.

    A time with an offset is converted to the zone, except a midnight: it is a date that was written as a time.
    """
    written = f"CAST(TRY_CAST(regexp_extract({text}, {literal('^' + _DATE)}) AS TIMESTAMP) AS DATE)"
    midnight = f"regexp_matches({text}, {literal(_MIDNIGHT)})"
    local = f"CAST({_instant_of_zoned(text)} AT TIME ZONE {literal(timezone)} AS DATE)"
    zoned = f"CASE WHEN {midnight} THEN {written} ELSE {local} END"
    return _by_form(text, f"CAST(TRY_CAST({text} AS TIMESTAMP) AS DATE)", zoned, other)


def skipped_reason(timezone: str) -> str:
    return f"{SKIPPED} {timezone}: its clocks were put forward over it; correct the time, or `timezone`"


def text_faults(text: str, timezone: str) -> tuple[tuple[str, str], ...]:
    """(SQL condition, what is wrong) of texts that look like a time and are not read as one."""
    faults = [(names_zone(text), NAMED_ZONE)]
    skips = skipped(naive_of_text(text), timezone)
    return (*faults, (skips, skipped_reason(timezone))) if skips != "false" else tuple(faults)
