"""The lake: all or nothing, readable by whoever began before, and plain words where a file is broken."""

from __future__ import annotations

import json
from datetime import datetime

import duckdb
import ibis.expr.datatypes as dt
import pyarrow.parquet as pq
import pytest

from features.data.lake import CUSTOMERS, Lake, TableState
from qianmian.errors import ArtifactError, DataError
from qianmian.schema import TABLES
from qianmian.workspace import Workspace

IBIS_TYPES = {
    "string": dt.string,
    "int64": dt.int64,
    "float64": dt.float64,
    "bool": dt.boolean,
    "date": dt.date,
    "json": dt.string,
}
FAILING = {
    "cannot be bound": "SELECT * FROM nowhere",
    "fails at a later row": "SELECT CASE WHEN i = 3 THEN error('stop') ELSE 'c' END AS content_id FROM range(5) AS t(i)",
}


def items(*rows):
    """A SELECT of (item_id, category) rows."""
    values = ", ".join(f"('{item}', {'NULL' if category is None else repr(category)})" for item, category in rows)
    return f"SELECT * FROM (VALUES {values}) AS t(item_id, category)"


def moments(*times):
    """A SELECT of dated order lines."""
    values = ", ".join(f"('o{number}', TIMESTAMP '{ts}', 'paid')" for number, ts in enumerate(times))
    return f"SELECT * FROM (VALUES {values}) AS t(order_id, ts, status)"


def commit(lake, **queries):
    with duckdb.connect() as connection:
        return lake.commit(connection, queries)


def read(lake, table="items"):
    return lake.connect().con.execute(f"SELECT item_id, category FROM {table} ORDER BY 1").fetchall()


def files(lake):
    return {str(path.relative_to(lake.workspace.lake)) for path in lake.workspace.lake.rglob("*") if path.is_file()}


@pytest.fixture
def lake(tmp_path):
    return Lake(Workspace(tmp_path / "a workspace").create())


@pytest.fixture
def another(tmp_path):
    return Lake(Workspace(tmp_path / "another").create())


# ---- committing ------------------------------------------------------------------------------------------------------


def test_commit_says_what_it_wrote_and_reads_back_the_same(lake):
    written = commit(
        lake, items=items(("i1", "food"), ("i2", None)), transactions=moments("2024-01-01 10:00", "2024-01-03 23:59:59")
    )
    assert lake.states() == written
    assert list(written) == ["items", "transactions"]
    assert (written["items"].rows, written["items"].columns, written["items"].filled) == (
        2,
        ("item_id", "category"),
        ("item_id", "category"),
    )
    assert {written["items"].first, written["items"].last, written["items"].begin, written["items"].end} == {None}
    lines = written["transactions"]
    assert (lines.first, lines.last) == (datetime(2024, 1, 1, 10), datetime(2024, 1, 3, 23, 59, 59))
    assert (lines.begin, lines.end) == (datetime(2024, 1, 1), datetime(2024, 1, 4))
    assert all(TableState.of(json.loads(json.dumps(state.as_dict()))) == state for state in written.values())
    assert read(lake) == [("i1", "food"), ("i2", None)]


def test_a_column_without_a_value_is_not_filled(lake):
    state = commit(lake, items=items(("i1", None)).replace("NULL", "NULL::VARCHAR"))["items"]
    assert (state.columns, state.filled) == (("item_id", "category"), ("item_id",))


def test_an_empty_result_is_a_table_without_rows(lake):
    state = commit(lake, items=items(("i1", "food")) + " WHERE false")["items"]
    assert (state.rows, state.filled) == (0, ())
    assert read(lake) == []


@pytest.mark.parametrize("second", FAILING.values(), ids=FAILING)
def test_a_failing_second_query_changes_nothing(lake, second):
    commit(lake, items=items(("i1", "food")))
    manifest, kept, digest = (lake.workspace.lake / "manifest.json").read_bytes(), files(lake), lake.digest
    with pytest.raises(duckdb.Error):
        commit(lake, items=items(("i1", "home"), ("i2", "home")), contents=second)
    assert (lake.workspace.lake / "manifest.json").read_bytes() == manifest
    assert files(lake) == kept
    assert lake.digest == digest
    assert list(lake.states()) == ["items"]
    assert read(lake) == [("i1", "food")]


@pytest.mark.parametrize("second", FAILING.values(), ids=FAILING)
def test_a_failing_first_commit_leaves_an_empty_lake(lake, second):
    with pytest.raises(duckdb.Error):
        commit(lake, items=items(("i1", "home")), contents=second)
    assert files(lake) == set()
    assert lake.states() == {}


