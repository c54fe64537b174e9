"""The gate compares a new model with the champion, keeps to its bounds, and never replaces the champion silently."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from features.profiles.tags import published
from models.bundle import ModelBundle, load_evaluated
from qianmian.errors import GateRefused, NotFound
from qianmian.model_settings import GateSettings
from qianmian.workspace import Workspace
from serving.model_registry import compare as compare_versions
from serving.model_registry import history, show, version_of
from training import promotion
from training.bounds import broken_bounds
from training.comparison import LossComparison, Verdict, columns_for, compare, judge
from training.decision import ProductionVersion, TrainingCall, reasons_to_wait, version_in_production, with_test_start
from training.report import Metric
from training.run import gate_and_register

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NOW = datetime(2025, 3, 1, tzinfo=UTC)
START = datetime(2025, 1, 1)


@pytest.fixture(scope="module")
def made():
    """Makes evaluated churn models of 200 customers, whose test period begins at `START` and ends 28 days later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
        from measurement_kills import evaluated_model

        def make(worse_by=0.0, as_of=START + timedelta(days=28), **facts):
            model = evaluated_model(NOW, worse_by)
            bundle = replace(model.bundle, as_of=as_of, facts={**model.bundle.facts, **facts})
            comparison = replace(model.comparison, start=as_of - timedelta(days=28))
            return with_test_start(replace(model, bundle=bundle, comparison=comparison))

        yield make


# ---- judging two losses ----------------------------------------------------------------------------------------------


def losses(shift, n=400, seed=0):
    """Losses of the new model and of the champion, whose mean difference is `shift`."""
    rng = np.random.default_rng(seed)
    theirs = rng.uniform(0.2, 0.4, n)
    return theirs + shift + rng.normal(0, 0.05, n), theirs


def verdict(own, theirs, **slices):
    return judge(
        LossComparison("brier", START, own, lambda bundle: theirs, slices), theirs, "champion 1", "in production"
    )


def test_a_model_that_is_behind_beyond_noise_is_refused_and_told_by_how_much():
    found = verdict(*losses(0.02))
    assert found.failed
    assert "brier minus that of champion 1 (in production) is 0.0198 [0.0152, 0.0247]" in found.failed[0]
    difference = found.differences["brier:champion 1"]
    assert difference.low > 0
    assert difference.n == 400


@pytest.mark.parametrize("shift", [-0.02, 0.0])
def test_a_model_that_is_ahead_or_within_noise_passes(shift):
    found = verdict(*losses(shift))
    assert not found.failed
    assert "not behind it beyond noise" in found.passed[0]


def test_a_slice_that_is_worse_beyond_noise_refuses_a_model_that_is_better_as_a_whole():
    own, theirs = losses(-0.05)
    newcomers = np.arange(400) < 60
    own = np.where(newcomers, theirs + 0.1, own)
    found = verdict(own, theirs, newcomers=newcomers, others=~newcomers)
    assert found.differences["brier:champion 1"].high < 0
    assert len(found.failed) == 1
    assert "brier of newcomers (60 customers)" in found.failed[0]


def test_few_customers_hold_nothing_back():
    own, theirs = losses(-0.05)
    few = np.arange(400) < 30
    assert not verdict(np.where(few, theirs + 0.1, own), theirs, few=few).failed


def test_many_slices_of_equal_models_are_rarely_refused():
    """The level is that of all slices together: without it, one in four of these would be refused."""
    refused = 0
    for seed in range(20):
        own, theirs = losses(0.0, n=600, seed=seed)
        slices = {f"slice {number}": np.arange(600) % 6 == number for number in range(6)}
        refused += bool(verdict(own, theirs, **slices).failed)
    assert refused <= 3


def test_a_champion_that_says_too_little_leaves_the_baselines_to_decide():
    own, theirs = losses(0.5)
    found = verdict(own, np.where(np.arange(400) < 49, theirs, np.nan))
    assert not found.failed
    assert "because it predicts 49 of the 400 customers of the test period, and 50 are needed" in found.passed[0]


# ---- which models are compared ---------------------------------------------------------------------------------------


def saved(model, folder):
    model.bundle.save(folder)
    return folder


def against(new, folder) -> Verdict:
    return compare(new.comparison, new.bundle, "1", folder)


def test_without_common_days_the_champion_of_production_is_compared(made, tmp_path):
    folder = saved(made(as_of=START), tmp_path / "champion")
    (text,) = against(made(), folder).passed
    assert "champion 1 (in production) is 0.0000" in text


def test_with_common_days_the_evaluated_twin_of_the_champion_is_compared(made, tmp_path):
    folder = saved(made(), tmp_path / "champion")
    (text,) = against(made(), folder).passed
    assert "champion 1 (as it was evaluated) is 0.0000" in text
    assert against(made(worse_by=0.3), folder).failed


