"""`train classify`: what is read of a table, what is refused, and the cross-validation with its baselines."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from features.snapshot_table import as_texts, read_snapshot_table
from models.classify.calibrated import CalibratedClassifier
from models.classify.rhythm import probability
from models.classify.snapshot_model import SnapshotColumn, SnapshotModel, encoded
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.bootstrap import CLASSIFICATION
from training.churn.gains import lift_at
from training.classify.choice import fit_best
from training.classify.columns import choose_columns, read_label
from training.classify.evaluation import single_column_rates
from training.classify.run import SnapshotTask, evaluate, job_name, train_classify
from training.gate import apply_gate

NOW = datetime(2025, 1, 1, 12)


def people(n=400, seed=0):
    """A table as a telephone company has it: the label follows the months and the contract."""
    rng = np.random.default_rng(seed)
    months, contract = rng.integers(0, 73, n), rng.choice(["monthly", "yearly"], n)
    leaves = rng.random(n) < 1 / (1 + np.exp(0.05 * months - 1 + 1.5 * (contract == "yearly")))
    return {
        "customer": [f"C-{row:04}" for row in range(n)],
        "months": months.tolist(),
        "contract": contract.tolist(),
        "charges": [" " if month == 0 else f"{month * 19.5:.2f}" for month in months],
        "country": ["DE"] * n,
        "leaves": np.where(leaves, "Yes", "No").tolist(),
    }


def written(tmp_path, columns, name="people.csv"):
    path = tmp_path / name
    pyarrow.csv.write_csv(pa.table({key: [str(one) for one in values] for key, values in columns.items()}), path)
    return path


def evaluated(path, label="leaves", **more):
    return evaluate(SnapshotTask(path, label, **more), 0, NOW, lambda line: None)


def column(values, name="a"):
    return pa.chunked_array([pa.array(values, pa.string())])


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_separators_encodings_and_blanks(tmp_path, encoding):
    path = tmp_path / "bank.csv"
    rows = "".join(f'{age};"müde";{age},5;?;no\r\n' for age in range(30))
    path.write_bytes(("age;job;balance;empty;y\r\n" + rows).encode(encoding))
    table = read_snapshot_table(path)
    assert table.column_names == ["age", "job", "balance", "empty", "y"]
    assert table.slice(2, 1).to_pylist() == [{"age": "2", "job": "müde", "balance": "2,5", "empty": None, "y": "no"}]


def test_a_file_that_is_missing_broken_or_empty_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the file is missing"):
        read_snapshot_table(tmp_path / "no.csv")
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="no rows"):
        read_snapshot_table(tmp_path / "empty.csv")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="occurs twice"):
        read_snapshot_table(tmp_path / "twice.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="cannot be read"):
        read_snapshot_table(tmp_path / "bad.parquet")
    pyarrow.parquet.write_table(pa.table({"a": [b"\xff\xfe"]}), tmp_path / "bytes.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_snapshot_table(tmp_path / "bytes.parquet")


def test_each_column_is_read_as_what_it_is():
    n = 300
    table = pa.table(
        {
            "id": [f"u{row}" for row in range(n)],
            "number": column([f"{row % 90}.5" for row in range(n)]),
            "comma": column([f"{row % 90},5" for row in range(n)]),
            "texts": column(["many" if row < 3 else str(row % 70) for row in range(n)]),
            "flag": column([str(row % 2) for row in range(n)]),
            "level": column(
                [None if row % 3 == 0 else "a" if row % 3 == 1 else "b" for row in range(n - 2)] + ["c"] * 2
            ),
            "day": column([f"2024-01-{row % 28 + 1:02}" for row in range(n)]),
            "us_day": column([f"{row % 12 + 1}/{row % 28 + 1}/2024" for row in range(n)]),
            "same": column(["x"] * n),
            "blank": column([None] * n),
            "receipt": column([str(10_000 + row) for row in range(n)]),
        }
    )
    columns, notes = choose_columns(table, set())
    assert [(one.name, one.kind, one.decimal) for one in columns] == [
        ("number", "number", "."),
        ("comma", "number", ","),
        ("texts", "number", "."),
        ("flag", "category", "."),
        ("level", "category", "."),
        ("day", "date", "."),
    ]
    assert columns[4].values == ("", "a", "b"), "a missing cell is a value of its own, and two rows are no category"
    words = " | ".join(notes)
    for name in ("id", "us_day", "same", "blank", "receipt"):
        assert f"{name} is left out" in words
    assert "texts is a number; 3 other texts count as missing" in words


def test_amounts_that_all_differ_are_no_ids():
    amounts = column([str(17 * row * row + 3) for row in range(200)])
    columns, notes = choose_columns(pa.table({"income": amounts}), set())
    assert [one.kind for one in columns] == ["number"]
    assert notes == []


def test_unseen_values_are_missing():
    level = SnapshotColumn("a", "category", ("x", "y"))
    assert level.encode(column(["y", "new", None])).tolist() == [1.0, -1.0, -1.0]
    number = SnapshotColumn("a", "number").encode(column(["1,000.5", "€ 7", "none"]))
    np.testing.assert_array_equal(number, np.array([1000.5, 7, np.nan], np.float32))


def test_files_that_write_the_same_values_otherwise_are_encoded_alike(tmp_path):
    """Trained on a CSV file with decimal commas and flags as 1.0; scored from numbers, dots and flags as 1."""
    charges = [f"{row % 90},{row % 8}25" for row in range(300)]  # a comma before three digits does not tell
    path = tmp_path / "a.csv"
    rows = "".join(f"{one};{row % 70},5;{row % 2}.0;{bool(row % 2)}\n" for row, one in enumerate(charges))
    path.write_text("charges;months;flag;paid\n" + rows)
    columns = choose_columns(read_snapshot_table(path), set())[0]
    assert [one.kind for one in columns] == ["number", "number", "category", "category"]
    expected = encoded(read_snapshot_table(path), columns)
    numbers = pa.table(
        {
            "paid": [bool(row % 2) for row in range(300)],
            "months": [row % 70 + 0.5 for row in range(300)],
            "flag": [row % 2 for row in range(300)],
            "charges": [row % 90 + (row % 8) / 10 + 0.025 for row in range(300)],
        }
    )
    found = encoded(as_texts(numbers), columns)
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:])
    pyarrow.parquet.write_table(numbers, tmp_path / "a.parquet")
    np.testing.assert_array_equal(encoded(read_snapshot_table(tmp_path / "a.parquet"), columns), found)
    dots = [row.replace(",", ".") for row in rows.splitlines()]
    path.write_text("charges;months;flag;paid\n" + "\n".join(dots) + "\n")
    np.testing.assert_array_equal(encoded(read_snapshot_table(path), columns)[:, 1:], expected[:, 1:])


def test_one_cell_with_another_separator_does_not_change_the_column():
    amounts = column([*(f"{row}.75" for row in range(200)), "12,5", "1e60"])
    (amount,), _ = choose_columns(pa.table({"a": amounts}), set())
    assert amount.encode(amounts)[3] == 3.75
    assert np.isnan(amount.encode(amounts)[-1]), "beyond float32"


# ---- the label -------------------------------------------------------------------------------------------------------


def test_the_label_is_the_answer_that_means_yes():
    label = read_label(column(["No"] * 100 + ["Yes"] * 40 + [None]), "churn", None)
    assert (label.positive, len(label.rows), int(label.y.sum())) == ("Yes", 140, 40)
    assert read_label(column(["0"] * 60 + ["1"] * 60), "churn", None).positive == "1"
    with pytest.raises(UsageError, match="add --positive VALUE"):
        read_label(column(["1"] * 60 + ["2"] * 60), "churn", None)  # either may be the yes
    assert read_label(column(["1"] * 60 + ["2"] * 60), "churn", "2").positive == "2"
    three = column(["a"] * 50 + ["b"] * 50 + ["c"] * 50)
    assert read_label(three, "plan", "b").y.sum() == 50


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["Yes"] * 200, "one value only"),
        ([None] * 200, "is empty"),
        (["a", "b", "c"] * 50, "plan has 3 values.*--positive VALUE"),
        ([str(row) for row in range(200)], "a number with 200 values.*above a threshold"),
        (["yes"] * 5 + ["no"] * 5, "at least 100 rows, 30 of each answer"),
        (["yes"] * 5 + ["no"] * 200, "205 rows with a label, 5 of them yes"),
    ],
)
def test_labels_that_cannot_be_learnt_say_what_would_be_enough(values, message):
    with pytest.raises(DataError, match=message):
        read_label(column(values), "plan", None)


def test_two_unclear_answers_need_the_positive_one():
    values = column(["red", "blue"] * 100)
    with pytest.raises(UsageError, match="add --positive VALUE"):
        read_label(values, "colour", None)
    with pytest.raises(UsageError, match="no row has this value"):
        read_label(values, "colour", "green")


# ---- evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return evaluated(written(tmp_path_factory.mktemp("table"), people()), id_column="customer")


def test_the_report_has_baselines_intervals_and_a_gate(result):
    report = apply_gate(result.report, result.rules)
    assert report.passed
    assert {"base rate", "best single column", "logistic regression"} == set(report.baselines)
    auc = report.metrics["auc"]
    assert 0.7 < auc.low < auc.value < auc.high < 0.95
    assert report.metrics["ece"].value < 0.1
    assert any(note.startswith("the table has no time: 2 × 5 stratified folds") for note in report.notes)
    assert any("country is left out" in note for note in report.notes)
    assert not any("LEAKAGE" in note for note in report.notes)
    assert set(result.figures) == {"beeswarm.png", "calibration.png", "gains.png", "importance.png"}


def test_the_model_keeps_columns_and_no_customer(result, tmp_path):
    result.bundle.save(tmp_path / "bundle")
    text = " ".join(path.read_text() for path in (tmp_path / "bundle").rglob("*.json"))
    assert "C-0001" not in text
    assert result.bundle.model.user_arrays == ()
    loaded = SnapshotModel.load(tmp_path / "bundle" / "model")
    X = loaded.encode(pa.table({"months": ["3"], "contract": ["monthly"], "charges": ["58.50"]}))
    assert 0.4 < loaded.predict_proba(X)[0, 1] < 0.9
    with pytest.raises(DataError, match="lacks columns that the model reads"):
        loaded.encode(pa.table({"months": ["3"]}))


def test_permuted_labels_do_not_pass_the_gate(tmp_path):
    task = SnapshotTask(written(tmp_path, people(200)), "leaves", "customer")
    found = evaluate(task, 0, NOW, lambda line: None, shuffle_labels=True)
    assert not apply_gate(found.report, found.rules).passed


def test_a_column_that_tells_the_label_is_said_to_leak_first(tmp_path):
    columns = people(200)
    columns["left_on"] = ["x" if one == "Yes" else "y" for one in columns["leaves"]]
    found = evaluated(written(tmp_path, columns), id_column="customer")
    assert found.report.notes[0].startswith("LEAKAGE? left_on alone tells the label")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"label": "leavs"}, "did you mean leaves"),
        ({}, {"id_column": "custmer"}, "did you mean customer"),
        ({}, {"excluded": ("none",)}, "no column none"),
        ({"customer": ["C-1"] * 400}, {"id_column": "customer"}, "one row a customer.*400 rows, 1 distinct"),
        (
            {"months": [1] * 400, "contract": ["a"] * 400, "charges": [1] * 400},
            {},
            "no column of the table says anything",
        ),
    ],
)
def test_tables_that_cannot_be_learnt_from(tmp_path, change, options, message):
    with pytest.raises((DataError, UsageError), match=message):
        evaluated(written(tmp_path, {**people(), **change}), **options)


def test_a_name_of_a_model():
    assert (job_name(None), job_name("bank-deposit")) == ("classify", "classify-bank-deposit")
    with pytest.raises(UsageError, match="small letters"):
        job_name("Bank Deposit")


def test_lifts_and_single_columns():
    y = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    p = np.linspace(1, 0, 10)
    assert lift_at(0.1)(y, p) == pytest.approx(5.0)
    assert lift_at(0.5)(y, np.zeros(10)) == pytest.approx(1.0)
    X = np.array([[0.0], [0.0], [1.0], [1.0]], np.float32)
    rates = single_column_rates(X, np.array([0, 0, 1, 1]), np.array([[0.0], [1.0], [np.nan]], np.float32), (True,))
    assert rates[:, 0].tolist() == pytest.approx([2.5 / 7, 4.5 / 7, 0.5]), "five rows of the base rate"


def test_the_simplest_candidate_within_noise_ships():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 2)).astype(np.float32)
    straight = (rng.random(1500) < 1 / (1 + np.exp(-2 * X[:, 0]))).astype(np.int64)
    assert fit_best(X, straight, None, (False, False), 0)[0] == "spline logistic regression"
    crossed = (rng.random(1500) < np.where((X[:, 0] > 0.2) == (X[:, 1] > -0.4), 0.95, 0.05)).astype(np.int64)
    assert fit_best(X, crossed, None, (False, False), 0)[0] == "boosted trees"


def test_the_calibration_follows_the_last_date_where_that_predicted_better():
    rng = np.random.default_rng(0)
    moments = np.repeat(np.arange(4), 400)
    X = rng.normal(size=(1600, 1)).astype(np.float32)
    rising = rng.random(1600) < 1 / (1 + np.exp(-X[:, 0] - moments + 2))
    level = fit_best(X, rising.astype(np.int64), None, (False,), 0, moments)[1].predict_proba(X)[:, 1].mean()
    assert level == pytest.approx(rising[moments == 3].mean(), abs=0.05)
    steady = rng.random(1600) < 1 / (1 + np.exp(-X[:, 0]))
    level = fit_best(X, steady.astype(np.int64), None, (False,), 0, moments)[1].predict_proba(X)[:, 1].mean()
    assert level == pytest.approx(steady.mean(), abs=0.005)
    assert CLASSIFICATION["brier"](steady.astype(np.int64), steady.astype(float)) == 0


@pytest.mark.slow
def test_it_is_registered_in_a_new_workspace(tmp_path):
    workspace = Workspace(tmp_path / "new workspace")
    task = SnapshotTask(written(tmp_path, people(200)), "leaves", "customer", name="phones")
    done = train_classify(workspace, task, settings=Settings(), clock=lambda: NOW)
    assert (done.job, done.status, done.version) == ("classify-phones", "registered", 1)
    assert done.report is not None
    assert done.report.as_dict()["metrics"]["auc"]["n"] == 200


def test_the_calibration_has_rows_of_its_own():
    """Trees learn noise by heart; a calibration on the rows that they have seen would believe them."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 6)).astype(np.float32), rng.integers(0, 2, 400)
    deep = {"n_estimators": 100, "max_depth": 6, "min_child_weight": 1.0, "learning_rate": 0.2}
    model = CalibratedClassifier(("trees",), (False,) * 6, 0, deep).fit(X, y)
    trees = model.members_[0]
    assert (probability(trees.log_odds(X)) > 0.5).astype(int).tolist() == y.tolist(), "learnt by heart"
    assert abs(model.calibration_[0]) < 0.2, "out of fold they tell nothing"
