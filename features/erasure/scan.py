"""What is left of an erased customer: a scan of all files of a workspace, decoded and byte by byte.

A trace is the file and what kind of thing was found in it, never the value. Ids that are too short to be told from
other words (`features.erasure.matching`) are looked for in the columns of user ids only.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import sqlite3
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from features.data.lake import literal, quote
from features.erasure.customer import ErasedCustomer
from features.erasure.matching import described, erasing_connection, is_of_customer, mentions, pattern, words
from qianmian.paths import exact_pattern
from qianmian.workspace import Workspace

SQLITE_MAGIC = b"SQLite format 3\0"
NUMPY_MAGIC = b"\x93NUMPY"
WORD = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
ROW = "row of the customer"
LONG_ROW = 5  # a row, also one of an index, of less than this part of a page is in one piece


class Needle(NamedTuple):
    """Bytes to look for, and what they are."""

    text: bytes
    kind: str


class Trace(NamedTuple):
    """Something of an erased customer that is left: the path in the workspace, and what it is."""

    path: str
    kind: str


def scan_workspace(
    workspace: Workspace, customer: ErasedCustomer, ignored: frozenset[Path] = frozenset()
) -> list[Trace]:
    """Look for the customer in all files below the workspace but the ignored ones."""
    needles, found = _needles(customer), list[Trace]()
    with erasing_connection(workspace, customer) as connection:
        for place, folders, names in os.walk(workspace.root):
            folders[:] = [name for name in folders if not name.startswith(".ingest-")]  # what this scan spills
            for file in sorted(Path(place, name) for name in names):
                if file in ignored or file.is_symlink() or not file.is_file():
                    continue
                with contextlib.suppress(FileNotFoundError):  # a file of a server that runs
                    kinds = dict.fromkeys(_kinds_in(file, needles, connection, customer))
                    found += [Trace(str(file.relative_to(workspace.root)), kind) for kind in kinds]
    return sorted(found)


def _needles(customer: ErasedCustomer) -> list[Needle]:
    """The bytes of the texts to look for, also as JSON writes them."""
    texts = words(customer).items()
    return [Needle(written.encode(), kind) for text, kind in texts for written in {text, json.dumps(text)[1:-1]}]


def _kinds_in(
    file: Path, needles: Sequence[Needle], connection: duckdb.DuckDBPyConnection, customer: ErasedCustomer
) -> Iterator[str]:
    if file.stat().st_size == 0:
        return
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield from _kinds_in_bytes(content, needles)
        head = content[:16]
    if head.startswith(b"PAR1"):
        yield from _kinds_in_parquet(file, connection, customer)
    elif head == SQLITE_MAGIC:
        yield from _kinds_in_sqlite(file, needles)
    elif head.startswith(NUMPY_MAGIC):
        yield from _kinds_in_array(file.read_bytes(), needles)
    elif head.startswith(b"PK") and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                member = archive.read(name)
                yield from _kinds_in_bytes(member, needles)
                if member.startswith(NUMPY_MAGIC):  # a npz
                    yield from _kinds_in_array(member, needles)


def _kinds_in_bytes(content: Any, needles: Sequence[Needle]) -> Iterator[str]:
    """The kinds of the texts that occur as words of their own; `content` is anything with `find`."""
    for text, kind in needles:
        at = content.find(text)
        while at >= 0:
            end = at + len(text)
            before, after = content[max(at - 1, 0) : at], content[end : end + 1]
            if not (text[0] in WORD and before and before[0] in WORD) and not (
                text[-1] in WORD and after and after[0] in WORD
            ):
                yield kind
                break
            at = content.find(text, at + 1)


def _kinds_in_array(content: bytes, needles: Sequence[Needle]) -> Iterator[str]:
    """The same for the texts of a NumPy array, which has four bytes for a character, and nothing between two texts."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError:  # Python objects, which this project does not write
        return
    if array.dtype.kind == "U":
        yield from _kinds_in_bytes("\n".join(array.ravel().tolist()).encode(errors="replace"), needles)
    elif array.dtype.kind == "S":
        yield from _kinds_in_bytes(b"\n".join(array.ravel().tolist()), needles)


def _kinds_in_parquet(file: Path, connection: duckdb.DuckDBPyConnection, customer: ErasedCustomer) -> Iterator[str]:
    scan = f"read_parquet({literal(exact_pattern(file))}, hive_partitioning=false)"
    columns = described(connection, scan)
    texts = words(customer)
    conditions = {ROW: is_of_customer(columns)}
    for kind in dict.fromkeys(texts.values()):
        found = pattern({text: one for text, one in texts.items() if one == kind})
        conditions[kind] = " OR ".join(mentions(columns, found, name) for name in columns) or "false"
    selected = ", ".join(f"coalesce(bool_or({condition}), false)" for condition in conditions.values())
    values = connection.execute(f"SELECT {selected} FROM {scan}").fetchone() or ()
    yield from (kind for kind, is_there in zip(conditions, values, strict=True) if is_there)


def _kinds_in_sqlite(file: Path, needles: Sequence[Needle]) -> Iterator[str]:
    """What is in long rows: SQLite spreads them over pages that are not one after the other."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            for row in connection.execute(f"SELECT * FROM {quote(name.decode())}"):
                cells = [cell for cell in row if isinstance(cell, bytes)]
                if sum(map(len, cells)) > page_bytes // LONG_ROW:
                    yield from _kinds_in_bytes(b"\0".join(cells), needles)
