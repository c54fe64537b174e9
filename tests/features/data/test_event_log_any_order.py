"""However events come in (late, twice, in any portions), the lake and the features are those of one ingest of files."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import FileSource, RawTable
from features.data.sources.event_log import EventLogSource
from features.data.sources.synthetic import Synthetic
from features.definitions.building import make_builder
from features.event_log import AcceptedEvent, open_log
from features.event_log.rows import encode, make_row
from qianmian.schema import TABLES
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.examples import examples
from tests.features.same import assert_tables_equal

SHOP = {"customers": 20, "days": 60, "seed": 3}
SETTINGS = Settings(timezone="UTC")
KINDS = ("events", "transactions")


class ShopWithoutHistory(Synthetic):
    """The people and goods of the synthetic shop, whose orders and visits come otherwise."""

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        return [raw for raw in super().tables(connection) if raw.table not in KINDS]


def history() -> dict[str, pa.Table]:
    """The orders and visits of the shop, with ids of the visits."""
    made = Synthetic(**SHOP)._data.tables
    visits = [f"v{number}" for number in range(made["events"].num_rows)]
    return {"transactions": made["transactions"], "events": made["events"].append_column("event_id", pa.array(visits))}


def accepted(tables: dict[str, pa.Table]) -> list[AcceptedEvent]:
    """The same rows as a server accepts them."""
    found = []
    for number, line in enumerate(tables["transactions"].to_pylist()):
        values = {name: value for name, value in line.items() if value is not None}
        found.append(encode(make_row(f"p{number}", {"event_type": "purchase", **values})))
    for visit in tables["events"].to_pylist():
        values = {name: value for name, value in visit.items() if value is not None}
        found.append(encode(make_row(values.pop("event_id"), values)))
    return found


def file_of(workspace: Workspace) -> Path:
    return workspace.online / "events.db"


def content(workspace: Workspace) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, in an order of their own; whether events told them is not compared."""
    connection = Lake(workspace).connect().con
    names = {name: ", ".join(f'"{column}"' for column in TABLES[name].names) for name in KINDS}
    rows = {name: connection.execute(f"SELECT {names[name]} FROM {name} ORDER BY ALL").fetchall() for name in KINDS}
    customers = "SELECT one_id, source, source_user_id, valid_from FROM customers ORDER BY ALL"
    return {**rows, "customers": connection.execute(customers).fetchall()}


def features(workspace: Workspace) -> pa.Table:
    lake = Lake(workspace)
    return make_builder(lake, SETTINGS).build(lake.default_as_of).table


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The events, and a workspace after one ingest of the same rows from files."""
    root = tmp_path_factory.mktemp("files")
    tables, workspace = history(), Workspace(root / "workspace")
    entries = ""
    for name, rows in tables.items():
        pq.write_table(rows, root / f"{name}.parquet")
        columns = ", ".join(f"{column}: {column}" for column in rows.column_names)
        entries += f"  {name}:\n    path: {name}.parquet\n    columns: {{{columns}}}\n"
    (root / "sources.yaml").write_text(f"source: shop\ntimezone: UTC\ntables:\n{entries}")
    ingest(workspace, ShopWithoutHistory(**SHOP), SETTINGS)
    ingest(workspace, FileSource(root / "sources.yaml"), SETTINGS)
    return accepted(tables), workspace


def ingest_in_portions(
    root: Path, events: list[AcceptedEvent], chance: random.Random, portions: int, replaced: bool
) -> Workspace:
    """A workspace that took the events in that many portions, shuffled, a third of them sent twice."""
    workspace = Workspace(root / "workspace")
    ingest(workspace, ShopWithoutHistory(**SHOP), SETTINGS)
    stream = [*events, *chance.sample(events, len(events) // 3)]
    chance.shuffle(stream)
    cuts = [0, *sorted(chance.sample(range(1, len(stream)), portions - 1)), len(stream)]
    kept = 0
    for start, end in pairwise(cuts):
        with closing(open_log(file_of(workspace))) as log:
            log.append(stream[start:end])
        kept += ingest(workspace, EventLogSource(file_of(workspace)), SETTINGS).kept
    assert kept == len(events)
    if replaced:  # the log is lost, and all senders send again
        file_of(workspace).unlink()
        with closing(open_log(file_of(workspace))) as log:
            log.append(stream)
        again = ingest(workspace, EventLogSource(file_of(workspace)), SETTINGS)
        assert (again.kept, again.duplicates) == (0, len(events))
    return workspace


@given(st.integers(0, 2**32), st.integers(1, 3), st.booleans())
@settings(max_examples=examples(3), deadline=None)
def test_any_split_of_a_stream_gives_the_lake_of_one_ingest(shop, seed, portions, replaced):
    events, from_files = shop
    with tempfile.TemporaryDirectory() as folder:
        workspace = ingest_in_portions(Path(folder), events, random.Random(seed), portions, replaced)
        assert content(workspace) == content(from_files)


def test_the_features_are_those_of_one_ingest(shop, tmp_path):
    events, from_files = shop
    workspace = ingest_in_portions(tmp_path, events, random.Random(4), 2, replaced=False)
    assert_tables_equal(features(workspace), features(from_files))
