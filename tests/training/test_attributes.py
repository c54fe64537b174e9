"""Attributes in training: those of today do not join a past moment, and one that alone suffices is named."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from features.compute.algebra import Feature
from features.compute.builder import Builder
from features.compute.spec import FeatureSpec
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.definitions import FEATURES
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.attributes import (
    coded_attributes,
    left_out_notes,
    smoothed_rates,
    sufficient_for_classes,
    sufficient_for_labels,
    sufficient_for_ranking,
    unknown_attributes,
)
from training.jobs import JOBS
from training.jobs.base import TrainingContext
from training.report import EvalReport, Metric

CASE = Path(__file__).parents[1] / "data" / "cases" / "30-profile-of-today-in-yesterdays-training"
FEW = {"orders_total", "days_since_last_order", "orders_28d", "orders_91d", "gap_days_mean", "days_since_first_order"}


def context_of(
    folder: Path, config: Path, allow_undated: tuple[str, ...] = (), in_models: str = "auto"
) -> TrainingContext:
    """A context with few features, so that a training takes a second."""
    workspace, settings = Workspace(folder), Settings(profiles={"in_models": in_models})
    ingest(workspace, FileSource(config), settings, now=datetime(2025, 1, 1))
    lake = Lake(workspace)
    builder = Builder(lake, [one for one in FEATURES if one.name in FEW], allow_undated=allow_undated)
    return TrainingContext(workspace, lake.default_as_of, settings, lambda line: None, _builder=builder)


def auc(report: EvalReport) -> float:
    return report.metrics["auc"].value


def of_attributes(report: EvalReport) -> list[str]:
    """The notes about profile attributes, without those about the choice of the model and its calibration."""
    return [note for note in report.notes if "attribute" in note]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> EvalReport:
    """Churn without the profile: 500 customers with noisy rhythms."""
    return JOBS["churn"].run(context_of(tmp_path_factory.mktemp("without"), CASE / "without.yaml")).report


def test_a_profile_of_today_does_not_join_a_past_moment(tmp_path: Path, honest: EvalReport) -> None:
    context = context_of(tmp_path, CASE / "sources.yaml")
    trained = JOBS["churn"].run(context)
    assert 0.55 < auc(honest) < 0.8
    assert auc(trained.report) == pytest.approx(auc(honest), abs=1e-9)
    assert trained.bundle.spec is not None
    assert "profile_member_tier" not in trained.bundle.spec.names
    (note,) = of_attributes(trained.report)
    assert "member_tier" in note
    assert "allow_undated: [member_tier]" in note
    assert of_attributes(honest) == []
    # what is scored today has the profile of today
    assert "profile_member_tier" in context.profile(context.as_of).spec.names


def test_a_profile_of_today_that_is_allowed_is_named_as_too_good(tmp_path: Path, honest: EvalReport) -> None:
    trained = JOBS["churn"].run(context_of(tmp_path, CASE / "sources.yaml", ("member_tier",), "always"))
    assert auc(trained.report) > auc(honest) + 0.1  # the trees that read it are one of several members of a mean
    (note,) = of_attributes(trained.report)
    assert "member_tier alone predicts as well as the model" in note


def test_an_attribute_with_dates_is_learnt_from(tmp_path: Path) -> None:
    rows = [
        f"{line.split(',')[0]},{'gold' if number % 2 else 'silver'},2024-0{month}-01"
        for number, line in enumerate((CASE / "crm.csv").read_text().splitlines()[1:])
        for month in (1, 4)
    ]
    (tmp_path / "crm.csv").write_text("\n".join(["id,tier,since", *rows]) + "\n")
    (tmp_path / "orders.csv").write_text((CASE / "orders.csv").read_text())
    config = tmp_path / "sources.yaml"
    text = (CASE / "sources.yaml").read_text()
    config.write_text(text.replace("member_tier: tier", "member_tier: tier, valid_from: since"))
    context = context_of(tmp_path / "workspace", config, in_models="always")
    trained = JOBS["churn"].run(context)
    assert trained.bundle.spec is not None
    assert "profile_member_tier" in trained.bundle.spec.names
    assert of_attributes(trained.report) == []
    assert unknown_attributes(context.builder, datetime(2023, 12, 1)) == ("member_tier",)


def test_models_of_all_data_do_not_learn_from_what_the_evaluation_did_not_have(tmp_path: Path) -> None:
    context = context_of(tmp_path, CASE / "sources.yaml")
    past = context.as_of - timedelta(days=28)
    sets = [
        context.training_set(context.as_of, min_item_customers=1, evaluated_at=moment).user_features
        for moment in (past, None)
    ]
    names = [one.spec.names for one in sets if one is not None]
    assert set(names[1]) - set(names[0]) == {"profile_member_tier"}
    assert all(name.startswith("profile_") for name in names[1])  # recommenders read attributes and no other features


# ---- an attribute that alone suffices --------------------------------------------------------------------------------

SPEC = FeatureSpec(
    (
        Feature("orders_28d", "orders", "count", window_days=28, description="d"),
        Feature("profile_tier", "profiles", "attribute", "tier", default="", description="d"),
        Feature("profile_points", "profiles", "attribute", "points", description="d"),
    ),
    ((), ("gold", "silver"), ()),
)


def customers(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and features: orders and points tell a little, the tier nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    X = np.column_stack([y + rng.normal(0, 1, n), rng.integers(-1, 2, n), y + rng.normal(0, 4, n)])
    return y.astype(np.int64), X.astype(np.float32)


def test_an_attribute_within_noise_of_the_model_is_named() -> None:
    (y, X), (test_y, test_X) = customers(1), customers(2)
    model = test_X[:, 0].astype(np.float64)  # the orders: AUC about .76
    assert sufficient_for_labels(coded_attributes(SPEC, X, test_X), y, test_y, model) == ()
    for column, name in ((1, "tier"), (2, "points")):
        told, test_told = X.copy(), test_X.copy()
        told[:, column] = y + (np.random.default_rng(3).random(len(y)) if name == "points" else 0)
        test_told[:, column] = test_y + (np.random.default_rng(4).random(len(y)) if name == "points" else 0)
        (note,) = sufficient_for_labels(coded_attributes(SPEC, told, test_told), y, test_y, model)
        assert f"attribute {name} alone" in note


def test_a_model_that_knows_nothing_makes_no_attribute_suspicious() -> None:
    (y, X), (test_y, test_X) = customers(1), customers(2)
    noise = np.random.default_rng(5)
    X[:, 1:], test_X[:, 1:] = noise.integers(0, 2, (400, 2)), noise.integers(0, 2, (400, 2))
    assert sufficient_for_labels(coded_attributes(SPEC, X, test_X), y, test_y, noise.random(400)) == ()


def test_classes_are_compared_by_log_loss() -> None:
    (y, X), (test_y, test_X) = customers(1), customers(2)
    losses = np.full(len(test_y), 0.45)
    assert sufficient_for_classes(coded_attributes(SPEC, X, test_X), y, test_y, losses, 2) == ()
    X[:, 1], test_X[:, 1] = y, test_y
    (note,) = sufficient_for_classes(coded_attributes(SPEC, X, test_X), y, test_y, losses, 2)
    assert "attribute tier alone" in note
    unknown_class = np.full(len(test_y), -1)
    assert sufficient_for_classes(coded_attributes(SPEC, X, test_X), y, unknown_class, losses, 2) == ()


def test_rankings_are_compared_by_average_precision() -> None:
    def metric(value: float) -> Metric:
        return Metric(value, value - 0.1, value + 0.1, 18)

    assert sufficient_for_ranking("tier", metric(0.5), metric(0.45), metric(0.05), metric(0.3))
    assert not sufficient_for_ranking("tier", metric(0.5), metric(0.2), metric(0.3), metric(0.3))  # behind the model
    assert not sufficient_for_ranking("tier", metric(0.1), metric(0.1), metric(0.0), metric(0.05))  # as good as chance


def test_a_value_of_few_customers_is_drawn_to_the_mean() -> None:
    rates = smoothed_rates(np.array([1] * 95 + [2] * 5), np.array([[1.0]] * 50 + [[0.0]] * 45 + [[1.0]] * 5))[:, 0]
    assert rates[0] == rates[3] == 0.55  # values that did not occur
    assert rates[1] == pytest.approx((50 + 5 * 0.55) / 100)
    assert rates[2] == pytest.approx((5 + 5 * 0.55) / 10)


def test_nothing_left_out_is_no_note() -> None:
    assert left_out_notes((), datetime(2024, 1, 1)) == ()
