"""Helpers of identity resolution: record key, path of the links, and arrays as DuckDB tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from features.data.identity.links import UNDATED, Ints
from qianmian.workspace import Workspace

PROBABILISTIC = "probabilistic"
RECORD_COLUMNS = "source, source_user_id"
BATCH_ROWS = 100_000


def links_path(workspace: Workspace) -> Path:
    """File with the links of record linkage, which are processed after all identifiers."""
    return workspace.root / "identity" / "links.parquet"


def timestamps(values: Ints) -> pa.Array:
    """Convert microseconds to timestamps; `UNDATED` becomes null."""
    return pa.array(values.astype("datetime64[us]"), pa.timestamp("us"), mask=values == UNDATED)


def register(connection: duckdb.DuckDBPyConnection, name: str, columns: dict[str, Any]) -> None:
    """Register columns as a table of the connection, in batches, because DuckDB reads one batch per thread."""
    table = pa.table(columns)
    connection.register(name, pa.Table.from_batches(table.to_batches(max_chunksize=BATCH_ROWS), table.schema))


def row_count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Number of rows of a table."""
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
