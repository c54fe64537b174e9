"""Order lines without numbers: one line in several exports is one line, over one glob and over several ingests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.examples import examples

CASES = Path(__file__).parents[2] / "data" / "cases"
COLUMNS = "order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid"
HEADER = "order,cust,sku,date,qty,paid"
CONTENT = "order_id, source_user_id, item_id, ts, quantity, amount, status"


class Shop:
    """A workspace, and the exports of one shop."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace, self.count = folder, Workspace(folder / "workspace"), 0

    def read(
        self,
        *files: Sequence[str],
        table: str = "transactions",
        columns: str = COLUMNS,
        header: str = HEADER,
        source: str = "shop",
        keys: str = "",
    ) -> IngestReport:
        """Ingest files, each a list of lines, by one glob."""
        self.count += 1
        export = self.folder / f"export {self.count}"
        export.mkdir()
        for number, lines in enumerate(files):
            (export / f"{number:03d}.csv").write_text("\n".join([header, *lines]) + "\n")
        (export / "sources.yaml").write_text(
            f"source: {source}\ntimezone: UTC\ntables:\n"
            f"  {table}: {{path: '*.csv', max_rejected: 1, columns: {{{columns}}}{keys}}}\n"
        )
        return ingest(self.workspace, FileSource(export / "sources.yaml"), Settings())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(query).fetchall()

    def lines(self) -> Counter[tuple[Any, ...]]:
        return Counter(self.rows(f"SELECT {CONTENT} FROM transactions"))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def codes(report: IngestReport) -> list[str]:
    return [warning.code for warning in report.warnings]


X, Y, Z = "o1,c1,x,2024-01-01,1,10", "o1,c1,y,2024-01-01,1,20", "o1,c1,z,2024-01-01,1,30"


def test_two_overlapping_exports_read_by_one_glob_are_one(tmp_path: Path) -> None:
    case = CASES / "04-overlapping-exports-in-one-glob"
    workspace = Workspace(tmp_path / "glob")
    report = ingest(workspace, FileSource(case / "sources.yaml"), Settings()).tables["transactions"]
    assert (report.read, report.kept, report.duplicates) == (35, 20, 15)
    total = "SELECT count(*), count(DISTINCT order_id), sum(amount) FROM transactions"
    assert Lake(workspace).connect().con.execute(total).fetchall() == [(20, 20, 200.0)]
    both = Workspace(tmp_path / "one after the other")
    for name in ("two.yaml", "one.yaml"):  # `orders (1).csv` sorts before `orders.csv`
        ingest(both, FileSource(case / name), Settings())
    assert Lake(both).digest == Lake(workspace).digest


def test_an_order_whose_lines_come_in_two_files_keeps_all_of_them_and_is_named(shop: Shop) -> None:
    report = shop.read([X, Y], [Z, "o2,c2,x,2024-01-02,1,10"])
    assert (report.kept, report.duplicates) == (4, 0)
    assert report.tables["transactions"].flags["further_lines"] == 1
    (warning,) = [warning for warning in report.warnings if warning.code == "further_lines"]
    assert warning.rows == 1
    assert "o1" in warning.message
    numbered = "SELECT order_id, line_no, item_id FROM transactions ORDER BY ALL"
    assert shop.rows(numbered) == [("o1", 1, "x"), ("o1", 2, "y"), ("o1", 3, "z"), ("o2", 1, "x")]
    again = shop.read([Z], [Y, X])
    assert (again.kept, again.duplicates, codes(again)) == (0, 3, [])


def test_equal_lines_are_counted_as_often_as_the_fullest_file_holds_them(shop: Shop) -> None:
    first = shop.read([X, X], [X, Y])
    assert (first.kept, first.duplicates) == (3, 1)
    second = shop.read([X, X, X])
    assert (second.kept, second.duplicates) == (1, 2)
    assert shop.rows("SELECT item_id, count(*), max(line_no) FROM transactions GROUP BY 1 ORDER BY 1") == [
        ("x", 3, 4),
        ("y", 1, 3),
    ]


def test_a_rejected_line_does_not_hide_that_a_line_is_known(shop: Shop) -> None:
    shop.read(["o1,c1,q,2024-01-01,many,1", X])
    again = shop.read([X])
    assert (again.kept, again.duplicates) == (0, 1)


def test_equal_events_of_two_files_are_one_and_of_one_file_two(shop: Shop) -> None:
    view = "c1,view,2024-01-01"
    events = {
        "table": "events",
        "columns": "source_user_id: cust, event_type: what, ts: date",
        "header": "cust,what,date",
    }
    report = shop.read([view, view], [view, "c2,view,2024-01-01"], **events)
    assert (report.kept, report.duplicates) == (3, 1)
    assert shop.read([view, view, view], **events).kept == 1


