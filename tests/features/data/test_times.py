"""Times at ingest: an offset keeps its instant, local times are read in the zone of the source, dates stay dates."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake, literal
from features.data.sources.clock_changes import clock_changes, skipped_hours
from features.data.sources.expressions import ExpressionChecker
from features.data.sources.files import FileSource
from features.data.sources.time_formats import guess
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

CASES = Path(__file__).parents[2] / "data" / "cases"
NOW = datetime(2026, 11, 28)


class Shop:
    """One CSV file `rows.csv`, its mapping, and a workspace."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace = root, Workspace(root / "workspace")

    def ingest(
        self, table: str, columns: dict[str, str], lines: list[str], zone: str | None = "Europe/London"
    ) -> IngestReport:
        (self.root / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        mapping = {"path": "rows.csv", "columns": columns, "max_rejected": 1.0}
        config = {"source": "shop", "tables": {table: mapping}} | ({"timezone": zone} if zone else {})
        (self.root / "sources.yaml").write_text(json.dumps(config), encoding="utf-8")
        return ingest(self.workspace, FileSource(self.root / "sources.yaml"), Settings(), now=NOW)

    def times(self, ts: str, lines: list[str], zone: str | None = "Asia/Shanghai") -> list[str | None]:
        """Stored `ts` of each line, null where the row is rejected; the first line names the columns besides `o`."""
        head, *rows = lines
        numbered = [f"o,{head}", *(f"o{number},{row}" for number, row in enumerate(rows))]
        self.report = self.ingest("transactions", {"order_id": "o", "ts": ts}, numbered, zone)
        stored = dict(self.query("SELECT order_id, ts::VARCHAR FROM transactions"))
        return [stored.get(f"o{number}") for number in range(len(rows))]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(sql).fetchall()

    def reasons(self, table: str = "transactions") -> list[str]:
        """Reasons of the rejected rows, in file order."""
        file = literal(str(self.report.tables[table].quarantine_file))
        return [str(reason) for (reason,) in duckdb.sql(f"SELECT reason FROM {file} ORDER BY position").fetchall()]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def case(tmp_path: Path, name: str, config: str = "sources.yaml") -> tuple[IngestReport, dict[Any, str]]:
    """Ingest one of the troublesome inputs: its report, and order → time."""
    workspace = Workspace(tmp_path / "workspace")
    report = ingest(workspace, FileSource(CASES / name / config), Settings(), now=NOW)
    rows = Lake(workspace).connect().con.execute("SELECT order_id, ts::VARCHAR FROM transactions").fetchall()
    return report, dict(rows)


def codes(report: IngestReport) -> dict[str, Any]:
    return {warning.code: warning for warning in report.warnings}


# ---- offsets -------------------------------------------------------------------------------------------------------

OFFSETS = [
    "created,paid_at",
    "2024-05-01T23:30:00+08:00,",
    "2024-05-01T09:30:00-07:00,2024-05-01T09:45:00-07:00",
    "2024-05-01T12:00:00Z,",
    "2024-05-01 23:30:00,2024-05-01 23:40:00",  # without an offset: Shanghai
]
INSTANTS = ["2024-05-01 15:30:00", "2024-05-01 16:30:00", "2024-05-01 12:00:00", "2024-05-01 15:30:00"]
PAID = ["2024-05-01 15:30:00", "2024-05-01 16:45:00", "2024-05-01 12:00:00", "2024-05-01 15:40:00"]


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ("created", INSTANTS),
        ("trim(created)", INSTANTS),
        ("date_trunc('minute', created)", INSTANTS),
        ("created::TIMESTAMP", INSTANTS),
        ("created::TIMESTAMPTZ", INSTANTS),
        ("created::TIMESTAMP_S", INSTANTS),
        ("CAST(trim(created) AS TIMESTAMP)", INSTANTS),
        ("try_cast(created AS TIMESTAMP)", INSTANTS),
        ("created + INTERVAL 0 MINUTE", INSTANTS),
        ("created::TIMESTAMP - INTERVAL '1 minute' + INTERVAL '1 minute'", INSTANTS),
        ("to_timestamp(epoch(created::TIMESTAMP))", INSTANTS),
        ("created::TIMESTAMPTZ AT TIME ZONE 'Asia/Shanghai'", INSTANTS),
        ("list_transform([created], lambda x: x::TIMESTAMP)[1]", INSTANTS),
        ("CASE WHEN created > TIMESTAMP '2020-01-01' THEN created END", INSTANTS),
        ("coalesce(paid_at, created)", PAID),
        ("coalesce(nullif(paid_at, ''), created)", PAID),
        ("coalesce(paid_at::TIMESTAMP, created::TIMESTAMP)", PAID),
        ("coalesce(try_cast(paid_at AS TIMESTAMP), try_cast(created AS TIMESTAMP))", PAID),
        ("greatest(created, coalesce(paid_at, created))", PAID),
        ("greatest(created::TIMESTAMP, paid_at::TIMESTAMP)", PAID),
        ("least(paid_at, created)", INSTANTS),
        ("CASE WHEN paid_at > created THEN paid_at ELSE created END", PAID),
        # a day of Shanghai
        ("created::DATE", ["2024-04-30 16:00:00", "2024-05-01 16:00:00", *["2024-04-30 16:00:00"] * 2]),
        ("date_trunc('day', created)", ["2024-04-30 16:00:00", "2024-05-01 16:00:00", *["2024-04-30 16:00:00"] * 2]),
    ],
)
def test_an_offset_survives_an_expression(shop: Shop, ts: str, expected: list[str]) -> None:
    assert shop.times(ts, OFFSETS) == expected