def test_a_twin_that_has_learnt_from_the_test_period_is_not_compared(made, tmp_path):
    folder = saved(made(), tmp_path / "champion")
    (text,) = against(made(as_of=START + timedelta(days=27)), folder).passed
    assert "its evaluated twin has learnt from days after 2024-12-31, up to 2025-01-01" in text


def without_evaluated(model):
    return replace(model, bundle=replace(model.bundle, evaluated=None))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_evaluated, "its bundle has no evaluated twin"),
        (
            lambda model: replace(
                model, bundle=replace(model.bundle, facts={**model.bundle.facts, "horizon_days": 14})
            ),
            "horizon_days 14, not 28",
        ),
    ],
)
def test_a_champion_that_cannot_be_compared_is_said_to_be_so(made, tmp_path, change, why):
    found = against(made(worse_by=0.3), saved(change(made()), tmp_path / "champion"))
    assert not found.failed
    assert why in found.passed[0]
    assert "the baselines decide" in found.passed[0]


def test_a_champion_of_another_format_cannot_be_compared(made, tmp_path):
    folder = saved(made(), tmp_path / "champion")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    (text,) = against(made(), folder).passed
    assert "the model has another format" in text


def test_a_feature_that_has_vanished_is_named(made, tmp_path):
    model = made()

    def reads(bundle):
        return np.zeros(len(columns_for(bundle, bundle.spec.names, ["orders_28d"])))

    new = replace(model, comparison=replace(model.comparison, losses=reads))
    (text,) = against(new, saved(made(), tmp_path / "champion")).passed
    assert "1 of the features that it reads are no longer computed" in text
    assert "days_since_last_order" in text


def test_a_job_without_rows_says_why(made, tmp_path):
    new = made()
    found = compare("clusters have no outcome", new.bundle, "1", saved(new, tmp_path / "champion"))
    assert found == Verdict.not_compared("clusters have no outcome")


def test_the_evaluated_twin_is_kept_in_the_bundle_and_holds_no_customers(made, tmp_path):
    folder = saved(made(), tmp_path / "with")
    assert load_evaluated(folder) is not None
    assert ModelBundle.load(folder).evaluated is None
    assert load_evaluated(saved(without_evaluated(made()), tmp_path / "without")) is None

    class OfUsers:
        user_arrays = ("rows",)

    with pytest.raises(ValueError, match="arrays with users"):
        replace(made().bundle, evaluated=OfUsers()).save(tmp_path / "users")


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_model_within_its_bounds_passes(made):
    assert broken_bounds(made(), GateSettings(), ["days_since_last_order", "orders_28d"]) == ()


@pytest.mark.parametrize(
    ("settings", "computed", "told"),
    [
        ({"max_size_mb": 0.0001}, None, "size: the model has"),
        ({"max_answer_seconds": 1e-9}, None, "latency: 5 rows take"),
        ({}, ["orders_28d"], "features: days_since_last_order: not among those that a server computes"),
    ],
)
def test_a_bound_that_is_broken_is_named_with_its_value(made, settings, computed, told):
    (text,) = broken_bounds(made(), GateSettings(**settings), computed)
    assert text.startswith(told)


@pytest.mark.parametrize(("low", "is_refused"), [(0.15, True), (0.05, False)])
def test_a_calibration_error_must_be_above_the_bound_beyond_noise(made, low, is_refused):
    model = made()
    metrics = {**model.report.metrics, "ece": Metric(0.2, low, 0.3, 100)}
    found = broken_bounds(replace(model, report=replace(model.report, metrics=metrics)), GateSettings(), None)
    assert bool(found) == is_refused
    if is_refused:
        assert "calibration: ece is 0.2000 [0.1500, 0.3000]" in found[0]


# ---- silent replacements ---------------------------------------------------------------------------------------------


def champion(model, **tags):
    bundle = model.bundle
    return ProductionVersion("3", None, tags, {"as_of": bundle.as_of.isoformat(), "facts": dict(bundle.facts)})


@pytest.mark.parametrize(
    ("new", "call", "told"),
    [
        ({}, TrainingCall(), ()),
        ({"as_of": START}, TrainingCall(), ("its data end at 2025-01-01, before those of the champion (version 3",)),
        ({"horizon_days": 14}, TrainingCall(), ("horizon_days is 14, and that of the champion (version 3) is 28",)),
        ({"horizon_days": 14}, TrainingCall(fits_horizon=True), ()),
        ({"horizon_days": 14}, TrainingCall(fits_horizon=True, horizon_named=True), ("horizon_days is 14",)),
        ({"horizon_days": 14, "as_of": START}, TrainingCall(promote=True), ()),
        ({}, TrainingCall(promote=False), ("--no-promote was given",)),
    ],
)
def test_what_answers_another_question_or_knows_less_waits(made, new, call, told):
    found = reasons_to_wait(made(**new), champion(made()), call)
    assert len(found) == len(told)
    assert all(text.startswith(beginning) for text, beginning in zip(found, told, strict=True))


