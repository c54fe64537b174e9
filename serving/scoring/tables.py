"""What the tables of `qianmian score` have in common: the columns that say who and when, blocks of customers, files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.profiles.snapshot import build_snapshot
from qianmian.errors import DataError, UsageError
from qianmian.workspace import atomic_path
from serving.champions import Champion, Champions

BLOCK = 8_192  # customers scored at a time: what is held beside the result does not grow with their number
FORMATS = (".parquet", ".csv")
IDENTITY_COLUMNS = [("user_id", pa.string()), ("user_source", pa.string()), ("one_id", pa.string())]
PROVENANCE = [("as_of", pa.timestamp("us")), ("model_version", pa.string())]


def write(table: pa.Table, path: Path) -> Path:
    """Write a table as Parquet or CSV, by its ending; all of it or nothing. Lists and structs are JSON text in a CSV.

    Raises
    ------
    UsageError
        Another ending.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            "a table is written as Parquet or CSV", got=path.name, allowed=", ".join(FORMATS), hint="name the file so"
        )
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(table, temporary, compression="zstd")
            return path
        nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
        flat = pa.schema(
            [pa.field(field.name, pa.string()) if field.name in nested else field for field in table.schema]
        )
        with pa_csv.CSVWriter(temporary, flat) as writer:
            for start in range(0, max(1, table.num_rows), BLOCK):
                block = table.slice(start, BLOCK)
                columns = [_json(block[name]) if name in nested else block[name] for name in block.column_names]
                writer.write_table(pa.table(columns, schema=flat))
    return path


def at_moment(champions: Champions, champion: Champion, as_of: datetime | None, builder: Builder | None) -> Champions:
    """The champions over the profiles at `as_of`."""
    if as_of is None or as_of == champions.customers.as_of:
        wanted = champions
    elif builder is None:
        raise UsageError(
            "profiles of another moment need the data they are built from",
            got=f"--as-of {as_of:%Y-%m-%d}",
            field="as_of",
        )
    else:
        wanted = None
    if as_of is not None and as_of < champion.bundle.as_of:
        raise DataError(
            f"the {champion.job} model in production has seen rows after that",
            where=f"{champion.name} version {champion.version}",
            got=f"--as-of {as_of:%Y-%m-%d}",
            allowed=f"{champion.bundle.as_of:%Y-%m-%d} or later",
            hint=f"run `qianmian train {champion.job} --as-of {as_of:%Y-%m-%d}` first",
        )
    if wanted is None:
        assert as_of is not None
        assert builder is not None
        wanted = champions.with_snapshot(build_snapshot(builder, as_of, champions.settings))
    return wanted


def blocks(champions: Champions) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """Customers of the profiles, some at a time: who they are, and their rows; one empty block where there are none."""
    identity_columns = champions.customers.table.select([name for name, _ in IDENTITY_COLUMNS])
    for start in range(0, max(1, identity_columns.num_rows), BLOCK):
        yield (
            identity_columns.slice(start, BLOCK),
            np.arange(start, min(start + BLOCK, identity_columns.num_rows), dtype=np.int64),
        )


def with_identity(
    identity_columns: pa.Table,
    scores: list[dict[str, Any]],
    champion: Champion,
    champions_at: Champions,
    schema: pa.Schema,
) -> pa.Table:
    own = pa.schema(
        [field for field in schema if field.name not in {name for name, _ in (*IDENTITY_COLUMNS, *PROVENANCE)}]
    )
    values = pa.Table.from_pylist(scores, schema=own)
    return pa.table(
        [
            *identity_columns.columns,
            *values.columns,
            *made_columns(identity_columns.num_rows, champions_at.customers.as_of, champion),
        ],
        schema=schema,
    )


def made_columns(rows: int, as_of: datetime, champion: Champion) -> list[pa.Array]:
    return [
        pa.repeat(pa.scalar(as_of, PROVENANCE[0][1]), rows),
        pa.repeat(pa.scalar(champion.version, pa.string()), rows),
    ]


def _json(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(
        [None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()], pa.string()
    )