def test_orders_of_texts_with_different_offsets_are_those_of_the_instants(shop: Shop) -> None:
    # as texts, the first is later; as instants, it is 8.5 hours earlier
    lines = ["a,b", "2024-05-01T23:30:00+08:00,2024-05-01T23:00:00-01:00"]
    assert shop.times("least(a, b)", lines) == ["2024-05-01 15:30:00"]


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        ("left(created, 19)", "created has an offset from UTC that the expression cuts off"),
        ("left(created, 19)::TIMESTAMP", "created has an offset from UTC that the expression cuts off"),
        ("strptime(left(created, 19), '%Y-%m-%dT%H:%M:%S')", "created has an offset from UTC that the expression cuts"),
        ("created AT TIME ZONE 'Europe/Paris'", "created has an offset of its own: remove AT TIME ZONE"),
        ("created::TIMESTAMP AT TIME ZONE 'Europe/Paris'", "created has an offset of its own: remove AT TIME ZONE"),
        ("created::DATE + created[12:]::TIME", "cannot be computed"),
    ],
)
def test_an_offset_that_would_be_lost_refuses_the_row(shop: Shop, ts: str, reason: str) -> None:
    lines = ["created", "2024-05-01T23:30:00+08:00", "2024-05-01T09:30:00"]
    naive = "2024-05-01 07:30:00" if "Paris" in ts else "2024-05-01 01:30:00"
    assert shop.times(ts, lines) == [None, naive]
    assert reason in shop.reasons()[0]


@pytest.mark.parametrize(
    ("ts", "problem"),
    [
        ("created::TIMESTAMPTZ AT TIME ZONE 'UTC'", "would be read again in the time zone of the source"),
        ("to_timestamp(n) AT TIME ZONE 'UTC'", "would be read again in the time zone of the source"),
        ("created::TIMESTAMP AT TIME ZONE 'CST'", "'CST' may be Asia/Shanghai, America/Chicago"),
        ("created::TIMESTAMP AT TIME ZONE 'Etc/GMT+8'", "its sign is reversed"),
        ("strptime(created, '%Y-%m-%d %H:%M:%S %Z')", "read an offset with %z"),
        ("strptime(created, '%Y-%m-%dT%H:%M:%S+02:00')", "write %z for an offset"),
        ("strptime(created, '%Y-%m-%d %H:%M CET')", "add AT TIME ZONE 'Area/City'"),
        ("n::BIGINT", "to_timestamp(column / 1000) for milliseconds"),
    ],
)
def test_an_expression_that_shifts_every_time_is_refused(shop: Shop, ts: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shop.times(ts, ["created,n", "2024-05-01T23:30:00+08:00,1"])
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "ts",
    [
        "strptime(shopify, '%Y-%m-%d %H:%M:%S %z')",
        "strptime(zulu, '%Y-%m-%dT%H:%M:%SZ')",
        "strptime(local, '%d/%m/%Y %H:%M')",
        "strptime(local, '%d/%m/%Y %H:%M') AT TIME ZONE 'Asia/Shanghai'",
        "strptime(replace(named, ' CST', ' +0800'), '%Y-%m-%d %H:%M %z')",
        "to_timestamp(ms / 1000)",
        "epoch_ms(ms::BIGINT)",
        "epoch_ms(ms::BIGINT) AT TIME ZONE 'UTC'",
        "make_timestamp(ms::BIGINT * 1000)",
        "day::DATE + clock::TIME",
        "concat(day, ' ', clock)",
        "TIMESTAMP '1899-12-30' + to_seconds(round(excel * 86400))",
    ],
)
def test_all_ways_to_write_one_time(shop: Shop, ts: str) -> None:
    instant = int(datetime(2024, 5, 1, 15, 30).timestamp() - datetime(1970, 1, 1).timestamp()) * 1000
    lines = [
        "shopify,zulu,local,named,ms,day,clock,excel",
        f"2024-05-01 17:30:00 +0200,2024-05-01T15:30:00Z,01/05/2024 23:30,2024-05-01 23:30 CST,{instant},"
        "2024-05-01,23:30:00,45413.979166667",
    ]
    assert shop.times(ts, lines) == ["2024-05-01 15:30:00"]


