"""`qianmian train classify` and `score classify`, and the targets of `train propensity`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from features.erasure.customer import ErasedCustomer
from features.erasure.exports import read_exports
from features.erasure.files import erase_rows
from qianmian.propensity_targets import read_targets
from qianmian.workspace import Workspace


@pytest.fixture
def table(tmp_path):
    """200 customers, whose label follows the months, in a file with semicolons."""
    rng = np.random.default_rng(0)
    months = rng.integers(0, 60, 200)
    leaves = np.where(rng.random(200) < 1 / (1 + np.exp(0.1 * months - 2)), "yes", "no")
    path = tmp_path / "people.csv"
    columns = {"customer": [f"C{row:03}x" for row in range(200)], "months": months, "leaves": leaves}
    pyarrow.csv.write_csv(pa.table(columns), path, pyarrow.csv.WriteOptions(delimiter=";"))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classify",), "got 'no --data'"),
        (("classify", "--data", "x.csv"), "got 'no --label'"),
        (("classify", "--data", "x.csv", "--label", "y", "--horizon-days", "7"), "--horizon-days is no option"),
        (("classify", "--data", "x.csv", "--label", "y", "--target", "event=cart"), "--target is no option"),
        (("churn", "--label", "y"), "--label is an option of classify"),
        (("churn", "--id", "y"), "--id is an option of classify"),
        (("churn", "--target", "event=cart"), "targets are those of the job propensity"),
        (("propensity", "--target", "soup"), "a target is item=ID"),
        (("propensity", "--target", "category=grocry"), "did you mean grocery"),
        (("propensity", "--remove-target", "event=cart"), "not in targets.yaml"),
        (("propensity",), "no propensity target is declared"),
    ],
)
def test_options_that_do_not_fit(qianmian, shop, arguments, message):
    done = qianmian("train", *arguments, "--workspace", shop)
    assert done.code in (2, 3)
    assert message in done.err
    assert read_targets(Workspace(shop).config_file) == (), "what is refused is not declared"


def test_a_model_that_is_not_there_says_how_to_train_it(qianmian, shop, table, tmp_path):
    done = qianmian(
        "score", "classify", "--data", table, "--out", tmp_path / "o.csv", "--name", "a", "--workspace", shop
    )
    assert done.code == 3
    assert "no model is registered as qianmian-classify-a" in done.err
    assert "--name a" in done.err


@pytest.mark.slow
def test_a_table_is_learnt_and_scored_without_a_lake(qianmian, table, tmp_path):
    place, out = tmp_path / "new", tmp_path / "scores.parquet"
    options = ("--name", "phones", "--workspace", place)
    done = qianmian("train", "classify", "--data", table, "--label", "leaves", "--id", "customer", *options, "--json")
    assert done.code == 0, done.err
    assert done.json["results"][0]["status"] == "registered"
    assert qianmian("score", "classify", "--data", table, "--out", out, *options).code == 0
    scores = pyarrow.parquet.read_table(out)
    assert scores.column_names == ["user_id", "probability", "band", "reasons", "model_version"]
    assert set(scores["band"].to_pylist()) == {"low", "medium", "high"}
    assert scores["reasons"][0].as_py().startswith("months ")
    assert [export.path for export in read_exports(Workspace(place))] == [str(out)]
    erased = ErasedCustomer((("app", "C007x"),), ("u1",))
    assert erase_rows(out, erased) == 1, "whatever the table calls its ids, and however short they are"
    assert "C007x" not in pyarrow.parquet.read_table(out)["user_id"].to_pylist()
    listed = qianmian("models", "list", "--workspace", place, "--json").json
    assert "qianmian-classify-phones" in str(listed)


@pytest.mark.slow
def test_a_target_is_declared_trained_and_published(qianmian, tmp_path):
    place = tmp_path / "shop"
    ingested = ("ingest", "synthetic", "--customers", "400", "--days", "150", "--workspace", place)
    assert qianmian(*ingested).code == 0
    done = qianmian("train", "propensity", "--target", "category:grocery", "--workspace", place, "--json")
    assert done.code == 0, done.err
    assert read_targets(Workspace(place).config_file) == ("category=grocery",)
    tags = qianmian("tags", "list", "--workspace", place, "--json")
    assert "propensity_category_grocery" in tags.out
    removed = qianmian("train", "propensity", "--remove-target", "category=grocery", "--workspace", place)
    assert "no propensity target is declared" in removed.err
    assert read_targets(Workspace(place).config_file) == ()
