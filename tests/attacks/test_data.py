"""Hostile data: names and values in files are never SQL, paths or patterns, and pointers lead nowhere else."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.profiles.rules import MAX_COMPARISONS, MAX_DEPTH, parse
from features.profiles.snapshot import load_current
from models.bundle import verify
from qianmian.errors import ArtifactError, ConfigError, QianmianError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

HOSTILE = [
    "'; DROP TABLE customers; --",
    "\"; ATTACH '/tmp/harmed.db'; --",
    "x'||(SELECT getenv('HOME'))||'",
    "../../etc/passwd",
    "*.csv",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1-1",
    "{0.__class__}%s%n$(touch harmed)`touch harmed`",
    "<script>alert(1)</script>",
    "a\nb\r\nc",
    "ａ\u202e\u0301👩‍💻",
]


def shop_of(folder: Path, header: str, values: list[str]) -> tuple[Workspace, Path]:
    """A workspace, and a sources.yaml whose only column of items has a hostile name."""
    with (folder / "orders.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["order", "user", header, "day", "quantity", "amount"])
        writer.writerows([f"o{n}", value, value, "2024-01-02", 1, 2.5] for n, value in enumerate(values))
    config = {
        "source": "shop",
        "timezone": "UTC",
        "tables": {
            "transactions": {
                "path": "orders.csv",
                "columns": {
                    "order_id": "order",
                    "source_user_id": "user",
                    "item_id": header,
                    "ts": "day",
                    "quantity": "quantity",
                    "amount": "amount",
                },
            }
        },
    }
    file = folder / "sources.yaml"
    file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return Workspace(folder / "workspace"), file


def test_ids_are_kept_as_they_are_whatever_they_look_like(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workspace, file = shop_of(tmp_path, "item", HOSTILE)
    assert ingest(workspace, FileSource(file), Settings()).kept == len(HOSTILE)
    found = Lake(workspace).connect().table("transactions").select("source_user_id", "item_id").to_pyarrow().to_pylist()
    assert sorted((row["source_user_id"], row["item_id"]) for row in found) == sorted(
        (value, value) for value in HOSTILE
    )
    assert not Path("harmed").exists()
    assert not Path("/tmp/harmed.db").exists()


@pytest.mark.parametrize("name", [*HOSTILE[:3], HOSTILE[8], HOSTILE[-1]])
def test_the_name_of_a_column_is_a_name_or_refused(name, tmp_path, monkeypatch):
    """A right-hand side that names a column is that column; any other has to be a harmless expression."""
    monkeypatch.chdir(tmp_path)
    workspace, file = shop_of(tmp_path, name, ["a", "b"])
    with contextlib.suppress(QianmianError):
        assert ingest(workspace, FileSource(file), Settings()).kept == 2
    assert not Path("harmed").exists()
    assert not Path("/tmp/harmed.db").exists()


@pytest.mark.parametrize("source", ["../../elsewhere", "/etc/elsewhere", "..", "a'b\n\"", "x" * 5_000])
def test_the_name_of_a_source_makes_no_file_outside_of_the_workspace(source, tmp_path):
    workspace, file = shop_of(tmp_path, "item", ["a"])
    file.write_text(json.dumps({**json.loads(file.read_text()), "source": source}))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(workspace.root)}
    with contextlib.suppress(QianmianError):
        ingest(workspace, FileSource(file), Settings())
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(workspace.root)} == before


def test_csv_keeps_every_cell_as_it_is_in_quotes():
    """A file is read by programs as well: an id with an apostrophe before it would be another customer."""
    table = pa.table({"user_id": pa.array(HOSTILE)})
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    text = sink.getvalue().to_pybytes().decode()
    assert [row[0] for row in csv.reader(text.splitlines(keepends=True))][1:] == HOSTILE
    assert '"=cmd|' in text


# ---- the files of a workspace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "", "\0", "x" * 5_000, ["a"], {"a": 1}, 7])
def test_a_pointer_that_names_no_snapshot_is_an_error(name, tmp_path):
    workspace = Workspace(tmp_path / "shop").create()
    (workspace.online / "current.json").write_text(json.dumps({"snapshot": name}))
    with pytest.raises(ArtifactError):
        load_current(workspace)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "\0", "x" * 5_000])
def test_a_manifest_cannot_name_files_of_others(name, tmp_path):
    keys = ("config", "facts", "item_attributes", "spec_hash", "libraries")
    manifest = {"format": 2, "kind": "scenes", "as_of": "2024-01-01", **dict.fromkeys(keys), "files": {name: "0" * 64}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError) as caught:
        verify(tmp_path)
    assert "root:" not in str(caught.value)


# ---- rules of segments -----------------------------------------------------------------------------------------------


def nested(depth: int) -> dict:
    rule: dict = {"feature": "orders_28d", "operator": ">=", "value": 1}
    for _ in range(depth):
        rule = {"not": rule}
    return rule


@pytest.mark.parametrize(
    "rule",
    [
        nested(MAX_DEPTH + 1),
        nested(700),
        {"all": [nested(1)] * (MAX_COMPARISONS + 1)},
        {"any": [{"any": [nested(0)] * 1_000}] * 100},
        {"feature": "x'; DROP TABLE customers", "operator": "like", "value": "%"},
        {"feature": "x", "operator": "==", "value": float("nan")},
        {"feature": "x", "operator": "in", "value": []},
        {"feature": ["x"], "operator": "==", "value": 1},
    ],
    ids=["deep", "very deep", "long", "wide", "operator", "nan", "empty", "list"],
)
def test_a_hostile_rule_is_a_short_error(rule):
    with pytest.raises(ConfigError) as caught:
        parse(rule)
    assert len(str(caught.value)) < 20_000