def test_an_hour_of_an_instant_is_that_of_the_source(shop: Shop) -> None:
    columns = {
        "event_type": "CASE WHEN hour(to_timestamp(t)) = 23 THEN 'view' ELSE 'cart' END",
        "ts": "to_timestamp(t)",
        "page": "strftime(to_timestamp(t), '%H')",
    }
    shop.ingest("events", columns, ["t", "1714577400"], "Asia/Shanghai")
    assert shop.query("SELECT event_type, page, ts::VARCHAR FROM events") == [("view", "23", "2024-05-01 15:30:00")]


def test_two_expressions_share_a_cast_that_fails(shop: Shop) -> None:
    # DuckDB computes what two expressions have in common once, outside TRY
    lines = ["o,qty,price", "o1,2,3", "o2,two,3"]
    columns = {"order_id": "o", "quantity": "qty::DOUBLE * 1", "amount": "qty::DOUBLE * price"}
    report = shop.ingest("transactions", columns, lines).tables["transactions"]
    assert (report.kept, report.reasons) == (1, {"qty::DOUBLE * 1 cannot be computed": 1})


# ---- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2025-10-07 09:50:26 +0200", "2025-10-07 07:50:26"),
        ("2025-10-07 09:50:26 +02", "2025-10-07 07:50:26"),
        ("2025-10-07 09:50:26 +02:00", "2025-10-07 07:50:26"),
        ("2025-10-07T09:50:26.125+0200", "2025-10-07 07:50:26.125"),
        ("2025-10-07 09:50+05:30", "2025-10-07 04:20:00"),
        ("2025-10-07 09:50:26-0330", "2025-10-07 13:20:26"),
        ("2025-10-07 09:50:26 UTC", "2025-10-07 09:50:26"),
        ("2025-10-07 09:50 GMT", "2025-10-07 09:50:00"),
        ("2025-10-07T09:50Z", "2025-10-07 09:50:00"),
        ("2025/10/7 9:50", "2025-10-07 01:50:00"),
        ("2025-10-07", "2025-10-06 16:00:00"),
    ],
)
def test_iso_times_are_read_directly(shop: Shop, text: str, utc: str) -> None:
    assert shop.times("t", ["t", text]) == [utc]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2024-05-01 10:00 CST", "ends with the name of a time zone"),
        ("2024-05-01 10:00:00 Europe/Paris", "ends with the name of a time zone"),
        ("2024-05-01T10:00+02:00[Europe/Paris]", "ends with the name of a time zone"),
        ("2024-05-01 10:00:00 GMT+8", "ends with the name of a time zone"),
        ("12/1/10 8:26", "ts is not a time"),
        ("10-12-01 08:26", "ts is not a time"),
        ("0010-12-01 08:26", "a year before 1000"),
        ("2024-05-01 10:00 PM", "ts is not a time"),
        ("2024-05-01 10:00:00+99:00", "ts is not a time"),
        ("epoch", "ts is not a time"),
        ("2027-01-15", "ts is in the future"),
    ],
)
@pytest.mark.parametrize("ts", ["t", "t::TIMESTAMP", "date_trunc('minute', t)"])
def test_what_is_no_certain_time_is_refused(shop: Shop, ts: str, text: str, reason: str) -> None:
    assert shop.times(ts, ["t", text, "2024-05-01"])[0] is None
    assert reason.removeprefix("ts ") in shop.reasons()[0]


