"""Profile attributes stay in a model if they help beyond noise; a missing record is an effect of its own."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.compute.algebra import Condition, Feature
from features.compute.builder import Builder
from features.compute.spec import FeatureSpec, UserFeatures
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.definitions import FEATURES
from features.profiles.lifecycle import LIFECYCLE_FEATURES
from models.classify.churn import ChurnClassifier
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.recommending.explain import score_reasons
from training.attribute_choice import choose_attributes, without_neutral_values
from training.jobs import JOBS
from training.jobs.base import EvaluatedModel, TrainingContext
from training.report import Metric

INCOME, POINTS = (
    Feature("profile_income", "profiles", "attribute", "income", default="", description="income"),
    Feature("profile_points", "profiles", "attribute", "points", description="points"),
)
NO_RECORD = Feature(
    "no_record_crm",
    "profiles",
    "missing",
    where=(Condition("income", "known", False), Condition("points", "known", False)),
    default=1.0,
    description="whether there is no record",
)
ORDERS = Feature("orders_28d", "orders", "count", window_days=28, description="orders")
DECLARED = (ORDERS, INCOME, POINTS, NO_RECORD)
SPEC = FeatureSpec(DECLARED, ((), ("high", "low"), (), ()))
FEW = {"orders_total", "days_since_last_order", "orders_28d"}


# ---- the decision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "of_values", "of_records", "kept"),
    [
        ("auto", (0.001, 0.01), None, DECLARED),
        ("auto", (-0.001, 0.01), (0.001, 0.01), (ORDERS, NO_RECORD)),
        ("auto", (-0.001, 0.01), (-0.001, 0.01), (ORDERS,)),
        ("always", None, None, DECLARED),
        ("never", None, None, (ORDERS,)),
    ],
)
def test_values_and_records_are_validated_apart(use, of_values, of_records, kept):
    asked = []

    def gain(more, fewer):
        asked.append((tuple(more), tuple(fewer)))
        low, high = of_values if len(asked) == 1 else of_records
        return Metric((low + high) / 2, low, high, 100)

    spec, notes = choose_attributes(use, SPEC, gain, "AUC")
    assert spec.features == kept
    assert asked == [((0, 1, 2, 3), (0, 3)), ((0, 3), (0,))][: (of_values is not None) + (of_records is not None)]
    assert len(notes) == (kept != DECLARED)
    if use == "auto" and notes:
        assert "income, points add nothing beyond noise: AUC +0.0045 [-0.0010, 0.0100]" in notes[0]
        assert ("record is kept: AUC +0.0055 [0.0010, 0.0100]" in notes[0]) == (NO_RECORD in kept)


def test_what_cannot_be_validated_is_left_out():
    spec, (note,) = choose_attributes("auto", SPEC, None, "AUC")
    assert spec.features == (ORDERS,)
    assert "profiles: {in_models: always}" in note
    assert choose_attributes("auto", SPEC.select(("orders_28d",)), None, "AUC") == (SPEC.select(("orders_28d",)), ())


# ---- churn and lifecycle on a shop whose customers are of two kinds --------------------------------------------------


def trained(folder: Path, told: bool, job: str = "churn") -> EvaluatedModel:
    """A shop where half of the customers order in .85 of the months and the others in .6.

    The profile names the kind of a customer if `told`, and otherwise a word drawn at random.
    """
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    kind = rng.integers(0, 2, 600)
    word = kind if told else rng.integers(0, 2, 600)
    orders = [
        f"{customer}-{month},{customer},i,{datetime(2023, 1, 1) + timedelta(days=int(28 * month + rng.integers(28)))},5"
        for month in range(12)
        for customer in range(600)
        if rng.random() < (0.85, 0.6)[kind[customer]]
    ]
    (folder / "orders.csv").write_text("\n".join(["order,customer,item,date,paid", *orders]) + "\n")
    column, names = ("points_balance", (3, 8)) if job == "lookalike" else ("hobby", "ab")  # lookalike reads numbers
    records = [f"{customer},{names[word[customer]]}" for customer in range(600)]
    (folder / "crm.csv").write_text("\n".join(["id,hobby", *records]) + "\n")
    (folder / "sources.yaml").write_text(
        "source: shop\ntables:\n  transactions:\n    path: orders.csv\n"
        "    columns: {order_id: order, source_user_id: customer, item_id: item, ts: date, amount: paid}\n"
        f"  profiles:\n    path: crm.csv\n    columns: {{source_user_id: id, {column}: hobby}}\n    fixed: [{column}]\n"
    )
    workspace, settings = Workspace(folder / "workspace"), Settings()
    ingest(workspace, FileSource(folder / "sources.yaml"), settings, now=datetime(2025, 1, 1))
    lake = Lake(workspace)
    needed = FEW | (set(LIFECYCLE_FEATURES) if job == "lifecycle" else set())
    builder = Builder(lake, [one for one in FEATURES if one.name in needed])
    return JOBS[job].run(TrainingContext(workspace, lake.default_as_of, settings, lambda line: None, _builder=builder))


@pytest.mark.slow
def test_an_attribute_that_matters_stays_and_noise_goes(tmp_path):
    matters, noise = (trained(tmp_path / str(told), told) for told in (True, False))
    assert matters.bundle.spec is not None
    assert noise.bundle.spec is not None
    assert "profile_hobby" in matters.bundle.spec.names
    assert not [note for note in matters.report.notes if "left out" in note]
    assert "profile_hobby" not in noise.bundle.spec.names
    (note,) = (note for note in noise.report.notes if note.startswith("left out"))
    assert "hobby add nothing beyond noise: AUC" in note


def test_lifecycle_decides_in_the_same_way(tmp_path):
    for told in (True, False):
        spec = trained(tmp_path / str(told), told, "lifecycle").bundle.spec
        assert spec is not None
        assert ("profile_hobby" in spec.names) == told


def test_lookalike_decides_about_numbers(tmp_path):
    noise = trained(tmp_path / "shop", False, "lookalike")
    assert noise.bundle.spec is not None
    assert "profile_points_balance" not in noise.bundle.spec.names
    assert any("points_balance; there are too few data to validate" in note for note in noise.report.notes)


# ---- explanations ----------------------------------------------------------------------------------------------------


def people(seed: int, n: int = 2000) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Customers who churn less if there is a record of them; what the record says tells nothing."""
    rng = np.random.default_rng(seed)
    recorded, orders = rng.random(n) < 0.4, rng.poisson(3, n)
    y = rng.random(n) < 1 / (1 + np.exp(0.4 * (orders - 3) + 1.2 * recorded))
    table = pa.table(
        {
            "one_id": [str(number) for number in range(n)],
            "orders_28d": orders.astype(float),
            "profile_income": np.where(recorded, rng.choice(list("abcdef"), n), "").tolist(),
            "profile_points": np.where(recorded, rng.integers(0, 500, n), 0).astype(float),
            "no_record_crm": 1.0 - recorded,
        }
    )
    return table, y.astype(np.int64), recorded


