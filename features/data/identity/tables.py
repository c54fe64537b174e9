"""The tables a resolution works with: what they are keyed by, where the links lie, and how arrays get into DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from features.data.identity.components import UNDATED, Ints
from qianmian.workspace import Workspace

PROBABILISTIC = "probabilistic"
RECORD_COLUMNS = "source, source_user_id"
BATCH_ROWS = 100_000


def links_path(workspace: Workspace) -> Path:
    """Where probabilistic linkage writes its links; each is an edge that counts after all identifiers."""
    return workspace.root / "identity" / "links.parquet"


def timestamps(values: Ints) -> pa.Array:
    """Microseconds as timestamps; null for `UNDATED`."""
    return pa.array(values.astype("datetime64[us]"), pa.timestamp("us"), mask=values == UNDATED)


def register(connection: duckdb.DuckDBPyConnection, name: str, columns: dict[str, Any]) -> None:
    """Give the connection a table; in pieces, because one piece is read by one thread."""
    table = pa.table(columns)
    connection.register(name, pa.Table.from_batches(table.to_batches(max_chunksize=BATCH_ROWS), table.schema))


def row_count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Rows of a table."""
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