@pytest.mark.parametrize(
    ("values", "expressions", "year"),
    [
        (["12/31/10 8:26", "1/2/10 9:00"], ["strptime(t, '%m/%d/%y %H:%M')"], 2010),
        (["31/12/2010"], ["strptime(t, '%d/%m/%Y')"], 2010),
        (["1/2/2010"], ["strptime(t, '%d/%m/%Y')", "strptime(t, '%m/%d/%Y')"], 2010),
        (["31/12/2010", "12/31/2010"], [], 2010),
        (["5.4.2024 10:00:30"], ["strptime(t, '%d.%m.%Y %H:%M:%S')"], 2024),
        (["2024.05.01"], ["strptime(t, '%Y.%m.%d')"], 2024),
        (["2024年1月2日", "2024年1月2日 9:05"], ["strptime(t, ['%Y年%m月%d日', '%Y年%m月%d日 %H:%M'])"], 2024),
        (["2024年1月2日"], ["strptime(t, '%Y年%m月%d日')"], 2024),
        (["5/31/2024 8:26 PM"], ["strptime(t, '%m/%d/%Y %I:%M %p')"], 2024),
        (["01-May-24"], ["strptime(t, '%d-%b-%y')"], 2024),
        (["1714577400"], ["to_timestamp(t)"], 2024),
        (["1714577400000"], ["to_timestamp(t / 1000)"], 2024),
        (["1714577400000000"], ["to_timestamp(t / 1000000)"], 2024),
        (["20240501"], ["strptime(t, '%Y%m%d')"], 2024),
        (["45292.5"], ["TIMESTAMP '1899-12-30' + to_seconds(round(t * 86400))"], 2024),
    ],
)
def test_the_proposed_expression_reads_the_values(values: list[str], expressions: list[str], year: int) -> None:
    found = guess(values, "t")
    assert found is not None
    assert list(found.expressions) == expressions
    checker = ExpressionChecker({"t": "VARCHAR"})
    for text in expressions:
        sql = checker.check(text, "timestamp").value
        read = duckdb.connect().execute(f"SELECT year({sql}) FROM (SELECT ? AS t)", values[-1:]).fetchall()
        assert read == [(year,)]


def test_unreadable_times_name_their_format_and_the_line_that_reads_them(shop: Shop) -> None:
    # in the first thousand rows, day and month cannot be told apart
    rows = [f"{number % 12 + 1}/{number % 11 + 1}/2010 8:26" for number in range(1200)] + ["25/1/2010 9:00"] * 900
    shop.times("made_at", ["made_at", *rows, "2010-01-01"])
    found = codes(shop.report)["unread_time_formats"]
    assert (found.rows, found.table) == (2100, "transactions")
    assert "ts looks like day/month/year" in found.message
    assert found.fix == "write in sources.yaml: ts: \"strptime(made_at, '%d/%m/%Y %H:%M')\""


