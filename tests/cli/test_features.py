"""`qianmian features`: the written file, dates, and arguments that are rejected before any work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import datetime

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features.profiles.snapshot import load_current
from qianmian.workspace import Workspace
from tests.features.same import assert_tables_equal


def test_the_file_has_one_row_per_customer_and_one_column_per_feature(qianmian, fresh_shop, tmp_path):
    out = tmp_path / "profiles.parquet"
    done = qianmian("features", "--out", out, "--workspace", fresh_shop, "--json")
    assert done.code == 0
    table = pq.read_table(out)
    ids = table["one_id"].to_pylist()
    assert len(set(ids)) == len(ids) == done.json["customers"]
    assert table.column_names[:3] == ["one_id", "user_id", "user_source"]
    assert table.column_names[3:] == done.json["features"]
    assert {str(field.type) for field in table.schema} == {"string", "double"}
    assert pa.types.is_string(table.schema.field("top_category").type)
    assert "features" in done.json
    assert done.json["as_of"] == "2024-03-31T00:00:00"


def test_a_file_of_the_past_leaves_the_published_profiles_alone(qianmian, fresh_shop, tmp_path):
    first = qianmian("features", "--out", tmp_path / "profiles.csv", "--workspace", fresh_shop, "--json").json
    assert first["published"]
    assert (tmp_path / "profiles.csv").read_text().startswith('"one_id","user_id"')
    out = tmp_path / "past.parquet"
    done = qianmian("features", "--as-of", "2024-02-01", "--out", out, "--workspace", fresh_shop, "--json")
    assert done.code == 0
    assert not done.json["published"]
    assert max(pq.read_table(out)["days_since_first_order"].to_pylist()) <= 31.0  # nothing later was read
    profiles = load_current(Workspace(fresh_shop))
    assert f"{profiles.as_of:%Y-%m-%dT%H:%M:%S}" == first["as_of"]
    # without --out the profiles of that date are published
    assert qianmian("features", "--as-of", "2024-02-01", "--workspace", fresh_shop, "--json").json["published"]
    assert load_current(Workspace(fresh_shop)).as_of == datetime(2024, 2, 1)


def test_an_as_of_long_after_the_data_prints_a_note(qianmian, fresh_shop):
    done = qianmian("features", "--as-of", "2024-06-01", "--workspace", fresh_shop)
    assert done.code == 0
    assert "the data ends 2024-03-30" in done.err


def test_a_missing_time_zone_is_said_once_and_changes_the_hours(qianmian, fresh_shop):
    done = qianmian("features", "--workspace", fresh_shop)
    assert done.err.count("no `timezone` in qianmian.yaml") == 1
    assert str(fresh_shop / "qianmian.yaml") in done.err.replace("\n", "")
    utc = load_current(Workspace(fresh_shop))
    (fresh_shop / "qianmian.yaml").write_text("timezone: Asia/Tokyo\n")
    assert "warn" in qianmian("doctor", "--workspace", fresh_shop).out
    done = qianmian("features", "--workspace", fresh_shop)
    assert "timezone" not in done.err
    tokyo = load_current(Workspace(fresh_shop))
    assert (utc.spec.timezone, tokyo.spec.timezone) == ("UTC", "Asia/Tokyo")
    assert utc.as_of == tokyo.as_of
    # the shop of the synthetic data is busiest at 17:00 UTC, which is after midnight in Tokyo
    busiest = [Counter(snapshot.tags["active_hours"]).most_common(1)[0][0] for snapshot in (utc, tokyo)]
    assert busiest == ["afternoon", "night"]


def test_an_uncertain_time_zone_is_exit_2(qianmian, fresh_shop):
    (fresh_shop / "qianmian.yaml").write_text("timezone: CST\n")
    done = qianmian("features", "--workspace", fresh_shop)
    assert done.code == 2
    assert "Asia/Shanghai, America/Chicago" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--as-of", "someday"], 2, "YYYY-MM-DD"),
        (["--as-of", "2024-02-30"], 2, "--as-of"),
        (["--as-of", "1999-01-01"], 3, "no customer is known"),
        (["--engine", "spark"], 2, "--out profiles.parquet"),
        (["--spark-master", "local[1]"], 2, "add --engine spark"),
        (["--engine", "spark", "--out", "profiles.xlsx"], 2, ".parquet"),
        (["--engine", "abacus"], 2, "duckdb"),
        (["--out", "profiles.xlsx"], 2, ".parquet"),
        (["--out", "."], 2, ".parquet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments_are_rejected(qianmian, fresh_shop, arguments, code, message):
    done = qianmian("features", *arguments, "--workspace", fresh_shop)
    assert done.code == code
    assert message in done.err
    assert "Fix:" in done.err


def test_a_folder_that_cannot_be_written_to_is_exit_2(qianmian, fresh_shop, tmp_path):
    (tmp_path / "file").write_text("")
    done = qianmian("features", "--out", tmp_path / "file" / "profiles.parquet", "--workspace", fresh_shop)
    assert done.code == 2
    assert "a path component is a file, not a folder" in done.err


def test_without_pyspark_the_error_names_the_extra(qianmian, fresh_shop, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)  # how Python marks a missing module
    done = qianmian("features", "--engine", "spark", "--out", tmp_path / "profiles.parquet", "--workspace", fresh_shop)
    assert done.code == 2
    assert "pip install 'qianmian[spark]'" in done.err
    assert not (tmp_path / "profiles.parquet").exists()


def test_without_java_the_error_names_it(fresh_shop, tmp_path):
    environment = {**os.environ, "JAVA_HOME": str(tmp_path / "no java"), "PATH": str(tmp_path)}
    arguments = ["features", "--engine", "spark", "--out", tmp_path / "profiles.parquet", "--workspace", fresh_shop]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "install Java 17" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_spark_writes_what_duckdb_writes(qianmian, fresh_shop, tmp_path):
    one, other, table = tmp_path / "duckdb.parquet", tmp_path / "spark.parquet", tmp_path / "spark.csv"
    here = qianmian("features", "--out", one, "--workspace", fresh_shop, "--json")
    served = sorted((fresh_shop / "online").rglob("*"))
    there = qianmian(
        "features",
        "--engine",
        "spark",
        "--spark-master",
        "local[2]",
        "--out",
        other,
        "--workspace",
        fresh_shop,
        "--json",
    )
    assert there.code == 0, there.err
    assert (there.json["customers"], there.json["features"]) == (here.json["customers"], here.json["features"])
    assert there.json["off"] == here.json["off"]
    assert_tables_equal(pq.read_table(one), pq.read_table(other))
    assert sorted((fresh_shop / "online").rglob("*")) == served
    assert qianmian("features", "--engine", "spark", "--out", table, "--workspace", fresh_shop).code == 0
    assert_tables_equal(
        pq.read_table(one),
        pa.csv.read_csv(table, convert_options=pa.csv.ConvertOptions(column_types=pq.read_schema(one))),
    )
    nowhere = qianmian(
        "features", "--engine", "spark", "--spark-master", "abacus", "--out", other, "--workspace", fresh_shop
    )
    assert nowhere.code == 2
    assert "--spark-master" in nowhere.err
