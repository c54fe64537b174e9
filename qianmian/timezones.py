"""Names of time zones: which name one certain zone, and what to write in place of those that do not."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from qianmian.errors import did_you_mean

# areas of the IANA names that are places; `Etc/GMT+8` is none, and its sign is the reverse of the usual one
AREAS = (
    *("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"),
    *("Brazil", "Canada", "Chile", "Mexico", "US"),
)
UTC_ZONE = "UTC"
MAX_CHOICES = 4
EXAMPLES = "Europe/London or Asia/Shanghai"
# zones that are offered first, because many people live in them
COMMON = (
    *("Asia/Shanghai", "Asia/Kolkata", "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("Europe/London", "Europe/Paris", "Europe/Berlin", "Europe/Moscow", "Europe/Istanbul", "Europe/Athens"),
    *("Asia/Tokyo", "Asia/Seoul", "Asia/Singapore", "Asia/Taipei", "Asia/Hong_Kong", "Asia/Jakarta", "Asia/Bangkok"),
    *("Asia/Manila", "Asia/Karachi", "Asia/Dhaka", "Asia/Dubai", "Asia/Tehran", "Asia/Jerusalem", "Europe/Dublin"),
    *(
        "America/Sao_Paulo",
        "America/Mexico_City",
        "America/Toronto",
        "America/Panama",
        "America/Havana",
        "America/Halifax",
    ),
    *(
        "America/Phoenix",
        "America/Anchorage",
        "Pacific/Honolulu",
        "Africa/Lagos",
        "Africa/Cairo",
        "Africa/Johannesburg",
    ),
    *("Australia/Sydney", "Australia/Brisbane", "Australia/Perth", "Pacific/Auckland"),
)
# what people write for a place whose zone has another name
PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("beijing", "peking", "china", "prc", "shenzhen", "guangzhou", "hangzhou"), ("Asia/Shanghai",)),
    **dict.fromkeys(("北京", "北京时间", "上海", "中国", "china standard time"), ("Asia/Shanghai",)),
    **dict.fromkeys(("香港", "hongkong"), ("Asia/Hong_Kong",)),
    **dict.fromkeys(("台北", "台湾", "roc", "taiwan"), ("Asia/Taipei",)),
    **dict.fromkeys(("india", "mumbai", "delhi", "new delhi", "bangalore"), ("Asia/Kolkata",)),
    **dict.fromkeys(("japan", "osaka"), ("Asia/Tokyo",)),
    **dict.fromkeys(("rok", "korea"), ("Asia/Seoul",)),
    **dict.fromkeys(("gb", "gb-eire", "uk", "england", "britain"), ("Europe/London",)),
    **dict.fromkeys(("eire", "ireland"), ("Europe/Dublin",)),
    **dict.fromkeys(("germany", "munich", "hamburg", "frankfurt"), ("Europe/Berlin",)),
    **dict.fromkeys(("france",), ("Europe/Paris",)),
    **dict.fromkeys(("poland",), ("Europe/Warsaw",)),
    **dict.fromkeys(("portugal",), ("Europe/Lisbon",)),
    **dict.fromkeys(("turkey",), ("Europe/Istanbul",)),
    **dict.fromkeys(("w-su",), ("Europe/Moscow",)),
    **dict.fromkeys(("egypt",), ("Africa/Cairo",)),
    **dict.fromkeys(("israel",), ("Asia/Jerusalem",)),
    **dict.fromkeys(("iran",), ("Asia/Tehran",)),
    **dict.fromkeys(("cuba",), ("America/Havana",)),
    **dict.fromkeys(("nz",), ("Pacific/Auckland",)),
    **dict.fromkeys(("eastern", "est5edt", "washington", "boston", "miami", "atlanta"), ("America/New_York",)),
    **dict.fromkeys(("central", "cst6cdt", "houston", "dallas"), ("America/Chicago",)),
    **dict.fromkeys(("mountain", "mst7mdt", "navajo"), ("America/Denver",)),
    **dict.fromkeys(("pacific", "pst8pdt", "san francisco", "seattle"), ("America/Los_Angeles",)),
    **dict.fromkeys(("zulu", "uct", "universal", "z", "etc/utc", "etc/zulu", "etc/uct"), (UTC_ZONE,)),
    **dict.fromkeys(("greenwich", "gmt", "etc/gmt"), (UTC_ZONE, "Europe/London")),
}
_OFFSET = re.compile(r"(?:UTC|GMT|Z)?\s*([+\-−])\s*(\d{1,2})(?::?([0-5]\d))?", re.IGNORECASE)
_YEAR = 2024  # the year whose winter and summer time tell what an abbreviation or an offset may mean


def timezone_problem(name: str) -> str | None:
    """Why a text is not the name of one certain time zone, with the names to choose from; None if it is one.

    A certain name is an IANA name of a place (``Area/City``), or ``UTC``. An abbreviation belongs to several zones
    (``CST``), and an offset has no summer time and is read with either sign (``Etc/GMT+8`` is eight hours *behind*
    UTC), so both are refused.

    Examples
    --------
    >>> timezone_problem("Asia/Shanghai"), timezone_problem("UTC")
    (None, None)
    >>> print(timezone_problem("CST"))
    'CST' may be Asia/Shanghai, America/Chicago, Asia/Taipei, America/Mexico_City or others: write the one you mean
    >>> print(timezone_problem("Beijing"))
    'Beijing' is not the IANA name of a time zone: write Asia/Shanghai
    """
    known = zoneinfo.available_timezones()
    if name == UTC_ZONE or (name in known and name.partition("/")[0] in AREAS and "/" in name):
        return None
    text = name.strip()
    choices = list(_named(text, known))
    if choices:
        return f"{name!r} is not the IANA name of a time zone: write {_one_of(choices)}"
    if text in ("", "None"):
        return f"{name!r} is not the IANA name of a time zone: write one such as {EXAMPLES}"
    offset = _offset(text)
    if offset is not None:
        reverse = text.lower().startswith("etc/")
        meaning = f"means UTC{_hours(offset)}, because its sign is reversed," if reverse else "is an offset"
        examples = [
            f"{_one_of(list(_at_offset(way, known))[:2])} (UTC{_hours(way)})"
            for way in ((offset, -offset) if reverse else (offset,))
            if any(_at_offset(way, known))
        ]
        such = f", such as {' or '.join(examples)}" if examples else ""
        return f"{name!r} {meaning} and has no summer time: write the name of a place{such}"
    places = list(_abbreviated(text, known))
    if places:
        return f"{name!r} may be {_one_of(places)}: write the one you mean"
    return f"{name!r} is not a time zone{did_you_mean(text, _places(known))}: write an IANA name such as {EXAMPLES}"


def _named(text: str, known: set[str]) -> Iterator[str]:
    """The zones whose name or city is the text, in any case, with blanks or underscores."""
    wanted = " ".join(text.replace("_", " ").split()).casefold()
    yield from PLACES.get(wanted, ())
    if wanted == UTC_ZONE.casefold():
        yield UTC_ZONE
    for zone in _places(known):
        plain = zone.replace("_", " ").casefold()
        if wanted in (plain, plain.rpartition("/")[2]) and wanted not in PLACES:
            yield zone


def _places(known: set[str]) -> list[str]:
    """The zones named after a place; those that many people live in come first, names of before 1993 last."""
    old = ("US", "Canada", "Brazil", "Chile", "Mexico")
    places = (zone for zone in known if zone.partition("/")[0] in AREAS and "/" in zone)
    return sorted(
        places,
        key=lambda zone: (
            COMMON.index(zone) if zone in COMMON else len(COMMON),
            zone.partition("/")[0] in old,
            zone,
        ),
    )


def _offset(text: str) -> timedelta | None:
    """The offset from UTC that a text such as ``UTC+8``, ``+08:00`` or ``Etc/GMT-8`` means."""
    reversed_sign = text.lower().startswith("etc/")
    found = _OFFSET.fullmatch(text[4:] if reversed_sign else text)
    if found is None:
        return None
    sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return offset if (sign == "+") != reversed_sign else -offset


def _hours(offset: timedelta) -> str:
    minutes = int(offset.total_seconds() // 60)
    hours, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02d}" if rest else "")


def _at_offset(offset: timedelta, known: set[str]) -> Iterator[str]:
    moment = datetime(_YEAR, 1, 1, tzinfo=UTC)
    return (zone for zone in _places(known) if moment.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset() == offset)


def _abbreviated(text: str, known: set[str]) -> Iterator[str]:
    """The zones that have the abbreviation in winter or in summer."""
    moments = [datetime(_YEAR, month, 1, tzinfo=UTC) for month in (1, 7)]
    for zone in _places(known):
        place = zoneinfo.ZoneInfo(zone)
        if text.upper() in {moment.astimezone(place).tzname() for moment in moments}:
            yield zone


def _one_of(choices: list[str]) -> str:
    shown = list(dict.fromkeys(choices))
    if len(shown) > MAX_CHOICES:
        return f"{', '.join(shown[:MAX_CHOICES])} or others"
    return " or ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]