@pytest.mark.parametrize(
    ("name", "config", "hint"),
    [
        ("16-us-dates-two-digit-year", "sources.yaml", "strptime(date, '%m/%d/%y %H:%M')"),
        ("42-epoch-milliseconds", "sources.yaml", 'ts: "to_timestamp(date / 1000)"'),
        ("42-epoch-milliseconds", "seconds.yaml", "milliseconds taken for seconds"),
    ],
)
def test_a_file_of_unreadable_times_fails_with_the_expression(
    tmp_path: Path, name: str, config: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        case(tmp_path, name, config)
    assert hint in str(caught.value)


def test_seconds_divided_as_milliseconds_are_said(shop: Shop) -> None:
    shop.times("to_timestamp(t / 1000)", ["t", "1433221332", "1433224214"], "UTC")
    assert "to_timestamp(column) without a division" in codes(shop.report)["times_of_1970"].fix


# ---- dates ---------------------------------------------------------------------------------------------------------


def birth_dates(shop: Shop, born: str, *values: str, zone: str = "Asia/Shanghai") -> list[str | None]:
    columns = {"source_user_id": "id", "birth_date": born}
    lines = ["id;born", *(f"u{number};{value}" for number, value in enumerate(values)), "last;1985-04-05"]
    shop.report = shop.ingest("profiles", columns, lines, zone)
    stored = dict(shop.query("SELECT source_user_id, birth_date::VARCHAR FROM profiles"))
    return [stored.get(f"u{number}") for number in range(len(values))]


def test_birth_dates_are_dates_of_people(shop: Shop) -> None:
    values = ("05/04/85", "05/04/10", "0010-04-05", "1885-04-05", "2045-04-05", "2026-11-28", "1985/4/5 00:00:00")
    assert birth_dates(shop, "born", *values) == [*[None] * 5, "2026-11-28", "1985-04-05"]
    assert shop.reasons("profiles") == [
        *["birth_date is not a date"] * 2,
        "birth_date has a year before 1000: a year of two digits is %y in strptime, not %Y",
        "birth_date is before 1900-01-01",
        "birth_date is in the future: strptime reads the years 00 to 68 of %y as 2000 to 2068",
    ]


def test_a_birth_date_that_was_exported_as_a_time(shop: Shop) -> None:
    # midnight of Shanghai in UTC; midnight with its own offset, and in UTC, is a date that was written as a time
    values = ("1995-04-04T16:00:00Z", "1995-04-05T00:00:00+08:00", "1995-04-05T00:00:00.000Z")
    assert birth_dates(shop, "born", *values) == ["1995-04-05"] * 3
    assert birth_dates(shop, "born", values[2], zone="America/New_York") == ["1995-04-05"]


def test_years_of_two_digits_in_other_columns(shop: Shop) -> None:
    columns = {
        "source_user_id": "id",
        "registered_at": "strptime(a, '%m/%d/%Y')",
        "vip_since": "strptime(b, '%m/%d/%Y')",
    }
    lines = ["id,a,b", "u1,12/1/2010,12/1/2010", "u2,12/1/10,12/1/2010", "u3,12/1/2010,12/1/10"]
    shop.report = shop.ingest("profiles", columns, lines)
    assert shop.query("SELECT source_user_id, registered_at::VARCHAR FROM profiles") == [("u1", "2010-12-01 00:00:00")]
    assert [reason.split(":")[0] for reason in shop.reasons("profiles")] == [
        "registered_at has a year before 1000",
        "vip_since has a year before 1000",
    ]


# ---- clocks that change --------------------------------------------------------------------------------------------


def test_clock_changes_of_a_zone() -> None:
    changes = [change for change in clock_changes("America/New_York") if change.at.year == 2024]
    assert [change.at for change in changes] == [datetime(2024, 3, 10, 7), datetime(2024, 11, 3, 6)]
    assert changes[0].skipped == (datetime(2024, 3, 10, 2), datetime(2024, 3, 10, 3))
    assert changes[1].repeated == (datetime(2024, 11, 3, 6), datetime(2024, 11, 3, 7))
    assert (changes[0].repeated, changes[1].skipped, clock_changes("UTC")) == (None, None, ())
    assert (skipped_hours("America/New_York"), skipped_hours("UTC")) == ((2,), ())


@pytest.mark.parametrize("ts", ["t", "t::TIMESTAMP", "date_trunc('minute', t)", "strptime(t, '%Y-%m-%d %H:%M')"])
def test_hours_that_do_not_exist_are_refused_and_orders_keep_their_order(shop: Shop, ts: str) -> None:
    spring = ["2024-03-31 00:59", "2024-03-31 01:00", "2024-03-31 01:59", "2024-03-31 02:00"]
    autumn = ["2024-10-27 00:59", "2024-10-27 01:00", "2024-10-27 01:59", "2024-10-27 02:00"]
    times = shop.times(ts, ["t", *spring, *autumn], "Europe/London")
    assert times == [
        *("2024-03-31 00:59:00", None, None, "2024-03-31 01:00:00"),
        *("2024-10-26 23:59:00", "2024-10-27 01:00:00", "2024-10-27 01:59:00", "2024-10-27 02:00:00"),
    ]
    assert all("does not exist in Europe/London" in reason for reason in shop.reasons())
    found = codes(shop.report)["changed_clocks"]
    assert found.rows == 4
    assert "2 rows are in the hour that occurs twice" in found.message


def test_a_date_whose_midnight_does_not_exist_is_kept(shop: Shop) -> None:
    assert shop.times("t", ["t", "2018-11-04", "2018-11-04 00:00", "2018-11-04 00:30"], "America/Sao_Paulo") == [
        "2018-11-04 03:00:00",
        "2018-11-04 03:00:00",
        None,
    ]


def test_times_with_an_offset_are_not_counted_as_repeated(shop: Shop) -> None:
    shop.times("t", ["t", "2024-10-27 01:30:00Z", "2024-10-20 09:00"], "Europe/London")
    assert "changed_clocks" not in codes(shop.report)


# ---- dates without clock times -------------------------------------------------------------------------------------


def date_only(shop: Shop) -> list[tuple[Any, ...]]:
    return shop.query("SELECT order_id, date_only FROM transactions ORDER BY 1")


def test_dates_of_a_mixed_column_are_marked_row_by_row(shop: Shop) -> None:
    shop.times("t", ["t", "2024-05-01", "2024-05-01 00:00", "2024-05-01 09:00"])
    assert date_only(shop) == [("o0", True), ("o1", False), ("o2", False)]
    assert "(1 of 3)" in codes(shop.report)["dates_without_clock_times"].message


@pytest.mark.parametrize(
    ("ts", "value"),
    [
        ("t", "2024-05-{:02d}"),
        ("t", "2024-05-{:02d} 00:00:00"),
        ("t::DATE", "2024-05-{:02d} 09:00"),
        ("date_trunc('day', t)", "2024-05-{:02d} 09:00"),
        ("strptime(t, '%d/%m/%Y')", "{:02d}/05/2024"),
        ("t", "2024-05-{:02d}T16:00:00Z"),  # midnight of Shanghai
    ],
)
def test_a_column_of_midnights_is_a_column_of_dates(shop: Shop, ts: str, value: str) -> None:
    shop.times(ts, ["t", *(value.format(day) for day in range(1, 9))])
    assert {value for _, value in date_only(shop)} == {True}
    assert codes(shop.report)["dates_without_clock_times"].rows == 8


def test_the_midnights_of_another_zone_are_no_dates(shop: Shop) -> None:
    shop.times("t", ["t", "2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"])
    assert {value for _, value in date_only(shop)} == {False}


def test_dates_of_one_type_of_event(shop: Shop) -> None:
    rows = ["coupon_redeem,2024-05-01 00:00", "coupon_redeem,2024-05-02 00:00", "view,2024-05-01 00:00"]
    columns = {"event_type": "kind", "ts": "t"}
    report = shop.ingest("events", columns, ["kind,t", *rows, "view,2024-05-01 09:00"])
    marked = shop.query("SELECT event_type, bool_and(date_only), bool_or(date_only) FROM events GROUP BY 1 ORDER BY 1")
    assert marked == [("coupon_redeem", True, True), ("view", False, False)]
    assert codes(report)["dates_without_clock_times"].message == (
        "the times of coupon_redeem are dates without a clock time: no hours, ordered by day"
    )
    again = shop.ingest("events", columns, ["kind,t", *rows, "view,2024-05-01 09:00"])
    assert (again.kept, again.duplicates, codes(again)) == (0, 4, {})


# ---- the zone, and wrong clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "value", "naive"),
    [
        ("t", "2024-05-{:02d} 09:00", 3),
        ("date_trunc('minute', t)", "2024-05-{:02d} 09:00", 3),
        ("t", "2024-05-{:02d} 09:00:00Z", 0),
        ("date_trunc('minute', t)", "2024-05-{:02d} 09:00:00Z", 0),
        ("t", "2024-05-{:02d}", 0),
        ("to_timestamp(t)", "17145774{:02d}", 0),
    ],
)
def test_only_clock_times_without_an_offset_need_a_zone(shop: Shop, ts: str, value: str, naive: int) -> None:
    shop.times(ts, ["t", *(value.format(day) for day in (1, 2, 3))], None)
    found = codes(shop.report).get("missing_time_zone")
    assert (found.rows if found else 0) == naive


