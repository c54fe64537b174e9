"""What is left of an erased customer: a scan of all files of a workspace, decoded and byte by byte.

A trace is the file and what kind of thing was found in it, never the value. Ids that are too short to be told from
other words (`features.erasure.matching`) are looked for in the columns of user ids only.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, NamedTuple

import duckdb
import numpy as np

from features.data.lake import literal, quote
from features.erasure.customer import ErasedCustomer
from features.erasure.matching import (
    described,
    erasing_connection,
    is_of_customer,
    mention_of,
    mentions,
    spellings,
    words,
)
from qianmian.paths import exact_pattern
from qianmian.workspace import Workspace

logger = logging.getLogger(__name__)
SQLITE_MAGIC = b"SQLite format 3\0"
NUMPY_MAGIC = b"\x93NUMPY"
WORD = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
ROW = "row of the customer"
UNREADABLE = "a file that cannot be read"
FAILURES = (OSError, duckdb.Error, sqlite3.Error, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
BLOCK_BYTES = 8 << 20  # that are read at a time: a file that is mapped and then cut by a server would end this process
LONG_ROW = 5  # a row, also one of an index, of less than this part of a page is in one piece


class Needle(NamedTuple):
    """Bytes to look for, what they are, and the ids of others that have them in them: they, and the place in each."""

    text: bytes
    kind: str
    longer: tuple[tuple[bytes, int], ...] = ()


class Trace(NamedTuple):
    """Something of an erased customer that is left: the path in the workspace, and what it is."""

    path: str
    kind: str


def scan_workspace(
    workspace: Workspace, customer: ErasedCustomer, ignored: frozenset[Path] = frozenset()
) -> list[Trace]:
    """Look for the customer in all files below the workspace but the ignored ones; links are followed, once."""
    needles, found, seen = _needles(customer), list[Trace](), set[Path]()
    with erasing_connection(workspace, customer) as connection:
        for place, folders, names in os.walk(workspace.root, followlinks=True):
            folders[:] = [name for name in sorted(folders) if not name.startswith(".ingest-")]  # what this scan spills
            if (real := Path(place).resolve()) in seen:
                folders.clear()
                continue
            seen.add(real)
            for file in sorted(Path(place, name) for name in names):
                if file in ignored or not file.is_file():
                    continue
                name, kinds = str(file.relative_to(workspace.root)), dict[str, None]()
                try:
                    for kind in _kinds_in(file, needles, connection, customer):
                        kinds[kind] = None
                except FileNotFoundError:
                    continue  # a file of a server that runs
                except FAILURES as error:
                    logger.warning("scan=unreadable file=%s error=%s", name, type(error).__name__)
                    kinds[UNREADABLE] = None
                found += [Trace(name, kind) for kind in kinds]
    return sorted(found)


def _needles(customer: ErasedCustomer) -> list[Needle]:
    """The bytes of the texts to look for, in all spellings."""
    longer = [written.encode() for written in spellings(customer.longer_ids)]
    found = []
    for word, kind in words(customer).items():
        for text in sorted(written.encode() for written in spellings([word])):
            places = ((one, place.start()) for one in longer for place in re.finditer(re.escape(text), one))
            found.append(Needle(text, kind, tuple(places)))
    return found


def _kinds_in(
    file: Path, needles: Sequence[Needle], connection: duckdb.DuckDBPyConnection, customer: ErasedCustomer
) -> Iterator[str]:
    with file.open("rb") as handle:
        head = handle.read(16)
        handle.seek(0)
        yield from _kinds_in_blocks(handle, needles)
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


def _kinds_in_blocks(handle: IO[bytes], needles: Sequence[Needle]) -> Iterator[str]:
    """The same as `_kinds_in_bytes` for a file of any size, some of whose bytes are read twice."""
    margin = 1 + max(
        (len(text) for one in needles for text in (one.text, *(text for text, _ in one.longer))), default=0
    )
    content, low = b"", 0
    while True:
        block = handle.read(BLOCK_BYTES)
        content, is_last = content + block, len(block) < BLOCK_BYTES
        yield from _kinds_in_bytes(content, needles, low, len(content) - (0 if is_last else margin))
        if is_last:
            return
        content, low = content[-3 * margin :], margin


def _kinds_in_bytes(content: bytes, needles: Sequence[Needle], low: int = 0, high: int | None = None) -> Iterator[str]:
    """The kinds of the texts that occur as words of their own, and in no id of another customer."""
    for text, kind, longer in needles:
        at = content.find(text, low, high)
        while at >= 0:
            end = at + len(text)
            before, after = content[max(at - 1, 0) : at], content[end : end + 1]
            is_part = (text[0] in WORD and before and before[0] in WORD) or (
                text[-1] in WORD and after and after[0] in WORD
            )
            if not is_part and not any(content.startswith(one, at - place) for one, place in longer if at >= place):
                yield kind
                break
            at = content.find(text, at + 1, high)


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
    conditions = {ROW: is_of_customer(columns)}
    for kind in dict.fromkeys(words(customer).values()):
        mention = mention_of(customer, [kind])
        conditions[kind] = " OR ".join(mentions(columns, mention, name) for name in columns) or "false"
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