def test_a_reader_in_the_middle_of_a_commit_sees_the_old_tables(lake):
    commit(lake, items=items(("i1", "old")), contents="SELECT 'old' AS content_id")
    seen = set()

    def peek(content_id: str) -> str:
        states = Lake(lake.workspace).states()
        tables = [pq.read_table(lake.parquet_path(states[name])).to_pylist() for name in ("items", "contents")]
        seen.add((tables[0][0]["category"], tables[1][0]["content_id"]))
        return content_id

    with duckdb.connect() as connection:
        connection.create_function("peek", peek, side_effects=True)
        lake.commit(
            connection, {"items": items(("i1", "new")), "contents": "SELECT peek('new') AS content_id FROM range(1)"}
        )
    assert seen == {("old", "old")}
    assert read(lake) == [("i1", "new")]
    assert lake.connect().table("contents").to_pyarrow()["content_id"].to_pylist() == ["new"]


def test_a_reader_who_began_before_a_commit_goes_on_with_the_old(lake):
    commit(lake, items=items(("i1", "old")))
    reader = lake.connect()
    commit(lake, items=items(("i1", "new")))
    assert reader.table("items").to_pyarrow()["category"].to_pylist() == ["old"]
    assert read(lake) == [("i1", "new")]


def test_files_of_the_last_two_commits_are_kept_and_older_ones_removed(lake):
    paths = [commit(lake, items=items(("i1", text)))["items"].path for text in ("a", "b", "c")]
    assert files(lake) == {"manifest.json", *paths[1:]}
    commit(lake, contents="SELECT 'c1' AS content_id")
    # the commit before had the same items, so only one state of them is named
    assert files(lake) == {"manifest.json", paths[2], lake.states()["contents"].path}
    assert read(lake) == [("i1", "c")]


def test_what_a_killed_commit_left_is_removed_by_the_next(lake):
    left = lake.workspace.lake / "items" / "0123456789ab"
    left.mkdir(parents=True)
    (left / "data.parquet").write_bytes(b"half")
    commit(lake, contents="SELECT 'c1' AS content_id")
    assert not left.exists()
    assert files(lake) == {"manifest.json", lake.states()["contents"].path}


# ---- digest ----------------------------------------------------------------------------------------------------------


def test_equal_data_have_an_equal_digest(lake, another):
    rows = [("i1", "food"), ("i2", None), ("i3", "")]
    commit(lake, items=items(*rows), contents="SELECT 'c1' AS content_id")
    commit(another, items=items(("i9", "x")))
    commit(another, contents="SELECT 'c1' AS content_id")
    commit(another, items=items(*rows))
    assert lake.digest == another.digest
    assert len(lake.digest) == 16


@pytest.mark.parametrize(
    "rows",
    [
        [("i1", "food")],
        [("i1", "food"), ("i2", "home"), ("i3", "home")],
        [("i1", "food"), ("i2", "homes")],
        [("i1", "food"), ("i2", None)],
        [("i1", "food"), ("i2", "")],
        [("food", "i1"), ("home", "i2")],
    ],
    ids=["fewer", "more", "a value", "a null", "an empty text", "values swapped between columns"],
)
def test_different_data_have_another_digest(lake, another, rows):
    commit(lake, items=items(("i1", "food"), ("i2", "home")))
    commit(another, items=items(*rows))
    assert lake.digest != another.digest


def test_the_same_rows_in_another_table_have_another_digest(lake, another):
    commit(lake, transactions=moments("2024-01-01"))
    commit(another, events=moments("2024-01-01"))
    assert lake.digest != another.digest


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [*TABLES.values(), CUSTOMERS], ids=lambda table: table.name)
def test_a_table_that_is_not_there_is_empty_but_typed(lake, table):
    view = lake.connect().table(table.name)
    assert view.columns == table.names
    assert view.count().execute() == 0
    for column in table.columns:
        found = view.schema()[column.name]
        assert found.is_timestamp() if column.dtype == "timestamp" else found == IBIS_TYPES[column.dtype]


def test_columns_a_table_was_not_given_are_null_and_typed(lake):
    commit(lake, transactions=moments("2024-01-01"))
    view = lake.connect().table("transactions")
    assert set(view.columns) == set(TABLES["transactions"].names)
    assert view.schema()["amount"] == dt.float64
    assert view.to_pyarrow()["amount"].to_pylist() == [None]


def test_attach_names_views_after_the_prefix(lake):
    commit(lake, items=items(("i1", "food")))
    with duckdb.connect() as connection:
        lake.attach(connection, "old_")
        assert connection.execute("SELECT item_id FROM old_items").fetchall() == [("i1",)]
        assert connection.execute("SELECT count(*) FROM old_customers").fetchall() == [(0,)]