@pytest.mark.parametrize("zone", ["CST", "Etc/GMT+8", "GMT+8", "UTC+8", "Beijing", "asia/shanghai"])
def test_a_zone_that_is_not_certain_is_refused(shop: Shop, zone: str) -> None:
    with pytest.raises(ConfigError, match="Asia/Shanghai"):
        shop.times("t", ["t", "2024-01-01"], zone)


def test_one_row_long_after_all_others(tmp_path: Path) -> None:
    report, _ = case(tmp_path, "26-one-wrong-clock")
    found = codes(report)["rows_far_from_the_others"]
    assert found.rows == 1
    assert "the last 27 months hold 1 row (2026-11-01)" in found.message
    assert "1,801 rows in all, for example order_id " in found.message


def test_one_row_long_before_all_others(shop: Shop) -> None:
    days = [f"2024-05-{number % 28 + 1:02d} 09:00" for number in range(1200)]
    shop.times("t", ["t", "2001-01-01 09:00", *days])
    found = codes(shop.report)["rows_far_from_the_others"]
    assert "the first 280 months hold 1 row (2001-01-01)" in found.message
    assert found.message.endswith("order_id o0")


# ---- the inputs of tests/data/cases --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("10-zone-lost-in-an-expression", "plain.yaml", INSTANTS[:3]),
        ("10-zone-lost-in-an-expression", "sources.yaml", INSTANTS[:3]),
        ("10-zone-lost-in-an-expression", "least.yaml", PAID[:3]),
        ("42-epoch-milliseconds", "ms.yaml", ["2015-06-02 05:02:12.117", "2015-06-02 05:50:14.164"]),
        (
            "43-hour-that-does-not-exist",
            "sources.yaml",
            ["2024-03-31 00:30:00", "2024-03-31 01:30:00", "2024-10-26 23:30:00"]
            + ["2024-10-27 01:30:00", "2024-10-27 02:30:00"],
        ),
    ],
)
def test_times_of_the_cases(tmp_path: Path, name: str, config: str, expected: list[str]) -> None:
    _, times = case(tmp_path, name, config)
    assert [times[order] for order in sorted(times)] == expected