def test_a_horizon_that_somebody_named_is_not_replaced_by_another(made):
    call = TrainingCall(fits_horizon=True)
    assert reasons_to_wait(made(horizon_days=14), champion(made(), horizon_named="true"), call)


def test_a_champion_that_cannot_be_read_is_known_by_its_tags(made):
    """Artifacts that are out of reach for a while are no reason to answer another question."""
    tags = {"as_of": f"{made().bundle.as_of:%Y-%m-%d}", "horizon_days": "28"}
    unreadable = ProductionVersion("3", None, tags, {}, "the disk is away")
    assert reasons_to_wait(made(), unreadable, TrainingCall()) == ()
    assert "horizon_days is 14, and that of the champion (version 3) is 28" in reasons_to_wait(
        made(horizon_days=14), unreadable, TrainingCall()
    )
    assert reasons_to_wait(made(as_of=START), unreadable, TrainingCall())


@pytest.mark.parametrize("fact", ["label", "outcome"])
def test_another_label_or_outcome_waits(made, fact):
    def about(value):
        model = made()
        return replace(model, bundle=replace(model.bundle, facts={**model.bundle.facts, fact: value}))

    call = TrainingCall(fits_horizon=True)
    assert reasons_to_wait(about("bought"), champion(about("bought")), call) == ()
    (text,) = reasons_to_wait(about("opened"), champion(about("bought")), call)
    assert text == f"{fact} is opened, and that of the champion (version 3) is bought"


def test_the_first_model_does_not_wait(made):
    assert reasons_to_wait(made(as_of=START), None, TrainingCall()) == ()


# ---- the whole way ---------------------------------------------------------------------------------------------------


def test_the_way_of_versions_through_the_registry(made, tmp_path, qianmian_models):
    workspace = Workspace(tmp_path / "shop").create()
    times = iter(NOW + timedelta(minutes=minute) for minute in range(20))

    def trained(model, **call):
        return gate_and_register(
            workspace,
            "churn",
            model,
            lambda: next(times),
            lambda line: None,
            "a digest",
            settings=GateSettings(),
            call=TrainingCall(**call),
        )

    def tag_version():
        return published.read(workspace, "churn_risk").model_version

    with version_in_production(workspace, "churn") as none:
        assert none is None
    assert not workspace.mlflow_db.exists()
    first = trained(made())
    assert (first.status, first.version) == ("registered", 1)
    assert "there is no champion: the baselines decide" in first.reason
    refused = trained(replace(made(worse_by=0.3), rules=()))
    assert (refused.status, refused.version, version_of(workspace, "churn")) == ("refused", 2, "1")
    assert "minus that of champion 1 (as it was evaluated) is" in refused.reason
    assert show(workspace, "churn")["versions"][0]["gate"] == "refused"
    waiting = trained(made(horizon_days=14), horizon_named=True)
    assert (waiting.status, waiting.version, tag_version()) == ("challenger", 3, "1")
    assert version_of(workspace, "churn", "challenger") == "3"
    with pytest.raises(GateRefused, match="version 2 of qianmian-churn") as caught:
        promotion.promote(workspace, "churn", 2, next(times))
    assert "--despite-gate" in caught.value.hint
    pair = compare_versions(workspace, "churn")
    assert [version["version"] for version in pair] == ["1", "3"]
    assert [version["horizon_days"] for version in pair] == ["28", "14"]
    with pytest.raises(NotFound, match="no such version"):
        compare_versions(workspace, "churn", "1", "9")
    printed = qianmian_models("compare", "churn", workspace=workspace)
    assert "version 1 (champion)" in printed
    assert "horizon_days is 14" in printed
    assert "gate: refused" in qianmian_models("show", "churn", workspace=workspace)
    assert (
        promotion.promote(workspace, "churn", 3, next(times), compared_with="2") is None
    )  # a training at the same time
    assert version_of(workspace, "churn") == "1"
    qianmian_models("promote", "churn", "3", "--reason", "fortnights", workspace=workspace)
    assert (version_of(workspace, "churn"), tag_version()) == ("3", "3")
    qianmian_models("rollback", "churn", workspace=workspace)
    assert (version_of(workspace, "churn"), tag_version()) == ("1", "1")
    events = history(workspace, "churn")
    assert [(event.action, event.version) for event in events] == [
        ("register", "1"),
        ("promote", "3"),
        ("rollback", "1"),
    ]
    assert events[1].reason == "fortnights"
    assert {event.data_digest for event in events} == {"a digest"}
    assert "2025-01-29" in qianmian_models("history", "churn", workspace=workspace)


@pytest.fixture
def qianmian_models(capsys):
    """Runs `qianmian models` in this process, and returns what it prints."""
    from cli.main import run

    def models(*arguments, workspace):
        assert run(["models", *arguments, "--workspace", str(workspace.root)]) == 0
        return capsys.readouterr().out

    return models
