"""The typical time range: a wrong clock does not extend it, and a shop with breaks or few orders loses no row."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from features.data.time_range import OUTLIER_GAP_DAYS, empty_stretches, typical_time_range

START = date(2024, 1, 1)


def every(step, count, rows=1, start=START):
    """`count` days with `rows` rows each, every `step` days."""
    return [(start + timedelta(days=step * number), rows) for number in range(count)]


def after(days, gap, *rows):
    """Days with these numbers of rows, the first `gap` days after the last of `days`."""
    return [(days[-1][0] + timedelta(days=gap + number), count) for number, count in enumerate(rows)]


def end_of(days):
    return (typical_time_range(days)[1] - timedelta(days=1)).date()


def test_nothing_has_no_range():
    assert typical_time_range([]) == (None, None)
    assert empty_stretches([]) == []


def test_one_day_is_a_range():
    assert typical_time_range([(date(2024, 2, 28), 1)]) == (datetime(2024, 2, 28), datetime(2024, 2, 29))


def test_strays_at_both_ends_are_left_out():
    days = [
        (date(1970, 1, 1), 2),
        (date(2001, 1, 1), 1),
        *((date(2024, 1, day), 500) for day in range(1, 31)),
        (date(2037, 1, 1), 3),
        (date(2099, 1, 1), 1),
    ]
    assert typical_time_range(days) == (datetime(2024, 1, 1), datetime(2024, 1, 31))
    before, later = empty_stretches(days)
    assert (before.after, before.rows, before.first, before.last) == (False, 3, date(1970, 1, 1), date(2001, 1, 1))
    assert (later.after, later.rows, later.start, later.end) == (True, 4, date(2024, 1, 30), date(2037, 1, 1))
    assert before.text == "the first 648 months hold 3 rows (1970-01-01 to 2001-01-01); all others begin 2024-01-01"


@pytest.mark.parametrize(
    ("real", "strays"),
    [
        (every(7, 30, 60), (1,)),  # 60 weekly customers and one row
        (every(1, 200, 1)[:150] + every(2, 75, 2, START + timedelta(days=150)), (1,)),  # 1 of 300
        (every(2, 150, 2), (1, 1)),  # two rows of one customer on successive days
        (every(2, 150, 2), (2,)),
        (every(1, 365, 4000), (100,)),  # a till that is on for a whole day
    ],
)
@pytest.mark.parametrize("months", [14, 27, 120])
def test_a_few_rows_long_after_all_others_do_not_set_the_end(real, strays, months):
    days = [*real, *after(real, round(months * 30.44), *strays)]
    assert end_of(days) == real[-1][0]
    (stretch,) = empty_stretches(days)
    assert stretch.rows == sum(strays)
    # the same rows long before all others do not set the beginning
    mirrored = [(START - (day - START), rows) for day, rows in reversed(days)]
    assert typical_time_range(mirrored)[0].date() == START - (real[-1][0] - START)


@pytest.mark.parametrize(
    "days",
    [
        every(30, 24),  # one order a month
        [*every(30, 24), *after(every(30, 24), 150, 1)],  # and a break of five months
        every(91, 12, 3),  # one delivery a quarter
        [*every(7, 100, 20), *after(every(7, 100, 20), 120, 20, 20)],  # four months closed, open for two days
        [*every(1, 300, 8), *after(every(1, 300, 8), 90, 8)],  # three months closed, open for a day
        [(START, 3), (START + timedelta(days=365), 1)],  # four orders
        [*every(1, 60), *after(every(1, 60), 400, 1)],  # 1 of 61 rows
        [*every(14, 120), *after(every(14, 120), 800, 1)],  # an order is worth two weeks of such a shop
        [*every(1, 3), *after(every(1, 3), 700, *[2] * 20)],
    ],
)
def test_real_rows_are_never_left_out(days):
    assert empty_stretches(days) == []
    begin, end = typical_time_range(days)
    assert (begin.date(), end.date()) == (days[0][0], days[-1][0] + timedelta(days=1))


@pytest.mark.parametrize(("silent_days", "kept"), [(1, True), (OUTLIER_GAP_DAYS, True), (OUTLIER_GAP_DAYS + 1, False)])
def test_a_thin_last_day_is_lost_only_after_a_gap(silent_days, kept):
    dense, thin = START, START + timedelta(days=silent_days)
    assert end_of([(dense, 5000), (thin, 1)]) == (thin if kept else dense)


@pytest.mark.parametrize(("rows", "kept"), [(10, False), (11, True)])
def test_more_than_a_hundredth_of_the_rows_are_no_strays(rows, kept):
    days = [(START, 990), (date(2037, 1, 1), rows)]
    assert end_of(days) == (date(2037, 1, 1) if kept else START)


def test_a_shop_that_opened_again_is_inside_after_a_hundredth_of_the_gap():
    before = every(1, 400, 10)
    sold = [end_of([*before, *after(before, 300, *[10] * days)]) - before[-1][0] for days in (1, 2, 3, 4)]
    assert [found > timedelta(0) for found in sold] == [False, False, True, True]