def test_a_column_that_is_not_mapped_says_nothing_about_known_lines(shop: Shop) -> None:
    shop.read([X + ",web", Y + ",web"], columns=COLUMNS + ", channel: channel", header=HEADER + ",channel")
    again = shop.read([X, Y])
    assert (again.kept, again.duplicates) == (0, 2)
    assert shop.rows("SELECT DISTINCT channel FROM transactions") == [("web",)]


def test_exports_read_again_with_another_mapping_are_refused(shop: Shop) -> None:
    lines = [f"o{n},c1,x,2024-01-01,1,10" for n in range(30)]
    shop.read(lines)
    digest = Lake(shop.workspace).digest
    with pytest.raises(DataError, match="30 of 30 lines"):
        shop.read(lines, columns=COLUMNS.replace("amount: paid", "amount: paid * 1.19"))
    assert Lake(shop.workspace).digest == digest


def test_exports_that_hold_other_goods_of_the_same_orders_are_kept(shop: Shop) -> None:
    shop.read([f"o{n},c1,food,2024-01-01,1,10" for n in range(30)])
    report = shop.read([f"o{n},c1,books,2024-01-01,2,25" for n in range(30)])
    assert report.kept == 30
    assert "further_lines" in codes(report)


def test_known_lines_under_newly_mapped_numbers_are_refused(shop: Shop) -> None:
    shop.read([f"o{n},c1,x,2024-01-01,1,10,{n + 7}" for n in range(30)], header=HEADER + ",line")
    mapped = {"columns": COLUMNS + ", line_no: line", "header": HEADER + ",line"}
    with pytest.raises(DataError, match="30 of 30 new lines"):
        shop.read([f"o{n},c1,x,2024-01-01,1,10,{n + 7}" for n in range(30)], **mapped)
    report = shop.read(["o1,c1,x,2024-01-01,1,10,8"], **mapped)
    assert "renumbered_lines" in codes(report)


_line = st.builds(
    "{},{},{},2024-01-0{},{},{}".format,
    st.sampled_from(["o1", "o2", "o3"]),
    st.sampled_from(["c1", "c2"]),
    st.sampled_from(["x", "y"]),
    st.integers(1, 2),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["10", "20"]),
)
# the files of each ingest; every file holds some lines of the export, in the order of the export
_split = st.lists(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=2), min_size=1, max_size=2)


@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(export=st.lists(_line, min_size=1, max_size=10), split=_split)
def test_any_split_of_an_export_gives_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, export: list[str], split: list[list[set[int]]]
) -> None:
    ingests = [[[export[at] for at in sorted(file) if at < len(export)] for file in files] for files in split]
    # the largest number of times that one file holds a line
    files = [Counter(file) for files in ingests for file in files]
    expected = Counter({line: max(file[line] for file in files) for line in set().union(*files)})
    ingests = [kept for kept in ([file for file in files if file] for files in ingests) if kept]
    if not ingests:
        return
    apart, reverse, one = (Shop(tmp_path_factory.mktemp("split")) for _ in range(3))
    for files_of in ingests:
        report = apart.read(*files_of).tables["transactions"]
        assert report.read == sum(map(len, files_of)) == report.kept + report.duplicates
    together = [file for files_of in ingests for file in files_of]
    assert one.read(*together).kept == sum(expected.values())
    assert one.read(*together[::-1]).kept == 0
    for files_of in ingests[::-1]:
        reverse.read(*files_of)
    for number, shop in enumerate((one, apart, reverse)):
        found: Mapping[tuple[Any, ...], int] = Counter(
            shop.rows(
                "SELECT concat_ws(',', order_id, source_user_id, item_id, ts::DATE, quantity::INT, amount::INT) "
                "FROM transactions"
            )
        )
        assert {line: count for (line,), count in found.items()} == dict(expected), number
        assert shop.rows("SELECT count(*) - count(DISTINCT (order_id, line_no)) FROM transactions") == [(0,)]
    assert Lake(apart.workspace).digest == Lake(one.workspace).digest


def test_orders_of_items_only_are_read_again_and_extended(shop: Shop) -> None:
    header, columns = "order,cust,sku", "order_id: order, source_user_id: cust, item_id: sku"

    def read(*lines: str) -> tuple[int, int]:
        report = shop.read(lines, header=header, columns=columns).tables["transactions"]
        return report.kept, report.duplicates

    assert read("o1,a,x", "o1,a,y", "o2,b,x") == (3, 0)
    assert read("o1,a,x", "o1,a,y", "o2,b,x") == (0, 3)
    assert read("o1,a,x", "o1,a,y", "o1,a,z") == (1, 2)
    query = "SELECT order_id, line_no, item_id FROM transactions ORDER BY ALL"
    assert shop.rows(query) == [("o1", 1, "x"), ("o1", 2, "y"), ("o1", 3, "z"), ("o2", 1, "x")]
