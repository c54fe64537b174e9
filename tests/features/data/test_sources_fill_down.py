"""Exports that fill the cells of an order only in its first line (Shopify)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.features.data.test_sources_files import Shop, shop  # noqa: F401

CASE = Path(__file__).parents[2] / "data" / "cases" / "11-shopify-orders-export"
YAML = """
source: shop
timezone: UTC
tables:
  transactions:
    path: orders*.csv
    FILL
    columns: {order_id: ORDER, source_user_id: cust, item_id: sku, ts: date, amount: paid, status: state}
"""
HEAD = "order,cust,sku,date,paid,state\n"
ORDERS = HEAD + (
    "o1,c1,s1,2024-01-01,1,refunded\no1,c1,s2,2024-01-01,2,\no2,c2,s1,2024-01-02,3,paid\no2,c2,s3,2024-01-02,4, \n"
    "o3,c3,s1,2024-01-03,5,paid\no3,c3,s2,2024-01-03,6,\n"
)


def yaml(fill: str, order: str = "order") -> str:
    return YAML.replace("FILL", fill).replace("ORDER", order)


def test_the_shopify_export_refunds_the_whole_order(shop: Shop) -> None:  # noqa: F811
    shop.write("orders.csv", (CASE / "orders.csv").read_bytes())
    given = (CASE / "strptime.yaml").read_text()
    assert 'add `fill_down: ["Financial Status"]`' in shop.mistakes(given)[0]
    shop.ingest(given.replace("    path:", '    fill_down: ["Financial Status"]\n    path:'))
    assert shop.query("SELECT status, sum(amount), count(*) FROM transactions GROUP BY 1 ORDER BY 1") == [
        ("paid", 35.0, 2),
        ("refunded", 25.0, 2),
    ]


def test_blank_cells_have_the_value_of_their_own_order(shop: Shop) -> None:  # noqa: F811
    shop.write("orders_1.csv", ORDERS)
    shop.write("orders_2.csv", HEAD + "o3,c3,s9,2024-01-03,6,\no4,c4,s1,2024-01-04,7,cancelled\n")
    shop.ingest(yaml("fill_down: [state]"))
    rows = shop.query("SELECT order_id, item_id, status FROM transactions ORDER BY amount, item_id")
    assert rows == [
        ("o1", "s1", "refunded"),
        ("o1", "s2", "refunded"),
        ("o2", "s1", "paid"),
        ("o2", "s3", "paid"),
        ("o3", "s1", "paid"),
        ("o3", "s2", "paid"),
        ("o3", "s9", "paid"),  # blank in its file: no value of another order or file; paid is the default
        ("o4", "s1", "cancelled"),
    ]


def test_an_order_number_may_be_filled_down_itself(shop: Shop) -> None:  # noqa: F811
    shop.write(
        "orders.csv",
        HEAD
        + "o1,c1,s1,2024-01-01,1,refunded\n,c1,s2,2024-01-01,2,\no2,c2,s1,2024-01-02,3,paid\n,c2,s2,2024-01-02,4,\n",
    )
    shop.ingest(yaml("fill_down: [order, state]"))
    assert shop.query("SELECT order_id, item_id, status FROM transactions ORDER BY amount") == [
        ("o1", "s1", "refunded"),
        ("o1", "s2", "refunded"),
        ("o2", "s1", "paid"),
        ("o2", "s2", "paid"),
    ]


def test_an_order_number_may_be_an_expression(shop: Shop) -> None:  # noqa: F811
    shop.write("orders.csv", ORDERS)
    shop.ingest(yaml("fill_down: [state]", '"\'EU-\' || \\"order\\""'))
    assert shop.query(
        "SELECT order_id, count(*) FILTER (status = 'refunded') FROM transactions GROUP BY 1 ORDER BY 1"
    ) == [
        ("EU-o1", 2),
        ("EU-o2", 0),
        ("EU-o3", 0),
    ]


def test_blank_cells_may_be_meant(shop: Shop) -> None:  # noqa: F811
    shop.write("orders.csv", ORDERS)
    assert shop.ingest(yaml("fill_down: []")).kept == 6
    assert shop.query("SELECT count(*) FROM transactions WHERE status = 'refunded'") == [(1,)]


def test_a_customer_in_the_first_line_only_is_a_warning(shop: Shop) -> None:  # noqa: F811
    text = ORDERS.replace("o1,c1,s2", "o1,,s2").replace("o2,c2,s3", "o2,,s3").replace("o3,c3,s2", "o3,,s2")
    shop.write("orders.csv", text)
    report = shop.ingest(yaml("").replace(", status: state", ""))
    fixes = {found.code: found.fix for found in report.warnings}
    assert fixes["first_line_cells"].split("`")[1] == 'fill_down: ["cust"]'


@pytest.mark.parametrize(
    "text",
    [
        ORDERS.replace("2024-01-01,2,\n", "2024-01-01,2,refunded\n"),  # one order has the cell in all lines
        HEAD
        + "o1,c1,s1,2024-01-01,1,paid\no1,c1,s2,2024-01-01,2,\no2,c1,s2,2024-01-01,2,paid\n",  # one order is no pattern
        ORDERS + "o9,c1,s1,2024-01-09,1,\n",  # a blank status in an order of one line
    ],
)
def test_other_blanks_are_left_alone(text: str, shop: Shop) -> None:  # noqa: F811
    shop.write("orders.csv", text)
    assert "first_line_cells" not in {found.code for found in shop.ingest(yaml("")).warnings}


def test_mistakes_in_fill_down(shop: Shop) -> None:  # noqa: F811
    shop.write("orders.csv", ORDERS)
    assert "fill_down: 'stat' is no column (did you mean state?)" in shop.mistakes(yaml("fill_down: [stat]"))[0]
    items = "source: x\ntables: {items: {path: orders.csv, fill_down: [sku], columns: {item_id: sku}}}"
    assert "it needs order_id" in shop.mistakes(items)[0]
