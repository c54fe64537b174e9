"""Every troublesome input gives its right value, a refusal, or a warning that names the trouble and its fix."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

CASES = Path(__file__).parents[2] / "data" / "cases"
NOW = datetime(2026, 11, 28)
LINES = "SELECT count(*), count(DISTINCT order_id), count(DISTINCT source_user_id), count(DISTINCT item_id)"
LINES += " FROM transactions"

# (case, configurations in the order in which they are ingested, query, rows)
VALUES: list[tuple[str, list[str], str, list[tuple[Any, ...]]]] = [
    ("01-placeholder-identifiers", ["sources"], "SELECT count(DISTINCT one_id) FROM customers", [(25,)]),
    (
        "04-overlapping-exports-in-one-glob",
        ["sources"],
        "SELECT count(*), sum(amount) FROM transactions",
        [(20, 200.0)],
    ),
    (
        "04-overlapping-exports-in-one-glob",
        ["one", "two"],
        "SELECT count(*), sum(amount) FROM transactions",
        [(20, 200.0)],
    ),
    ("06-glob-newest-wins", ["sources"], "SELECT member_tier, consent_email FROM profiles", [("platinum", False)]),
    ("06-glob-newest-wins", ["numbered"], "SELECT member_tier, consent_email FROM profiles", [("bronze", False)]),
    (
        "07-null-as-customer",
        ["sources"],
        LINES.replace("count(DISTINCT item_id)", "count(*) - count(source_user_id)"),
        [(80, 80, 20, 60)],
    ),
    ("08-mixed-line-ends", ["sources"], "SELECT DISTINCT item_id FROM transactions", [("85123A",)]),
    ("08-mixed-line-ends", ["cr-only/sources"], "SELECT count(*) FROM transactions", [(2,)]),
    ("08-mixed-line-ends", ["lf-then-crlf/sources"], "SELECT DISTINCT item_id FROM transactions", [("85123A",)]),
    ("09-stray-quotes", ["sources"], "SELECT count(*) FROM transactions", [(20,)]),
    (
        "10-zone-lost-in-an-expression",
        ["sources"],
        "SELECT ts::VARCHAR FROM transactions",
        [("2024-05-01 12:00:00",), ("2024-05-01 15:30:00",), ("2024-05-01 16:30:00",)],
    ),
    (
        "10-zone-lost-in-an-expression",
        ["plain"],
        "SELECT ts::VARCHAR FROM transactions",
        [("2024-05-01 12:00:00",), ("2024-05-01 15:30:00",), ("2024-05-01 16:30:00",)],
    ),
    (
        "10-zone-lost-in-an-expression",
        ["least"],
        "SELECT max(ts)::VARCHAR FROM transactions",
        [("2024-05-01 16:45:00",)],
    ),
    (
        "11-shopify-orders-export",
        ["sources-filled"],
        "SELECT status, sum(amount), min(ts)::VARCHAR FROM transactions GROUP BY 1",
        [("paid", 35.0, "2025-10-07 07:50:26"), ("refunded", 25.0, "2025-10-08 21:30:00")],
    ),
    ("12-german-export", ["sources"], "SELECT amount FROM transactions", [(12.5,), (25.0,), (1250.0,), (1250.0,)]),
    (
        "13-order-refunded-later",
        ["day1", "sources"],
        "SELECT status, sum(amount) FROM transactions GROUP BY 1",
        [("paid", 100.0), ("refunded", 100.0)],
    ),
    ("18-instant-sep-line", ["sources"], LINES, [(1, 1, 1, 1)]),
    ("20-utf16-and-gbk", ["sources"], LINES, [(1, 1, 1, 1)]),
    (
        "30-profile-of-today-in-yesterdays-training",
        ["sources"],
        "SELECT count(*) FROM profile_history WHERE valid_from < TIMESTAMP '2026-01-01'",
        [(0,)],
    ),
    ("33-bom-without-header", ["sources"], "SELECT min(order_id) FROM transactions", [("o1",)]),
    ("37-line-break-in-the-header", ["sources"], LINES, [(1, 1, 1, 1)]),
    ("42-epoch-milliseconds", ["ms"], "SELECT min(ts)::VARCHAR FROM transactions", [("2015-06-02 05:02:12.117",)]),
    ("43-hour-that-does-not-exist", ["sources"], "SELECT count(*) FROM transactions", [(5,)]),
    ("44-placeholder-birth-dates-in-linking", ["sources"], "SELECT count(DISTINCT one_id) FROM customers", [(64,)]),
]
# (case, configurations, what the refusal of the last one says)
REFUSALS: list[tuple[str, list[str], str]] = [
    ("02-column-called-no", ["sources"], 'write it in quotes: order_id: "No"'),
    ("11-shopify-orders-export", ["sources"], 'fill_down: ["Financial Status"]'),
    ("12-german-export", ["as-docs-say"], "removes the decimal separator"),
    ("16-us-dates-two-digit-year", ["sources"], "ts is not a time"),
    ("16-us-dates-two-digit-year", ["crm"], "2 × birth_date is not a date"),
    ("17-two-shops-one-sku", ["sources", "b"], "shared: true"),
    ("19-amazon-preface", ["sources"], "skip: 3"),
    ("20-utf16-and-gbk", ["gbk"], "encoding: gb18030"),
    ("20-utf16-and-gbk", ["gbk-as-latin"], "encoding: gb18030"),
    ("34-windows-1252", ["sources"], "encoding: windows-1252"),
    ("35-time-zone-names", ["sources"], "Asia/Shanghai"),
    ("36-excel-ate-the-barcodes", ["sources"], "scientific notation"),
    ("42-epoch-milliseconds", ["sources"], "to_timestamp(date / 1000)"),
    ("42-epoch-milliseconds", ["seconds"], "/ 1000"),
]
# (case, configurations, code of a warning of the last one, part of its fix)
WARNINGS: list[tuple[str, list[str], str, str]] = [
    ("14-excel-wrapped-ids", ["sources"], "wrapped_ids", "plain text"),
    ("20-utf16-and-gbk", ["body"], "", "encoding: gb18030"),
    ("21-walk-in-account", ["sources"], "shared_accounts", "no_customer: [WALKIN]"),
    ("21-walk-in-account", ["sources"], "item_in_most_orders", "not_merchandise: [BAG]"),
    ("26-one-wrong-clock", ["sources"], "rows_far_from_the_others", "clock"),
    ("27-receipt-numbers-restart-daily", ["sources"], "order_numbers", "concat(date"),
    ("32-two-currencies", ["sources"], "several_currencies", "rates"),
    ("38-one-phone-four-spellings", ["sources"], "phones_without_country", "phone_country"),
    ("41-invisible-characters-in-ids", ["sources"], "ids_spelled_differently", "source_user_id"),
]


def ingested(case: str, configurations: list[str], folder: Path) -> tuple[IngestReport, Workspace]:
    workspace = Workspace(folder / "workspace")
    for name in configurations:
        report = ingest(workspace, FileSource(CASES / case / f"{name}.yaml"), Settings(), now=NOW)
    return report, workspace


@pytest.mark.parametrize(("case", "configurations", "query", "expected"), VALUES)
def test_the_right_value(case: str, configurations: list[str], query: str, expected: list[Any], tmp_path: Path) -> None:
    report, workspace = ingested(case, configurations, tmp_path)
    assert report.read == report.kept + report.duplicates + report.quarantined
    rows = Lake(workspace).connect().con.execute(f"SELECT * FROM ({query}) ORDER BY ALL").fetchall()
    assert rows == expected


@pytest.mark.parametrize(("case", "configurations", "said"), REFUSALS)
def test_a_refusal_that_names_the_fix(case: str, configurations: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        ingested(case, configurations, tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(("case", "configurations", "code", "fix"), WARNINGS)
def test_a_warning_that_names_the_fix(
    case: str, configurations: list[str], code: str, fix: str, tmp_path: Path
) -> None:
    report, _ = ingested(case, configurations, tmp_path)
    assert [found for found in report.warnings if code in found.code and fix in found.fix]


@pytest.mark.parametrize("configuration", ["sources", "cn"])
def test_personal_columns_in_other_languages_are_hashes(configuration: str, tmp_path: Path) -> None:
    report, workspace = ingested("29-personal-columns-in-other-languages", [configuration], tmp_path)
    row = Lake(workspace).connect().con.execute("SELECT * FROM profiles").fetchone()
    assert not report.tables["profiles"].readable
    assert sum(str(value).startswith("h1:") for value in row) == 4
