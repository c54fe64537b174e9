"""Checks of the ingested rows: what is odd is said, with the line that mends it; what is usual is not."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from features.compute.builder import Builder
from features.data.ingest import IngestWarning, ingest, preview
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.definitions import FEATURES
from features.shared_accounts import shared_accounts
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.data.exports import Export, warned

ORDERS = "    columns: {order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid}\n"
HEAD = "order,cust,sku,date,qty,paid\n"


class Shop:
    """A folder with a sources.yaml over `orders.csv` and, if it is written, `items.csv`."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace = root, Workspace(root / "workspace")

    def source(self, orders: list[tuple[Any, ...]], items: list[str] | None = None, keys: str = "") -> FileSource:
        lines = "".join(",".join(str(value) for value in row) + "\n" for row in orders)
        (self.root / "orders.csv").write_text(HEAD + lines, encoding="utf-8")
        yaml = f"source: shop\ntimezone: Europe/London\n{keys}tables:\n  transactions:\n    path: orders.csv\n{ORDERS}"
        if items is not None:
            (self.root / "items.csv").write_text("sku,cat\n" + "".join(f"{item},A\n" for item in items))
            yaml += "  items:\n    path: items.csv\n    columns: {item_id: sku, category: cat}\n"
        (self.root / "sources.yaml").write_text(yaml, encoding="utf-8")
        return FileSource(self.root / "sources.yaml")

    def warnings(self, *args: Any, **more: Any) -> dict[str, IngestWarning]:
        return {found.code: found for found in ingest(self.workspace, self.source(*args, **more), Settings()).warnings}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(sql).fetchall()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def orders(number: int, customers: int = 20, items: int = 10) -> list[tuple[Any, ...]]:
    return [
        (f"o{i}", f"c{i % customers}", f"s{i % items}", f"2024-01-{i % 28 + 1:02d} 10:30", 1, 10) for i in range(number)
    ]


def test_an_ordinary_shop_has_no_warnings(shop: Shop) -> None:
    # ids 1, 11 and 2222 are households of a grocer, not placeholders
    rows = [
        (f"o{i}", [1, 11, 2222, 4][i % 4], f"s{i % 10}", f"2024-01-{i % 28 + 1:02d} 10:30", 1, 10) for i in range(200)
    ]
    assert shop.warnings(rows, [f"s{i}" for i in range(12)]) == {}


@pytest.mark.parametrize(
    ("spelled", "what", "fix"),
    [
        ("c1 ", "blanks or invisible characters", "regexp_replace"),
        ("c1\u200b", "blanks or invisible characters", "regexp_replace"),
        ("C1", "the case of letters", "upper"),
        ("ｃ1", "full-width", "translate(\"cust\", 'ｃ', 'c')"),
    ],
)
def test_ids_that_differ_only_in_spelling_are_named(shop: Shop, spelled: str, what: str, fix: str) -> None:
    found = shop.warnings([*orders(40), ("x", spelled, "s1", "2024-01-01 10:30", 1, 10)])["ids_spelled_differently"]
    assert found.rows == 2
    assert what in found.message
    assert f"source_user_id: {fix}" in found.fix
    assert shop.query("SELECT count(DISTINCT source_user_id) FROM transactions") == [(21,)]  # the text stays as it is


def test_invisible_characters_are_named_and_the_fix_removes_them(shop: Shop) -> None:
    marks = "\u200e\u200f\u202a\u2066\u2069\xad\u180e\ufeff\u2800\u3164\u034f\x07"
    rows = [(f"x{i}", f"c{mark}1", f"s1{mark}", "2024-01-01 10:30", 1, 10) for i, mark in enumerate(marks)]
    source = shop.source([*orders(40), *rows])
    yaml = (shop.root / "sources.yaml").read_text(encoding="utf-8")
    for found in preview(shop.workspace, source, Settings()).warnings:
        assert f"{len(marks) + 1} " in found.message
        column, expression = found.fix.split("`")[1].split(": ", 1)
        mapped = {"source_user_id": "cust", "item_id": "sku"}[column]
        yaml = yaml.replace(f"{column}: {mapped}", f"{column}: '{expression.replace(chr(39), chr(39) * 2)}'")
    (shop.root / "sources.yaml").write_text(yaml, encoding="utf-8")
    assert ingest(shop.workspace, FileSource(shop.root / "sources.yaml"), Settings()).warnings == ()
    found = shop.query("SELECT DISTINCT source_user_id, item_id FROM transactions WHERE order_id LIKE 'x%'")
    assert found == [("c1", "s1")]


