"""Names, commands and descriptions of runs, on hand-made models."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from models.bundle import ModelBundle
from models.classify.snapshot_model import SnapshotColumn, SnapshotModel
from training import descriptions, plots, signatures
from training.jobs.base import EvaluatedModel
from training.report import EvalReport, Metric

REPORT = EvalReport(
    {"auc": Metric(0.8, 0.7, 0.9, 50)}, {"a|b": {"auc": Metric(0.6, 0.5, 0.7, 50)}}, passed=True, reasons=("it beats",)
)


def evaluated(kind="churn", as_of=datetime(2018, 1, 2), parameters=None, **facts):
    bundle = ModelBundle(kind, SnapshotModel(), as_of, facts={"job": "churn", "data_digest": "d1", "seed": 0, **facts})
    return EvaluatedModel(
        bundle, REPORT, (), {"horizon_days": 28} if parameters is None else parameters, {}, pa.table({})
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (evaluated(), "churn 2018-01-02 h28"),
        (evaluated(as_of=datetime(2018, 1, 2, 15)), "churn 2018-01-02 15:00 h28"),
        (evaluated(parameters={}, job="clusters"), "clusters 2018-01-02"),
    ],
)
def test_a_run_is_named_by_what_it_is(given, expected):
    assert descriptions.run_name(given) == expected


def test_the_command_names_what_came_from_the_settings_too():
    churn = evaluated(as_of=datetime(2018, 1, 2, 15), parameters={"horizon_days": 14, "active_days": 28})
    assert (
        descriptions.command(churn)
        == "qianmian train churn --as-of 2018-01-02T15:00 --horizon-days 14 --active-days 28"
    )
    uplift = evaluated("uplift", job="uplift", campaign=["a", "b c"], outcome="order")
    assert shlex.split(descriptions.command(uplift))[-6:] == [
        "--campaign",
        "a",
        "--campaign",
        "b c",
        "--outcome",
        "order",
    ]
    assert descriptions.command(evaluated(parameters={})).endswith("--as-of 2018-01-02")


@pytest.mark.parametrize(("job", "name"), [("classify", []), ("classify-bank", ["--name", "bank"])])
def test_the_command_of_a_table_names_file_and_columns(job, name):
    parameters = {"file": "my bank.csv", "excluded": ["x", "y"]}
    model = evaluated("classify", parameters=parameters, job=job, label="bought", positive="yes", id_column="")
    assert shlex.split(descriptions.command(model)) == [
        *("qianmian", "train", "classify", "--data", "my bank.csv", "--label", "bought", "--positive", "yes"),
        *("--exclude", "x", "--exclude", "y", *name),
    ]


def test_a_description_has_the_facts_and_fits_into_the_registry():
    text = descriptions.of_version(evaluated(), REPORT, {"git_commit": "0123", "model_hash": "", "data_digest": "d1"})
    for line in (
        "| data | lake `d1`, before 2018-01-02 00:00 |",
        "| git commit | 0123 |",
        "| auc | 0.8 [0.7, 0.9] | 0.6 |",
    ):
        assert line in text
    assert "| metric | model | a\\|b |" in text
    assert "| model hash |" not in text
    long = replace(REPORT, passed=False, notes=("note " * 100,) * 40)
    text = descriptions.of_version(evaluated(), long, {})
    assert len(text) <= 5_000
    assert "**Gate: refused**" in text
    assert text.endswith("(the rest is in report.json)")


def test_the_input_example_of_a_table_is_of_no_row():
    """Rounded means, and a category, or a number other than 0, only where two rows have it."""
    numbers = [SnapshotColumn(name, "number") for name in ("age", "days", "refund")]
    columns = (*numbers, SnapshotColumn("city", "category"))
    model = evaluated("classify")
    bundle = replace(model.bundle, model=SnapshotModel((*columns, SnapshotColumn("street", "category"))))
    rows = pa.table(
        {
            "age": ["20.5", "31", None],
            "days": ["1", "2", "9"],
            "refund": ["0", "4321.5", "0"],
            "city": ["X", "X", "Y"],
            "street": ["a", "b", "c"],
        }
    )
    example = signatures.input_example(bundle, rows.to_pandas())
    assert example.to_dict("records") == [{"age": 25.8, "days": 4.0, "refund": 0.0, "city": "X", "street": None}]
    alone = signatures.input_example(bundle, rows.slice(1, 1).to_pandas())
    assert alone.isna().all(axis=None), "of a single customer nothing is shown"
    assert signatures.input_example(replace(bundle, kind="contact"), rows.to_pandas()) is None


def test_a_beeswarm_shows_each_customer_at_its_contribution():
    contributions = np.array([[0.5, 0.0, -2.0], [0.5, 0.1, 2.0], [0.5, 0.0, np.nextafter(2, 3)]], dtype=np.float32)
    X = np.array([[1, 1, 3], [2, 1, np.nan], [3, 1, 1]], dtype=np.float32)
    axes = plots.beeswarm(contributions, X, ["a", "b", "c"], "title", 0, max_count=2).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "a"]
    largest, second = (np.asarray(points.get_offsets()) for points in axes.collections)
    np.testing.assert_allclose(largest[:, 0], [-2, 2, 2], atol=1e-6)
    assert len({*map(tuple, second.round(6))}) == 3  # equal contributions lie beside each other
    assert np.abs(second[:, 1] - 1).max() < 0.5
    many = plots.beeswarm(np.ones((9, 1)), np.ones((9, 1)), ["a"], "title", 0, max_rows=4).axes[0]
    assert len(many.collections[0].get_offsets()) == 4
