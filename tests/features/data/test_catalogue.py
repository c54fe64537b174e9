"""Items of several sources with the same ids, and items that vanish from a catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.data.ingest import IngestReport, ingest, preview
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

CASES = Path(__file__).parents[2] / "data" / "cases"


class Company:
    """A workspace that several systems are read into."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace, self.count = folder, Workspace(folder / "workspace"), 0

    def source(self, name: str, keys: str = "", **tables: list[str]) -> FileSource:
        """A source with the files of its tables; the first line of each file is its header and its mapping."""
        self.count += 1
        export = self.folder / f"export {self.count}"
        export.mkdir()
        config = [f"source: {name}", "timezone: UTC", "tables:"]
        for table, (header, *lines) in tables.items():
            (export / f"{table}.csv").write_text("\n".join([header, *lines]) + "\n")
            columns = ", ".join(f"{column}: {column}" for column in header.split(","))
            config.append(f"  {table}: {{path: {table}.csv{keys * (table == 'items')}, columns: {{{columns}}}}}")
        (export / "sources.yaml").write_text("\n".join(config) + "\n")
        return FileSource(export / "sources.yaml")

    def read(self, name: str, keys: str = "", **tables: list[str]) -> IngestReport:
        return ingest(self.workspace, self.source(name, keys, **tables), Settings())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(query).fetchall()


@pytest.fixture
def company(tmp_path: Path) -> Company:
    return Company(tmp_path)


def codes(report: IngestReport) -> list[str]:
    return [warning.code for warning in report.warnings]


# ---- items of several sources -----------------------------------------------------------------------------------------

MILK, SCREWS = ["item_id,category,price", "1001,Milk,1.20"], ["item_id,category,price", "1001,Screws,4.50"]
ORDER = ["order_id,source_user_id,item_id,ts", "o1,d1,1001,2024-01-01"]