def test_an_id_counts_in_one_warning(shop: Shop) -> None:
    same = ["ab cd", "ab\u3000cd", "ab\xa0cd", "abcd", "ABCD"]  # NFKC makes blanks of the second and the third
    rows = [*orders(40), *((f"x{i}", name, "s1", "2024-01-01 10:30", 1, 10) for i, name in enumerate(same))]
    report = ingest(shop.workspace, shop.source(rows), Settings())
    messages = [found.message for found in report.warnings if found.code == "ids_spelled_differently"]
    assert [message.split(": ")[0] for message in messages] == [
        "4 customers would be 1 without blanks or invisible characters",
        "2 customers would be 1 without the case of letters",
    ]


def test_orders_of_one_customer_and_day_that_differ_only_in_spelling_are_named(shop: Shop) -> None:
    def numbered(*numbers: str) -> list[tuple[Any, ...]]:
        return [(n, f"c{int(n) % 7}", "s1", f"2024-01-{int(n) % 28 + 1:02d} 10:30", 1, 10) for n in numbers]

    # the till of another store has the numbers 7 and 8 too, for other customers or on other days
    tills = [("7", "c3", "s1", "2024-01-08 10:30", 1, 10), ("8", "c1", "s1", "2024-01-10 10:30", 1, 10)]
    assert "ids_spelled_differently" not in shop.warnings([*numbered(*(f"{n:04}" for n in range(1, 31))), *tills])
    found = shop.warnings(numbered(*map(str, range(20, 41))))["ids_spelled_differently"]
    assert found.rows == 22  # 20 to 30, each in two spellings
    assert found.message.startswith("22 orders would be 11 without leading zeros: '0020', '20'; '0021', '21'")
    assert "order_id: ltrim(\"order\", '0')` and ingest all files into a new workspace" in found.fix


def test_the_fix_of_other_characters_gives_the_plain_ones(shop: Shop) -> None:
    same = {"ｼﾞ１": "ジ1", "1㎏": "1kg", "e\u0301": "é"}  # half-width, one character for two, and a combining accent
    rows = [(f"x{i}", name, "s1", "2024-01-01 10:30", 1, 10) for i, name in enumerate([*same, *same.values()])]
    source = shop.source([*orders(40), *rows])
    (fix,) = (found.fix for found in preview(shop.workspace, source, Settings()).warnings)
    yaml = (shop.root / "sources.yaml").read_text(encoding="utf-8")
    expression = fix.split("`")[1].removeprefix("source_user_id: ").replace("'", "''")
    (shop.root / "sources.yaml").write_text(yaml.replace("id: cust", f"id: '{expression}'"), encoding="utf-8")
    assert ingest(shop.workspace, FileSource(shop.root / "sources.yaml"), Settings()).warnings == ()
    customers = shop.query("SELECT DISTINCT source_user_id FROM transactions WHERE order_id LIKE 'x%' ORDER BY 1")
    assert [name for (name,) in customers] == sorted(same.values())


