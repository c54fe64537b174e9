"""`qianmian ingest init`: a proposal for an unknown export ingests after its questions are answered."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.data.sources.propose import propose, read_sample
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

CASES = Path(__file__).parents[2] / "data" / "cases"
TAOBAO = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,fav,1511561733\n2,2576651,149192,cart,1511572885\n2,3830808,4181361,buy,1511593493\n"
RETAIL = (
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    "536365,85123A,HOLDER,6,13/12/2010 08:26,2.55,17850,United Kingdom\n"
    "536366,22633,WARMER,2,01/12/2010 08:28,1.85,13047,France\n"
)


def proposed(folder: Path, *files: Path) -> str:
    text, _ = propose([read_sample(file) for file in files], folder)
    (folder / "sources.yaml").write_text(text, encoding="utf-8")
    return text


def rows(folder: Path, columns: str, table: str = "transactions") -> list[tuple[Any, ...]]:
    workspace = Workspace(folder / "workspace")
    ingest(workspace, FileSource(folder / "sources.yaml"), Settings())
    return Lake(workspace).connect().con.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()


def copied(case: str, name: str, folder: Path) -> Path:
    return Path(shutil.copy(CASES / case / name, folder / name))


@pytest.mark.parametrize(
    ("case", "name", "columns", "expected"),
    [
        (
            "11-shopify-orders-export",
            "orders.csv",
            "order_id, item_id, ts::VARCHAR, amount, status",
            [
                ("#1001", "MUG-1", "2025-10-07 07:50:26", 20.0, "paid"),
                ("#1001", "TEA-1", "2025-10-07 07:50:26", 15.0, "paid"),
                ("#1002", "MUG-1", "2025-10-08 21:30:00", 10.0, "refunded"),
                ("#1002", "TEA-1", "2025-10-08 21:30:00", 15.0, "refunded"),
            ],
        ),
        ("12-german-export", "orders.csv", "sum(amount), count(*)", [(2537.5, 4)]),
        ("18-instant-sep-line", "orders.csv", "order_id, amount", [("o1", 10.0)]),
        (
            "19-amazon-preface",
            "orders.txt",
            "order_id, ts::VARCHAR",
            [
                ("026-1", "2024-01-01 10:00:00"),
                ("026-2", "2024-01-02 10:00:00"),
            ],
        ),
        ("20-utf16-and-gbk", "orders.csv", "order_id, source_user_id, amount", [("o1", "c1", 10.0)]),
        ("20-utf16-and-gbk", "gbk.csv", "order_id, source_user_id, item_id", [("o1", "张三", "面霜")]),
        ("34-windows-1252", "orders.csv", "item_id", [("L’Oréal – 5€",)]),
        ("42-epoch-milliseconds", "orders.csv", "min(ts)::VARCHAR", [("2015-06-02 05:02:12.117",)]),
    ],
)
def test_the_exports_of_the_cases_ingest_as_proposed(
    case: str, name: str, columns: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    proposed(tmp_path, copied(case, name, tmp_path))
    assert rows(tmp_path, columns) == expected


def test_a_file_without_a_header_is_recognised_by_its_values(tmp_path: Path) -> None:
    (tmp_path / "behaviour.csv").write_text(TAOBAO)
    text = proposed(tmp_path, tmp_path / "behaviour.csv")
    assert "the file has no header line" in text
    assert rows(tmp_path, "source_user_id, item_id, category, event_type, ts::VARCHAR", "events")[0] == (
        "1",
        "2268318",
        "2520377",
        "view",
        "2017-11-24 17:21:10",
    )


def test_price_times_quantity_and_a_date_that_only_one_order_fits(tmp_path: Path) -> None:
    (tmp_path / "online.csv").write_text(RETAIL)
    text = proposed(tmp_path, tmp_path / "online.csv")
    assert "%d/%m/%Y" in text
    assert "not used: Description, Country" in text
    assert rows(tmp_path, "order_id, source_user_id, ts::VARCHAR, amount") == [
        ("536365", "17850", "2010-12-13 08:26:00", pytest.approx(15.3)),
        ("536366", "13047", "2010-12-01 08:28:00", pytest.approx(3.7)),
    ]


def test_what_the_file_leaves_open_is_asked(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(RETAIL.replace("13/12", "12/12"))
    text = proposed(tmp_path, tmp_path / "orders.csv")
    assert "is the first number the day" in text
    assert "in which zone are the clocks" in text
    (tmp_path / "customers.csv").write_text("Kundennr,Geburtsdatum,Ort\nk1,31.12.1980,Bonn\n")
    text = proposed(tmp_path, tmp_path / "orders.csv", tmp_path / "customers.csv")
    assert "profiles:" in text
    assert "strptime(Geburtsdatum, '%d.%m.%Y')" in text


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("45292.5", "2024-01-01 12:00:00"),  # Excel's days
        ("1/31/24 8:26 PM", "2024-01-31 20:26:00"),
        ("2024年1月2日", "2024-01-02 00:00:00"),
        ("2024/1/2 8:26", "2024-01-02 08:26:00"),  # ingest reads it without an expression
    ],
)
def test_a_format_that_ingest_would_name_is_proposed(tmp_path: Path, time: str, expected: str) -> None:
    (tmp_path / "orders.csv").write_text(f"order;customer;sku;order date;qty;paid\no1;c1;mug;{time};1;9.50\n")
    proposed(tmp_path, tmp_path / "orders.csv")
    assert rows(tmp_path, "ts::VARCHAR, amount") == [(expected, 9.5)]


def test_lines_before_the_header_are_counted_as_reading_counts_them(tmp_path: Path) -> None:
    text = "sep=;\nOrders of January\n\norder;customer;sku;date;qty;paid\no1;c1;mug;2024-01-02;1;9,50\n"
    (tmp_path / "orders.csv").write_text(text, encoding="utf-16-le")  # without a byte order mark
    proposed(tmp_path, tmp_path / "orders.csv")
    assert rows(tmp_path, "order_id, item_id, amount") == [("o1", "mug", 9.5)]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_no_table_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match="empty"):
        read_sample(tmp_path / "a.csv")


def test_a_separator_within_quotes_is_no_separator_and_an_order_without_address_has_no_customer(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(
        "order,e-mail,sku,date,qty,amount\n"
        + "".join(f'o{n},a{n}@example.org,"Tea, {n}00 g",2024-01-0{n} 10:00 +0100,1,9\n' for n in range(1, 5))
        + "o5,,Mug,2024-01-05 10:00 +0100,1,9\n"
    )
    text = proposed(tmp_path, tmp_path / "orders.csv")
    assert "skip" not in text
    assert "timezone: UTC    # no time needs it" in text
    found = rows(tmp_path, "item_id, source_user_id IS NULL, ts::VARCHAR")
    assert found[0] == ("Mug", True, "2024-01-05 09:00:00")
    assert found[1:] == [(f"Tea, {n}00 g", False, f"2024-01-0{n} 09:00:00") for n in range(1, 5)]


def test_umlauts_before_letters_are_no_chinese(tmp_path: Path) -> None:
    (tmp_path / "kunden.csv").write_bytes("Kundennr;Straße;Ort\nk1;Am Markt;München\nk2;Weg 1;Köln\n".encode("cp1252"))
    text = proposed(tmp_path, tmp_path / "kunden.csv")
    assert ("encoding: windows-1252" in text, "Asia" in text) == (True, False)
