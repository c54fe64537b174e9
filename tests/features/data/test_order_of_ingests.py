"""The current row and the history depend on what rows told and when, not on the order or grouping of their ingests."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.ingest import ingest
from features.data.lake import Lake
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.examples import examples
from tests.features.data.test_profile_history import Files, Row

NOW = datetime(2024, 6, 1, 12)
Rows = list[tuple[Any, ...]]
CELLS: dict[str, dict[str, list[str | None]]] = {
    "profiles": {
        "member_tier": ["gold", "silver", None],
        "city": ["A", "B", None],
        "consent_email": ["yes", "no", None],
        "gender": ["f", "m", None],
    },
    "items": {"brand": ["A", "B", None], "tags": ["x", "y", None], "hobby": ["chess", "go", None]},
    "contents": {"type": ["banner", "article", None], "topics": ["x", "y", None], "channel": ["app", None]},
    "campaigns": {"kind": ["A", "B", None], "channel": ["app", "web", None]},
}
KEYS = {"profiles": "source_user_id", "items": "item_id", "contents": "content_id", "campaigns": "campaign_id"}


def monthly_files(chance: random.Random, table: str) -> list[list[Row]]:
    """Files of two to four months, each with some of the columns, and rows of some of the keys."""
    found, cells = [], CELLS[table]
    for month in range(1, chance.randint(2, 4) + 1):
        names = chance.sample(sorted(cells), chance.randint(1, len(cells)))
        found.append(
            [
                {
                    KEYS[table]: f"k{key}",
                    "valid_from": f"2024-0{month}-0{chance.randint(1, 9)}",
                    **{name: chance.choice(cells[name]) for name in names},
                }
                for key in chance.sample(range(60), 45)
            ]
        )
    return found


def lake_after(ingests: Iterable[Sequence[Sequence[Row]]], table: str = "profiles") -> dict[str, Rows]:
    """The current rows and the history after ingests of one or more files each."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace")
        for given_together in ingests:
            ingest(workspace, Files(*given_together, table=table), Settings(), now=NOW)
        connection = Lake(workspace).connect().con
        shown = {"profiles": ["profiles", "profile_history"]}.get(table, [table])
        return {name: by_column(connection, name) for name in shown}


def by_column(connection: duckdb.DuckDBPyConnection, table: str) -> Rows:
    """The rows of a table with their columns by name, those without any value left out."""
    rows = connection.execute(f"FROM {table}").fetchall()
    names = [column[0] for column in connection.description or ()]
    return sorted(
        (tuple(sorted((n, str(v)) for n, v in zip(names, row, strict=True) if v not in (None, ""))) for row in rows),
    )


