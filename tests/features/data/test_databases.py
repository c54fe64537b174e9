"""Databases as input, against a real PostgreSQL that the tests start, and SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from deploy.local_servers import PostgresServer
from features.data.ingest import IngestReport, ingest, preview
from features.data.lake import Lake
from features.data.sources.files import FileSource
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.postgres_server import PASSWORD

COLUMNS = "{order_id: id, line_no: line, source_user_id: customer, item_id: sku, ts: at, quantity: qty, amount: paid, status: state}"
LINES = """CREATE TABLE lines (id NUMERIC(20), line INT, customer BIGINT, sku TEXT, at TIMESTAMPTZ, qty NUMERIC(10, 3),
    paid NUMERIC(12, 2), state TEXT DEFAULT 'paid', changed TIMESTAMPTZ, note JSONB, PRIMARY KEY (id, line))"""


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(postgres_server.url())
    yield engine
    engine.dispose()


class Shop:
    """A workspace fed from one table of a database."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url, self.workspace = root, url, Workspace(root / "workspace")

    def source(self, keys: str = "table: lines", columns: str = COLUMNS) -> FileSource:
        yaml = f"source: shop\ntimezone: UTC\ntables:\n  transactions:\n    url: {self.url}\n    {keys}\n    columns: {columns}\n"
        (self.root / "sources.yaml").write_text(yaml)
        return FileSource(self.root / "sources.yaml")

    def ingest(self, keys: str = "table: lines", columns: str = COLUMNS) -> IngestReport:
        return ingest(self.workspace, self.source(keys, columns), Settings())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return Lake(self.workspace).connect().con.execute(sql).fetchall()


@pytest.fixture
def shop(tmp_path: Path, postgres: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    with postgres.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS lines"))
        connection.execute(sqlalchemy.text(LINES))
    return Shop(
        tmp_path, f"postgresql://{postgres.url.username}:${{SHOP_PASSWORD}}@127.0.0.1:{postgres.url.port}/postgres"
    )


def insert(postgres: sqlalchemy.Engine, values: str) -> None:
    with postgres.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                f"INSERT INTO lines (id, line, customer, sku, at, qty, paid, changed, note) VALUES {values}".replace(
                    ":", "\\:"
                )
            )
        )


def test_values_keep_their_meaning(shop: Shop, postgres: sqlalchemy.Engine) -> None:
    insert(
        postgres,
        "(12345678901234567890, 1, 7, '00412', '2024-05-01 10:00+02', 2.5, 19.99, '2024-05-01 10:00+02', '{\"a\": 1}')",
    )
    report = shop.ingest()
    assert (report.read, report.kept) == (1, 1)
    columns = "order_id, source_user_id, item_id, ts::VARCHAR, quantity, amount"
    assert shop.rows(f"SELECT {columns} FROM transactions") == [
        ("12345678901234567890", "7", "00412", "2024-05-01 08:00:00", 2.5, 19.99)
    ]
    assert shop.ingest().tables["transactions"].duplicates == 1


def test_only_new_rows_are_read_and_each_arrives_once(shop: Shop, postgres: sqlalchemy.Engine) -> None:
    keys = "table: lines\n    watermark: changed\n    overlap: 60"
    insert(
        postgres,
        ", ".join(
            f"({i}, 1, {i % 5}, 's{i}', '2024-05-01 10:00+00', 1, 5, '2024-05-01 10:{i:02d}+00', NULL)"
            for i in range(30)
        ),
    )
    assert shop.ingest(keys).read == 30
    assert Lake(shop.workspace).notes()["watermarks"]["shop"]["transactions"]["value"] == "2024-05-01T10:29:00+00:00"
    # one row is new, one became visible a minute late, and one has the very time of the last row
    insert(postgres, "(100, 1, 1, 's', '2024-05-01 11:00+00', 1, 5, '2024-05-01 11:00+00', NULL)")
    insert(postgres, "(101, 1, 1, 's', '2024-05-01 10:28+00', 1, 5, '2024-05-01 10:28:30+00', NULL)")
    insert(postgres, "(102, 1, 1, 's', '2024-05-01 10:29+00', 1, 5, '2024-05-01 10:29+00', NULL)")
    report = shop.ingest(keys)
    assert (report.read, report.kept, report.duplicates) == (5, 3, 2)
    assert shop.rows("SELECT count(*), count(DISTINCT order_id) FROM transactions") == [(33, 33)]
    assert shop.ingest(keys).kept == 0


