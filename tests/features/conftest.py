"""Small lakes written row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from features.data.identity import resolve
from features.data.lake import Lake
from features.data.tables import LAKE_TABLES
from qianmian.settings import Settings
from qianmian.workspace import Workspace

TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
    "json": pa.string(),
}
TableRows = Mapping[str, Sequence[Mapping[str, Any]]]


def as_arrow(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of a canonical table; columns nobody names are null, unknown ones are attributes."""
    columns = {column.name: TYPES[column.dtype] for column in LAKE_TABLES[table].columns}
    extra = sorted({name for row in rows for name in row} - set(columns))
    made = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in columns.items()}
    return pa.table({**made, **{name: pa.array([row.get(name) for row in rows]) for name in extra}})


def write_lake(root: Path, tables: TableRows) -> Lake:
    """Commit the rows as they are and resolve the customers; without a history, all attributes of profiles are fixed."""
    lake = Lake(Workspace(root).create())
    if "profiles" in tables:
        tables = {"profile_history": tables["profiles"], **tables}
    with duckdb.connect() as connection:
        for name, rows in tables.items():
            connection.register(f"made_{name}", as_arrow(name, rows))
        lake.commit(connection, {name: f"SELECT * FROM made_{name}" for name in tables})
    resolve(lake, Settings())
    return lake


@pytest.fixture(scope="session", name="write_lake")
def write_lake_() -> Callable[[Path, TableRows], Lake]:
    return write_lake


@pytest.fixture(scope="session")
def lake_of(tmp_path_factory) -> Callable[[TableRows], Lake]:
    """A lake in a folder of its own."""
    return lambda tables: write_lake(tmp_path_factory.mktemp("a lake") / "workspace", tables)
