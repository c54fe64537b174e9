"""`qianmian ingest`: row counts add up, options belong to sources, bad input has the right exit code."""

from __future__ import annotations

import pytest


def write_source(
    folder,
    csv,
    columns="{order_id: order, source_user_id: customer, item_id: item, ts: when, quantity: n, amount: paid}",
):
    (folder / "orders.csv").write_text(csv)
    config = folder / "sources.yaml"
    config.write_text(f"source: corner\ntables:\n  transactions:\n    path: orders.csv\n    columns: {columns}\n")
    return config


GOOD = "order,customer,item,when,n,paid\n1,a,apple,2024-01-01 10:00:00,1,2.5\n2,b,pear,2024-01-02 11:00:00,2,3.0\n"


def test_row_counts_add_up_and_a_second_ingest_changes_nothing(qianmian, tmp_path):
    config, place = write_source(tmp_path, GOOD), tmp_path / "workspace"
    first = qianmian("ingest", "files", "--config", config, "--workspace", place, "--json")
    assert first.code == 0
    assert first.json["tables"]["transactions"]["kept"] == 2
    assert "transactions: reading orders.csv" in first.err  # progress stays off stdout
    second = qianmian("ingest", "files", "--config", config, "--workspace", place, "--json")
    assert second.json["kept"] == 0
    assert second.json["duplicates"] == 2
    assert second.json["digest"] == first.json["digest"]


def test_a_source_that_knows_the_zone_of_its_customers_says_the_line(qianmian, tmp_path):
    arguments = ("ingest", "synthetic", "--customers", 20, "--days", 60, "--workspace", tmp_path)
    assert "`timezone: UTC`" in qianmian(*arguments).out
    (tmp_path / "qianmian.yaml").write_text("timezone: UTC\n")
    assert "timezone" not in qianmian(*arguments).out


def test_the_table_and_the_quarantine_file_are_printed(qianmian, tmp_path):
    config = write_source(tmp_path, GOOD + "3,c,fig,yesterday,1,1.0\n")
    done = qianmian("ingest", "files", "--config", config, "--workspace", tmp_path / "workspace")
    assert done.code == 0
    assert "read = kept + duplicates + quarantined" in done.out
    assert "1 quarantined" in done.out
    assert ".parquet" in done.out


def test_data_without_a_valid_row_is_exit_3_and_leaves_the_lake(qianmian, tmp_path):
    place = tmp_path / "workspace"
    digest = qianmian("ingest", "files", "--config", write_source(tmp_path, GOOD), "--workspace", place, "--json").json[
        "digest"
    ]
    bad = write_source(tmp_path, "order,customer,item,when,n,paid\n1,a,apple,yesterday,1,2.5\n")
    done = qianmian("ingest", "files", "--config", bad, "--workspace", place, "--json")
    assert done.code == 3
    assert done.json["error"]["code"] == "data"
    doctor = qianmian("doctor", "--workspace", place, "--json").json
    assert any(digest in finding["found"] for finding in doctor["findings"])


def test_an_empty_file_is_exit_3(qianmian, tmp_path):
    done = qianmian("ingest", "files", "--config", write_source(tmp_path, ""), "--workspace", tmp_path / "workspace")
    assert done.code in (2, 3)
    assert "orders.csv" in done.err


def test_a_missing_column_is_exit_2_and_names_it(qianmian, tmp_path):
    done = qianmian(
        "ingest",
        "files",
        "--config",
        write_source(tmp_path, "order,customer\n1,a\n"),
        "--workspace",
        tmp_path / "workspace",
    )
    assert done.code == 2
    assert "paid" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shops"], "completejourney"),
        (["completejourney", "--config", "x.yaml"], "does not accept --config"),
        (["synthetic", "--config", "x.yaml"], "does not accept --config"),
        (["files", "--seed", "1"], "does not accept --seed"),
        (["files"], "needs --config"),
        (["files", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["synthetic", "--customers", "3"], "too small"),
        (["synthetic", "--season-strength", "-1"], "season_strength ≥ 0"),
        (["synthetic", "--gap-days", "0"], "gap_days > 0"),
        (["completejourney", "--intent"], "does not accept --intent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_belong_to_sources(qianmian, tmp_path, arguments, message):
    done = qianmian("ingest", *arguments, "--workspace", tmp_path / "workspace")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "workspace").exists()
