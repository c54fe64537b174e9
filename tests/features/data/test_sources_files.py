"""The `files` source: one's own CSV and Parquet through sources.yaml."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake, literal
from features.data.sources import SOURCES
from features.data.sources.expressions import ExpressionChecker
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

HEAD = "InvoiceNo,StockCode,Customer ID,InvoiceDate,Quantity,UnitPrice\n"
SHOP = """
source: shop
timezone: Europe/London
tables:
  transactions:
    path: orders*.csv
    columns: {order_id: InvoiceNo, source_user_id: Customer ID, item_id: StockCode, ts: InvoiceDate,
              quantity: Quantity, amount: Quantity * UnitPrice,
              status: "CASE WHEN InvoiceNo LIKE 'C%' THEN 'refunded' ELSE 'paid' END"}
"""


class Shop:
    """A folder with files and a sources.yaml, and a workspace."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace = root / "my files", Workspace(root / "workspace")
        self.root.mkdir()

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def ingest(self, yaml: str = SHOP) -> IngestReport:
        return ingest(self.workspace, SOURCES["files"](self.write("sources.yaml", yaml)), Settings())

    def mistakes(self, yaml: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.ingest(yaml)
        assert not self.workspace.lake.exists()
        return caught.value.problems

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(sql).fetchall()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(scope="module")
def checker() -> ExpressionChecker:
    return ExpressionChecker(
        dict.fromkeys(("Quantity", "UnitPrice", "StockCode", "Day"), "VARCHAR") | {"Code": "BIGINT"}
    )


def test_the_example_of_the_design(shop: Shop) -> None:
    shop.write("orders_1.csv", HEAD + "A1,007,00004,2017-07-01 12:00,2,1.50\nCA2,007,00004,2017-12-02 12:00,-1,1.50\n")
    shop.ingest()
    columns = "order_id, line_no, source, source_user_id, ts::VARCHAR, item_id, quantity, amount, status"
    assert shop.query(f"SELECT {columns} FROM transactions") == [
        ("A1", 1, "shop", "00004", "2017-07-01 11:00:00", "007", 2.0, 3.0, "paid"),
        ("CA2", 1, "shop", "00004", "2017-12-02 12:00:00", "007", 1.0, 1.5, "refunded"),
    ]


def test_a_glob_over_csv_files_with_other_orders_and_delimiters(shop: Shop) -> None:
    shop.write("orders_1.csv", "\ufeff" + HEAD.replace("\n", "\r\n") + "A1,7,u1,2017-01-01,2,1\r\n\r\n")
    shop.write(
        "orders_2.csv",
        "UnitPrice;Quantity;InvoiceDate;Customer ID;StockCode;InvoiceNo;Note\n3;1;2017-01-02;u2;8;A2;new\n",
    )
    shop.write("orders_3.csv", "")  # an empty day
    shop.write("orders_4.csv", " \n\n")
    (shop.root / "orders_4.csv").write_bytes((HEAD + 'A3,"9,1",u3,2017-01-03,1,5\n').encode())
    report = shop.ingest().tables["transactions"]
    assert (report.read, report.kept) == (3, 3)
    assert shop.query("SELECT order_id, item_id, amount FROM transactions ORDER BY 1") == [
        ("A1", "7", 2.0),
        ("A2", "8", 3.0),
        ("A3", "9,1", 5.0),
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_names_of_folders_and_files_are_no_patterns_and_no_columns(tmp_path: Path, ending: str) -> None:
    """DuckDB takes ``[ab]`` for one letter of the two, and the folder ``StockCode=5`` for a column."""
    (tmp_path / "StockCode=5").mkdir()
    shop = Shop(tmp_path / "StockCode=5")
    shop.root = shop.root.with_name("exports[ab]? #1 100%")
    for folder in (shop.root, shop.root.with_name("exportsaX #1 100%")):
        folder.mkdir()
        for number in ("1", "2", "[12]"):
            order = number if folder == shop.root else "neighbour"
            line = f"{order},007,u1,2017-07-01 12:00,1,1.50"
            if ending == "csv":
                (folder / f"orders {number}.csv").write_text(f"{HEAD}{line}\n")
            else:
                values = ", ".join(
                    f"'{value}' AS \"{name}\""
                    for name, value in zip(HEAD.strip().split(","), line.split(","), strict=True)
                )
                duckdb.sql(f"COPY (SELECT {values}) TO {literal(folder / f'orders {number}.parquet')} (FORMAT parquet)")
    yaml = SHOP if ending == "csv" else SHOP.replace("Quantity * UnitPrice", "Quantity::INT * UnitPrice::DOUBLE")
    assert shop.ingest(yaml.replace("orders*.csv", f'"orders [12].{ending}"')).tables["transactions"].kept == 1
    assert shop.query("SELECT order_id, item_id FROM transactions") == [("[12]", "007")]
    shop.ingest(yaml.replace("orders*.csv", f'"orders *.{ending}"'))
    assert sorted(shop.query("SELECT order_id, item_id FROM transactions")) == [(n, "007") for n in ("1", "2", "[12]")]


def test_every_line_of_a_messy_csv_is_accounted_for(shop: Shop) -> None:
    lines = [
        b"A1,1,u1,2017-01-01,2,1.50",
        b"A2,2,u1,2017-01-01,junk,1.50",
        b"A3,3,u1,2017-01-01,1",
        b"A4,3,u1,2017-01-01,1,2,3,4",
        b"A5,caf\xe9,u1,2017-01-01,1,2",
        b'A6,"he said ""no""",u1,2017-01-01,1,2',
        b"A7,,,,,",
        b"A8,3,u1,2017-01-01,,2",
    ]
    path = shop.write("orders.csv", HEAD.encode() + b"\n".join(lines))
    report = shop.ingest(SHOP.replace("    path:", "    max_rejected: 1\n    path:")).tables["transactions"]
    assert report.read == len(lines) == report.kept + report.quarantined
    assert dict(report.reasons) == {
        "Quantity is not a number (in Quantity * UnitPrice)": 1,
        "line cannot be read: missing columns": 1,
        "line cannot be read: too many columns": 1,
        "line cannot be read: invalid encoding: not utf-8; it looks like windows-1252: add `encoding: windows-1252` beside `path`": 1,
        "ts is missing": 1,
    }
    assert shop.query("SELECT order_id, item_id, amount FROM transactions ORDER BY 1") == [
        ("A1", "1", 3.0),
        ("A6", 'he said "no"', 2.0),
        ("A8", "3", None),
    ]
    rows = duckdb.sql(
        f"SELECT file, position, row FROM read_parquet({literal(str(report.quarantine_file))}) WHERE reason LIKE 'Quantity%'"
    ).fetchall()
    assert [(file, position, json.loads(row)["Quantity"]) for file, position, row in rows] == [(str(path), 2, "junk")]
    digest = Lake(shop.workspace).digest
    again = shop.ingest(SHOP.replace("    path:", "    max_rejected: 1\n    path:")).tables["transactions"]
    assert (again.kept, again.duplicates, again.quarantined) == (0, report.kept, report.quarantined)
    assert Lake(shop.workspace).digest == digest
    assert len(list(shop.workspace.quarantine.rglob("*.parquet"))) == 1


def test_other_encodings_headers_and_compression(shop: Shop) -> None:
    shop.write("items.csv", "item_id|name\n1|café\n".encode("latin-1"))
    shop.write("log.csv.gz", gzip.compress(b"1,100,pv,1511544070\n1,101,buy,1511561733\n"))
    shop.ingest("""
source: shop
tables:
  items: {path: items.csv, encoding: latin-1, columns: {item_id: item_id, tags: name}}
  events:
    path: log.csv.gz
    header: [user, item, what, timestamp]
    columns: {source_user_id: user, item_id: item, event_type: "CASE what WHEN 'pv' THEN 'view' ELSE 'purchase' END", ts: to_timestamp(timestamp)}
""")
    assert shop.query("SELECT tags FROM items") == [("café",)]
    assert shop.query("SELECT ts::VARCHAR, event_type FROM events ORDER BY 1") == [
        ("2017-11-24 17:21:10", "view"),
        ("2017-11-24 22:15:33", "purchase"),
    ]


def test_parquet_keeps_its_types_and_its_nested_attributes(shop: Shop) -> None:
    path = shop.root / "people.parquet"
    duckdb.sql(
        "COPY (SELECT 7 AS id, TIMESTAMPTZ '2017-01-01 00:00:00+08' AS at, 3 AS kids, true AS vip, {'a': 1} AS more, NULL AS nothing) "
        f"TO {literal(path)} (FORMAT parquet)"
    )
    shop.ingest("""
source: crm
timezone: Europe/London
tables:
  profiles: {path: people.parquet, columns: {source_user_id: id, registered_at: at, kids: kids, vip: vip, more: more, city: nothing}}
""")
    assert shop.query("SELECT source_user_id, registered_at::VARCHAR, kids, vip, more, city FROM profiles") == [
        ("7", "2016-12-31 16:00:00", 3.0, True, '{"a":1}', None)
    ]


def test_all_mistakes_come_together(shop: Shop) -> None:
    shop.write("orders.csv", HEAD + "A1,1,u1,2017-01-01,2,1\n")
    problems = shop.mistakes("""
source: my shop
timezone: Europe/Lndon
tables:
  transactons: {path: orders.csv, columns: {order_id: InvoiceNo}}
  items: {path: nowhere*.csv, columns: {category: StockCode}}
  profiles: {path: orders.csv, columns: {source_user_id: Customer ID, Gender: StockCode, _x: StockCode}}
  transactions:
    path: orders.csv
    colums: {}
    columns: {order_id: InvoiceNo, itm_id: StockCode, amount: Quantty * UnitPrice, ts: Quantity * 2, status: "lower("}
""")
    expected = [
        "source:",
        "timezone: 'Europe/Lndon' is not a time zone (did you mean Europe/London?)",
        "tables.transactons: unknown table (did you mean transactions?)",
        "tables.items.columns: item_id is required",
        "tables.items.path: 'nowhere*.csv' matches no file",
        "tables.profiles.columns.Gender: case is ignored",
        "tables.profiles.columns._x: the name of an attribute",
        "tables.transactions.colums: unknown key (did you mean columns?)",
        "tables.transactions.columns.itm_id: unknown column of transactions (did you mean item_id?)",
        "tables.transactions.columns.amount: 'Quantty * UnitPrice': unknown column Quantty (did you mean Quantity?); "
        "the columns are InvoiceNo, StockCode, Customer ID, InvoiceDate, Quantity, UnitPrice",
        "tables.transactions.columns.ts: 'Quantity * 2' is DOUBLE, not a time: a number is not a time: use to_timestamp",
        "tables.transactions.columns.status: 'lower(': it is neither a column nor a valid expression",
    ]
    assert len(problems) == len(expected)
    for start in expected:
        assert any(problem.startswith(start) for problem in problems), (start, problems)


@pytest.mark.parametrize(
    "text",
    [
        "(SELECT 1)",
        "EXISTS (SELECT 1)",
        "Quantity IN (SELECT 1)",
        "Quantity; DROP TABLE x",
        "Quantity FROM read_csv('/etc/passwd')",
        "Quantity, StockCode",
        "*",
        "COLUMNS('.*')",
        "Quantity AS q",
        "1) + (2",
        "count(*)",
        "sum(UnitPrice)",
        "geometric_mean(UnitPrice::DOUBLE)",
        "row_number() OVER ()",
        "random()",
        "now()",
        "current_date",
        "uuid()",
        "nextval('s')",
        "getvariable('x')",
        "current_setting('threads')",
        "read_text('/etc/passwd')",
        "Quantity ORDER BY 1",
        "Quantity WHERE true",
        "$1",
        "?",
        "",
        "no_such_function(Quantity)",
    ],
)
def test_an_expression_can_only_compute_a_value_of_its_row(checker: ExpressionChecker, text: str) -> None:
    with pytest.raises(ValueError, match="."):
        checker.check(text)


@pytest.mark.parametrize(
    ("text", "sql_type"),
    [
        ("Quantity * UnitPrice", "DOUBLE"),
        ("Quantity > 0", "BOOLEAN"),
        ("StockCode LIKE '8%'", "BOOLEAN"),
        ("StockCode || '-' || Quantity", "VARCHAR"),
        ("CASE WHEN StockCode LIKE 'C%' THEN -Quantity ELSE Quantity * 1 END", "DOUBLE"),
        ("date_trunc('month', Day)", "TIMESTAMP WITH TIME ZONE"),
        ("strptime(Day, '%d/%m/%Y')", "TIMESTAMP"),
        ("coalesce(Quantity, 0) + UnitPrice", "DOUBLE"),
        ("Day::DATE + 1", "DATE"),
        ("Code", "BIGINT"),
        ("'constant'", "VARCHAR"),
        ("list_sum([Quantity, 1])", "DOUBLE"),
        ("to_timestamp(Code)", "TIMESTAMP WITH TIME ZONE"),
        ("Quantity * 2 -- twice", "DOUBLE"),
    ],
)
def test_text_columns_are_read_as_what_the_expression_needs(
    checker: ExpressionChecker, text: str, sql_type: str
) -> None:
    assert checker.check(text).sql_type == sql_type


def test_an_expression_that_fails_on_one_row_refuses_that_row(shop: Shop) -> None:
    shop.write("orders.csv", HEAD + "A1,1,u1,31/12/2017,2,1\nA2,1,u1,2017-12-31,2,1\nA3,1,u1,30/12/2017,2,1\n")
    report = shop.ingest(SHOP.replace("ts: InvoiceDate", "ts: \"strptime(InvoiceDate, '%d/%m/%Y')\"")).tables[
        "transactions"
    ]
    assert dict(report.reasons) == {"strptime(InvoiceDate, '%d/%m/%Y') cannot be computed": 1}
    assert shop.query("SELECT order_id, ts::VARCHAR FROM transactions") == [
        ("A1", "2017-12-31 00:00:00"),
        ("A3", "2017-12-30 00:00:00"),
    ]


def test_a_null_that_the_expression_means_is_no_fault(shop: Shop) -> None:
    shop.write("orders.csv", HEAD + "A1,1,none,2017-01-01,2,1\n")
    assert (
        shop.ingest(
            SHOP.replace("source_user_id: Customer ID", 'source_user_id: "nullif(\\"Customer ID\\", \'none\')"')
        ).kept
        == 1
    )
    assert shop.query("SELECT source_user_id FROM transactions") == [(None,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the file is empty"), (" \n\n", "the file is empty"), (HEAD, "no row could be kept .*no rows")],
)
def test_an_empty_file_is_refused_and_the_lake_stays(shop: Shop, text: str, message: str) -> None:
    shop.write("orders.csv", HEAD + "A1,1,u1,2017-01-01,2,1\n")
    shop.ingest()
    digest = Lake(shop.workspace).digest
    shop.write("orders.csv", text)
    with pytest.raises(DataError, match=message):
        shop.ingest()
    assert Lake(shop.workspace).digest == digest


def test_a_file_that_is_not_parquet_says_so(shop: Shop) -> None:
    shop.write("orders.parquet", b"PAR1 and then nothing")
    problems = shop.mistakes(SHOP.replace("orders*.csv", "orders.parquet"))
    assert any("cannot be read as Parquet" in problem for problem in problems)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "source: x",
        "source: x\ntables: {}",
        "source: x\ntables: {items: 3}",
        "source: [",
        "source: x\ntables: {items: {path: a.csv, columns: {}}}",
    ],
)
def test_a_yaml_of_the_wrong_shape_is_a_config_error(shop: Shop, text: str) -> None:
    assert shop.mistakes(text)


def test_a_missing_yaml_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file is missing"):
        SOURCES["files"](tmp_path / "sources.yaml")


@pytest.mark.parametrize(
    ("header", "problem"), [("a,A", "two columns have the same name"), ("rowid,b", "the column name rowid is reserved")]
)
def test_headers_that_cannot_be_told_apart_are_refused(shop: Shop, header: str, problem: str) -> None:
    shop.write("orders.csv", f"{header}\n1,2\n")
    assert any(
        problem in found
        for found in shop.mistakes("source: x\ntables: {items: {path: orders.csv, columns: {item_id: b}}}")
    )


def test_the_examples_of_the_guide_work(shop: Shop) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "data-reference.md").read_text(encoding="utf-8")
    examples = [part.split("```", 1)[0] for part in guide.split("```yaml\n")[1:] if "url: " not in part.split("```")[0]]
    shop.write("data/online_retail_1.csv", HEAD + "A1,1,u1,2017-01-01,2,1\n")
    shop.write(
        "data/promotions_1.csv",
        "sku,channel,first_day,last_day,planned_on,stores\n85123A,mailer,2017-02-01,2017-02-07,2017-01-20,56\n",
    )
    rows = {
        "userbehavior_sample": "SELECT 1 AS user_id, 2 AS item_id, 3 AS category_id, 'pv' AS behaviour, 1511544070 AS timestamp",
        "cdnow_master": "SELECT '00001' AS customer_id, TIMESTAMP '1997-01-01' AS date, 1 AS number_of_cds, 11.77 AS amount_usd",
    }
    for name, query in rows.items():
        duckdb.sql(f"COPY ({query}) TO {literal(shop.root / (name + '.parquet'))} (FORMAT parquet)")
    assert [shop.ingest(example).kept for example in examples] == [1, 1, 1, 1]
    assert shop.query('SELECT item_id, "end"::VARCHAR, reach FROM promotions') == [
        ("85123A", "2017-02-08 00:00:00", 0.5)
    ]
    assert shop.query("SELECT source, order_id, ts::VARCHAR FROM transactions ORDER BY 1") == [
        ("cdnow", "00001-19970101", "1997-01-01 05:00:00"),
        ("shop", "A1", "2017-01-01 00:00:00"),
    ]
    assert shop.query("SELECT event_type, category FROM events") == [("view", "3")]
