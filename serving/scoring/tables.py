"""Common parts of the tables of `qianmian score`: identity and provenance columns, blocks of customers, files."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from qianmian.errors import DataError, UsageError
from qianmian.workspace import atomic_path
from serving.champions import Champion, Champions

if TYPE_CHECKING:
    from features.compute.builder import Builder

BLOCK = 8_192  # customers per block; it bounds the memory used beside the result
FORMATS = (".parquet", ".csv")
IDENTITY_COLUMNS = [("user_id", pa.string()), ("user_source", pa.string()), ("one_id", pa.string())]
PROVENANCE = [("as_of", pa.timestamp("us")), ("model_version", pa.string())]


def write_tables(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> Path:
    """Write tables below each other, atomically, as Parquet or CSV. In CSV, lists and structs are JSON texts.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        Taken one by one, so that one of them is in memory at a time.
    schema : pyarrow.Schema
        Columns of every table.

    Raises
    ------
    UsageError
        If the suffix is neither ``.parquet`` nor ``.csv``.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            "the file format is not supported", got=path.name, allowed=", ".join(FORMATS), hint="change the file suffix"
        )
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
            return path
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        flat = pa.schema([pa.field(field.name, pa.string()) if field.name in nested else field for field in schema])
        with pa_csv.CSVWriter(temporary, flat) as writer:
            for table in tables:
                columns = [_json(table[name]) if name in nested else table[name] for name in table.column_names]
                writer.write_table(pa.table(columns, schema=flat))
    return path


def at_moment(champions: Champions, champion: Champion, as_of: datetime | None, builder: Builder | None) -> Champions:
    """Return the champions with the profiles at `as_of`.

    Raises
    ------
    UsageError
        If these are not the current profiles and there is no builder.
    DataError
        If `as_of` is before the cutoff of the champion.
    """
    is_current = as_of is None or as_of == champions.customers.as_of
    if not is_current and builder is None:
        raise UsageError(
            "profiles of another date can only be built from a lake", got=f"--as-of {as_of:%Y-%m-%d}", field="as_of"
        )
    if as_of is not None and as_of < champion.bundle.as_of:
        raise DataError(
            f"the {champion.job} model in production was trained on rows after this date",
            where=f"{champion.name} version {champion.version}",
            got=f"--as-of {as_of:%Y-%m-%d}",
            allowed=f"{champion.bundle.as_of:%Y-%m-%d} or later",
            hint=f"run `qianmian train {champion.job} --as-of {as_of:%Y-%m-%d}` first",
        )
    if is_current:
        return champions
    assert as_of is not None
    assert builder is not None
    # only who has a builder builds profiles: servers import this module too, and have no database in memory
    from features.profiles.building import build_snapshot

    return champions.with_snapshot(build_snapshot(builder, as_of, champions.settings))


def identity_columns(champions: Champions) -> pa.Table:
    """Return the identity columns of all customers of the profiles."""
    return champions.customers.table.select([name for name, _ in IDENTITY_COLUMNS])


def with_identity(
    identity: pa.Table,
    scores: list[dict[str, Any]],
    version: str,
    champions_at: Champions,
    schema: pa.Schema,
) -> pa.Table:
    """Return the table of a block of customers: identity columns, scores, provenance columns."""
    common = {name for name, _ in (*IDENTITY_COLUMNS, *PROVENANCE)}
    values = pa.Table.from_pylist(scores, schema=pa.schema([field for field in schema if field.name not in common]))
    return pa.table(
        [
            *identity.columns,
            *values.columns,
            *provenance_columns(identity.num_rows, champions_at.customers.as_of, version),
        ],
        schema=schema,
    )


def provenance_columns(n_rows: int, as_of: datetime, version: str) -> list[pa.Array]:
    """Return the columns of `PROVENANCE`: the moment of the scores and the version of the model."""
    return [
        pa.repeat(pa.scalar(as_of, PROVENANCE[0][1]), n_rows),
        pa.repeat(pa.scalar(version, pa.string()), n_rows),
    ]


def _json(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(
        [None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()], pa.string()
    )
