"""`qianmian measure`: tables, sentences, JSON and files of an experiment; a mismatch is crossed out and has an exit code."""

from __future__ import annotations

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def test_file(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "test.csv"
    before = rng.gamma(2.0, 2.0, 1_200)
    mail = np.arange(1_200) % 2 == 0
    orders = before + rng.normal(4.0, 1.0, 1_200) + 0.5 * mail
    age = np.where(rng.random(1_200) < 0.5, "young", "old")
    rows = zip(np.where(mail, "mail", "control"), orders, before, age, strict=True)
    path.write_text("arm,orders,before,age\n" + "\n".join(",".join(map(str, row)) for row in rows), encoding="utf-8")
    return path


def of(path):
    return ("measure", "ab", "--data", path, "--variant", "arm", "--metric", "orders")


def test_a_file_is_measured_in_words_tables_json_and_rows(qianmian, test_file, tmp_path):
    out = tmp_path / "found.parquet"
    options = ("--pre", "before", "--segment", "age", "--workspace", tmp_path / "w")
    done = qianmian(*of(test_file), *options, "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith("mail brought ")
    for text in ("difference at any look", "raw", "CUPED", "balance of the pre-period", "by segment", "Cochran's Q"):
        assert text in done.out
    assert "significan" not in done.out
    chinese = qianmian(*of(test_file), *options, "--lang", "zh").out
    for text in ("差异（随时有效）", "实验前平衡性", "按细分群体", "各群体的差异是否不同"):
        assert text in chinese
    rows = pq.read_table(out).to_pylist()
    assert [(row["estimate"], row["value"]) for row in rows] == [
        *(("raw", None), ("cuped", None), ("cuped", "old"), ("cuped", "young"))
    ]
    assert all(row["valid"] for row in rows)
    found = qianmian(*of(test_file), *options, "--lang", "zh", "--json").json
    assert found["valid"] is True
    assert found["looks"] == "daily"
    assert found["planned_customers"] == 5_000
    assert found["sentences"][0].startswith("与 control 相比，mail 多带来 ")
    assert found["effects"][0]["cuped"]["absolute_sequence"]["value"] == pytest.approx(rows[1]["difference"])


def test_a_mismatch_is_crossed_out_and_strict_says_so_with_its_exit_code(qianmian, test_file, tmp_path):
    options = ("--expected", "control=1,mail=2", "--looks", "once", "--out", tmp_path / "found.csv")
    done = qianmian(*of(test_file), *options, "--workspace", tmp_path / "w")
    assert done.code == 0
    assert done.out.startswith("The arms are not as large as they were drawn (p = ")
    assert "~~mail brought" in done.out
    assert done.out.count("~~") >= 8
    assert pyarrow.csv.read_csv(tmp_path / "found.csv")["valid"].to_pylist() == [False]
    strict = qianmian(*of(test_file), *options, "--workspace", tmp_path / "w", "--strict", "--json")
    assert strict.code == 3
    assert strict.json["valid"] is False
    assert strict.json["sample_ratio"]["mismatch"] is True


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("ab",), 2, "what is to be measured is missing"),
        (("ab", "--data", "f.csv", "--campaign", "c"), 2, "not both"),
        (("ab", "--data", "f.csv", "--variant", "arm"), 2, "--metric is missing"),
        (("ab", "--campaign", "c", "--metric", "orders"), 2, "--metric is an option of --data"),
        (
            ("ab", "--data", "f.csv", "--variant", "a", "--metric", "b", "--outcome", "order"),
            2,
            "an option of --campaign",
        ),
        (
            ("ab", "--data", "f.csv", "--variant", "a", "--metric", "b", "--metric", "c", "--pre", "d"),
            2,
            "--pre is given for some metrics only",
        ),
        (("ab", "--data", "f.csv", "--variant", "a", "--metric", "b", "--exposed-at", "c"), 2, "given together"),
        (("ab", "--campaign", "c", "--expected", "a=0,b=1"), 2, "how the variants were drawn"),
        (("ab", "--data", "f.csv", "--variant", "a", "--metric", "b"), 2, "the file is missing"),
        (("funnel", "--campaign", "c"), 2, "workspace"),
    ],
    ids=[
        "nothing",
        "both",
        "no metric",
        "file option",
        "lake option",
        "pre",
        "times",
        "expected",
        "no file",
        "no lake",
    ],
)
def test_usage(qianmian, options, code, told, tmp_path):
    done = qianmian("measure", *options, "--workspace", tmp_path / "none")
    assert done.code == code
    assert told in done.err


def test_a_campaign_of_the_synthetic_shop(qianmian, shop, tmp_path):
    """Forty customers are too few for an arm, and that is what is told."""
    done = qianmian("measure", "ab", "--campaign", "c00", "--workspace", shop)
    assert done.code == 3
    assert "too few customers in" in done.err
    none = qianmian("measure", "ab", "--campaign", "c9", "--workspace", shop, "--json")
    assert none.code == 2
    assert "c00" in none.json["error"]["message"]


@pytest.mark.slow
def test_campaigns_and_funnels_by_variant(qianmian, tmp_path):
    workspace = tmp_path / "workspace"
    made = qianmian("ingest", "synthetic", "--customers", 400, "--days", 120, "--intent", "--workspace", workspace)
    assert made.code == 0, made.err
    done = qianmian("measure", "ab", "--campaign", "c00", "--segment", "lifecycle_stage", "--workspace", workspace)
    assert done.code == 0, done.err
    assert "lifecycle_stage" in done.out
    found = qianmian(
        "measure", "ab", "--campaign", "c00", "--outcome", "order", "--workspace", workspace, "--json"
    ).json
    assert found["valid"]
    assert found["window_days"] == 28
    assert found["effects"][0]["metric"] == "order"
    funnel = qianmian("measure", "funnel", "--campaign", "c00", "--workspace", workspace, "--json").json
    assert funnel["steps"] == ["view", "cart", "buy"]
    assert {one["variant"] for one in funnel["effects"]} == {"contact", "control"}
    told = qianmian("measure", "funnel", "--campaign", "c00", "--workspace", workspace, "--out", tmp_path / "f.parquet")
    assert "view → cart → buy" in told.out
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 6
