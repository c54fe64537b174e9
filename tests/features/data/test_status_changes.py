"""An order line whose status changes later: no money is lost, and none counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.examples import examples

CASE = Path(__file__).parents[2] / "data" / "cases" / "13-order-refunded-later"


class Exports:
    """The daily exports of a shop that marks an order as refunded in place."""

    def __init__(self, folder: Path, with_line: bool, with_status: bool = True) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "workspace")
        self.with_line, self.with_status, self.count = with_line, with_status, 0

    def read(self, *files: list[str]) -> IngestReport:
        """Ingest files of lines "order,line,quantity,amount,status"."""
        self.count += 1
        export = self.folder / f"day {self.count}"
        export.mkdir()
        for number, lines in enumerate(files):
            (export / f"{number}.csv").write_text("\n".join(["order,line,qty,paid,state", *lines]) + "\n")
        columns = "order_id: order, source_user_id: \"'c1'\", item_id: \"'x'\", ts: \"'2024-01-01'\", quantity: qty, amount: paid"
        columns += (", line_no: line" if self.with_line else "") + (", status: state" if self.with_status else "")
        (export / "sources.yaml").write_text(
            "source: shop\ntimezone: UTC\ntables:\n"
            f"  transactions: {{path: '*.csv', max_rejected: 1, columns: {{{columns}}}}}\n"
        )
        return ingest(self.workspace, FileSource(export / "sources.yaml"), Settings())

    def totals(self) -> dict[str, tuple[float, float]]:
        """Quantity and amount by status."""
        query = "SELECT status, sum(quantity), sum(amount) FROM transactions GROUP BY 1"
        return {row[0]: row[1:] for row in Lake(self.workspace).connect().con.execute(query).fetchall()}


@pytest.fixture(params=[True, False], ids=["line_no", "no line_no"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Exports:
    return Exports(tmp_path, request.param)


@pytest.fixture
def numbered(tmp_path: Path) -> Exports:
    return Exports(tmp_path, True)


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    table = report.tables["transactions"]
    return table.kept, table.updated, table.duplicates, table.quarantined


def test_the_order_of_the_case_is_refunded(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    ingest(workspace, FileSource(CASE / "day1.yaml"), Settings())
    report = ingest(workspace, FileSource(CASE / "sources.yaml"), Settings())
    assert counts(report) == (2, 1, 1, 0)
    assert report.tables["transactions"].flags == {"status_changed": 1}
    totals = "SELECT status, sum(amount) FROM transactions GROUP BY 1 ORDER BY 1"
    assert Lake(workspace).connect().con.execute(totals).fetchall() == [("paid", 100.0), ("refunded", 100.0)]
    digest = Lake(workspace).digest
    again = ingest(workspace, FileSource(CASE / "sources.yaml"), Settings())
    assert (counts(again), Lake(workspace).digest) == ((0, 0, 3, 0), digest)


def test_one_glob_over_both_days_gives_the_same_and_reading_it_again_changes_nothing(shop: Exports) -> None:
    days = ["o1,1,1,100,paid", "o2,1,1,50,paid"], ["o1,1,1,100,cancelled", "o2,1,1,50,paid"]
    report = shop.read(*days)
    assert counts(report) == (2, 0, 2, 0)
    assert shop.totals() == {"paid": (1, 50), "cancelled": (1, 100)}
    digest = Lake(shop.workspace).digest
    assert counts(shop.read(*days)) == (0, 0, 4, 0)
    assert Lake(shop.workspace).digest == digest


def test_a_refund_that_is_taken_back_is_a_sale_again(shop: Exports) -> None:
    shop.read(["o1,1,1,100,paid"])
    shop.read(["o1,1,1,100,refunded"])
    assert counts(shop.read(["o1,1,1,100,paid"])) == (1, 1, 0, 0)
    assert shop.totals() == {"paid": (1, 100)}


def test_one_of_two_equal_lines_is_refunded(tmp_path: Path) -> None:
    shop = Exports(tmp_path, with_line=False)
    shop.read(["o1,,1,100,paid", "o1,,1,100,paid"])
    report = shop.read(["o1,,1,100,paid", "o1,,1,100,refunded"])
    assert counts(report) == (1, 1, 1, 0)
    assert shop.totals() == {"paid": (1, 100), "refunded": (1, 100)}


def test_a_sale_and_its_refund_in_one_file_stay_two_rows(tmp_path: Path) -> None:
    shop = Exports(tmp_path, with_line=False)
    rows = ["o1,,1,100,paid", "o1,,1,100,refunded"]
    assert counts(shop.read(rows)) == (2, 0, 0, 0)
    assert counts(shop.read(rows[:1])) == (0, 0, 1, 0)
    assert counts(shop.read(rows[1:])) == (0, 0, 1, 0)
    assert shop.totals() == {"paid": (1, 100), "refunded": (1, 100)}


@pytest.mark.parametrize("with_line", [True, False])
def test_a_refund_by_its_sign_is_a_row_of_its_own(tmp_path: Path, with_line: bool) -> None:
    shop = Exports(tmp_path, with_line, with_status=False)
    shop.read(["o1,1,3,300,"])
    assert counts(shop.read(["o1,1,-3,-300,"])) == (1, 0, 0, 0)
    assert shop.totals() == {"paid": (3, 300), "refunded": (3, 300)}
    assert counts(shop.read(["o1,1,3,300,", "o1,1,-3,-300,"])) == (0, 0, 2, 0)


def test_a_refund_of_a_part_leaves_the_sale_and_follows_later_returns(numbered: Exports) -> None:
    numbered.read(["o1,1,3,300,paid"])
    assert counts(numbered.read(["o1,1,1,100,refunded"])) == (1, 0, 0, 0)
    assert numbered.totals() == {"paid": (3, 300), "refunded": (1, 100)}  # two units and 200 are left
    assert counts(numbered.read(["o1,1,1,100,refunded"])) == (0, 0, 1, 0)
    assert counts(numbered.read(["o1,1,2,,refunded"])) == (1, 1, 0, 0)
    assert numbered.totals() == {"paid": (3, 300), "refunded": (2, 200)}
    numbered.read(["o1,1,3,300,refunded"])
    assert numbered.totals() == {"refunded": (3, 300)}


@pytest.mark.parametrize("status", ["refunded", "cancelled"])
def test_an_export_that_empties_the_line_keeps_what_it_was_worth(shop: Exports, status: str) -> None:
    shop.read(["o1,1,3,300,paid", "o1,2,1,20,paid"])
    emptied = [f"o1,1,0,,{status}", "o1,2,1,20,paid"]
    assert counts(shop.read(emptied)) == (1, 1, 1, 0)
    assert shop.totals() == {"paid": (1, 20), status: (3, 300)}
    assert counts(shop.read(emptied)) == (0, 0, 2, 0)


def test_a_row_that_differs_in_more_than_its_status_is_a_conflict(numbered: Exports) -> None:
    numbered.read(["o1,1,1,100,paid", "o2,1,1,100,refunded"])
    report = numbered.read(["o1,1,1,90,paid", "o1,1,1,120,refunded", "o2,1,1,90,refunded", "o3,1,1,1,cancelled"])
    assert counts(report) == (1, 0, 0, 3)
    assert set(report.tables["transactions"].reasons) == {
        "same key, different content: another row has this key, and facts are not overwritten"
    }
    assert numbered.totals() == {"paid": (1, 100), "refunded": (1, 100), "cancelled": (1, 1)}


def test_a_file_without_a_status_says_nothing_about_it(shop: Exports) -> None:
    shop.read(["o1,1,1,100,paid"])
    shop.read(["o1,1,1,100,cancelled"])
    shop.with_status = False
    assert counts(shop.read(["o1,1,1,100,"])) == (0, 0, 1, 0)
    assert shop.totals() == {"cancelled": (1, 100)}


_day = st.dictionaries(st.integers(1, 3), st.sampled_from(["paid", "refunded", "cancelled"]), min_size=1)


@settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days=st.lists(_day, min_size=1, max_size=4), with_line=st.booleans())
def test_the_last_status_of_each_line_holds_however_the_days_are_read(
    tmp_path_factory: pytest.TempPathFactory, days: list[dict[int, str]], with_line: bool
) -> None:
    files = [[f"o1,{line},1,{10 * line},{status}" for line, status in sorted(day.items())] for day in days]
    apart, together = (Exports(tmp_path_factory.mktemp("days"), with_line) for _ in range(2))
    for file in files:
        apart.read(file)
    assert counts(together.read(*files))[3] == 0
    last = {10 * line: status for day in days for line, status in day.items()}
    for shop in (apart, together):
        rows = Lake(shop.workspace).connect().con.execute("SELECT amount, status FROM transactions").fetchall()
        assert dict(rows) == last
        assert len(rows) == len(last)
    assert counts(together.read(*files))[0] == 0
