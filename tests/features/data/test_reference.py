"""The tables of warnings and of reasons in docs/data-reference.md cover what an ingest can say."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from features.data.ingest import ingest
from features.data.ingest.checks import CHECKS
from qianmian.settings import Settings
from tests.features.data.exports import Export

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "data-reference.md").read_text(encoding="utf-8")
INPUT = "odd_input"  # passes on what the reader of the files noticed, under names of its own


def first_column(heading: str) -> list[list[str]]:
    """The texts between backticks in the first column of the table below a heading."""
    section = REFERENCE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [re.split(r"(?<!\\)\|", line)[1] for line in section.splitlines() if line.startswith("|")]
    return [found for cell in cells if (found := re.findall(r"`([^`]+)`", cell))]


def test_the_table_of_warnings_lists_every_check() -> None:
    assert [names[0] for names in first_column("Warnings")] == list(CHECKS)
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "features/data/sources").rglob("*.py"))
    noticed = set(re.findall(r'InputWarning\(\s*"(\w+)"', sources))
    (row,) = [line for line in REFERENCE.splitlines() if line.startswith(f"| `{INPUT}`")]
    assert set(re.findall(r"`(\w+)`", row)) == {INPUT, *noticed}


@pytest.mark.parametrize(
    ("table", "columns", "rows"),
    [
        (
            "transactions",
            "order_id,source_user_id,item_id,ts,quantity,amount,status",
            [
                "o1,c1,s1,yesterday,1,1,paid",
                "o2,c1,s1,2024-03-31 02:30,1,1,paid",
                "o3,c1,s1,2024-03-01 10:00 CST,1,1,paid",
                "o4,c1,s1,0010-03-01 10:00,1,1,paid",
                "o5,c1,s1,1800-03-01 10:00,1,1,paid",
                "o6,c1,s1,2199-03-01 10:00,1,1,paid",
                "o7,c1,s1,2024-03-01 10:00,many,1,paid",
                "4.00638E+12,c1,s1,2024-03-01 10:00,1,1,paid",
                "NULL,c1,s1,2024-03-01 10:00,1,1,paid",
                ",c1,s1,2024-03-01 10:00,1,1,paid",
                "o8,ann@example.org,s1,2024-03-01 10:00,1,1,paid",
                "o9,c1,s1,2024-03-01 10:00,1,1,lost",
                "o10,c1,s1,2024-03-01 10:00,1,-1,paid",
                "o11,c1,s1",
                'o12,c1,"s1" x,2024-03-01 10:00,1,1,paid',
            ],
        ),
        (
            "profiles",
            "source_user_id,birth_date,consent_email",
            ["c1,1850-01-01,yes", "c2,2199-01-01,yes", "c3,2000-01-01,perhaps", "c4,never,yes"],
        ),
        ("identities", "source_user_id,id_type,id_value", ["c1,tattoo,x", "c2,phone,abc"]),
        (
            "touches",
            "touch_id,campaign_id,source_user_id,ts,propensity",
            ["t1,k1,c1,2024-03-01 10:00,50", "t2,k1,c1,2024-03-01 10:00,.5", "t2,k1,c1,2024-03-02 10:00,.5"],
        ),
        (
            "events",
            "event_type,ts,source_user_id,duration_seconds,properties",
            ["view,2024-03-01 10:00,c1,-5,", "glance,2024-03-01 10:00,c1,5,", "view,2024-03-01 10:00,c1,5,{"],
        ),
    ],
)
def test_the_table_of_reasons_covers_what_rejected_rows_get(
    table: str, columns: str, rows: list[str], tmp_path: Path
) -> None:
    export = Export(tmp_path)
    good = {
        "transactions": "ok,c9,s1,2024-03-01 10:00,1,1,paid",
        "profiles": "c9,2000-01-01,yes",
        "identities": "c9,cookie,k",
        "touches": "t9,k1,c1,2024-03-01 10:00,.5",
        "events": "view,2024-03-01 10:00,c1,5,",
    }[table]
    numbered = [good.replace("9", f"9{place}", 1).replace("ok", f"ok{place}") for place in range(3 * len(rows))]
    mapping = "{" + ", ".join(f"{name}: {name}" for name in columns.split(",")) + "}"
    source = export.source("\n".join([columns, *rows, *numbered]) + "\n", mapping, table)
    source.timezone = "Europe/London"
    report = ingest(export.workspace, source, Settings())
    files = export.workspace.quarantine / "shop" / "*.parquet"
    reasons = [reason for (reason,) in duckdb.sql(f"SELECT reason FROM '{files}'").fetchall()]
    assert report.tables[table].quarantined == len(reasons)
    listed = [name for names in first_column("Rejected rows") for name in names]
    patterns = [re.escape(name).replace("…", ".*").replace("Europe/London", ".*") for name in listed]
    patterns += [re.sub(r"^\w+\\ ", r"\\w+\\ ", pattern) for pattern in patterns]  # a column is an example
    assert [reason for reason in reasons if not any(re.match(pattern, reason) for pattern in patterns)] == []
