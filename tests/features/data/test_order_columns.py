"""Columns of orders that are easily mapped wrongly: the total of an order as the amount of a line, an unused status."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.features.data.exports import TRANSACTIONS, Export, warned

HEAD = "order,cust,sku,date,qty,total,Unit Price,Order Status"


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


def order(number: int, amounts: list[Any], status: str = "completed") -> list[str]:
    day = f"2024-01-{number % 28 + 1:02} 10:30"
    return [f"o{number},c{number % 7},s{at},{day},1,{amount},5,{status}" for at, amount in enumerate(amounts)]


def read(export: Export, orders: list[list[str]], columns: str = "", amount: str = "total") -> Any:
    rows = [line for lines in orders for line in lines]
    mapping = TRANSACTIONS.replace("amount: paid", f"amount: {amount}{columns}")
    return export.ingest("\n".join([HEAD, *rows]) + "\n", mapping)


def test_the_total_of_an_order_on_each_of_its_lines_is_named(export):
    orders = [order(number, [30 + number] * 3) for number in range(38)] + [order(38, [7, 8]), order(39, [9])]
    (warning,) = [w for w in read(export, orders).warnings if w.code == "order_totals"]
    assert "in 38 of 39 orders with several items" in warning.message
    assert "30 on each of the 3 lines of order o0" in warning.message
    assert warning.rows == 76  # two lines too many in each of 38 orders
    (line,) = [part for part in warning.fix.split("`") if part.startswith("amount: ")]
    assert yaml.safe_load(line) == {"amount": 'qty * "Unit Price"'}
    mended = Export(export.folder / "mended")
    mended.folder.mkdir()
    assert not warned(read(mended, orders, amount=line.removeprefix("amount: ")), "order_totals")
    assert mended.query("SELECT sum(amount) FROM transactions") == [(585.0,)]  # 117 lines of 5


@pytest.mark.parametrize(
    "orders",
    [
        pytest.param([order(n, [30 + n, 31 + n]) for n in range(40)], id="amounts of lines"),
        pytest.param([order(n, [9.99] * 3) for n in range(40)], id="one price in the shop"),
        pytest.param([order(n, [30 + n]) for n in range(40)], id="orders of one line"),
        pytest.param([order(n, [30 + n] * 3) for n in range(19)], id="few orders"),
        pytest.param(
            # each order is of one price level: the items of a level always cost the same
            [[line.replace(",s", f",{n % 3}s") for line in order(n, [10 * (n % 3 + 1)] * 3)] for n in range(60)],
            id="price levels",
        ),
        pytest.param([order(n, [30 + n] * 3 if n % 10 else [1, 2, 3]) for n in range(60)], id="nine tenths"),
    ],
)
def test_equal_amounts_that_are_those_of_the_lines_are_not_named(export, orders):
    assert not warned(read(export, orders), "order_totals")


def test_an_unused_column_that_says_what_was_refunded_or_cancelled_is_named(export):
    words = ["completed", "refunded", "Voided", "completed", "shipped"]
    orders = [order(number, [10], words[number % 5]) for number in range(40)]
    (warning,) = [w for w in read(export, orders, ", status: \"'paid'\"").warnings if w.code == "unused_status"]
    assert warning.rows == 16
    assert "the column Order Status is not used and says refunded, Voided in 16 rows" in warning.message
    (line,) = [part for part in warning.fix.split("`") if part.startswith("status: ")]
    mended = Export(export.folder / "mended")
    mended.folder.mkdir()
    mapping = TRANSACTIONS.replace("amount: paid}", "amount: total}")
    columns = mapping.strip("{}").replace(", ", "\n      ")
    report = mended.ingest("\n".join([HEAD, *sum(orders, [])]) + "\n", f"\n      {columns}\n      {line}")
    assert not warned(report, "unused_status")
    query = "SELECT status, count(*) FROM transactions GROUP BY ALL ORDER BY ALL"
    assert mended.query(query) == [("cancelled", 8), ("paid", 24), ("refunded", 8)]


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        pytest.param(["completed", "refunded"], ", status: \"CASE WHEN qty > 5 THEN 'refunded' END\"", id="mapped"),
        pytest.param(["completed", "shipped"], "", id="all paid"),
        pytest.param(["completed", "refunded", "needs a call"], "", id="other words"),
        pytest.param([f"refund of {n}" for n in range(60)], "", id="free text"),
    ],
)
def test_a_column_that_says_nothing_about_refunds_is_not_named(export, words, columns):
    orders = [order(number, [10], words[number % len(words)]) for number in range(60)]
    assert not warned(read(export, orders, columns), "unused_status")


def test_refunds_that_their_sign_tells_need_no_status(export):
    orders = [order(1, [10], "Sale"), order(2, [-10], "Return")]
    orders[1] = [line.replace(",1,-10,", ",-1,-10,") for line in orders[1]]
    assert not warned(read(export, orders), "unused_status")


def test_lines_of_sums_are_no_orders(export):
    columns = TRANSACTIONS.replace("ts: date, ", "")
    totals = ["Total,,,,3,30", "Grand Total,,,,,30", "Summe:,,,,3,30", "合计,,,,3,30", "小计：,,,,3,30"]
    orders = ["o1,a,x,,1,10", "Total,b,x,,1,20", "totalus,,,,1,5"]
    report = export.ingest("\n".join(["order,cust,sku,date,qty,paid", *orders, *totals]) + "\n", columns)
    assert report.tables["transactions"].quarantined == 5
    assert export.query("SELECT order_id, amount FROM transactions ORDER BY amount") == [
        ("totalus", 5.0),
        ("o1", 10.0),
        ("Total", 20.0),
    ]
