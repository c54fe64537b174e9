"""A time zone is one certain zone: what may be several is refused with the names to write."""

from __future__ import annotations

import zoneinfo

import pytest

from qianmian.config import load_settings
from qianmian.errors import ConfigError
from qianmian.settings import Settings
from qianmian.timezones import AREAS, timezone_problem


@pytest.mark.parametrize(
    "name", ["UTC", "Asia/Shanghai", "America/New_York", "America/Argentina/Ushuaia", "US/Eastern"]
)
def test_an_iana_name_of_a_place_is_certain(name):
    assert timezone_problem(name) is None


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("CST", ("Asia/Shanghai", "America/Chicago")),
        ("EST", ("America/New_York",)),
        ("IST", ("Asia/Kolkata", "Asia/Jerusalem", "Europe/Dublin")),
        ("EDT", ("America/New_York",)),
        ("JST", ("Asia/Tokyo",)),
        ("GMT", ("UTC", "Europe/London")),
        ("GMT+8", ("Asia/Shanghai", "UTC+8")),
        ("UTC+8", ("Asia/Shanghai", "UTC+8")),
        ("UTC+05:30", ("Asia/Kolkata", "UTC+5:30")),
        ("-05:00", ("America/New_York", "UTC-5")),
        ("Etc/GMT+8", ("UTC-8", "America/Los_Angeles", "Asia/Shanghai")),
        ("Etc/GMT-5", ("UTC+5", "Asia/Karachi", "America/New_York")),
        ("Beijing", ("Asia/Shanghai",)),
        ("北京时间", ("Asia/Shanghai",)),
        ("PRC", ("Asia/Shanghai",)),
        ("EST5EDT", ("America/New_York",)),
        ("london", ("Europe/London",)),
        ("New York", ("America/New_York",)),
        ("asia/shanghai", ("Asia/Shanghai",)),
        (" Asia/Shanghai", ("Asia/Shanghai",)),
        ("utc", ("UTC",)),
        ("Etc/UTC", ("UTC",)),
        ("Europe/Lndon", ("Europe/London",)),
        ("", ("Europe/London",)),
        ("nowhere", ("Europe/London",)),
        ("../etc/passwd", ("Europe/London",)),
    ],
)
def test_any_other_name_is_refused_with_the_names_to_write(name, choices):
    problem = timezone_problem(name)
    assert problem is not None
    assert [choice for choice in choices if choice not in problem] == []


def test_every_place_of_the_database_is_certain():
    places = [zone for zone in zoneinfo.available_timezones() if zone.partition("/")[0] in AREAS]
    assert len(places) > 400
    assert [zone for zone in places if timezone_problem(zone)] == []


def test_the_settings_refuse_an_uncertain_zone(tmp_path):
    path = tmp_path / "qianmian.yaml"
    path.write_text("timezone: CST\nseed: many\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert "Asia/Shanghai" in str(caught.value)
    assert "seed" in str(caught.value)


def test_without_a_zone_days_and_hours_are_those_of_utc():
    assert Settings().calendar_timezone == "UTC"
    assert Settings(timezone="Asia/Kolkata").calendar_timezone == "Asia/Kolkata"