def test_the_screws_of_the_case_do_not_become_milk(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    case = CASES / "17-two-shops-one-sku"
    ingest(workspace, FileSource(case / "sources.yaml"), Settings())
    digest = Lake(workspace).digest
    with pytest.raises(DataError, match="1001: category is Milk in dairy and Screws in hardware") as caught:
        ingest(workspace, FileSource(case / "b.yaml"), Settings())
    assert "shared: false" in str(caught.value)
    assert Lake(workspace).digest == digest


def test_own_goods_get_the_name_of_their_source_in_all_tables(company: Company) -> None:
    company.read("dairy", items=MILK, transactions=ORDER)
    company.read(
        "hardware",
        ", shared: false",
        items=SCREWS,
        transactions=ORDER,
        events=["event_type,ts,source_user_id,item_id", "view,2024-01-01,d1,1001", "login,2024-01-01,d1,"],
        contents=["content_id,item_ids", "c1,1001 | 7|", "c2,"],
    )
    assert company.rows("SELECT item_id, category, source FROM items ORDER BY 1") == [
        ("1001", "Milk", "dairy"),
        ("hardware:1001", "Screws", "hardware"),
    ]
    # later files know it from the lake
    company.read("hardware", transactions=[ORDER[0], "o2,d1,1001,2024-01-02"])
    assert company.rows("SELECT source, order_id, item_id FROM transactions ORDER BY ALL") == [
        ("dairy", "o1", "1001"),
        ("hardware", "o1", "hardware:1001"),
        ("hardware", "o2", "hardware:1001"),
    ]
    assert company.rows("SELECT event_type, item_id FROM events ORDER BY 1") == [
        ("login", None),
        ("view", "hardware:1001"),
    ]
    assert company.rows("SELECT content_id, item_ids FROM contents ORDER BY 1") == [
        ("c1", "hardware:1001|hardware:7"),
        ("c2", None),
    ]
    again = company.read("hardware", items=SCREWS)
    assert (again.kept, again.duplicates) == (0, 1)


def test_a_shared_catalogue_is_changed_by_each_source_and_the_change_is_said(company: Company) -> None:
    company.read("dairy", items=MILK)
    report = company.read("hardware", ", shared: true", items=[*SCREWS, "2000,Nails,1"])
    (warning,) = [warning for warning in report.warnings if warning.code == "items_of_another_source"]
    assert warning.rows == 1
    assert company.rows("SELECT item_id, category, source FROM items ORDER BY 1") == [
        ("1001", "Screws", "dairy"),
        ("2000", "Nails", "hardware"),
    ]


def test_equal_items_and_own_items_need_no_word(company: Company) -> None:
    company.read("dairy", items=MILK)
    assert codes(company.read("online", items=[*MILK, "7,Bread,2"])) == []
    assert codes(company.read("dairy", items=["item_id,category", "1001,Oat milk"])) == []
    assert company.rows("SELECT category, price FROM items WHERE item_id = '1001'") == [("Oat milk", 1.2)]


def test_own_goods_are_declared_before_the_first_order(company: Company) -> None:
    company.read("hardware", transactions=ORDER)
    with pytest.raises(DataError, match="comes too late for hardware"):
        company.read("hardware", ", shared: false", items=SCREWS)
    company.read("tools", ", shared: false", items=SCREWS)
    with pytest.raises(DataError, match="the items of tools are stored as its own"):
        company.read("tools", ", shared: true", items=SCREWS)


def test_a_preview_says_that_an_item_is_that_of_another_source(company: Company) -> None:
    company.read("dairy", items=MILK)
    report = preview(company.workspace, company.source("hardware", items=SCREWS), Settings())
    assert any("Milk in dairy" in error for error in report.errors)


def test_the_keys_of_items_belong_to_items(company: Company) -> None:
    source = company.source("shop", transactions=ORDER)
    config = source.config_path
    config.write_text(config.read_text().replace("transactions.csv,", "transactions.csv, shared: true,"))
    with pytest.raises(ConfigError, match=r"tables.transactions.shared: only tables.items has this key"):
        FileSource(config)


# ---- items that vanish ------------------------------------------------------------------------------------------------


def catalogue(*items: str) -> list[str]:
    return ["item_id,category", *(f"{item},X" for item in items)]


def offered(company: Company) -> list[str]:
    return [
        row[0] for row in company.rows("SELECT item_id FROM items WHERE available IS DISTINCT FROM false ORDER BY 1")
    ]


def test_the_item_of_the_case_is_named(tmp_path: Path) -> None:
    case = CASES / "31-item-gone-from-the-catalogue"
    workspace = Workspace(tmp_path)
    ingest(workspace, FileSource(case / "sources.yaml"), Settings())
    report = ingest(workspace, FileSource(case / "b.yaml"), Settings())
    (warning,) = [warning for warning in report.warnings if warning.code == "vanished_items"]
    assert warning.message.startswith("1 of 3 items of shop are no longer in its catalogue, for example s0")
    assert "complete: true" in warning.fix


def test_a_complete_catalogue_withdraws_what_it_lacks_and_offers_it_again(company: Company) -> None:
    company.read("other", items=catalogue("z"))
    company.read("shop", ", complete: true", items=catalogue("a", "b", "c"))
    report = company.read("shop", ", complete: true", items=catalogue("b", "c"))
    assert (report.kept, dict(report.tables["items"].flags)) == (0, {"vanished": 1})
    assert offered(company) == ["b", "c", "z"]
    assert company.rows("SELECT category FROM items WHERE item_id = 'a'") == [("X",)]
    again = company.read("shop", ", complete: true", items=catalogue("b", "c"))
    assert not again.tables["items"].flags
    report = company.read("shop", ", complete: true", items=catalogue("a", "b", "c", "d"))
    assert dict(report.tables["items"].flags) == {"back": 1}
    assert offered(company) == ["a", "b", "c", "d", "z"]


def test_a_catalogue_that_is_cut_off_withdraws_nothing(company: Company) -> None:
    company.read("shop", ", complete: true", items=catalogue("a", "b", "c"))
    with pytest.raises(DataError, match=r"2 of 3 items .*max_vanished: 1"):
        company.read("shop", ", complete: true", items=catalogue("b"))
    assert offered(company) == ["a", "b", "c"]
    company.read("shop", ", complete: true, max_vanished: 1", items=catalogue("b"))
    assert offered(company) == ["b"]


def test_a_rejected_row_lists_its_item(company: Company) -> None:
    company.read("shop", items=["item_id,price", "a,1", "b,2"])
    company.read("shop", ", complete: true", items=["item_id,price", "a,free", "b,2"])
    assert offered(company) == ["a", "b"]


def test_a_list_of_changes_is_no_catalogue(company: Company) -> None:
    company.read("shop", items=catalogue("a", "b", "c", "d", "e"))
    assert codes(company.read("shop", items=catalogue("f", "a"))) == []
    assert codes(company.read("shop", ", complete: false", items=catalogue("a", "b", "c", "d"))) == []


def test_new_rows_of_a_database_are_no_complete_catalogue(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text(
        f"source: shop\ntables:\n  items: {{url: 'sqlite:///{tmp_path}/shop.db', table: items, watermark: changed, "
        "complete: true, columns: {item_id: id}}\n"
    )
    with pytest.raises(ConfigError, match=r"tables.items.complete: with `watermark` only new rows are read"):
        FileSource(tmp_path / "sources.yaml")


def test_a_preview_of_the_first_rows_misses_no_item(company: Company) -> None:
    company.read("shop", items=catalogue("a", "b", "c"))
    source = company.source("shop", ", complete: true", items=catalogue("a", "b", "c"))
    assert not preview(company.workspace, source, Settings(), rows=1).errors
