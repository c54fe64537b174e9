"""Profiles that change: the newest row is current whatever the order of ingest, and the history keeps what was known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import duckdb
import pytest

from features.data.ingest import ingest
from features.data.ingest.report import IngestReport
from features.data.lake import Lake, literal
from features.data.sources.base import RawTable, Source
from features.data.sources.files import FileSource
from qianmian.errors import ConfigError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

JUNE, JULY = datetime(2024, 6, 1, 12), datetime(2024, 7, 1, 12)
Row = dict[str, str | None]


class Files(Source):
    """Rows of several files of one table; a file lacks the columns that its rows do not name."""

    name = "crm"

    def __init__(
        self,
        *files: Sequence[Row],
        table: str = "profiles",
        fixed: frozenset[str] | Literal["all"] = frozenset(),
        key: str = "source_user_id",
    ) -> None:
        self.files, self.table, self.fixed, self.key = files, table, fixed, key

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        names = list(dict.fromkeys(name for rows in self.files for row in rows for name in row))
        cells, absent = [], {}
        for number, rows in enumerate(self.files):
            has = {name for row in rows for name in row}
            if has < set(names):
                absent[f"{number}.csv"] = frozenset(set(names) - has)
            for row in rows:
                values = [row.get(name) for name in names]
                shown = ", ".join("NULL" if value is None else literal(value) for value in values)
                cells.append(f"({shown}, '{number}.csv')")
        typed = ", ".join(f'"{name}" VARCHAR' for name in names)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE made ({typed}, _file VARCHAR)")
        connection.execute(f"INSERT INTO made VALUES {', '.join(cells)}")
        files = tuple(f"{number}.csv" for number in range(len(self.files)))
        columns = {name: f'"{name}"' for name in names}
        relation = "SELECT * FROM made"
        return [RawTable(self.table, relation, columns, files, file_column="_file", fixed=self.fixed, absent=absent)]


def user(tier: str | None = None, **more: str | None) -> Row:
    return {"source_user_id": "u1", "member_tier": tier, **more}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def read(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    return Lake(workspace).connect().con.execute(query).fetchall()


def give(workspace: Workspace, *files: Sequence[Row], now: datetime | None = JUNE, **more: Any) -> IngestReport:
    return ingest(workspace, Files(*files, **more), Settings(), now=now)


def history(workspace: Workspace, columns: str = "member_tier") -> list[tuple[Any, ...]]:
    query = (
        f"SELECT valid_from::VARCHAR, {columns} FROM profile_history ORDER BY source_user_id, valid_from NULLS FIRST"
    )
    return read(workspace, query)


# ---- which row is newer ----------------------------------------------------------------------------------------------


def test_the_last_row_of_an_undated_input_is_current_and_known_from_the_ingest_on(workspace: Workspace) -> None:
    rows = [
        [user("gold", consent_email="yes")],
        [user("gold", consent_email="yes")],
        [user("platinum", consent_email="no")],
    ]
    report = give(workspace, *rows).tables["profiles"]
    assert (report.read, report.kept, report.duplicates, dict(report.flags)) == (3, 1, 2, {"superseded": 2})
    assert read(workspace, "SELECT member_tier, consent_email, valid_from FROM profiles") == [("platinum", False, None)]
    assert history(workspace, "member_tier, consent_email") == [("2024-06-01 12:00:00", "platinum", False)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("together", [True, False])
def test_the_latest_date_is_current_in_whatever_order_the_rows_come(
    workspace: Workspace, order: Sequence[int], together: bool
) -> None:
    dated = [
        user("silver", consent_email="yes", valid_from="2024-01-01"),
        user("gold", consent_email="no", valid_from="2024-02-01"),
        user("bronze", consent_email=None, valid_from="2024-03-01"),
    ]
    files = [[dated[place]] for place in order]
    for given in [files] if together else [[file] for file in files]:
        give(workspace, *given)
    assert read(workspace, "SELECT member_tier, consent_email, valid_from::VARCHAR FROM profiles") == [
        ("bronze", False, "2024-03-01 00:00:00")
    ]
    tiers = [("2024-01-01 00:00:00", "silver"), ("2024-02-01 00:00:00", "gold"), ("2024-03-01 00:00:00", "bronze")]
    assert history(workspace) == tiers


@pytest.mark.parametrize("table", ["items", "contents", "campaigns"])
def test_dates_decide_in_every_dimension(workspace: Workspace, table: str) -> None:
    key, value = {
        "items": ("item_id", "brand"),
        "contents": ("content_id", "type"),
        "campaigns": ("campaign_id", "kind"),
    }[table]

    def row(text: str, date: str) -> Row:
        return {key: "x", value: text, "valid_from": date}

    first = give(workspace, [row("march", "2024-03-01"), row("february", "2024-02-01")], table=table).tables[table]
    assert (first.kept, first.duplicates) == (1, 1)
    late = give(workspace, [row("january", "2024-01-01")], table=table).tables[table]
    assert (late.kept, late.duplicates, dict(late.flags)) == (0, 1, {"superseded": 1})
    assert read(workspace, f"SELECT {value}, valid_from::VARCHAR FROM {table}") == [("march", "2024-03-01 00:00:00")]
    give(workspace, [{key: "x", value: "undated"}], table=table)
    assert read(workspace, f"SELECT {value} FROM {table}") == [("undated",)]


def test_that_a_row_still_holds_is_remembered(workspace: Workspace) -> None:
    """Gold in January and again in March: silver of February, which comes last, ended in March."""
    give(workspace, [user("gold", valid_from="2024-01-01")])
    again = give(workspace, [user("gold", valid_from="2024-03-01")]).tables["profiles"]
    assert (again.kept, again.duplicates) == (0, 1)
    assert history(workspace) == [("2024-01-01 00:00:00", "gold")]
    give(workspace, [user("silver", valid_from="2024-02-01")])
    assert read(workspace, "SELECT member_tier FROM profiles") == [("gold",)]
    tiers = [("2024-01-01 00:00:00", "gold"), ("2024-02-01 00:00:00", "silver"), ("2024-03-01 00:00:00", "gold")]
    assert history(workspace) == tiers


# ---- what a row does not tell ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(2))))
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("dates", [("2024-01-01", "2024-02-01"), ("2024-02-01", "2024-01-01")])
def test_a_file_without_a_column_says_nothing_about_it(
    workspace: Workspace, order: Sequence[int], together: bool, dates: tuple[str, str]
) -> None:
    one, other = user("gold", valid_from=dates[0]), {"source_user_id": "u1", "city": "Oslo", "valid_from": dates[1]}
    files = [[[one], [other]][place] for place in order]
    for given in [files] if together else [[file] for file in files]:
        give(workspace, *given)
    assert read(workspace, "SELECT member_tier, city FROM profiles") == [("gold", "Oslo")]
    tier = "gold" if dates[0] < dates[1] else None
    city = "Oslo" if dates[0] > dates[1] else None
    assert history(workspace, "member_tier, city") == [
        ("2024-01-01 00:00:00", tier, city),
        ("2024-02-01 00:00:00", "gold", "Oslo"),
    ]


def test_an_empty_cell_says_that_there_is_no_value(workspace: Workspace) -> None:
    give(workspace, [user("gold", valid_from="2024-01-01"), {**user("gold"), "source_user_id": "u2"}])
    give(workspace, [user(None, valid_from="2024-03-01")])
    give(workspace, [user("silver", valid_from="2024-02-01")])  # comes late, and March said: none
    assert read(workspace, "SELECT source_user_id, member_tier FROM profiles ORDER BY 1") == [
        ("u1", None),
        ("u2", "gold"),
    ]
    assert history(workspace)[:3] == [
        ("2024-01-01 00:00:00", "gold"),
        ("2024-02-01 00:00:00", "silver"),
        ("2024-03-01 00:00:00", None),
    ]


@pytest.mark.parametrize(
    ("rows", "consent"),
    [
        ([("no", None), (None, None)], False),
        ([("yes", None), (None, None)], True),
        ([("no", None), ("yes", None)], True),  # given again, in the order of the rows
        ([("no", "2024-03-01"), ("yes", "2024-02-01")], False),
        ([("no", "2024-03-01"), (None, "2024-04-01")], False),
        ([("no", "2024-03-01"), ("yes", "2024-04-01")], True),
        ([("no", None), ("yes", "2024-04-01")], False),  # the date of the first is that of its ingest, in June
        ([("no", None), ("yes", "2024-06-01 18:00")], True),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_consent_withdrawn_is_not_brought_back_by_older_rows_or_by_silence(
    workspace: Workspace, rows: list[tuple[str | None, str | None]], consent: bool, together: bool
) -> None:
    files = [[{"source_user_id": "u1", "consent_sms": given, "valid_from": date}] for given, date in rows]
    for given in [files] if together else [[file] for file in files]:
        give(workspace, *given)
    assert read(workspace, "SELECT consent_sms FROM profiles") == [(consent,)]


def test_consent_withdrawn_at_an_unknown_date_is_not_given_back_by_a_dated_row(workspace: Workspace) -> None:
    give(workspace, [{"source_user_id": "u1", "consent_sms": "no"}], now=None)
    give(workspace, [{"source_user_id": "u1", "consent_sms": "yes", "valid_from": "2024-05-01"}])
    assert read(workspace, "SELECT consent_sms FROM profiles") == [(False,)]


# ---- the history -----------------------------------------------------------------------------------------------------


def test_an_undated_attribute_is_known_from_the_ingest_that_brought_it(workspace: Workspace) -> None:
    give(workspace, [user("gold", gender="f", birth_date="1990-05-01")], now=JUNE)
    give(workspace, [user("platinum", gender="f", birth_date="1990-05-01")], now=JULY)
    assert history(workspace, "member_tier, gender, birth_date::VARCHAR") == [
        (None, None, "f", "1990-05-01"),
        ("2024-06-01 12:00:00", "gold", None, None),
        ("2024-07-01 12:00:00", "platinum", None, None),
    ]


@pytest.mark.parametrize("dated", [True, False])
def test_the_same_input_again_changes_nothing(workspace: Workspace, dated: bool) -> None:
    date = {"valid_from": "2024-02-01"} if dated else {}
    files = [user("gold", **date)], [{**user("silver", **date), "city": "Oslo", "gender": "m"}]
    first = give(workspace, *files, now=JUNE)
    again = give(workspace, *files, now=JULY)
    report = again.tables["profiles"]
    assert (report.kept, report.duplicates, again.digest) == (0, 2, first.digest)


def test_fixed_attributes_hold_always_and_know_no_clock(tmp_path: Path) -> None:
    digests = set()
    for now in (JUNE, JULY, None):
        workspace = Workspace(tmp_path / str(now))
        digests.add(give(workspace, [user("gold", income_band="high")], now=now, fixed="all").digest)
        assert history(workspace, "member_tier, income_band") == [(None, "gold", "high")]
    assert len(digests) == 1
    workspace = Workspace(tmp_path / "one")
    give(workspace, [user("gold", income_band="high")], fixed=frozenset({"income_band"}))
    rows = [(None, None, "high"), ("2024-06-01 12:00:00", "gold", None)]
    assert history(workspace, "member_tier, income_band") == rows


def test_a_declaration_that_changes_applies_to_the_same_rows(workspace: Workspace) -> None:
    give(workspace, [user("gold")], now=JUNE, fixed="all")
    report = give(workspace, [user("gold")], now=JULY).tables["profiles"]
    assert (report.kept, report.duplicates) == (0, 1)
    assert history(workspace) == [("2024-07-01 12:00:00", "gold")]
    give(workspace, [user("gold")], now=JULY, fixed=frozenset({"member_tier"}))
    assert history(workspace) == [(None, "gold")]


def test_other_records_and_other_attributes_stay_as_they_were(workspace: Workspace) -> None:
    other = {**user("silver"), "source_user_id": "u2"}
    give(workspace, [{**user("gold"), "hobby": "chess"}, other], now=JUNE, fixed=frozenset({"hobby"}))
    give(workspace, [user("platinum")], now=JULY)
    assert read(
        workspace, "SELECT source_user_id, valid_from::VARCHAR, member_tier, hobby FROM profile_history ORDER BY ALL"
    ) == [
        ("u1", "2024-06-01 12:00:00", "gold", None),
        ("u1", "2024-07-01 12:00:00", "platinum", None),
        ("u1", None, None, "chess"),
        ("u2", "2024-06-01 12:00:00", "silver", None),
    ]


def test_new_repeated_and_changed_records_of_one_input(workspace: Workspace) -> None:
    """The merge looks at the columns of the last two kinds only; all have the right rows and counts."""

    def row(name: str, tier: str, **more: str | None) -> Row:
        return {"source_user_id": name, "member_tier": tier, "city": "Oslo", "consent_email": None, **more}

    give(workspace, [row("same", "gold"), row("silent", "gold", consent_email="no"), row("other", "gold")], now=JUNE)
    rows = [row("same", "gold"), row("silent", "gold"), row("other", "silver"), row("new", "gold")]
    report = give(workspace, [*rows, row("twice", "gold"), row("twice", "silver")], now=JULY).tables["profiles"]
    assert (report.read, report.kept, report.duplicates, report.updated) == (6, 3, 3, 1)
    assert read(workspace, "SELECT source_user_id, member_tier, consent_email FROM profiles ORDER BY 1") == [
        ("new", "gold", None),
        ("other", "silver", None),
        ("same", "gold", None),
        ("silent", "gold", False),
        ("twice", "silver", None),
    ]
    assert history(workspace, "source_user_id, member_tier, consent_email") == [
        ("2024-07-01 12:00:00", "new", "gold", None),
        ("2024-06-01 12:00:00", "other", "gold", None),
        ("2024-07-01 12:00:00", "other", "silver", None),
        ("2024-06-01 12:00:00", "same", "gold", None),
        ("2024-06-01 12:00:00", "silent", "gold", False),
        ("2024-07-01 12:00:00", "twice", "silver", None),
    ]


def test_a_repeated_row_extends_the_time_in_which_its_values_were_seen(workspace: Workspace) -> None:
    give(workspace, [user("gold", valid_from="2024-01-01")])
    give(workspace, [user("gold", valid_from="2024-03-01")])
    give(workspace, [user("gold", valid_from="2024-02-01")])
    assert history(workspace) == [("2024-01-01 00:00:00", "gold")]
    # between two moments at which the same was seen
    give(workspace, [user("silver", valid_from="2024-02-15")])
    assert [tier for _, tier in history(workspace)] == ["gold", "silver", "gold"]


def test_without_the_moment_of_ingest_there_is_no_date(workspace: Workspace) -> None:
    give(workspace, [user("gold", gender="f")], now=None)
    assert history(workspace, "member_tier, gender") == [(None, None, "f")]
    assert read(workspace, "SELECT member_tier FROM profiles") == [("gold",)]


def test_an_attribute_that_becomes_text_is_text_in_the_history(workspace: Workspace) -> None:
    class Numbers(Files):
        def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
            (raw,) = super().tables(connection)
            return [RawTable(raw.table, raw.relation, {**raw.columns, "kids": "kids::BIGINT"}, raw.files)]

    ingest(workspace, Numbers([{"source_user_id": "u1", "kids": "3"}]), Settings(), now=JUNE)
    give(workspace, [{"source_user_id": "u1", "kids": "many"}], now=JULY)
    assert history(workspace, "kids") == [("2024-06-01 12:00:00", "3.0"), ("2024-07-01 12:00:00", "many")]


def test_a_date_in_the_future_is_not_believed(workspace: Workspace) -> None:
    report = give(workspace, [user("gold"), user("vip", valid_from="2099-01-01")]).tables["profiles"]
    assert dict(report.reasons) == {"valid_from is in the future: check the clock of the source": 1}
    assert read(workspace, "SELECT member_tier FROM profiles") == [("gold",)]


def test_a_lake_without_a_history_knows_what_is_fixed_by_nature(workspace: Workspace) -> None:
    give(workspace, [user("gold", gender="f", registered_at="2023-01-01"), {**user("gold"), "source_user_id": "u2"}])
    lake = Lake(workspace)
    manifest = workspace.lake / "manifest.json"
    content = json.loads(manifest.read_text())
    content["tables"] = [table for table in content["tables"] if table["name"] != "profile_history"]
    manifest.write_text(json.dumps(content))
    assert "profile_history" not in lake.states()
    old = [(None, None, "f", "2023-01-01 00:00:00")]
    assert history(workspace, "member_tier, gender, registered_at::VARCHAR") == old
    give(workspace, [user("gold", gender="f", registered_at="2023-01-01")], now=JULY)  # known from now on
    assert history(workspace, "member_tier, gender, registered_at::VARCHAR") == [
        *old,
        ("2024-07-01 12:00:00", "gold", None, None),
    ]


# ---- as a sources.yaml declares it -----------------------------------------------------------------------------------


def write(folder: Path, yaml: str, **files: str) -> FileSource:
    for name, text in files.items():
        (folder / f"{name.replace('__', '-')}.csv").write_text(text)
    config = folder / "sources.yaml"
    config.write_text(yaml)
    return FileSource(config)


def test_the_date_in_a_file_name_dates_its_rows(tmp_path: Path, workspace: Workspace) -> None:
    source = write(
        tmp_path,
        """
