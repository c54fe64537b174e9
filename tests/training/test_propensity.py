"""`train propensity`: labels, what is left out and why, the gate, and the tags of the targets."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.propensity import rows_between
from models.classify.propensity import PropensityModel
from qianmian.errors import DataError
from qianmian.propensity_targets import PropensityTarget
from qianmian.settings import Settings
from training.classify.choice import CANDIDATES, fit_best
from training.gate import apply_gate
from training.jobs import propensity
from training.jobs.base import TrainingContext
from training.propensity.rows import decayed_count, rows_with_history, target_rows_at
from training.report import EvalReport, Metric
from training.tracking import flatten_metrics

END = datetime(2024, 5, 30)  # 150 days from 2024-01-01
TARGETS = ("category=grocery", "event=cart", "item=i1")
DAIRY = PropensityTarget("category", "grocery")


@pytest.fixture(autouse=True, scope="module")
def few_dates():
    """One date to learn from and one to evaluate: features are most of the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(propensity, "PROFILE_DATES", 1)
        yield


def context_of(shop, targets=TARGETS, **more):
    settings = Settings.model_validate({"propensity": {"targets": targets}})
    return TrainingContext(shop, more.pop("as_of", END), settings, lambda line: None, **more)


@pytest.fixture(scope="module")
def context(shop):
    return context_of(shop)


@pytest.fixture(scope="module")
def outcome(context):
    return propensity.run(context)


def test_each_target_is_evaluated_beside_its_baselines(outcome):
    report = apply_gate(outcome.report, outcome.rules)
    assert report.passed
    for target in TARGETS[:2]:
        auc = report.metrics[f"{target} auc"]
        assert 0.6 < auc.low < auc.high
        assert report.baselines["decayed count"][f"{target} auc"].value > 0.5
        assert f"{target} brier" in report.baselines["base rate"]
        assert f"{target} auc" not in report.baselines["base rate"], "a constant has no order"
    assert any(note.startswith("item=i1 is left out: no row of the lake is of this item") for note in report.notes)


def test_the_model_has_the_targets_that_ship_and_publishes_a_tag_for_each(context, outcome, tmp_path):
    bundle = outcome.bundle
    assert bundle.facts["targets"] == list(TARGETS[:2])
    assert bundle.facts["horizon_days"] == 28
    assert set(outcome.tags) == {"propensity_category_grocery", "propensity_event_cart"}
    one_ids, values = outcome.tags["propensity_event_cart"]
    assert len(one_ids) == len(values) == len(rows_with_history(context, END))
    assert 0 <= min(values) < max(values) <= 1
    bundle.model.save(tmp_path / "model")
    X = context.profile(END, bundle.spec).values
    loaded = PropensityModel.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), bundle.model.predict_proba(X))


def test_what_ships_is_what_was_evaluated(outcome):
    for classifier, note in zip(outcome.bundle.model.classifiers, outcome.report.notes, strict=False):
        assert CANDIDATES[note.split(": ships ")[1].split(",")[0]] == tuple(classifier.members)


def test_what_was_evaluated_ships_where_all_dates_would_choose_another(context, monkeypatch):
    asked = []

    def fitted(*arguments, **named):
        asked.append(arguments[6] if len(arguments) > 6 else None)
        return fit_best(*arguments, **named)

    monkeypatch.setattr(propensity, "fit_best", fitted)
    propensity._evaluate(context, DAIRY, [END - timedelta(days=56)], END - timedelta(days=28), 28, {})
    assert asked[0] is None
    assert len(asked[1]) == 1


def test_no_date_before_the_data(shop):
    with pytest.raises(DataError, match="got '0 days'") as raised:
        propensity.run(context_of(shop, as_of=datetime(2019, 1, 1)))
    assert "-" not in str(raised.value).split("choose")[-1].replace("--horizon-days", "")


def test_labels_are_purchases_in_the_horizon_and_features_are_of_before(context):
    at = END - timedelta(days=56)
    names = ("category_grocery_orders_28d", "category_grocery_orders_91d", "category_grocery_orders_182d")
    rows = target_rows_at(context, DAIRY, at, 28, names)
    bought = rows_between(context.builder, DAIRY, at, at + timedelta(days=28))
    before = rows_between(context.builder, DAIRY, at - timedelta(days=28), at)
    owners = rows.owners.tolist()
    assert rows.y.tolist() == [int(one_id in bought) for one_id in owners]
    assert ((rows.X[:, 0] > 0) == np.array([one_id in before for one_id in owners])).all()
    later = target_rows_at(context, DAIRY, END, 28, names)
    assert not later.y.any(), "what is not known yet is no label"
    X = np.array([[1.0, 3.0, 7.0]], np.float32)
    assert decayed_count(DAIRY, names, X).tolist() == [1 + 2 / 2 + 4 / 4]


def test_permuted_labels_do_not_pass_the_gate(context, shop):
    shuffled = context_of(shop, ("category=grocery",), shuffle_labels=True)
    shuffled._profiles = context._profiles  # the features are the same
    found = propensity.run(shuffled)
    assert not apply_gate(found.report, found.rules).passed


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ((), {}, "no propensity target is declared.*train propensity --target"),
        (
            ("category=grocery",),
            {"horizon_days": 80},
            "at least 240 days for a horizon of 80.*--horizon-days of at most 50",
        ),
        (("category=grocery",), {"as_of": END + timedelta(days=90)}, "the data ends before the period.*choose --as-of"),
        (("category=grocry",), {}, "did you mean grocery"),
    ],
)
def test_what_cannot_be_trained_says_what_would_be_enough(shop, targets, options, message):
    with pytest.raises(DataError, match=message):
        propensity.run(context_of(shop, targets, **options))


def test_events_that_were_recorded_later_than_orders(shop, copy_workspace, monkeypatch):
    """A target learns from dates that its table covers, and from features that all of these have."""
    monkeypatch.setattr(propensity, "PROFILE_DATES", 2)
    late = {"events": "SELECT * FROM events WHERE ts >= TIMESTAMP '2024-03-24'"}  # after the first of the two dates
    context = context_of(copy_workspace(shop, late), TARGETS[:2])
    outcome = propensity.run(context)
    assert outcome.bundle.facts["targets"] == ["category=grocery"]
    assert not [name for name in outcome.bundle.spec.names if "event" in name]
    assert any("event=cart is left out: its rows begin too late" in note for note in outcome.report.notes)


def test_categories_with_slashes_are_metrics_that_mlflow_accepts():
    names = ("category=GROCERY/SOUP auc", "category=a//b auc", "category=../x auc")
    report = EvalReport({name: Metric(0.5, 0.4, 0.6, 9) for name in names}, {})
    found = flatten_metrics(report)
    assert len(found) == 3 * len(names)
    assert not [name for name in found if "/" in name], "metrics with a slash are those of baselines and slices"
