"""The lake: canonical tables as Parquet, committed together by one manifest, read through DuckDB.

A commit writes new files beside the old ones and then replaces ``lake/manifest.json`` in one rename, so a reader sees
all tables of a commit or none. Files that are not in the manifests of the last two commits are removed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import duckdb
import ibis
from ibis.backends.duckdb import Backend

from features.data.progress_bar import hide_progress_bar
from features.data.tables import LAKE_TABLES, PROFILE_HISTORY, undated_history
from features.data.time_range import EmptyStretch, empty_stretches, rows_per_day, typical_time_range
from qianmian.errors import ArtifactError, DataError
from qianmian.schema import Table
from qianmian.workspace import Workspace, explain_os_errors, write_json

SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
    "json": "VARCHAR",
}
FORMAT = 2  # of the manifest
NOTES = ("watermarks", "refunds", "hash_types")
TIME_FIELDS = ("first", "last", "begin", "end")
PARTITION_ROWS = 20_000_000  # a table with a `ts` and more rows than this is Hive-partitioned by day


@dataclass(frozen=True)
class TableState:
    """Manifest entry of one table.

    Attributes
    ----------
    path : str
        Glob of the Parquet files, relative to the lake folder.
    columns, filled : tuple of str
        All columns, and the columns with at least one value.
    first, last : datetime or None
        First and last timestamp.
    begin, end : datetime or None
        `typical_time_range` of the table.
    digest : str
        Digest of the content; independent of the row order.
    """

    name: str
    path: str
    rows: int
    columns: tuple[str, ...]
    filled: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    begin: datetime | None
    end: datetime | None
    digest: str

    def as_dict(self) -> dict[str, Any]:
        value = dict(self.__dict__)
        for name in TIME_FIELDS:
            value[name] = value[name].isoformat() if value[name] else None
        return value

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> TableState:
        moments = {name: datetime.fromisoformat(value[name]) if value[name] else None for name in TIME_FIELDS}
        return cls(
            value["name"],
            value["path"],
            value["rows"],
            tuple(value["columns"]),
            tuple(value["filled"]),
            **moments,
            digest=value["digest"],
        )


def quote(name: str) -> str:
    """Quote a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """Quote a SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def data_end(states: Mapping[str, TableState]) -> datetime | None:
    """Midnight after the last transaction or event that is not an outlier; None if none has a timestamp."""
    ends = [states[name].end for name in ("transactions", "events") if name in states]
    return max((end for end in ends if end is not None), default=None)


class Lake:
    """The canonical tables of one workspace.

    Parameters
    ----------
    workspace : Workspace
        Workspace that contains the lake.

    Reading never writes. `commit` is the only writer; it writes all tables or none.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._manifest_file = workspace.lake / "manifest.json"

    # ---- reading -------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, TableState]:
        """The committed tables by name; empty before the first commit.

        Raises
        ------
        ArtifactError
            If the manifest cannot be read or has another format.
        """
        if not self._manifest_file.exists():
            return {}
        try:
            manifest = json.loads(self._manifest_file.read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise ArtifactError(
                    "the lake was written by another version of Qianmian",
                    where=str(self._manifest_file),
                    got=manifest["format"],
                    allowed=FORMAT,
                    hint="delete the lake folder and ingest again",
                )
            entries = manifest["tables"]
            return {entry["name"]: TableState.of(entry) for entry in entries}
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                "the lake's manifest cannot be read",
                where=str(self._manifest_file),
                got=str(error),
                hint="delete the lake folder and ingest again",
            ) from error

    def state(self, name: str) -> TableState:
        """The state of one table.

        Raises
        ------
        DataError
            If the lake does not have the table.
        """
        states = self.states()
        if name not in states:
            raise DataError(
                f"the lake has no {name}",
                where=str(self.workspace.lake),
                got=", ".join(states) or "an empty lake",
                hint="run `qianmian ingest completejourney`, "
                "or `qianmian ingest files --config sources.yaml` with that table",
            )
        return states[name]

    def notes(self) -> dict[str, dict[str, Any]]:
        """What ingest remembers of its input beside the rows.

        `watermarks`: source → table → last value read from a database, as `Watermark.as_dict` gives it. `refunds`:
        source → how it records refunds, if it says so (`RawTable.refunds`). `hash_types`: attribute of profiles that is
        stored as hashes → type of personal data, which is the domain of its hashes.
        """
        exists = self._manifest_file.exists()
        saved = json.loads(self._manifest_file.read_text(encoding="utf-8")) if exists else {}
        return {name: saved.get(name, {}) for name in NOTES}

    @property
    def digest(self) -> str:
        """Digest of the contents of all tables, and of how their refunds are read; equal data give an equal digest."""
        parts = {name: state.digest for name, state in self.states().items()}
        parts |= {f"refunds of {source}": kind for source, kind in self.notes()["refunds"].items()}
        joined = "\n".join(f"{name}={digest}" for name, digest in sorted(parts.items()))
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    @property
    def last(self) -> datetime | None:
        """Last timestamp of all transactions and events; None if no row has one."""
        lasts = (state.last for name, state in self.states().items() if name in ("transactions", "events"))
        return max((last for last in lasts if last), default=None)

    @property
    def has_timestamps(self) -> bool:
        """Whether any transaction or event has a timestamp."""
        return any(state.end for name, state in self.states().items() if name in ("transactions", "events"))

    @property
    def typical_end(self) -> datetime | None:
        """The midnight after the last transaction or event that is not an outlier; None if no row has a timestamp."""
        return data_end(self.states())

    @property
    def default_as_of(self) -> datetime:
        """Default cutoff: the midnight after the last transaction or event that is not an outlier.

        Raises
        ------
        DataError
            If no transaction or event has a timestamp.
        """
        last = self.typical_end
        if last is None:
            raise DataError(
                "no transaction or event in the lake has a timestamp",
                where=str(self.workspace.lake),
                hint="ingest data with `ts`, or pass --as-of",
            )
        return last

    def empty_stretches(self) -> dict[str, list[EmptyStretch]]:
        """The stretches without rows behind which outlying rows lie (`features.data.time_range`), by table.

        Tables without such rows are left out, and not read.
        """
        found = {}
        for name, state in self.states().items():
            if state.begin and state.end and state.first and state.last:
                if state.begin <= state.first and state.last < state.end:
                    continue
                with duckdb.connect() as connection:
                    found[name] = empty_stretches(rows_per_day(connection, self._scan(state.path)))
        return {name: stretches for name, stretches in found.items() if stretches}

    def parquet_path(self, state: TableState) -> str:
        """Path or glob of a table's files, as DuckDB's ``read_parquet`` expects it."""
        return str(self.workspace.lake / state.path)

    def _scan(self, relative: str) -> str:
        """SQL that reads a table's files; brackets in the path of the workspace are escaped."""
        files = literal(Path(glob.escape(str(self.workspace.lake))) / relative)
        return f"read_parquet({files}, hive_partitioning=false)"

    def connect(self, tables: Collection[str] = tuple(LAKE_TABLES)) -> Backend:
        """Open an in-memory DuckDB through Ibis, with one view per table; by default, of all canonical tables.

        The view of a table that was never ingested is empty and has the right column types.
        """
        backend = ibis.duckdb.connect()
        raw = cast(duckdb.DuckDBPyConnection, backend.con)
        hide_progress_bar(raw)
        raw.execute("SET TimeZone='UTC'; SET preserve_insertion_order=true")
        self.attach(raw, tables=tables)
        return backend

    def attach(
        self, connection: duckdb.DuckDBPyConnection, prefix: str = "", tables: Collection[str] = tuple(LAKE_TABLES)
    ) -> None:
        """Create the views of `connect` in another DuckDB connection, their names preceded by `prefix`.

        Raises
        ------
        ArtifactError
            If the files of a table cannot be read.
        """
        states = self.states()
        for table in map(LAKE_TABLES.__getitem__, tables):
            state = states.get(table.name)
            if state is None and table is PROFILE_HISTORY and "profiles" in states:
                profiles = f"{prefix}profiles"
                names = [row[0] for row in connection.execute(f"DESCRIBE {profiles}").fetchall()]
                rows = undated_history({name: quote(name) for name in names}, profiles)
                connection.execute(f"CREATE OR REPLACE VIEW {prefix}{table.name} AS {rows}")
                continue
            if state is None:
                columns = ", ".join(
                    f"NULL::{SQL_TYPES[column.dtype]} AS {quote(column.name)}" for column in table.columns
                )
                connection.execute(f"CREATE OR REPLACE VIEW {prefix}{table.name} AS SELECT {columns} WHERE false")
                continue
            missing = [column for column in table.columns if column.name not in state.columns]
            extra = "".join(f", NULL::{SQL_TYPES[column.dtype]} AS {quote(column.name)}" for column in missing)
            try:
                connection.execute(
                    f"CREATE OR REPLACE VIEW {prefix}{table.name} AS SELECT *{extra} FROM {self._scan(state.path)}"
                )
            except duckdb.Error as error:
                raise ArtifactError(
                    f"the lake's {table.name} cannot be read",
                    where=self.parquet_path(state),
                    got=str(error).splitlines()[0],
                    hint="delete the lake folder and ingest again",
                ) from error

    # ---- writing -------------------------------------------------------------------------------------------------

    def commit(
        self,
        connection: duckdb.DuckDBPyConnection,
        queries: Mapping[str, str],
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, TableState]:
        """Write the result of each query as the new content of its table; all tables change or none does.

        Parameters
        ----------
        connection : DuckDBPyConnection
            Connection that runs the queries.
        queries : mapping of str to str
            Table name → SELECT with the table's columns; its row order is kept.
        notes : mapping, optional
            As `notes` returns them; default: those of the last commit.

        Returns
        -------
        dict of str to TableState
            All tables after the commit.
        """
        states = self.states()
        written: list[Path] = []
        try:
            with explain_os_errors(self.workspace.lake):
                before = {state.path for state in states.values()}
                for name, query in queries.items():
                    states[name], path = self._write(connection, LAKE_TABLES[name], query)
                    written.append(path)
                tables = [state.as_dict() for state in states.values()]
                notes = self.notes() if notes is None else notes
                write_json(self._manifest_file, {"format": FORMAT, "tables": tables, **notes})
        except BaseException:
            for path in written:
                shutil.rmtree(path, ignore_errors=True)
            raise
        self.sweep(before)
        return states

    def _write(self, connection: duckdb.DuckDBPyConnection, table: Table, query: str) -> tuple[TableState, Path]:
        folder = self.workspace.lake / table.name / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True)
        try:
            view = f"_commit_{table.name}"
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {query}")
            names = [row[0] for row in connection.execute(f"DESCRIBE {view}").fetchall()]
            # the rows are counted before only where that decides on the files: a count computes the whole view
            rows = int(_scalar(connection, f"SELECT count(*) FROM {view}")) if "ts" in names else 0
            if rows > PARTITION_ROWS:
                connection.execute(
                    f"COPY (SELECT *, ts::DATE AS day FROM {view}) TO {literal(folder)} "
                    "(FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day), OVERWRITE_OR_IGNORE)"
                )
                pattern = "**/*.parquet"
            else:
                target = literal(folder / "data.parquet")
                copy = f"COPY (SELECT * FROM {view}) TO {target} (FORMAT parquet, COMPRESSION zstd)"
                rows = int(_scalar(connection, copy))
                pattern = "data.parquet"
            relative = str((folder / pattern).relative_to(self.workspace.lake))
            source = self._scan(relative)
            counts = ", ".join(f"count({quote(name)})" for name in names)
            present = connection.execute(f"SELECT {counts} FROM {source}").fetchone() or ()
            filled = tuple(name for name, count in zip(names, present, strict=True) if count)
            moments: dict[str, datetime | None] = dict.fromkeys(TIME_FIELDS)
            if "ts" in names:
                first, last = connection.execute(f"SELECT min(ts), max(ts) FROM {source}").fetchone() or (None, None)
                begin, end = typical_time_range(rows_per_day(connection, source))
                moments = {"first": first, "last": last, "begin": begin, "end": end}
            # The digest covers names and values. It is a sum: in an exclusive or, two equal rows would cancel out.
            content = ", ".join([literal("|".join(names)), *(f"{quote(name)}::VARCHAR" for name in names)])
            total = int(_scalar(connection, f"SELECT coalesce(sum(hash({content})::HUGEINT), 0) FROM {source}"))
            digest = f"{rows}-{total % 2**64:016x}"
            return TableState(table.name, relative, rows, tuple(names), filled, **moments, digest=digest), folder
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, duckdb.IOException) and "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    def sweep(self, before: Collection[str] = ()) -> None:
        """Remove the files of tables that are neither of the last commit nor in `before`."""
        kept = {Path(path).parts[:2] for path in (*before, *(state.path for state in self.states().values()))}
        for folder in self.workspace.lake.glob("*/*"):
            if folder.is_dir() and folder.parts[-2:] not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
