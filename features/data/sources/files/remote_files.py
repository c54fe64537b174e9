"""Files at an address (`https://`, `s3://` …): copied to this machine through DuckDB's extension httpfs."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from features.data.sources.files.paths import natural_key

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_address(path: str) -> bool:
    return _ADDRESS.match(path) is not None


def can_fetch() -> bool:
    """Whether the extension httpfs is installed; DuckDB is never asked to download it here."""
    with duckdb.connect() as connection:
        row = connection.execute("SELECT installed FROM duckdb_extensions() WHERE extension_name = 'httpfs'").fetchone()
    return bool(row and row[0])


def missing_extension(address: str) -> str:
    """The problem with an address where httpfs is missing."""
    return (
        f"{address}: an address needs DuckDB's extension httpfs, which is not installed here: "
        "run `INSTALL httpfs` in DuckDB once, or download the file and give its path"
    )


def fetch(address: str, folder: Path) -> dict[Path, str]:
    """Copy the files at an address, which may be a glob, to `folder`; credentials are those DuckDB has.

    Returns
    -------
    dict of Path to str
        Local file → its address, in the natural order of the addresses.

    Raises
    ------
    duckdb.Error
        The address cannot be read.
    """
    with duckdb.connect() as connection:
        connection.execute("LOAD httpfs")
        return copy_files(connection, address, folder)


def copy_files(connection: duckdb.DuckDBPyConnection, address: str, folder: Path) -> dict[Path, str]:
    """As `fetch`, through a connection that can read the address."""
    names = [address]
    if re.search(r"[*?\[]", address):
        found = connection.execute("SELECT file FROM glob(?)", [address]).fetchall()
        names = sorted((str(row[0]) for row in found), key=lambda name: natural_key(Path(name)))
    copies = {}
    for number, name in enumerate(names):
        row = connection.execute("SELECT content FROM read_blob(?)", [name]).fetchone()
        # a folder for each file, because the names may be equal
        target = folder / str(number) / name.split("?", 1)[0].rsplit("/", 1)[-1]
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(bytes(row[0]) if row else b"")
        copies[target] = name
    return copies
