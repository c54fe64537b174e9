"""`train uplift --data`: what is read of the table of a randomised test, and what is refused."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from features.snapshot_table import as_texts
from models.uplift.table_model import UpliftTableModel
from qianmian.errors import DataError, UsageError
from training.pyfunc import predict_table
from training.uplift.table import UpliftTask, evaluate
from training.uplift.table_trial import read_trial


def mailing(n=800, seed=0):
    """A mailing as a shop has it: members react to the mail, a purchase implies a visit."""
    rng = np.random.default_rng(seed)
    mail, member = rng.choice(["mail", "none"], n), rng.choice(["yes", "no"], n)
    recency = rng.integers(1, 13, n)
    visits = rng.random(n) < 0.2 + 0.4 * ((mail == "mail") & (member == "yes"))
    return {
        "customer": [f"C-{row:04}" for row in range(n)],
        "recency": recency,
        "member": member,
        "segment": mail,
        "visit": visits.astype(int),
        "spend": np.where(visits & (rng.random(n) < 0.5), 20.5, 0.0),
    }


def texts(columns):
    return as_texts(pa.table({name: pa.array(values) for name, values in columns.items()}))


def test_the_table_becomes_a_trial():
    found = read_trial(texts(mailing()), "segment", "visit", None, {"customer", "spend"})
    assert found.control == "none"
    assert found.trial.names == ["recency", "member"]
    assert found.trial.categorical == (False, True)
    assert found.trial.is_binary
    assert 0.4 < found.trial.treated.mean() < 0.6


def test_an_amount_is_an_outcome_and_rows_without_one_are_left_out():
    columns = mailing()
    columns["spend"] = [None, *columns["spend"][1:]]
    found = read_trial(texts(columns), "segment", "spend", "none", {"customer", "visit"})
    assert not found.trial.is_binary
    assert len(found.trial) == 799
    assert "1 rows without a treatment or an outcome" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"excluded": {"customer"}}, DataError, "spend .tells the outcome for certain.*--exclude spend"),
        ({"member": np.repeat("yes", 800), "recency": np.ones(800)}, {}, DataError, "no column of the table"),
        ({"segment": np.repeat("none", 800)}, {}, DataError, "no customer was contacted"),
        (
            {"segment": np.repeat(["a", "b"], 400)},
            {},
            UsageError,
            "not clear which value of segment.*Fix: add --control",
        ),
        ({}, {"control": "nobody"}, UsageError, "no row has this value"),
        ({"visit": np.repeat(["a", "b", "c", "d"], 200)}, {}, DataError, "the label has to be a yes or no"),
    ],
)
def test_what_is_refused(change, options, error, message):
    given = {"control": None, "excluded": {"customer", "spend"}, **options}
    with pytest.raises(error, match=message):
        read_trial(texts({**mailing(), **change}), "segment", "visit", given["control"], given["excluded"])


def test_a_contact_that_was_not_drawn_at_random_is_refused():
    columns = mailing()
    chosen = np.where(np.random.default_rng(1).random(800) < columns["recency"] / 13, "mail", "none")
    with pytest.raises(DataError, match="recency .* standard errors between the arms"):
        read_trial(texts({**columns, "segment": chosen}), "segment", "visit", None, {"customer", "spend"})


@pytest.mark.slow
def test_a_table_is_trained_saved_and_predicts(tmp_path):
    path = tmp_path / "mailing.csv"
    pyarrow.csv.write_csv(pa.table({name: pa.array(values) for name, values in mailing(1_500).items()}), path)
    task = UpliftTask(path, "segment", "visit", id_column="customer", name="spring", excluded=("spend",))
    assert task.job == "uplift-spring"
    evaluated = evaluate(task, 0, datetime(2025, 1, 1), lambda line: None)
    assert evaluated.bundle.facts["usable"]
    assert set(evaluated.figures) == {"qini.png", "deciles.png"}
    evaluated.bundle.model.save(tmp_path / "model")
    model = UpliftTableModel.load(tmp_path / "model")
    table = pyarrow.csv.read_csv(path)
    uplift = predict_table(evaluated.bundle, table.to_pandas())["uplift"].to_numpy()
    assert np.array_equal(uplift, model.predict(model.encode(as_texts(table))))
    members = table["member"].to_numpy(zero_copy_only=False) == "yes"
    assert uplift[members].mean() > uplift[~members].mean() + 0.2
    with pytest.raises(DataError, match="lacks columns"):
        model.encode(as_texts(table.drop_columns(["member"])))