@pytest.mark.parametrize(
    ("in_orders", "in_items", "what", "sides"),
    [
        ("412", "00412", "leading zeros", ["items"]),
        ("00412", "412", "leading zeros", ["transactions"]),
        ("0412", "00412", "leading zeros", ["transactions", "items"]),
        ("412.0", "412", "a trailing .0", ["transactions"]),
        ("412", "412.0", "a trailing .0", ["items"]),
        ("sku-412", "SKU-412", "the case of letters", ["transactions"]),
        ("SKU-412", "sku-412", "the case of letters", ["items"]),
        ("412 ", "412", "blanks or invisible characters", ["transactions"]),
    ],
)
def test_items_bought_that_the_catalogue_spells_otherwise(
    shop: Shop, in_orders: str, in_items: str, what: str, sides: list[str]
) -> None:
    rows = [(f"o{i}", f"c{i}", in_orders.replace("4", str(i)), "2024-01-01 10:30", 1, 10) for i in range(1, 6)]
    found = shop.warnings(rows, [in_items.replace("4", str(i)) for i in range(1, 6)])["ids_without_description"]
    assert found.message.startswith("none of the 5 items of transactions is in items, but all are without")
    assert what in found.message
    lines = {table: line for line, table in re.findall(r"`item_id: ([^`]+)` in (\w+)", found.fix)}
    assert list(lines) == sides
    yaml = (shop.root / "sources.yaml").read_text().replace("item_id: sku, ts", "item_id: TRANSACTIONS, ts")
    yaml = yaml.replace("item_id: sku, category", "item_id: ITEMS, category")
    for table in ("transactions", "items"):
        expression = lines.get(table, "sku").replace("'", "''")
        yaml = yaml.replace(table.upper(), f"'{expression}'")
    (shop.root / "sources.yaml").write_text(yaml)
    again = Workspace(shop.root / "again")
    assert ingest(again, FileSource(shop.root / "sources.yaml"), Settings()).warnings == ()
    assert Lake(again).connect().con.execute(
        "SELECT count(*) FROM transactions JOIN items USING (item_id)"
    ).fetchone() == (5,)


def test_the_proposed_expression_makes_the_ids_equal(shop: Shop) -> None:
    rows = [(f"o{i}", f"c{i}", f"00{i}12", "2024-01-01 10:30", 1, 10) for i in range(1, 6)]
    source = shop.source(rows, [f"{i}12" for i in range(1, 6)])
    fix = next(found for found in preview(shop.workspace, source, Settings()).warnings).fix
    expression = fix.split("`")[1].removeprefix("item_id: ")
    yaml = (
        (shop.root / "sources.yaml")
        .read_text()
        .replace("item_id: sku, ts", f"item_id: '{expression.replace(chr(39), chr(39) * 2)}', ts")
    )
    (shop.root / "sources.yaml").write_text(yaml)
    assert ingest(shop.workspace, FileSource(shop.root / "sources.yaml"), Settings()).warnings == ()
    assert shop.query("SELECT count(*) FROM transactions JOIN items USING (item_id)") == [(5,)]


def test_a_walk_in_account_is_named_and_can_be_declared(shop: Shop) -> None:
    rows = [*orders(200), *((f"w{i}", "WALKIN", f"s{i % 10}", "2024-01-05 11:00", 1, 5) for i in range(300))]
    found = shop.warnings(rows)["shared_accounts"]
    assert "WALKIN has 300 order lines (60%), 300.0 orders a day; it gets no churn score" in found.message
    assert "`no_customer: [WALKIN]`" in found.fix
    again = Shop(shop.root / "again")
    again.root.mkdir()
    assert again.warnings(rows, keys="no_customer: [WALKIN]\n") == {}
    assert again.query("SELECT count(*) FROM transactions WHERE source_user_id IS NULL") == [(300,)]
    assert again.query("SELECT count(*) FROM customers") == [(20,)]


def test_ingest_names_the_accounts_that_training_leaves_out(shop: Shop) -> None:
    till = [(f"w{i}", "TILL", f"s{i % 10}", f"2024-01-{i // 10 + 1:02d} 11:00", 1, 5) for i in range(200)]
    # as many lines in one order a day: a large customer, whom training keeps
    large = [(f"r{i // 10}", "cafe", f"s{i % 10}", f"2024-01-{i // 10 + 1:02d} 11:00", 1, 5) for i in range(200)]
    found = shop.warnings([*orders(200), *till, *large])["shared_accounts"]
    assert "TILL has 200 order lines (33%), 10.0 orders a day" in found.message
    assert "cafe" not in found.message
    builder = Builder(Lake(shop.workspace), FEATURES)
    left_out = shared_accounts(builder, datetime(2024, 3, 1), Settings().identity.shared_account_share)
    assert [(account.user_id, account.lines, account.orders_per_day) for account in left_out] == [("TILL", 200, 10.0)]