def test_reading_writes_nothing(tmp_path):
    lake = Lake(Workspace(tmp_path / "none"))
    assert lake.states() == {}
    assert lake.last is None
    lake.connect()
    assert list(tmp_path.iterdir()) == []


def test_state_of_a_missing_table_says_what_there_is(lake):
    with pytest.raises(DataError, match="the lake has no events.*an empty lake.*qianmian ingest"):
        lake.state("events")
    commit(lake, items=items(("i1", "food")))
    with pytest.raises(DataError, match="the lake has no events.*got 'items'"):
        lake.state("events")
    assert lake.state("items").rows == 1


# ---- broken files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"tables": []}',
        b'{"format": 2}',
        b'{"format": 2, "tables": [{"name": "items"}]}',
        b'{"format": 2, "tables": null}',
    ],
)
def test_an_unreadable_manifest_is_an_artifact_error_with_a_hint(lake, content):
    (lake.workspace.lake / "manifest.json").write_bytes(content)
    for use in (lake.states, lake.connect, lambda: lake.digest, lambda: commit(lake, items=items(("i1", "food")))):
        with pytest.raises(ArtifactError, match="manifest cannot be read") as caught:
            use()
        assert caught.value.where == str(lake.workspace.lake / "manifest.json")
        assert "ingest again" in caught.value.hint
    assert files(lake) == {"manifest.json"}


def test_a_manifest_of_another_format_says_both(lake):
    commit(lake, items=items(("i1", "food")))
    manifest = lake.workspace.lake / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 1}))
    with pytest.raises(ArtifactError, match="another version") as caught:
        lake.states()
    assert (caught.value.got, caught.value.allowed) == (1, 2)
    assert "ingest again" in caught.value.hint


@pytest.mark.parametrize("share", [0.0, 0.5, None], ids=["empty", "truncated", "missing"])
def test_a_broken_parquet_file_is_an_artifact_error_with_a_hint(lake, share):
    commit(lake, items=items(("i1", "food")))
    path = lake.workspace.lake / lake.state("items").path
    whole = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ArtifactError, match="the lake's items cannot be read") as caught:
        lake.connect()
    assert caught.value.where == str(path)
    assert "ingest again" in caught.value.hint


# ---- time ------------------------------------------------------------------------------------------------------------


def test_default_as_of_is_the_midnight_after_the_last_row_of_either_table(lake):
    commit(lake, transactions=moments("2024-01-01 10:00", "2024-02-29 23:59:59"))
    assert (lake.last, lake.default_as_of) == (datetime(2024, 2, 29, 23, 59, 59), datetime(2024, 3, 1))
    commit(lake, events=moments("2024-03-05 00:00:00"))
    assert (lake.last, lake.default_as_of) == (datetime(2024, 3, 5), datetime(2024, 3, 6))


def test_default_as_of_does_not_follow_a_wrong_clock(lake):
    commit(
        lake,
        transactions="SELECT i::VARCHAR AS order_id, TIMESTAMP '2024-01-01' + INTERVAL (i) MINUTE AS ts FROM range(2880) AS t(i)"
        " UNION ALL SELECT 'stray', TIMESTAMP '2099-12-31 12:00'",
    )
    assert lake.last == datetime(2099, 12, 31, 12)
    assert lake.default_as_of == datetime(2024, 1, 3)


def test_default_as_of_without_a_date_says_so(lake):
    commit(lake, items=items(("i1", "food")), transactions="SELECT 'o1' AS order_id, NULL::TIMESTAMP AS ts")
    assert lake.last is None
    with pytest.raises(DataError, match="no transaction or event in the lake has a timestamp.*--as-of"):
        lake.default_as_of  # noqa: B018


def test_brackets_in_the_name_of_the_workspace_are_no_pattern(tmp_path, monkeypatch, write_lake):
    monkeypatch.setattr("features.data.lake.PARTITION_ROWS", 1)
    rows = [
        {
            "source": "s",
            "source_user_id": "u",
            "order_id": f"o{n}",
            "line_no": 1,
            "ts": datetime(2024, 1, 1 + n),
            "status": "paid",
        }
        for n in range(3)
    ]
    lake = write_lake(tmp_path / "shop [2024] *new*?", {"transactions": rows})
    assert lake.states()["transactions"].path.endswith("**/*.parquet")
    assert lake.connect().con.execute("SELECT count(*) FROM transactions").fetchone() == (3,)
    assert lake.default_as_of == datetime(2024, 1, 4)