def expected(rows: Sequence[Row], table: str) -> dict[str, dict[str, Any]]:
    """The last told cell of each column: a consent is told if the cell is filled."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row["valid_from"])):
        cells = found.setdefault(str(row[KEYS[table]]), {})
        for name in set(row) & set(CELLS[table]):
            if name != "consent_email":
                cells[name] = row[name]
            elif row[name]:
                cells[name] = "True" if row[name] == "yes" else "False"
    return found


@pytest.mark.parametrize("table", sorted(KEYS))
@settings(max_examples=examples(3), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_order_and_grouping_of_ingests_gives_the_same_lake(table: str, seed: int) -> None:
    chance = random.Random(seed)
    months = monthly_files(chance, table)
    together = lake_after([months], table)
    current = {dict(row)[KEYS[table]]: dict(row) for row in together[table]}
    for key, cells in expected([row for rows in months for row in rows], table).items():
        assert {name: current[key].get(name) for name in cells} == cells
    order = chance.sample(months, len(months))
    cut = chance.randint(1, len(months))
    assert lake_after([[file] for file in order], table) == together
    grouped = [order[:cut], order[cut:] or order[:1]]
    assert lake_after([*grouped, *grouped], table) == together


JANUARY = {"source_user_id": "u1", "valid_from": "2024-01-01"}
FEBRUARY, MARCH = {**JANUARY, "valid_from": "2024-02-01"}, {**JANUARY, "valid_from": "2024-03-01"}


def test_a_withdrawal_that_was_repeated_is_not_undone_by_a_row_from_before_it() -> None:
    no = {**JANUARY, "consent_email": "no"}, {**MARCH, "consent_email": "no"}
    late = {**FEBRUARY, "consent_email": "yes"}
    lake = lake_after([[[no[0]]], [[no[1]]], [[late]]])
    assert [dict(row)["consent_email"] for row in lake["profiles"]] == ["False"]
    held = sorted((dict(row)["valid_from"][:10], dict(row)["consent_email"]) for row in lake["profile_history"])
    assert held == [("2024-01-01", "False"), ("2024-02-01", "True"), ("2024-03-01", "False")]


def test_a_late_row_replaces_a_value_that_a_newer_row_only_carried() -> None:
    lake = lake_after(
        [[[{**JANUARY, "city": "A"}]], [[{**MARCH, "member_tier": "gold"}]], [[{**FEBRUARY, "city": "B"}]]]
    )
    assert [dict(row)["city"] for row in lake["profiles"]] == ["B"]
    held = sorted((dict(row)["valid_from"][:10], dict(row)["city"]) for row in lake["profile_history"])
    assert held == [("2024-01-01", "A"), ("2024-02-01", "B"), ("2024-03-01", "B")]


def test_values_seen_several_times_come_back_when_they_were_next_seen() -> None:
    gold = [{**row, "member_tier": "gold"} for row in (JANUARY, FEBRUARY, MARCH)]
    late = {**JANUARY, "valid_from": "2024-01-15", "member_tier": "silver"}
    lake = lake_after([[[row]] for row in (*gold, late)])
    held = sorted((dict(row)["valid_from"][:10], dict(row)["member_tier"]) for row in lake["profile_history"])
    assert held == [("2024-01-01", "gold"), ("2024-01-15", "silver"), ("2024-02-01", "gold")]


def test_an_undated_file_that_is_ingested_again_is_not_newer_than_a_dated_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    undated, dated = {"source_user_id": "u1", "consent_sms": "yes"}, {"source_user_id": "u1", "consent_sms": "no"}
    for day, row in ((1, undated), (20, {**dated, "valid_from": "2024-06-10"}), (25, undated)):
        report = ingest(workspace, Files([row]), Settings(), now=datetime(2024, 6, day))
    assert report.tables["profiles"].kept == 0
    assert Lake(workspace).connect().con.execute("SELECT consent_sms FROM profiles").fetchall() == [(False,)]
    ingest(workspace, Files([{**undated, "city": "Oslo"}]), Settings(), now=datetime(2024, 6, 26))
    # the city is news, and the consent is what this source said before it can have known of the withdrawal
    assert Lake(workspace).connect().con.execute("SELECT consent_sms, city FROM profiles").fetchall() == [
        (False, "Oslo")
    ]


def as_written_before(workspace: Workspace) -> None:
    """Rewrite the history as earlier versions did: `last_seen` instead of what was told."""
    file = workspace.lake / Lake(workspace).state("profile_history").path
    moments = "list_transform(string_split(_told, chr(10)), lambda line: split_part(line, '|', 1))"
    last = f"CASE WHEN valid_from IS NOT NULL THEN list_max({moments})::TIMESTAMP END AS last_seen"
    duckdb.execute(f"CREATE OR REPLACE TABLE earlier AS SELECT * EXCLUDE (_told), {last} FROM '{file}'")
    duckdb.execute(f"COPY earlier TO '{file}' (FORMAT parquet)")
    manifest = workspace.lake / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"_told"', '"last_seen"'))


@pytest.mark.parametrize(("consent", "late"), [("no", "yes"), ("yes", "no")])
def test_a_history_of_an_earlier_version_is_read(tmp_path: Path, consent: str, late: str) -> None:
    """It does not say which consents were told again; a withdrawal holds all the same."""
    workspace = Workspace(tmp_path / "workspace")
    old = [
        [{**row, "member_tier": tier, "gender": "f", "consent_email": consent}]
        for row, tier in ((JANUARY, "gold"), (MARCH, "gold"))
    ]
    for file in old:
        ingest(workspace, Files(file), Settings(), now=NOW)
    as_written_before(workspace)
    ingest(
        workspace,
        Files([{**FEBRUARY, "member_tier": "silver", "gender": "m", "consent_email": late}]),
        Settings(),
        now=NOW,
    )
    connection = Lake(workspace).connect().con
    assert connection.execute("SELECT member_tier, gender, consent_email FROM profiles").fetchall() == [
        ("gold", "f", False)
    ]
    tiers = "SELECT valid_from::DATE::VARCHAR, member_tier FROM profile_history WHERE valid_from IS NOT NULL ORDER BY 1"
    assert connection.execute(tiers).fetchall() == [
        ("2024-01-01", "gold"),
        ("2024-02-01", "silver"),
        ("2024-03-01", "gold"),
    ]


def test_files_that_are_ingested_again_complete_a_history_of_an_earlier_version(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    rows = [{**row, "member_tier": "gold", "consent_email": "yes"} for row in (JANUARY, MARCH)]
    first = ingest(workspace, Files(rows), Settings(), now=NOW)
    as_written_before(workspace)
    again = ingest(workspace, Files(rows), Settings(), now=NOW)
    assert (again.tables["profiles"].kept, again.digest) == (0, first.digest)
    assert "_told" in Lake(workspace).state("profile_history").columns