def test_an_account_of_many_events_is_named_as_one_that_is_kept(tmp_path: Path) -> None:
    lines = [f"v{i % 30},view,2024-01-{i % 28 + 1:02d}T10:00" for i in range(60)] + [
        "robot,view,2024-01-02T10:00"
    ] * 100
    report = Export(tmp_path).ingest(
        "\n".join(("who,what,at", *lines)), "{source_user_id: who, event_type: what, ts: at}", "events"
    )
    (message,) = warned(report, "shared_accounts")
    assert "robot has 100 events (62%); it is kept as one customer everywhere" in message


def test_a_bag_in_every_basket_is_named_and_can_be_declared(shop: Shop) -> None:
    rows = [
        *orders(60),
        *((f"o{i}", f"c{i % 20}", "BAG", f"2024-01-{i % 28 + 1:02d} 10:30", 1, 0.1) for i in range(60)),
    ]
    assert "BAG in 60 (100%)" in shop.warnings(rows)["item_in_most_orders"].message
    for name, items in (("catalogue", ["s1", "BAG"]), ("gap", ["s1"]), ("none", None)):
        other = Shop(shop.root / name)
        other.root.mkdir()
        assert "item_in_most_orders" not in other.warnings(rows, items, keys="not_merchandise: [BAG]\n")
        assert other.query("SELECT item_id FROM items WHERE merchandise = false") == [("BAG",)]
        assert other.query("SELECT count(*) FROM transactions WHERE item_id = 'BAG'") == [(60,)]


def test_few_lines_with_most_units_are_named(shop: Shop) -> None:
    rows = orders(300)
    assert "quantities_in_other_units" not in shop.warnings(rows)
    rows += [
        ("fuel1", "c1", "petrol", "2024-01-05 11:00", 10597, 30),
        ("fuel2", "c2", "petrol", "2024-01-06 11:00", 8900, 25),
    ]
    found = shop.warnings(rows)["quantities_in_other_units"]
    assert "2 of 302 lines" in found.message
    assert found.rows == 2
    assert "item petrol" in found.message


def test_a_preview_writes_nothing_and_says_what_ingest_would_say(shop: Shop) -> None:
    rows = [*orders(200), ("bad", "c1", "s1", "yesterday", 1, 1), ("x", "C1", "s1", "2024-01-01 10:30", 1, 10)]
    source = shop.source(rows)
    before = sorted(shop.root.rglob("*"))
    told = preview(shop.workspace, source, Settings())
    assert sorted(shop.root.rglob("*")) == before
    assert told.examples["transactions"]["quantity"] == ["1.0"]
    done = ingest(shop.workspace, source, Settings())
    assert told.warnings == done.warnings
    assert told.warnings
    assert {name: (table.read, table.kept, dict(table.reasons)) for name, table in told.tables.items()} == {
        name: (table.read, table.kept, dict(table.reasons)) for name, table in done.tables.items()
    }
    assert (
        preview(shop.workspace, source, Settings()).tables["transactions"].duplicates == 201
    )  # compared with the lake


def test_most_rows_rejected_is_an_error_and_the_lake_stays(shop: Shop) -> None:
    rows = [*orders(4), *(("bad", "c1", "s1", "yesterday", 1, 1) for _ in range(5))]
    source = shop.source(rows)
    assert "9 rows read, 5 rejected" in preview(shop.workspace, source, Settings()).errors[0]
    with pytest.raises(DataError, match="most rows were rejected"):
        ingest(shop.workspace, source, Settings())
    assert Lake(shop.workspace).states() == {}
    yaml = (
        (shop.root / "sources.yaml").read_text().replace("    path: orders", "    max_rejected: 0.6\n    path: orders")
    )
    (shop.root / "sources.yaml").write_text(yaml)
    assert ingest(shop.workspace, FileSource(shop.root / "sources.yaml"), Settings()).kept == 4
