"""Order numbers that restart are named; orders that go on are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.data.ingest import IngestWarning, ingest
from features.data.sources.files import FileSource
from qianmian.settings import Settings
from qianmian.workspace import Workspace

CASE = Path(__file__).parents[2] / "data" / "cases" / "27-receipt-numbers-restart-daily"


def warned(folder: Path, lines: list[str], name: str = "orders") -> list[IngestWarning]:
    """The warnings on order numbers after an ingest of the lines "order,customer,time,status"."""
    (folder / f"{name}.csv").write_text("\n".join(["order,cust,date,state", *dict.fromkeys(lines)]) + "\n")
    (folder / f"{name}.yaml").write_text(
        f"source: shop\ntimezone: UTC\ntables:\n  transactions: {{path: {name}.csv, columns: "
        "{order_id: order, source_user_id: cust, ts: date, status: state}}\n"
    )
    report = ingest(Workspace(folder / "workspace"), FileSource(folder / f"{name}.yaml"), Settings())
    return [warning for warning in report.warnings if warning.code == "order_numbers"]


def test_receipts_that_restart_each_morning_are_named(tmp_path: Path) -> None:
    report = ingest(Workspace(tmp_path), FileSource(CASE / "sources.yaml"), Settings())
    (warning,) = [warning for warning in report.warnings if warning.code == "order_numbers"]
    assert warning.rows == 150
    assert "of 5 order numbers 5 over more than one day" in warning.message
    assert "30 lines of 30 days" in warning.message
    assert "concat(date, '-', receipt)" in warning.fix
    assert "store" not in warning.fix


def test_a_restart_is_seen_when_each_day_is_ingested_on_its_own(tmp_path: Path) -> None:
    assert not warned(tmp_path, [f"{n:04d},c{n},2024-01-01 10:{n:02d},paid" for n in range(20)], "first")
    (warning,) = warned(tmp_path, [f"{n:04d},c{n},2024-01-02 10:{n:02d},paid" for n in range(20)], "second")
    assert warning.rows == 40


def test_a_number_of_two_tills_is_named_by_its_customers(tmp_path: Path) -> None:
    lines = [f"{n:04d},{till}{n},2024-01-01 1{till[1]}:{n % 60:02d},paid" for n in range(100) for till in ("a1", "b2")]
    (warning,) = warned(tmp_path, lines)
    assert warning.rows == 200
    assert "store" in warning.fix
    assert "date" not in warning.fix


def test_numbers_that_restart_each_year_are_named(tmp_path: Path) -> None:
    assert warned(
        tmp_path,
        [f"{n},c{n},{year}-0{1 + n // 20}-05,paid" for year in (2023, 2024) for n in range(100 - 60 * (year - 2023))],
    )


@pytest.mark.parametrize(
    "more",
    [
        [f"o{n},c{n % 40},2024-02-1{n % 9},paid" for n in range(0, 200, 3)],  # a third is shipped in two parts
        [f"o{n},c{n % 40},2024-03-01,refunded" for n in range(200)],  # refunds come under the number of the order
        [f"o{n},c{n % 40},2024-02-02 00:30,paid" for n in range(200)],  # a bar that is open past midnight
        ["o1,c2,2024-02-01 20:00,paid", "o2,c3,2024-02-01 20:00,paid"],  # two typing errors
    ],
    ids=["shipments", "refunds", "midnight", "noise"],
)
def test_orders_that_go_on_are_not_blamed(tmp_path: Path, more: list[str]) -> None:
    assert not warned(tmp_path, [f"o{n},c{n % 40},2024-02-01 20:00,paid" for n in range(200)] + more)