@pytest.mark.parametrize("config", ["sources-filled.yaml", "strptime-filled.yaml"])
def test_times_of_a_shopify_export(tmp_path: Path, config: str) -> None:
    _, times = case(tmp_path, "11-shopify-orders-export", config)
    assert times == {"#1001": "2025-10-07 07:50:26", "#1002": "2025-10-08 21:30:00"}


def test_two_digit_years_of_a_crm(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ingest(
            Workspace(tmp_path / "workspace"),
            FileSource(CASES / "16-us-dates-two-digit-year" / "crm.yaml"),
            Settings(),
            now=NOW,
        )
    assert "2 rejected: 2 × birth_date is not a date" in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "utc"),
    [
        (["05-JAN-24 03.04.05.000000 PM"], "2024-01-05 07:04:05"),
        (["Jan 5, 2024, 3:04:05 PM", "Feb 15, 2024, 3:04:05 AM"], "2024-01-05 07:04:05"),
        (["Fri, 05 Jan 2024 15:04:05 GMT", "Sat, 06 Jan 2024 15:04:05 +0800"], "2024-01-05 15:04:05"),
        (["Jan 1, 2024 12:03:04 AM PST", "Jul 3, 2024 1:03:04 PM PDT"], "2024-01-01 08:03:04"),
        (["2024/1/5 下午3:04:05", "2024/1/6 上午12:04:05"], "2024-01-05 07:04:05"),
        (["2024. 1. 5. 오후 3:04:05"], "2024-01-05 07:04:05"),
        (["2024-01-05 15:04:05,123"], "2024-01-05 07:04:05.123"),
        (["05 janv. 2024 15:04", "05 févr. 2024 15:04"], "2024-01-05 07:04:00"),
        (["5 de março de 2024 15:04 hs.", "1 de maio de 2024 15:04 hs."], "2024-03-05 07:04:00"),
        (["2024.01.05 15:04:05", "2024.01.05 15:04"], "2024-01-05 07:04:05"),
    ],
)
def test_times_with_words_are_read_as_proposed(shop: Shop, texts: list[str], utc: str) -> None:
    found = guess(texts, "t")
    assert found is not None
    assert shop.times(found.expressions[0], ["t", *(f'"{text}"' for text in texts)])[0] == utc


def test_an_expression_that_does_not_read_the_values_is_not_proposed() -> None:
    assert guess(["05 foo 2024", "06 bar 2024"], "t") is None
    assert guess(["31 Feb 2024"], "t") is None


def test_a_month_in_another_language_than_the_sample_is_refused(shop: Shop) -> None:
    found = guess(["05 janv. 2024"], "t")
    assert found is not None
    assert shop.times(found.expressions[0], ["t", "05 janv. 2024", "05 Dez. 2024"])[1] is None
    assert "cannot be computed" in shop.reasons()[0]
