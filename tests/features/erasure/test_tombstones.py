"""Tombstones: the same in Python and in SQL, kept in a file that only the owner reads."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.pii_key import PiiKey, load_key
from features.data.privacy import PersonalDataHasher
from features.erasure.sql import tombstone_sql, without_erased
from features.erasure.tombstones import add_tombstones, read_tombstones, tombstone, tombstone_file
from qianmian.workspace import Workspace

KEY = PiiKey.of("a key of the workspace")
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)


@settings(max_examples=30, deadline=None)
@given(TEXTS, TEXTS)
def test_python_and_sql_give_the_same(source, user_id):
    with duckdb.connect() as connection:
        PersonalDataHasher(KEY, ()).set_key_variables(connection)
        found = connection.execute(f"SELECT {tombstone_sql('$1', '$2')}", [source, user_id]).fetchone()[0]
    assert found == tombstone(KEY, source, user_id)


def test_tombstones_are_added_and_only_the_owner_reads_them(tmp_path):
    workspace = Workspace(tmp_path)
    assert read_tombstones(workspace) == frozenset()
    first = add_tombstones(workspace, KEY, [("shop", "u-1")])
    both = add_tombstones(workspace, KEY, [("shop", "u-2"), ("shop", "u-1")])
    assert first < both
    assert read_tombstones(workspace) == both
    assert tombstone_file(workspace).stat().st_mode & 0o077 == 0


def test_rows_of_erased_users_are_left_out(tmp_path):
    workspace = Workspace(tmp_path)
    users = [f"u-{number}" for number in range(5000)]
    rows = pa.table({"source": ["shop"] * 5000, "source_user_id": users, "name": ["x"] * 5000})
    assert without_erased(workspace, rows) is rows
    add_tombstones(workspace, load_key(workspace), [("shop", "u-1"), ("till", "u-2"), ("shop", "u-4999")])
    kept = [user for user in users if user not in ("u-1", "u-4999")]
    assert without_erased(workspace, rows)["source_user_id"].to_pylist() == kept
