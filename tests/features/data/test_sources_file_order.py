"""The files of one glob: their order, files that lack a column, equal files, and addresses of other machines."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pytest

from features.data.lake import literal, quote
from features.data.sources.files import FileSource
from features.data.sources.files.paths import natural_key
from features.data.sources.files.remote_files import copy_files
from tests.features.data.csv_rows import read_csv
from tests.features.data.test_sources_files import Shop, shop  # noqa: F401

CASES = Path(__file__).parents[2] / "data" / "cases"
CRM = "source: crm\ntimezone: UTC\ntables:\n  profiles:\n    path: {}\n    columns: {{source_user_id: id, member_tier: tier, city: town}}\n"
SHOP = """
source: shop
timezone: UTC
tables:
  transactions:
    path: orders*.csv
    columns: {order_id: ORDER, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid}
"""
HEAD = "InvoiceNo,cust,sku,date,qty,paid\n"


@pytest.mark.parametrize(
    "names",
    [
        ["snap_9.csv", "snap_10.csv", "snap_100.csv"],
        ["orders.csv", "orders (1).csv", "orders (2).csv", "orders (10).csv"],
        ["a/2024-9/x.csv", "a/2024-10/x.csv", "b/1.csv"],
        ["x2.csv.gz", "x10.csv"],
        ["Q1.csv", "q2.csv", "Q3.csv"],
        ["export.parquet", "export (1).parquet", "export2.parquet"],
        ["1.csv", "2 (1).csv", "10.csv"],
    ],
)
def test_numbers_in_names_sort_as_numbers(names: list[str]) -> None:
    assert sorted(random.Random(0).sample(names, len(names)), key=lambda name: natural_key(Path(name))) == names


def test_rows_stay_in_the_order_of_the_files_whatever_their_headers(tmp_path: Path) -> None:
    contents = [
        "".join(["a,b\n" if number % 2 else "b,a\n", *(f"{number},{number}\n" for _ in range(3000))]).encode(
            "utf-16" if number % 3 == 0 else "utf-8"
        )
        for number in range(12)
    ]
    read = read_csv(tmp_path, *contents)
    assert [row[0] for row in read.rows] == [str(number) for number in range(12) for _ in range(3000)]
    assert [row[2] for row in read.rows] == [f"{number}.csv" for number in range(12) for _ in range(3000)]


@pytest.mark.parametrize(("yaml", "tier"), [("sources.yaml", "platinum"), ("numbered.yaml", "bronze")])
def test_the_newest_file_of_a_glob_wins(yaml: str, tier: str, shop: Shop) -> None:  # noqa: F811
    for file in (CASES / "06-glob-newest-wins").glob("*.csv"):
        shop.write(file.name, file.read_bytes())
    shop.ingest((CASES / "06-glob-newest-wins" / yaml).read_text())
    assert shop.query("SELECT member_tier, consent_email FROM profiles") == [(tier, False)]


def test_a_file_whose_header_lacks_the_key_stops_the_ingest(shop: Shop) -> None:  # noqa: F811
    shop.write("orders_1.csv", HEAD + "o1,c1,s1,2024-01-01,1,10\n")
    shop.write(
        "orders_2.csv", HEAD.replace("InvoiceNo", "Invoice") + "o2,c1,s1,2024-01-01,1,10\no3,c1,s1,2024-01-01,1,10\n"
    )
    problems = shop.mistakes(SHOP.replace("ORDER", "InvoiceNo"))
    assert len(problems) == 1
    assert (
        "orders_2.csv lacks the column 'InvoiceNo' (did you mean Invoice?), of which order_id is made; 2 rows"
        in problems[0]
    )
    report = shop.ingest(SHOP.replace("ORDER", '"coalesce(InvoiceNo, Invoice)"'))
    assert report.kept == 3
    assert "file_without_column" not in {found.code for found in report.warnings}


@pytest.mark.parametrize("column", ["cust", "sku", "date", "paid"])
def test_customer_item_time_and_amount_are_as_essential_as_the_key(column: str, shop: Shop) -> None:  # noqa: F811
    shop.write("orders_1.csv", HEAD + "o1,c1,s1,2024-01-01,1,10\n")
    shop.write("orders_2.csv", HEAD.replace(column, "other") + "o2,c1,s1,2024-01-01,1,10\n")
    (problem,) = shop.mistakes(SHOP.replace("ORDER", "InvoiceNo"))
    assert f"orders_2.csv lacks the column '{column}'" in problem


def test_a_file_without_an_optional_column_is_read_and_named(shop: Shop) -> None:  # noqa: F811
    one, two = shop.write("crm_1.csv", "id,tier,town\nu1,gold,Bonn\n"), shop.write("crm_2.csv", "id,tier\nu2,silver\n")
    source = FileSource(shop.write("s.yaml", CRM.format("crm_*.csv")))
    with duckdb.connect() as connection:
        (raw,) = source.tables(connection)
    assert raw.absent == {str(two): frozenset({"city"})}
    assert str(one) not in raw.absent
    report = shop.ingest(CRM.format("crm_*.csv"))
    (warning,) = report.warnings
    assert (warning.table, warning.code, warning.rows) == ("profiles", "file_without_column", 1)
    assert "crm_2.csv lacks the column 'town': city has no value" in warning.message
    assert shop.query("SELECT source_user_id, city FROM profiles ORDER BY 1") == [("u1", "Bonn"), ("u2", None)]


def test_parquet_files_are_compared_too(shop: Shop) -> None:  # noqa: F811
    for name, columns in (
        ("crm_1", "'u1' AS id, 'gold' AS tier, 'Bonn' AS town"),
        ("crm_2", "'u2' AS uid, 'silver' AS tier, 'Ulm' AS town"),
    ):
        duckdb.sql(f"COPY (SELECT {columns}) TO {literal(shop.root / (name + '.parquet'))} (FORMAT parquet)")
    (problem,) = shop.mistakes(CRM.format("crm_*.parquet"))
    assert "crm_2.parquet lacks the column 'id' (did you mean uid?), of which source_user_id is made; 1 rows" in problem


def test_equal_files_are_named(shop: Shop) -> None:  # noqa: F811
    for name in ("orders.csv", "orders (1).csv"):
        shop.write(name, HEAD + "o1,c1,s1,2024-01-01,1,10\n")
    shop.write("orders_3.csv", HEAD + "o3,c1,s1,2024-01-01,1,10\n")
    report = shop.ingest(SHOP.replace("ORDER", "InvoiceNo"))
    assert [found.message for found in report.warnings if found.code == "equal_files"] == [
        "orders (1).csv has the same bytes as orders.csv"
    ]


@pytest.mark.parametrize("path", ["https://example.com/orders.csv", "s3://bucket/orders_*.parquet"])
def test_an_address_says_what_duckdb_needs(path: str, shop: Shop) -> None:  # noqa: F811
    (problem,) = shop.mistakes(SHOP.replace("orders*.csv", path).replace("ORDER", "InvoiceNo"))
    assert "httpfs" in problem
    assert "INSTALL httpfs" in problem


def test_files_at_an_address_are_copied_and_keep_their_address(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for number in (9, 10):
        shop.write(
            f"there/{number}/crm.csv", f"id,tier,town\nu{number},gold,Bonn\n" + ("broken\n" if number == 9 else "")
        )
    address = f"file://{shop.root}/there/*/crm.csv"  # DuckDB reads this scheme without an extension
    monkeypatch.setattr("features.data.sources.files.source.can_fetch", lambda: True)
    monkeypatch.setattr(
        "features.data.sources.files.source.fetch",
        lambda pattern, folder: copy_files(duckdb.connect(), pattern, folder),
    )
    source = FileSource(shop.write("s.yaml", CRM.format(address)))
    with duckdb.connect() as connection:
        (raw,) = source.tables(connection)
        files = {row[-1] for row in connection.execute(raw.relation).fetchall()}
        refused = [row[0] for row in connection.execute(str(raw.rejects)).fetchall()]
    assert len(files) == 2
    assert set(raw.files) == files
    assert all("/there/" in file for file in [*files, *refused])
    assert [Path(file).parent.name for file in refused] == ["9"]


@pytest.mark.parametrize("header", ["ORDER,CUST,SKU,DATE,QTY,PAID", "Order , cust ,Sku,Date,Qty ,  Paid"])
def test_headers_of_one_glob_may_differ_in_case_and_blanks(header: str, shop: Shop) -> None:  # noqa: F811
    shop.write("orders_1.csv", "order,cust,sku,date,qty,paid\no1,a,x,2024-01-05,1,10\n")
    shop.write("orders_2.csv", header + "\no2,b,x,2024-01-06,2,20\n")
    shop.ingest(SHOP.replace("amount: paid", "amount: 'PAID * 2'"))
    query = "SELECT order_id, source_user_id, ts::DATE::VARCHAR, quantity, amount FROM transactions ORDER BY 1"
    assert shop.query(query) == [("o1", "a", "2024-01-05", 1.0, 20.0), ("o2", "b", "2024-01-06", 2.0, 40.0)]


def test_columns_of_parquet_files_may_differ_in_case(shop: Shop) -> None:  # noqa: F811
    for number, name in enumerate(("order", "ORDER")):
        rows = f"SELECT 'o{number}' AS {quote(name)}, 'a' AS cust, 'x' AS sku, DATE '2024-01-05' AS date, 1 AS qty, 5 AS paid"
        duckdb.execute(f"COPY ({rows}) TO {literal(str(shop.root / f'orders_{number}.parquet'))}")
    shop.ingest(SHOP.replace("orders*.csv", "orders*.parquet"))
    assert shop.query("SELECT order_id, amount FROM transactions ORDER BY 1") == [("o0", 5.0), ("o1", 5.0)]