def test_what_a_record_means_is_not_explained_by_what_it_says():
    table, y, recorded = people(1)
    spec = UserFeatures.from_table(table, DECLARED, datetime(2024, 1, 1)).neutral_spec()
    X = UserFeatures.from_table(table, DECLARED, datetime(2024, 1, 1), spec).values
    model = ChurnClassifier(seed=0).fit(without_neutral_values(spec, X, 0), y)
    contributions = model.explain(X)
    of_record = contributions[recorded].mean(axis=0)
    assert abs(of_record[1]) < 0.05
    assert abs(of_record[2]) < 0.05
    assert of_record[3] < -0.4
    for has_record, effect in ((True, "lowers"), (False, "raises")):
        some = X[recorded == has_record]
        reasons = [one for found in score_reasons(spec, some, model.explain(some), top=2) for one in found]
        of_flag = Counter(one["effect"] for one in reasons if one["feature"] == "no_record_crm")
        assert of_flag[effect] > 0.9 * len(some)
        assert len(of_flag) == 1
        of_values = [one for one in reasons if one["feature"].startswith("profile_")]
        assert len(of_values) < 0.15 * len(reasons) if has_record else not of_values


def test_drawn_values_are_those_of_the_known_customers():
    X = np.array([[1, 0, 5, 0], [2, 1, 9, 0], [3, 0.5, 7, 1]], dtype=np.float32)
    drawn = without_neutral_values(SPEC, X, 0)
    assert drawn[:2].tolist() == X[:2].tolist()
    assert drawn[2, 1] in (0, 1)
    assert drawn[2, 2] in (5, 9)
    assert drawn[2, [0, 3]].tolist() == [3, 1]
    assert without_neutral_values(SPEC, X[:2], 0).tolist() == X[:2].tolist()
