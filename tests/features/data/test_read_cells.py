"""Cells are read as they are where that is certain, and cleaned first otherwise; both ways give the same values."""

from __future__ import annotations

from datetime import date, datetime

import duckdb
import pytest

from features.data.placeholders import PLACEHOLDER_WORDS, is_placeholder
from features.data.sources.casting import cast
from features.data.sources.casting_times import has_offset


def read(dtype: str, cell: str | None, timezone: str = "UTC", decimal: str = ".") -> object:
    planned = cast(dtype, "VARCHAR", "v", timezone, decimal)
    row = duckdb.execute(f"SELECT {planned.value} FROM (SELECT ?::VARCHAR AS v)", [cell]).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize(
    ("dtype", "cell", "value"),
    [
        ("float64", "12.50", 12.5),
        ("float64", " 12.50\t", 12.5),
        ("float64", '="12.50"', 12.5),
        ("float64", "€ 1,250.00", 1250.0),
        ("float64", "(7.50)", -7.5),
        ("float64", "NULL", None),
        ("float64", "inf", None),
        ("float64", "nan", None),
        ("float64", "", None),
        ("float64", None, None),
        ("int64", "12", 12),
        ("int64", "'12", 12),
        ("int64", "9007199254740993", 9007199254740993),
        ("int64", "1.5", None),
        ("bool", "true", True),
        ("bool", " Yes ", True),
        ("bool", "0.0", False),
        ("bool", "maybe", None),
        ("timestamp", "2024-07-01 10:00:00", datetime(2024, 7, 1, 10)),
        ("timestamp", " 2024-07-01 10:00:00", datetime(2024, 7, 1, 10)),
        ("timestamp", "2024-07-01T10:00:00.25+02:00", datetime(2024, 7, 1, 8, 0, 0, 250_000)),
        ("timestamp", "2024-07-01 10:00 +0200\t", datetime(2024, 7, 1, 8)),
        ("timestamp", "2024-07-01 10:00:0Z", None),
        ("timestamp", "infinity", None),
        ("timestamp", "12/1/10", None),
        ("date", "2024-07-01", date(2024, 7, 1)),
        ("date", "'2024-07-01", date(2024, 7, 1)),
    ],
)
def test_a_cell_has_its_value_with_and_without_what_surrounds_it(dtype: str, cell: str | None, value: object) -> None:
    assert read(dtype, cell) == value


def test_a_point_in_a_column_with_decimal_comma_is_not_read_as_it_is() -> None:
    assert [read("float64", cell, decimal=",") for cell in ("1.250", "1.250,50", "3", "12.50")] == [
        1250,
        1250.5,
        3,
        None,
    ]


def test_local_times_are_converted_and_skipped_ones_are_none() -> None:
    cells = ("2024-07-01 12:00:00", " 2024-07-01 12:00:00", "2024-03-31 01:30:00", "2024-03-31T01:30:00Z")
    noon = datetime(2024, 7, 1, 11)
    assert [read("timestamp", cell, "Europe/London") for cell in cells] == [
        noon,
        noon,
        None,
        datetime(2024, 3, 31, 1, 30),
    ]


def test_the_quick_look_for_an_offset_agrees_with_the_pattern() -> None:
    """Every character at every place of a time: what LIKE takes for a time without an offset has none."""
    usual = "2024-07-01 10:00:00"
    characters = [chr(code) for code in range(32, 127)]
    texts = [usual[:at] + one + usual[at + 1 :] for at in range(len(usual)) for one in characters]
    texts += [usual[:at] + one + other for at in (17,) for one in characters for other in characters]
    condition = has_offset("t")
    pattern = condition.split(" ELSE ")[1].removesuffix(" END")
    rows = duckdb.execute(
        f"SELECT t FROM (SELECT unnest(?) AS t) WHERE ({condition}) IS DISTINCT FROM ({pattern})", [texts]
    ).fetchall()
    assert rows == []
    assert duckdb.execute(f"SELECT {condition} FROM (SELECT '{usual}Z ' AS t)").fetchone() == (True,)


def test_no_placeholder_begins_like_a_number() -> None:
    """An id that begins with a digit from 1 to 9 is not compared with the words."""
    assert [word for word in PLACEHOLDER_WORDS if "1" <= word[0] <= "9"] == []
    ids = [f"{digit}{rest}" for digit in range(1, 10) for rest in ("", "0", "000", "99", ".0", "xxx", " null")]
    condition = is_placeholder("source_user_id", "i")
    assert duckdb.execute(f"SELECT count(*) FROM (SELECT unnest(?) AS i) WHERE {condition}", [ids]).fetchone() == (0,)