source: crm
timezone: America/New_York
tables:
  profiles:
    path: people_*.csv
    file_date: people_%Y-%m.csv
    fixed: [plan]
    columns: {source_user_id: id, member_tier: tier, plan: plan}
""",
        people_2024__02="id,tier,plan\nu1,gold,a\n",
        people_2023__12="tier,id,plan\nsilver,u1,a\n",
    )
    ingest(workspace, source, Settings(), now=JUNE)
    assert read(workspace, "SELECT member_tier FROM profiles") == [("gold",)]
    assert history(workspace, "member_tier, plan") == [
        (None, None, "a"),
        ("2023-12-01 05:00:00", "silver", None),
        ("2024-02-01 05:00:00", "gold", None),
    ]


def test_each_row_may_have_its_date(tmp_path: Path, workspace: Workspace) -> None:
    source = write(
        tmp_path,
        """
source: crm
tables:
  profiles: {path: people.csv, fixed: all, columns: {source_user_id: id, plan: plan}}
  items: {path: items.csv, columns: {item_id: id, price: price, valid_from: since}}
""",
        people="id,plan\nu1,a\n",
        items="id,price,since\ni1,3,2024-05-01\ni1,2,2024-04-01\n",
    )
    ingest(workspace, source, Settings(), now=JUNE)
    assert read(workspace, "SELECT price FROM items") == [(3.0,)]
    assert history(workspace, "plan") == [(None, "a")]


def test_mistakes_in_dates_and_fixed_attributes_come_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write(
            tmp_path,
            """
source: crm
tables:
  profiles: {path: a.csv, file_date: p_%Y.csv, fixed: [tier], columns: {source_user_id: id, member_tier: tier}}
  items: {path: a.csv, file_date: a.csv, fixed: all, columns: {item_id: id}}
  campaigns: {path: a.csv, file_date: a_%Y.csv, columns: {campaign_id: id, valid_from: tier}}
  events: {path: a.csv, file_date: a_%Y.csv, columns: {event_type: id, ts: tier}}
""",
            a="id,tier\n1,2\n",
        )
    text = str(caught.value)
    for part in (
        "tables.profiles.fixed: 'tier' is not mapped",
        "tables.profiles.file_date: 'a.csv' does not match 'p_%Y.csv'",
        "tables.items.fixed: only attributes of profiles",
        "tables.items.file_date: 'a.csv' has no year",
        "tables.campaigns.file_date: valid_from is mapped",
        "tables.events.file_date: the rows of events have their own times",
    ):
        assert part in text
