"""The scan finds ids in every kind of file, and takes no part of another id for one."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.data.lake import Lake
from features.erasure.customer import ErasedCustomer
from features.erasure.matching import erasing_connection
from features.erasure.scan import scan_workspace
from qianmian.workspace import Workspace

USER = "user-20240131-é"
CUSTOMER = ErasedCustomer((("shop", USER), ("shop", "17")), ("u0123456789abcdef",), ("h1:" + "ab" * 16,))


def write_sqlite(file, text):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 4060 + " " + text + " " + "y" * 9000,))
        connection.commit()


def test_no_progress_is_printed(tmp_path):
    """The standard output belongs to the result of `qianmian erase --json`."""
    workspace = Workspace(tmp_path).create()
    with erasing_connection(workspace, CUSTOMER) as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)
    raw = Lake(workspace).connect().con
    assert raw.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)


WRITERS = {
    "text.txt": lambda file, text: file.write_text(f"see {text}.", encoding="utf-8"),
    "ascii.json": lambda file, text: file.write_text(json.dumps({"id": text})),
    "table.parquet": lambda file, text: pq.write_table(pa.table({"x": ["a", text]}), file, compression="zstd"),
    "nested.parquet": lambda file, text: pq.write_table(pa.table({"x": [["a", text], None]}), file, compression="zstd"),
    "array.npy": lambda file, text: np.save(file, np.array([text, "z" * len(text), text])),
    "arrays.npz": lambda file, text: np.savez_compressed(file, a=np.arange(3), ids=np.array(["b" * len(text), text])),
    "bytes.npz": lambda file, text: np.savez_compressed(file, ids=np.array([b"c" * 40, text.encode()])),
    "page.db": write_sqlite,
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_id_is_found_in_a_file(tmp_path, name):
    for text, kind in ((USER, "user id"), (CUSTOMER.one_ids[0], "one_id"), (CUSTOMER.identifiers[0], "identifier")):
        folder = tmp_path / kind
        folder.mkdir()
        WRITERS[name](folder / name, text)
        assert scan_workspace(Workspace(folder), CUSTOMER) == [(name, kind)]


def test_other_ids_and_short_ones_are_not_found(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name, f"a{CUSTOMER.one_ids[0]}")
    (tmp_path / "prices.txt").write_text("17, 17.50")
    pq.write_table(pa.table({"source": ["till"], "source_user_id": ["17"], "item": ["17"]}), tmp_path / "other.parquet")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("a.txt", "17")
    assert scan_workspace(Workspace(tmp_path), CUSTOMER) == []
    pq.write_table(pa.table({"user_source": ["shop"], "user_id": ["17"]}), tmp_path / "scores.parquet")
    assert scan_workspace(Workspace(tmp_path), CUSTOMER) == [("scores.parquet", "row of the customer")]


def test_an_id_inside_the_id_of_somebody_else_is_not_found(tmp_path):
    """Addresses as ids: anna@x.org is a word of mary.anna@x.org."""
    anna, mary = "anna@x.org", "mary.anna@x.org"
    customer = ErasedCustomer((("shop", anna),), (), (), (mary,))
    for name, write in WRITERS.items():
        write(tmp_path / name, f"see {mary}")
    (tmp_path / "address.txt").write_text("/u/mary.anna%40x.org")
    assert scan_workspace(Workspace(tmp_path), customer) == []
    (tmp_path / "page.db").unlink()
    for name, write in WRITERS.items():
        write(tmp_path / name, f"see {mary} {anna}")
    (tmp_path / "address.txt").write_text("/u/anna%40x.org")
    found = scan_workspace(Workspace(tmp_path), customer)
    assert found == [(name, "user id") for name in sorted([*WRITERS, "address.txt"])]


def test_an_id_between_two_blocks_is_found_and_no_part_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr("features.erasure.scan.BLOCK_BYTES", 256)
    anna, mary = "anna@x.org", "mary.anna@x.org"
    customer, file = ErasedCustomer((("shop", anna),), (), (), (mary,)), tmp_path / "text"
    for place in range(225, 262, 2):
        for text, kinds in ((anna, ["user id"]), (mary, []), ("z" + anna, []), (anna + "z", [])):
            file.write_text(f"{'.' * place} {text} {'.' * 300}")
            assert [kind for _, kind in scan_workspace(Workspace(tmp_path), customer)] == kinds, (place, text)


def test_a_file_that_cannot_be_read_is_named_and_ends_no_scan(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + b"x" * 100)
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\0" + b"x" * 100)
    (tmp_path / "notes.txt").write_text(USER)
    assert scan_workspace(Workspace(tmp_path), CUSTOMER) == [
        ("broken.db", "a file that cannot be read"),
        ("broken.parquet", "a file that cannot be read"),
        ("notes.txt", "user id"),
    ]


def test_folders_on_another_disk_are_searched(tmp_path):
    """A workspace whose artifacts are a link to another disk, and a link that leads back."""
    root, disk = tmp_path / "workspace", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    (disk / "notes.txt").write_text(USER)
    (disk / "back").symlink_to(root)
    (root / "mlartifacts").symlink_to(disk)
    assert scan_workspace(Workspace(root), CUSTOMER) == [("mlartifacts/notes.txt", "user id")]
