"""Refunds under the line number of their sale, with a time of their own: rows beside the sale, in whatever order they come."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.data.line_states import Line, State, follow
from tests.examples import examples
from tests.features.data.test_order_lines import Shop, codes

HEADER = "order,line,cust,sku,date,qty,paid,type"
COLUMNS = (
    "order_id: order, line_no: line, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid, "
    "status: type"
)
SALE = "o1,1,a,x,2024-01-05,3,30.00,paid"
FIRST, SECOND = "o1,1,a,x,2024-01-09,-1,-10.00,refunded", "o1,1,a,x,2024-01-19,-1,-10.00,refunded"
ROWS = [
    ("2024-01-05", 3.0, 30.0, "paid"),
    ("2024-01-09", 1.0, 10.0, "refunded"),
    ("2024-01-19", 1.0, 10.0, "refunded"),
]


def read(shop: Shop, *files: list[str]) -> tuple[int, int, int, int, int]:
    table = shop.read(*files, header=HEADER, columns=COLUMNS).tables["transactions"]
    assert table.read == table.kept + table.duplicates + table.quarantined
    return table.kept, table.updated, table.duplicates, table.quarantined, table.flags.get("status_changed", 0)


def lines(shop: Shop) -> list[tuple[Any, ...]]:
    return shop.rows("SELECT ts::DATE::VARCHAR, quantity, amount, status FROM transactions ORDER BY ALL")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_two_credit_notes_in_the_file_of_their_sale(shop: Shop) -> None:
    report = shop.read([SALE, FIRST, SECOND], header=HEADER, columns=COLUMNS)
    assert lines(shop) == ROWS
    assert report.tables["transactions"].kept == 3
    assert "renumbered_lines" not in codes(report)
    assert read(shop, [SALE, FIRST, SECOND]) == (0, 0, 3, 0, 0)
    assert read(shop, [SECOND]) == (0, 0, 1, 0, 0)
    assert lines(shop) == ROWS


def test_the_sale_may_come_after_its_refunds(shop: Shop) -> None:
    assert read(shop, [SECOND]) == (1, 0, 0, 0, 0)
    assert read(shop, [FIRST]) == (1, 0, 0, 0, 0)
    assert read(shop, [SALE]) == (1, 0, 0, 0, 0)
    assert lines(shop) == ROWS
    assert read(shop, [SALE], [FIRST], [SECOND]) == (0, 0, 3, 0, 0)
    (sale,) = shop.rows("SELECT line_no FROM transactions WHERE status = 'paid'")
    assert sale == (1,)


@pytest.mark.parametrize("quantities", ["3,30.00", "0,"], ids=["all said", "no amount"])
@pytest.mark.parametrize("sale_first", [True, False])
def test_a_cancellation_at_a_later_time_takes_the_place_of_its_sale(
    shop: Shop, sale_first: bool, quantities: str
) -> None:
    cancelled, again = (f"o1,1,a,x,2024-01-{day},{quantities},cancelled" for day in ("11", "15"))
    for row in (SALE, cancelled) if sale_first else (cancelled, SALE):
        read(shop, [row])
    kept = (3.0, 30.0) if sale_first or quantities != "0," else (0.0, None)
    assert lines(shop) == [("2024-01-11", *kept, "cancelled")]
    assert read(shop, [SALE], [cancelled], [again]) == (0, 0, 3, 0, 0)
    assert lines(shop) == [("2024-01-11", *kept, "cancelled")]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_cancelled_line_has_no_refunds_whatever_came_first(order: tuple[int, ...]) -> None:
    """What never happened cannot be returned; else refunds would be left that no sale belongs to."""
    moment = datetime(2024, 1, 5)

    def line(row: int, status: str, days: int, units: float) -> Line:
        return Line(row, status, False, 7, moment + timedelta(days=days), (units, 10 * units, None, None))

    rows = [
        line(0, "paid", 0, 3.0),
        line(1, "refunded", 4, 1.0),
        line(2, "cancelled", 6, 3.0),
        line(3, "refunded", 8, 1),
    ]
    state = State()
    for place in order:
        after = follow(state, rows[place])
        assert after is not None, "no row is refused"
        state = after
    assert state == State(rows[2])


def test_a_line_that_is_cancelled_in_its_place_has_no_refunds(shop: Shop) -> None:
    read(shop, [SALE], [FIRST], ["o1,1,a,x,2024-01-05,3,30.00,cancelled"])
    assert lines(shop) == [("2024-01-05", 3.0, 30.0, "cancelled")]
    assert read(shop, [FIRST]) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize("cancelled_last", [True, False])
def test_in_the_lake_a_cancelled_line_has_no_refunds_either(shop: Shop, cancelled_last: bool) -> None:
    cancelled = "o1,1,a,x,2024-01-12,3,30.00,cancelled"
    rows = (SALE, FIRST, cancelled) if cancelled_last else (cancelled, FIRST, SALE)
    reports = [read(shop, [row]) for row in rows]
    assert [report[3] for report in reports] == [0, 0, 0], "nothing is refused"
    assert lines(shop) == [("2024-01-12", 3.0, 30.0, "cancelled")]
    assert read(shop, [SALE, FIRST], [cancelled]) == (0, 0, 3, 0, 0)
    assert lines(shop) == [("2024-01-12", 3.0, 30.0, "cancelled")]


def test_a_refund_in_place_beside_a_later_credit_note(shop: Shop) -> None:
    read(shop, [SALE], [FIRST])
    assert read(shop, ["o1,1,a,x,2024-01-05,1,10.00,refunded"]) == (1, 0, 0, 0, 1)  # a part, at the time of the sale
    assert lines(shop) == sorted([*ROWS[:2], ("2024-01-05", 1.0, 10.0, "refunded")])


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("o1,1,a,x,2024-01-09,-2,-20.00,refunded", id="a known refund with another amount"),
        pytest.param("o1,1,a,y,2024-01-11,-1,-10.00,refunded", id="a refund of another item"),
        pytest.param("o1,1,a,x,2024-01-01,-1,-10.00,refunded", id="a refund before its sale"),
        pytest.param("o1,1,a,x,2024-01-11,0,,refunded", id="a refund that does not say of how much"),
        pytest.param("o1,1,a,x,2024-01-11,3,30.00,paid", id="a sale at another time"),
        pytest.param("o1,1,a,x,2024-01-02,3,30.00,cancelled", id="cancelled before its sale"),
        pytest.param("o1,1,a,x,2024-01-11,4,40.00,cancelled", id="more cancelled than was sold"),
    ],
)
def test_other_rows_with_the_key_of_the_sale_are_refused(shop: Shop, row: str) -> None:
    read(shop, [SALE, FIRST])
    assert read(shop, [SALE, row]) == (0, 0, 1, 1, 0)
    assert lines(shop) == ROWS[:2]


def test_a_row_with_negative_numbers_is_a_refund_without_a_status(shop: Shop) -> None:
    columns = COLUMNS.removesuffix(", status: type")
    for _ in range(2):
        shop.read([FIRST, SALE, SECOND], header=HEADER, columns=columns)
        assert lines(shop) == ROWS


_order = st.permutations(
    [SALE, FIRST, SECOND, "o1,2,a,y,2024-01-05,1,5.00,paid", "o1,2,a,y,2024-01-06,1,5.00,refunded"]
)


@settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_order, cuts=st.lists(st.integers(1, 4), max_size=2, unique=True))
def test_the_order_and_the_files_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], cuts: list[int]
) -> None:
    ends = [0, *sorted(cuts), len(rows)]
    files = [rows[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    together, apart, sorted_rows = (Shop(tmp_path_factory.mktemp("shop")) for _ in range(3))
    assert read(together, *files)[3] == 0
    for file in files:
        read(apart, file)
    read(sorted_rows, sorted(rows))
    query = "SELECT * FROM transactions ORDER BY ALL"
    assert together.rows(query) == apart.rows(query) == sorted_rows.rows(query)
    assert len(apart.rows(query)) == 5
    assert read(apart, *files)[0] == 0
