"""The event log as input: the accepted events that the lake does not have yet.

The position in the log is a watermark, so it is saved in the commit that adds the rows: an event is in the lake if its
number is not above the saved one, whatever happens to the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from features.data.lake import Lake, literal, quote
from features.data.sources.base import InputWarning, RawTable, Source
from features.data.sources.watermarks import Watermark
from features.event_log import LoggedEvent, Tail, open_log
from features.event_log.base import LogHeader, LogPosition
from features.event_log.rows import EventRow, decode
from qianmian.redaction import redact
from qianmian.schema import ANONYMOUS_ID, CONSENTS, TABLES

NAME = "events"
PAGE_EVENTS = 10_000
ARROW_TYPES = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "timestamp": pa.timestamp("us")}
# of the tables of which an event tells a few columns; the others stay as they are
TOLD_COLUMNS = {
    "profiles": ("source", "source_user_id", *CONSENTS, "valid_from"),
    "items": ("item_id", "available", "valid_from", "source"),
}
UNREADABLE = "the body of the event cannot be read"
UNREADABLE_ERRORS = (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException)


def lake_position(lake: Lake) -> LogPosition | None:
    """Up to which event of which log the lake has them; None if it never read one."""
    saved = lake.notes()["watermarks"].get(NAME, {})
    return _position({name: Watermark.of(mark) for name, mark in saved.items()})


def _position(watermarks: Mapping[str, Watermark]) -> LogPosition | None:
    """The position that is kept as these watermarks; None if nothing was read yet."""
    return LogPosition(watermarks["log_id"].value, watermarks["seq"].value) if "seq" in watermarks else None


def _watermarks(position: LogPosition) -> dict[str, Watermark]:
    """The position as the lake keeps it."""
    return {name: Watermark(value) for name, value in position._asdict().items()}


class EventLogSource(Source):
    """Accepted events of all sources: rows of `events`, `transactions`, `profiles`, `items` and `identities`.

    Parameters
    ----------
    online_store : Path or str
        The log: a URL or a file. A file that is missing has no events.
    """

    name = NAME
    correctable = False

    def __init__(self, online_store: Path | str) -> None:
        self.online_store = str(online_store)

    @property
    def label(self) -> str:
        """The place of the log, without a password."""
        if "://" not in self.online_store:
            return self.online_store
        try:
            url = urlsplit(self.online_store)
            return f"{url.scheme}://{url.hostname}:{url.port or 6379}{url.path}"
        except ValueError:  # no number where the port should be
            return redact(self.online_store)

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """Copy the new events to files in the scratch folder, in their order; one table for each kind of rows."""
        if self.scratch is None:
            raise ValueError("an ingest sets the scratch folder")
        if "://" not in self.online_store and not Path(self.online_store).exists():
            return []
        with closing(open_log(self.online_store)) as log, closing(_Files(self.scratch)) as files:
            header = log.header()
            start, warnings = _start(header, _position(self.watermarks))
            end = header.last_seq if self.limit is None else min(header.last_seq, start + self.limit)
            tail = Tail(log, start, header.log_id)
            while tail.after < end:
                files.write(tail.read(min(PAGE_EVENTS, end - tail.after)))
            end = max(end, tail.after)  # a page may end behind it where events were erased
            if (warnings or files.unreadable) and not files.writers:
                files.writer("events")  # what is said about the log is said with the rows of a table
        self.reached = _watermarks(LogPosition(header.log_id, end))
        own_items = _sources_with_own_items(connection)
        raw = [self._raw_table(table, files, own_items) for table in sorted(files.writers)]
        if raw:
            rejects = _rejects(self.label, files.unreadable_file) if files.unreadable else None
            raw[0] = replace(raw[0], warnings=warnings, rejects=rejects)
        return raw

    def _raw_table(self, table: str, files: _Files, own_items: Sequence[str]) -> RawTable:
        columns = {name: quote(name) for name in _schema(table).names}
        if "item_id" in columns:
            columns["item_id"] = _item_id(own_items)
        if table == "items":
            columns["source"] = "NULL"  # an availability describes no item: the item is of the catalogue that does
        relation = f"SELECT * FROM read_parquet({literal(files.path(table))})"
        is_fact = table in ("events", "transactions")
        return RawTable(table, relation, columns, (self.label,), max_rejected=1.0, logged=is_fact)


def _start(header: LogHeader, position: LogPosition | None) -> tuple[int, tuple[InputWarning, ...]]:
    """The number after which to read, and a warning if events before it were removed and never read."""
    start = 0
    # another log, or an old copy of this one, is read from its first event: what the lake has is a duplicate
    if position and position.log_id == header.log_id and position.seq <= header.last_seq:
        start = position.seq
    missing = header.first_seq - 1 - start
    if missing <= 0:
        return start, ()
    warning = InputWarning(
        "events_missing",
        f"{missing:,} events were removed from the log, and this lake does not have them",
        "they are in the lake for which they were removed: restore it, or ingest the exports of the sources",
        missing,
    )
    return header.first_seq - 1, (warning,)


def _sources_with_own_items(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The sources whose item ids carry their name (`features.data.ingest.own_items`)."""
    found = connection.execute(
        "SELECT source FROM lake_items WHERE source IS NOT NULL GROUP BY 1 "
        "HAVING bool_and(starts_with(item_id, source || ':')) ORDER BY 1"
    ).fetchall()
    return [str(row[0]) for row in found]


