"""Memory of DuckDB is bounded by the setting, and what does not fit is written to the workspace."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from features.compute.builder import Builder
from features.compute.engines import duckdb as engine
from features.compute.online import build
from features.compute.views import PreparedTables
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.synthetic import Synthetic
from features.definitions import FEATURES
from qianmian.settings import Settings
from qianmian.workspace import Workspace


class Watched(Synthetic):
    """The synthetic shop, which notes the limits of the connection that reads it."""

    def tables(self, connection):
        self.seen = connection.execute(
            "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
        ).fetchone()
        return super().tables(connection)


@pytest.fixture
def shop(tmp_path):
    """A workspace with a small shop, and what its ingest was allowed."""
    source = Watched(customers=60, days=120, seed=3)
    workspace = Workspace(tmp_path / "a shop")
    report = ingest(workspace, source, Settings(database_memory_gb=0.75))
    return workspace, source.seen, report


def test_ingest_is_bounded_and_spills_to_the_workspace(shop, tmp_path):
    workspace, (limit, folder), report = shop
    assert limit == "715.2 MiB", "0.75 GB"
    assert folder.startswith(str(workspace.root / ".ingest-"))
    free = Workspace(tmp_path / "free")
    ingest(free, Synthetic(customers=60, days=120, seed=3), Settings())
    assert Lake(workspace).state("transactions").digest == Lake(free).state("transactions").digest
    for table in report.tables.values():
        assert table.read == table.kept + table.duplicates + table.quarantined


@pytest.mark.slow
def test_features_of_a_large_lake_are_bounded(shop, monkeypatch):
    workspace, _, _ = shop
    moments = [datetime(2024, 2, 1), datetime(2024, 3, 1)]
    whole = Builder(Lake(workspace), FEATURES)
    expected = [whole.build(moment).table for moment in moments]
    monkeypatch.setattr(PreparedTables, "MAX_CACHED_ROWS", 100)
    monkeypatch.setattr(engine, "BUCKET_ROWS", 500)
    limits = []
    run = engine.DuckDBEngine._run

    def watched(self, *arguments):
        limits.append(self.connection.execute("SELECT current_setting('memory_limit')").fetchone()[0])
        return run(self, *arguments)

    monkeypatch.setattr(engine.DuckDBEngine, "_run", watched)
    builder = Builder(Lake(workspace), FEATURES, memory_gb=0.75)
    # the second build reads tables that the first one left, wherever DuckDB has put them
    found = [builder.build(moment).table for moment in moments]
    assert len(limits) > len(moments), "several buckets"
    assert set(limits) == {"715.2 MiB"}
    for one, other in zip(found, expected, strict=True):
        assert one.select(["one_id", "orders_total"]).equals(other.select(["one_id", "orders_total"]))


def test_tables_that_few_features_read_once_are_not_kept(shop):
    """They are kept from the second build on, and the values are the same."""
    workspace, _, _ = shop
    few = [feature for feature in FEATURES if feature.name in ("orders_total", "top_category")]
    builder = Builder(Lake(workspace), FEATURES)
    moment = datetime(2024, 3, 1)

    def kept():
        return {name for name in builder.backend.list_tables() if name.startswith("rows_of_")}

    first = builder.build(moment, few).table
    assert kept() == set()
    assert builder.build(moment, few).table.equals(first)
    assert kept() == {"rows_of_transactions"}
    assert Builder(Lake(workspace), FEATURES).build(moment).table.select(first.column_names).equals(first)


def test_the_online_state_is_the_same_in_parts_of_any_size(shop, monkeypatch):
    workspace, _, _ = shop
    builder, moment = Builder(Lake(workspace), FEATURES), datetime(2024, 3, 1)
    whole = build.build_state(builder, moment)
    monkeypatch.setattr(build, "PART_ROWS", 50)
    parts = build.build_state(builder, moment)
    assert len(whole.tails["lines"].columns["ts"]) > 100, "several parts"
    for view, tail in whole.tails.items():
        other = parts.tails[view]
        assert np.array_equal(tail.offsets, other.offsets)
        assert tail.keys.combine_chunks().equals(other.keys.combine_chunks())
        assert set(tail.columns) == set(other.columns)
        for name, values in tail.columns.items():
            if values.dtype.kind == "f":  # DuckDB adds up a price level in another order in some runs
                np.testing.assert_allclose(values, other.columns[name], rtol=1e-12, err_msg=name)
            else:
                assert np.array_equal(values, other.columns[name]), name
    assert {name: texts.to_pylist() for name, texts in whole.vocabularies.items()} == {
        name: texts.to_pylist() for name, texts in parts.vocabularies.items()
    }
