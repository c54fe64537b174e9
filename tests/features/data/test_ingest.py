"""Ingest: every row read is kept, a duplicate, or in quarantine with its reason; a failed ingest changes nothing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.data.ingest import IngestReport, TableReport, ingest
from features.data.lake import Lake, literal
from features.data.sources.base import RawTable, Source, ValueRules
from qianmian.errors import DataError, WorkspaceError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.examples import examples

ORDERS = ("order_id", "source_user_id", "item_id", "ts", "quantity", "amount")
GOOD = ("o1", "u1", "i1", "2017-01-01 10:00", "1", "2.50")


class Rows(Source):
    """Text rows, as a CSV would give them."""

    def __init__(
        self,
        rows: Sequence[Sequence[str | None]],
        names: Sequence[str] = ORDERS,
        table: str = "transactions",
        timezone: str = "UTC",
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.timezone, self.rows, self.names, self.table, self.columns = (
            "shop",
            timezone,
            rows,
            names,
            table,
            columns,
        )

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        typed = ", ".join(f'"{name}" VARCHAR' for name in self.names)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE made ({typed})")
        if self.rows:
            values = ", ".join(
                "(" + ", ".join("NULL" if value is None else literal(value) for value in row) + ")" for row in self.rows
            )
            connection.execute(f"INSERT INTO made VALUES {values}")
        return [
            RawTable(
                self.table,
                "SELECT * FROM made",
                self.columns or {name: f'"{name}"' for name in self.names},
                ("made.csv",),
                max_rejected=1.0,
                values=ValueRules(decimal="."),
            )
        ]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "a workspace")


def table(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    return Lake(workspace).connect().con.execute(query).fetchall()


def refused(report: TableReport) -> list[tuple[str, dict[str, Any]]]:
    rows = duckdb.sql(
        f"SELECT reason, row FROM read_parquet({literal(str(report.quarantine_file))}) ORDER BY position"
    ).fetchall()
    return [(reason, json.loads(row)) for reason, row in rows]


def one(workspace: Workspace, *rows: Sequence[str | None], **more: Any) -> TableReport:
    source = Rows(rows, **more)
    return ingest(workspace, source, Settings()).tables[source.table]


# ---- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, "u1", "i1", "2017-01-01", "1", "1"), "order_id is missing"),
        (("  ", "u1", "i1", "2017-01-01", "1", "1"), "order_id is missing"),
        (("o2", "u1", "i1", "2017-13-45", "1", "1"), "ts is not a time"),
        (("o2", "u1", "i1", "31/12/2017", "1", "1"), "ts is not a time"),
        (("o2", "u1", "i1", "1511544070", "1", "1"), "ts is not a time"),
        (("o2", "u1", "i1", "infinity", "1", "1"), "ts is not a time"),
        (("o2", "u1", "i1", None, "1", "1"), "ts is missing"),
        (("o2", "u1", "i1", "9999-12-31", "1", "1"), "ts is not between 1900-01-01 and 2262-01-01"),
        (("o2", "u1", "i1", "2017-01-01", "two", "1"), "quantity is not a finite number"),
        (("o2", "u1", "i1", "2017-01-01", "1", "inf"), "amount is not a finite number"),
        (
            ("o2", "u1", "i1", "2017-01-01", "1", "-1"),
            "quantity and amount have opposite signs, and status is not refunded",
        ),
        (
            ("o2", "u1", "i1", "2017-01-01", "-1", "1"),
            "quantity and amount have opposite signs, and status is not refunded",
        ),
    ],
)
def test_a_row_that_breaks_the_contract_is_quarantined_with_its_reason(
    workspace: Workspace, row: Sequence[str | None], reason: str
) -> None:
    report = one(workspace, GOOD, row)
    assert (report.read, report.kept, report.quarantined, dict(report.reasons)) == (2, 1, 1, {reason: 1})
    assert refused(report) == [(reason, dict(zip(ORDERS, row, strict=True)))]


@pytest.mark.parametrize(
    ("quantity", "amount", "kept"),
    [
        ("-2", "-5", (2.0, 5.0, "refunded")),
        ("-2", None, (2.0, None, "refunded")),
        (None, "-5", (None, 5.0, "refunded")),
        ("0", "0", (0.0, 0.0, "paid")),
        ("0", "-5", (0.0, 5.0, "refunded")),
        (None, None, (None, None, "paid")),
    ],
)
def test_signs_say_refund(
    workspace: Workspace, quantity: str | None, amount: str | None, kept: tuple[Any, ...]
) -> None:
    one(workspace, ("o1", "u1", "i1", "2017-01-01", quantity, amount))
    assert table(workspace, "SELECT quantity, amount, status FROM transactions") == [kept]


def test_a_stated_refund_may_have_either_sign(workspace: Workspace) -> None:
    rows = [
        ("o1", "1", "5", " Refunded "),
        ("o2", "1", "-5", "refunded"),
        ("o3", "-1", "-5", "REFUNDED"),
        ("o4", "1", "5", "gone"),
    ]
    report = one(workspace, *rows, names=("order_id", "quantity", "amount", "status"))
    assert table(workspace, "SELECT DISTINCT quantity, amount, status FROM transactions") == [(1.0, 5.0, "refunded")]
    assert dict(report.reasons) == {"status is not one of paid, refunded, cancelled": 1}


def test_a_refund_without_a_sale_is_kept_and_counted(workspace: Workspace) -> None:
    sold = ("o2", "u1", "i1", "2017-01-02", "-1", "-2.5")
    never_sold = ("o3", "u1", "i9", "2017-01-02", "-1", "-9")
    report = one(workspace, GOOD, sold, never_sold)
    assert report.kept == 3
    assert dict(report.flags) == {"refund_by_sign": 2, "refund_without_sale": 1}


def test_a_refund_finds_its_sale_in_the_lake(workspace: Workspace) -> None:
    one(workspace, GOOD)
    assert "refund_without_sale" not in one(workspace, ("o2", "u1", "i1", "2017-01-02", "-1", "-2.5")).flags


def test_absurd_values_are_kept_and_counted(workspace: Workspace) -> None:
    report = one(
        workspace,
        GOOD,
        ("o2", "u1", "i1", "2017-01-01", "89638", "250"),
        ("o3", None, "i1", "2017-01-01", "1", "2000001"),
    )
    assert (report.kept, dict(report.flags)) == (
        3,
        {"quantity_above_10000": 1, "amount_above_1000000": 1, "no_customer": 1},
    )


def test_a_row_without_a_customer_stays(workspace: Workspace) -> None:
    one(workspace, GOOD, ("o2", "", "i1", "2017-01-01", "1", "1"))
    assert table(workspace, "SELECT source_user_id FROM transactions ORDER BY order_id") == [("u1",), (None,)]
    assert table(workspace, "SELECT source_user_id FROM customers") == [("u1",)]


def test_times_and_amounts_may_be_absent_from_a_whole_source(workspace: Workspace) -> None:
    report = one(workspace, ("o1", "u1", "i1"), names=("order_id", "source_user_id", "item_id"))
    assert report.kept == 1
    assert table(workspace, "SELECT ts, amount, quantity, status, line_no FROM transactions") == [
        (None, None, None, "paid", 1)
    ]
    assert "ts" not in Lake(workspace).state("transactions").filled


def test_a_missing_required_column_names_it(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"required columns of transactions are not mapped.*allowed: order_id"):
        one(workspace, ("u1", "i1"), names=("source_user_id", "item_id"))


def test_a_column_of_a_type_that_can_never_fit_names_it(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"transactions.ts cannot be cast to a time.*to_timestamp"):
        one(workspace, ("o1", "5"), names=("order_id", "ts"), columns={"order_id": "order_id", "ts": "ts::BIGINT"})


@pytest.mark.parametrize(
    ("zone", "given", "utc"),
    [
        ("Europe/London", "2017-07-01 12:00", "2017-07-01 11:00:00"),  # summer time
        ("Europe/London", "2017-12-01 12:00", "2017-12-01 12:00:00"),
        ("America/New_York", "2017-11-05 03:00", "2017-11-05 08:00:00"),  # just after the hour that comes twice
        ("Asia/Shanghai", "2017-11-25", "2017-11-24 16:00:00"),
        ("Asia/Shanghai", "2017-11-25T10:00:00Z", "2017-11-25 10:00:00"),  # its own zone wins
        ("Asia/Shanghai", "2017-11-25 10:00:00+02:00", "2017-11-25 08:00:00"),
        ("Asia/Shanghai", "2017-11-25T10:00:00.250-05", "2017-11-25 15:00:00.25"),
        ("Asia/Shanghai", "2017-11-25 10:00Z", "2017-11-25 10:00:00"),
        ("Asia/Shanghai", "2017-11-25T10:00+01:00", "2017-11-25 09:00:00"),
        ("UTC", "2017-11-25", "2017-11-25 00:00:00"),
    ],
)
def test_times_become_utc(workspace: Workspace, zone: str, given: str, utc: str) -> None:
    one(workspace, ("o1", "u1", "i1", given, "1", "1"), timezone=zone)
    assert table(workspace, "SELECT ts::VARCHAR FROM transactions") == [(utc,)]


def test_the_contract_of_events_items_and_touches(workspace: Workspace) -> None:
    events = [
        ("View", "2017-01-01", "{}", "3"),
        ("stare", "2017-01-01", None, None),
        ("cart", "2017-01-01", "{", None),
        ("cart", "2017-01-01", None, "-3"),
    ]
    report = one(workspace, *events, names=("event_type", "ts", "properties", "duration_seconds"), table="events")
    assert [reason.split(" one of")[0] for reason, _ in refused(report)] == [
        "event_type is not",
        "properties is not JSON",
        "duration_seconds is negative",
    ]
    assert table(workspace, "SELECT event_type FROM events") == [("view",)]
    items = [("i1", "3.5", "yes", "red"), ("i2", "-1", "no", None), ("i3", "1", "perhaps", None)]
    report = one(workspace, *items, names=("item_id", "price", "available", "colour"), table="items")
    assert [reason for reason, _ in refused(report)] == ["price is negative", "available is not true or false"]
    assert table(workspace, "SELECT item_id, price, available, colour FROM items") == [("i1", 3.5, True, "red")]
    touches = [("t1", "c1", "u1", "2017-01-01", "0.5"), ("t2", "c1", "u1", "2017-01-01", "1.5")]
    report = one(
        workspace, *touches, names=("touch_id", "campaign_id", "source_user_id", "ts", "propensity"), table="touches"
    )
    assert [reason for reason, _ in refused(report)] == ["propensity is not between 0 and 1"]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("17850.0::DOUBLE", "17850"),
        ("'00017'", "00017"),
        ("17::BIGINT", "17"),
        ("1.5::DOUBLE", "1.5"),
        ("'nan'::DOUBLE", None),
        ("' '", None),
    ],
)
def test_ids_are_text_and_keep_their_zeros(workspace: Workspace, sql: str, text: str | None) -> None:
    one(workspace, ("o1",), names=("order_id",), columns={"order_id": "order_id", "source_user_id": sql})
    assert table(workspace, "SELECT source_user_id FROM transactions") == [(text,)]


# ---- merging -------------------------------------------------------------------------------------------------------


def test_lines_are_numbered_in_file_order_and_equal_lines_both_stay(workspace: Workspace) -> None:
    report = one(
        workspace,
        GOOD,
        ("o2", "u1", "i5", "2017-01-01", "1", "1"),
        GOOD,
        ("o1", "u1", "i0", "2017-01-01 10:00", "1", "1"),
    )
    assert report.kept == 4
    assert table(workspace, "SELECT order_id, line_no, item_id FROM transactions ORDER BY ALL") == [
        ("o1", 1, "i1"),
        ("o1", 2, "i1"),
        ("o1", 3, "i0"),
        ("o2", 1, "i5"),
    ]


def test_only_equal_content_under_one_key_is_a_duplicate(workspace: Workspace) -> None:
    names = ("order_id", "line_no", "quantity")
    report = one(
        workspace,
        ("o1", "1", "1"),
        ("o1", "1", "1.0"),
        ("o1", "1", "2"),
        ("o1", "2", "1"),
        ("o1", "1.5", "1"),
        names=names,
    )
    assert (report.read, report.kept, report.duplicates, report.quarantined) == (5, 2, 1, 2)
    assert [reason.split(":")[0] for reason, _ in refused(report)] == [
        "same key, different content",
        "line_no is not a whole number",
    ]
    again = one(workspace, ("o1", "1", "3"), ("o1", "2", "1"), names=names)
    assert (again.kept, again.duplicates, again.quarantined) == (0, 1, 1)
    assert table(workspace, "SELECT line_no, quantity FROM transactions ORDER BY 1") == [(1, 1.0), (2, 1.0)]


def test_identical_events_stay_two_and_get_stable_ids(workspace: Workspace) -> None:
    names = ("source_user_id", "event_type", "ts")
    rows = [("u1", "view", "2017-01-01"), ("u1", "view", "2017-01-01"), ("u2", "view", "2017-01-01")]
    assert one(workspace, *rows, names=names, table="events").kept == 3
    ids = table(workspace, "SELECT event_id FROM events ORDER BY 1")
    report = one(workspace, *rows[::-1], ("u3", "view", "2017-01-01"), names=names, table="events")
    assert (report.kept, report.duplicates) == (1, 3)
    assert set(ids) < set(table(workspace, "SELECT event_id FROM events"))


def test_the_newer_row_of_a_dimension_replaces_the_older(workspace: Workspace) -> None:
    names = ("source_user_id", "city", "member_tier", "hobby")
    first = one(
        workspace,
        ("u1", "Rome", "gold", "chess"),
        ("u2", "Oslo", "gold", None),
        ("u2", "Bonn", "gold", None),
        names=names,
        table="profiles",
    )
    assert (first.kept, first.duplicates, dict(first.flags)) == (2, 1, {"superseded": 1})
    second = one(workspace, ("u1", "Paris"), ("u3", "Bern"), ("u2", "Bonn"), names=names[:2], table="profiles")
    assert (second.kept, second.updated, second.duplicates) == (2, 1, 1)
    # what the second file does not speak of is still known
    assert table(workspace, "SELECT source_user_id, city, member_tier, hobby FROM profiles ORDER BY 1") == [
        ("u1", "Paris", "gold", "chess"),
        ("u2", "Bonn", "gold", None),
        ("u3", "Bern", None, None),
    ]


def test_an_attribute_that_changes_its_type_becomes_text(workspace: Workspace) -> None:
    one(
        workspace,
        ("u1", "3"),
        names=("source_user_id", "kids"),
        table="profiles",
        columns={"source_user_id": "source_user_id", "kids": "kids::BIGINT"},
    )
    one(workspace, ("u2", "many"), names=("source_user_id", "kids"), table="profiles")
    assert table(workspace, "SELECT source_user_id, kids FROM profiles ORDER BY 1") == [("u1", "3.0"), ("u2", "many")]


def test_two_sources_do_not_meet(workspace: Workspace) -> None:
    one(workspace, GOOD)
    other = Rows([GOOD])
    other.name = "other"
    assert ingest(workspace, other, Settings()).kept == 1
    assert table(workspace, "SELECT source FROM customers ORDER BY 1") == [("other",), ("shop",)]


_text = st.sampled_from(["o1", "o2", "", " ", None, "x y", "é"])
_number = st.sampled_from(["1", "-1", "0", "2.5", "x", "nan", "inf", "", None, "1e400", "1,5"])
_time = st.sampled_from(
    ["2017-01-01", "2017-01-01 10:00", "2017-02-30", "", None, "2017-01-01T00:00:00Z", "later", "0001-01-01"]
)
_line = st.sampled_from(["1", "2", "x", "1.5", None])
_dirty = st.tuples(_text, _line, _text, _text, _time, _number, _number)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_dirty, max_size=12), with_line=st.booleans(), zone=st.sampled_from(["UTC", "Europe/London"]))
def test_whatever_comes_every_row_is_accounted_for_and_twice_is_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, ...]], with_line: bool, zone: str
) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("dirty"))
    names = ("order_id", "line_no", *ORDERS[1:])
    columns = {name: f'"{name}"' for name in names if with_line or name != "line_no"}
    everything = [(*GOOD[:1], "1", *GOOD[1:]), *rows]  # one good row at least
    source = Rows(everything, names=names, timezone=zone, columns=columns)
    first = ingest(workspace, source, Settings()).tables["transactions"]
    assert first.read == len(everything) == first.kept + first.duplicates + first.quarantined
    assert first.kept == table(workspace, "SELECT count(*) FROM transactions")[0][0]
    assert (len(refused(first)) if first.quarantined else 0) == first.quarantined
    digest, files = Lake(workspace).digest, sorted(workspace.quarantine.rglob("*"))
    second = ingest(workspace, source, Settings()).tables["transactions"]
    assert (second.kept, second.duplicates, second.quarantined) == (0, first.kept + first.duplicates, first.quarantined)
    assert Lake(workspace).digest == digest
    assert sorted(workspace.quarantine.rglob("*")) == files


# ---- failing -------------------------------------------------------------------------------------------------------


def content(workspace: Workspace) -> tuple[str, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return (
        Lake(workspace).digest,
        table(workspace, "SELECT * FROM transactions ORDER BY ALL"),
        table(workspace, "SELECT * FROM customers ORDER BY ALL"),
    )


def test_an_empty_input_is_refused_and_the_lake_stays(workspace: Workspace) -> None:
    one(workspace, GOOD)
    before = content(workspace)
    with pytest.raises(
        DataError, match=r"no row could be kept \(in transactions from made.csv: no rows\).*the lake is unchanged"
    ):
        one(workspace)
    assert content(workspace) == before


def test_an_input_of_bad_rows_only_is_refused_and_shows_where_to_look(workspace: Workspace) -> None:
    one(workspace, GOOD)
    before = content(workspace)
    with pytest.raises(
        DataError, match=r"2 rows read, all rejected: 2 × ts is not a time.*quarantine/shop/transactions-.*strptime"
    ) as caught:
        one(workspace, *(("o2", "u1", "i1", "31/12/2017", "1", "1"),) * 2)
    assert caught.value.exit_code == 3
    assert content(workspace) == before


@pytest.mark.parametrize("moment", ["transactions", "customers", "manifest"])
def test_a_full_disk_leaves_the_lake_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    one(workspace, GOOD)
    before = content(workspace)
    write, calls = Lake._write, []

    def full(lake: Lake, connection: duckdb.DuckDBPyConnection, written: Any, query: str) -> Any:
        calls.append(written.name)
        if written.name == moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(lake, connection, written, query)

    def full_manifest(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Lake, "_write", full)
    if moment == "manifest":
        monkeypatch.setattr("features.data.lake.write_json", full_manifest)
    with pytest.raises(WorkspaceError, match="No space left on device.*free some space"):
        one(workspace, ("o2", "u2", "i1", "2017-01-01", "1", "1"))
    monkeypatch.undo()
    assert calls
    assert content(workspace) == before
    assert one(workspace, ("o2", "u2", "i1", "2017-01-01", "1", "1")).kept == 1  # and afterwards it works
    assert not list(workspace.root.glob(".ingest-*"))


def test_a_second_ingest_at_the_same_time_is_refused(workspace: Workspace) -> None:
    fcntl = pytest.importorskip("fcntl")
    workspace.create()
    with (workspace.lake / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(WorkspaceError, match="another process"):
            one(workspace, GOOD)
    assert one(workspace, GOOD).kept == 1


def test_rows_that_do_not_add_up_cannot_be_reported() -> None:
    with pytest.raises(AssertionError, match="do not add up"):
        TableReport(read=3, kept=1, duplicates=1, quarantined=0)
    assert json.dumps(IngestReport("shop", {"items": TableReport(1, 1, 0, 0)}, 0.1, "d").as_dict())


def test_a_clock_in_the_future_is_not_believed(workspace: Workspace) -> None:
    rows = [
        ("o1", "u1", "i1", "2024-03-01 10:00:00", "1", "1"),
        ("o2", "u1", "i1", "2024-03-02 09:00:00", "1", "1"),
        ("o3", "u1", "i1", "2037-01-01", "1", "1"),
    ]
    report = ingest(workspace, Rows(rows), Settings(), now=datetime(2024, 3, 1, 12)).tables["transactions"]
    assert (report.read, report.kept, report.quarantined) == (3, 2, 1)  # less than a day ahead may be a time zone
    assert report.reasons == {"ts is in the future: check the clock of the source": 1}
    assert ingest(workspace, Rows(rows), Settings()).tables["transactions"].kept == 1  # nobody said what time it is