def _item_id(own_items: Sequence[str]) -> str:
    """SQL of the item id: a sender may write the id of its source, or that of the lake."""
    if not own_items:
        return "item_id"
    names = ", ".join(map(literal, own_items))
    plain = f"source IN ({names}) AND NOT starts_with(item_id, source || ':')"
    return f"CASE WHEN {plain} THEN source || ':' || item_id ELSE item_id END"


def _rejects(label: str, file: Path) -> str:
    return f"SELECT {literal(label)} AS file, {literal(UNREADABLE)} AS reason, row FROM read_parquet({literal(file)})"


def lake_rows(row: EventRow) -> list[tuple[str, dict[str, Any]]]:
    """The rows of the lake that an event is, each with its table.

    A consent, or an availability, holds from its time on. A login with `anonymous_id` is a row of `events` and two
    sightings of that id: by the visitor and by the account. The id is that of its source, whose name it begins with.

    Examples
    --------
    >>> login = {"source": "shop", "source_user_id": "ann", "ts": 7, "event_type": "login", "anonymous_id": "v1"}
    >>> [(table, row["source_user_id"]) for table, row in lake_rows(EventRow("events", login, "e1"))]
    [('events', 'ann'), ('identities', 'v1'), ('identities', 'ann')]
    """
    values = row.values
    if row.table in TOLD_COLUMNS:
        told = {**values, "valid_from": values["ts"]}
        del told["ts"]
        if row.table == "items":
            del told["source_user_id"]
        return [(row.table, told)]
    if ANONYMOUS_ID not in values:
        return [(row.table, values)]
    visitor, source = values[ANONYMOUS_ID], values["source"]
    if not isinstance(visitor, str):
        raise TypeError(f"{ANONYMOUS_ID} is no text")
    seen = {"source": source, "id_type": ANONYMOUS_ID, "id_value": f"{source}:{visitor}", "observed_at": values["ts"]}
    return [
        (row.table, {name: value for name, value in values.items() if name != ANONYMOUS_ID}),
        *(("identities", {**seen, "source_user_id": user_id}) for user_id in (visitor, values["source_user_id"])),
    ]


def _schema(table: str) -> pa.Schema:
    """Columns of a canonical table that a row may have; JSON is text."""
    names = TOLD_COLUMNS.get(table) or [column.name for column in TABLES[table].columns if not column.derived]
    columns = [column for column in TABLES[table].columns if column.name in names]
    return pa.schema([(column.name, ARROW_TYPES.get(column.dtype, pa.string())) for column in columns])


def _arrow(table: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    schema = _schema(table)
    if unknown := set().union(*rows) - set(schema.names):
        raise ValueError(f"{table} has no column {sorted(unknown)}")
    return pa.Table.from_pylist(list(rows), schema)


class _Files:
    """One Parquet file for each table, and one for the events that cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.unreadable: list[LoggedEvent] = []
        self.unreadable_file = folder / "unreadable.parquet"
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, table: str) -> Path:
        return self.folder / f"logged_{table}.parquet"

    def writer(self, table: str) -> pq.ParquetWriter:
        if table not in self.writers:
            self.writers[table] = pq.ParquetWriter(self.path(table), _schema(table))
        return self.writers[table]

    def write(self, events: Sequence[LoggedEvent]) -> None:
        rows: dict[str, list[tuple[LoggedEvent, dict[str, Any]]]] = {}
        for logged in events:
            try:
                found = lake_rows(decode(logged.event))
            except UNREADABLE_ERRORS:
                self.unreadable.append(logged)
            else:
                for table, values in found:
                    rows.setdefault(table, []).append((logged, values))
        for table, logged_rows in rows.items():
            self._write(table, logged_rows)

    def _write(self, table: str, rows: list[tuple[LoggedEvent, dict[str, Any]]]) -> None:
        try:
            self.writer(table).write_table(_arrow(table, [values for _, values in rows]))
        except UNREADABLE_ERRORS:
            if len(rows) == 1:
                self.unreadable.append(rows[0][0])
                return
            for row in rows:
                self._write(table, [row])

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        if self.unreadable:
            rows = [orjson.dumps({"seq": seq, "body": repr(event.body)}).decode() for seq, event in self.unreadable]
            pq.write_table(pa.table({"row": pa.array(rows, pa.string())}), self.unreadable_file)