def test_a_failed_ingest_does_not_move_the_watermark(
    shop: Shop, postgres: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "table: lines\n    watermark: changed"
    insert(postgres, "(1, 1, 1, 's', '2024-05-01 10:00+00', 1, 5, '2024-05-01 10:00+00', NULL)")
    shop.ingest(keys)
    before = Lake(shop.workspace).notes()["watermarks"]
    insert(postgres, "(2, 1, 1, 's', '2024-05-02 10:00+00', 1, 5, '2024-05-02 10:00+00', NULL)")

    def full_disk(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("features.data.lake.write_json", full_disk)
        with pytest.raises(Exception, match="space|disk"):
            shop.ingest(keys)
    assert Lake(shop.workspace).notes()["watermarks"] == before
    assert shop.ingest(keys).kept == 1


def test_a_large_table_is_read_in_chunks(
    shop: Shop, postgres: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.data.sources.databases.CHUNK_ROWS", 700)
    rows = "SELECT i, 1, i % 50, 's' || i % 9, '2024-05-01 10:00+00'::timestamptz + i * interval '1 minute', 1, 2, now(), NULL FROM generate_series(1, 5000) AS i"
    with postgres.begin() as connection:
        text = f"INSERT INTO lines (id, line, customer, sku, at, qty, paid, changed, note) {rows}".replace(
            "::", "\\:\\:"
        ).replace("10:00", "10\\:00")
        connection.execute(sqlalchemy.text(text))
    assert shop.ingest("query: SELECT * FROM lines WHERE customer < 25").kept == 2_500
    told = preview(shop.workspace, shop.source(), Settings(), rows=100)
    assert told.read == 100


def test_no_message_and_no_file_holds_the_password(
    shop: Shop, postgres: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.url = shop.url.replace("${SHOP_PASSWORD}", PASSWORD)
    with pytest.raises(ConfigError, match="environment variable") as caught:
        shop.source()
    assert PASSWORD not in str(caught.value)
    shop.url = shop.url.replace(PASSWORD, "${SHOP_PASSWORD}")
    monkeypatch.setenv("SHOP_PASSWORD", "wrong-secret")
    with pytest.raises(ConfigError) as caught:
        shop.source()
    assert "wrong-secret" not in str(caught.value)
    assert "password authentication failed" in str(caught.value)
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(ConfigError, match="SHOP_PASSWORD is not set"):
        shop.source()
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    insert(
        postgres,
        "(1, 1, 1, 's', '2024-05-01 10:00+00', 1, -5, '2024-05-01 10:00+00', NULL), (2, 1, 1, 's', '2024-05-01 10:00+00', 1, 5, '2024-05-01 10:00+00', NULL)",
    )
    assert shop.ingest().quarantined == 1
    for file in shop.root.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("table: orders", "orders"),
        ("table: lines\n    watermark: updated", "unknown column updated"),
        ("table: lines\n    query: SELECT 1", "either table or query"),
        ("table: lines\n    delimiter: ';'", "delimiter belongs to path"),
    ],
)
def test_mistakes_are_named(shop: Shop, keys: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shop.source(keys)


def test_sqlite_has_no_types_and_is_read_as_text(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("CREATE TABLE lines (id, line, customer, sku, at, qty, paid, state, changed)")
    connection.executemany(
        "INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (1, 1, 7, "00412", "2024-05-01 10:00:00", 1, 9.5, None, 1),
            ("2", 1, "7", 413, "2024-05-02", "2", "10", "paid", 2),
        ],
    )
    connection.commit()
    shop = Shop(tmp_path, f"sqlite:///{tmp_path / 'shop.db'}")
    assert shop.ingest("table: lines\n    watermark: changed").kept == 2
    assert shop.rows("SELECT order_id, item_id, amount FROM transactions ORDER BY 1") == [
        ("1", "00412", 9.5),
        ("2", "413", 10.0),
    ]
    connection.execute("INSERT INTO lines VALUES (3, 1, 8, 's', '2024-05-03', 1, 1, 'paid', 3)")
    connection.commit()
    report = shop.ingest("table: lines\n    watermark: changed")
    assert (report.kept, report.duplicates) == (1, 2)  # a number's overlap is 1,000


def test_a_missing_database_is_an_error_with_its_name(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "postgresql://shop@127.0.0.1:1/none")
    with pytest.raises((ConfigError, DataError), match="127.0.0.1:1/none"):
        shop.source()
