"""All jobs on a synthetic shop, with a real MLflow store (SQLite) in a folder whose name has a space."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.definitions import FEATURES
from features.definitions.pack_features import declared_features
from features.event_log.base import LogPosition
from features.profiles import snapshot
from features.profiles.lifecycle import stages_of_build
from features.profiles.purchase_process.fitting import process_of
from features.profiles.tags import published
from models.bundle import ModelBundle
from models.persist import load_arrays
from qianmian.errors import DataError, QianmianError, UsageError, WorkspaceError
from qianmian.schema import RISK_BANDS
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.conftest import write_lake
from training import JOBS, promotion, train
from training.decision import TrainingCall, judged, with_test_start
from training.jobs.base import TrainingContext

NOW = datetime(2025, 1, 1, 12, 0)
CLOCK = partial(datetime, 2025, 1, 1, 12, 0)
NO_SIGNAL = {  # of the shop, and why
    "contact": "no usable signal",
    "demand": "the history is too short",
    "clusters": "the customers have no groups",
    "uplift": "no campaign is declared",
}
ALL = [job for job in JOBS if job not in NO_SIGNAL]
END = datetime(2024, 5, 30)  # 150 days from 2024-01-01
PLOTS = {
    "recommend": {"recall_by_k.png"},
    "churn": {"beeswarm.png", "calibration.png", "gains.png", "importance.png", "months.png"},
    "left": {"beeswarm.png", "calibration.png", "gains.png", "importance.png"},
    "lifecycle": {"transitions.png"},
    "lookalike": {"reach.png"},
    "content": {"recall_by_k.png"},
    "value": {"orders.png", "money.png"},
    "propensity": {"beeswarm_category_grocery.png", "calibration_category_grocery.png", "gains_category_grocery.png"},
}
HEADLINE = {
    "recommend": "ndcg_at_10",
    "churn": "auc",
    "left": "auc",
    "lifecycle": "log_loss",
    "lookalike": "average_precision",
    "content": "ndcg_at_10",
    "value": "mae_money",
    "propensity": "category_grocery auc",
}


@pytest.fixture
def store(trained, monkeypatch):
    """Point MLflow to the trained workspace for the duration of a test."""
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.workspace.tracking_uri)
    mlflow.set_tracking_uri(trained.workspace.tracking_uri)
    mlflow.set_registry_uri(trained.workspace.tracking_uri)
    yield trained.workspace
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


@pytest.mark.parametrize("job", ALL)
def test_registered_with_a_report(trained, job):
    result = trained.results[job]
    assert (result.status, result.version) == ("registered", 1), result.reason
    assert result.report.passed
    assert "beats the baseline" in result.reason or "is not worse than the baseline" in result.reason
    assert result.seconds > 0
    for metric in result.report.metrics.values():
        assert metric.low <= metric.value <= metric.high
        assert metric.n > 0
    assert result.report.baselines
    json.dumps(result.as_dict())
    assert any(line.startswith(f"{job}: registered in") for line in trained.lines)


@pytest.mark.parametrize("job", NO_SIGNAL)
def test_what_the_shop_does_not_show_is_skipped_with_the_reason(trained, job):
    assert trained.results[job].status == "skipped"
    assert NO_SIGNAL[job] in trained.results[job].reason


@pytest.mark.parametrize("job", ALL)
def test_the_run_logs_the_whole_report(trained, client, job):
    run = client.get_run(trained.results[job].run_id)
    assert run.info.status == "FINISHED"
    parameters, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    digest = Lake(trained.workspace).digest
    assert parameters["horizon_days"] == ("90" if job == "value" else "28")
    assert parameters["seed"] == "0"
    assert parameters["data_digest"] == tags["qianmian.data_digest"] == digest
    assert parameters["as_of"] == END.isoformat()
    assert len(parameters["spec_hash"]) == 16
    assert tags["qianmian.job"] == job
    assert tags["qianmian.gate"] == "passed"
    headline = HEADLINE[job]
    assert metrics[f"{headline}.low"] <= metrics[headline] <= metrics[f"{headline}.high"]
    assert any(name.startswith("baseline/") for name in metrics)
    assert any(name.startswith("difference/") and name.endswith(".low") for name in metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    assert {file.path for file in client.list_artifacts(run.info.run_id, "plots")} == {
        f"plots/{name}" for name in PLOTS[job]
    }
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/report.json")
    assert report == json.loads(json.dumps(trained.results[job].report.as_dict()))
    assert str(trained.workspace.artifact_root.as_uri()) in run.info.artifact_uri


def test_churn_publishes_the_risk_of_active_customers(trained):
    found = published.read(trained.workspace, "churn_risk")
    assert (found.as_of, found.model_name, found.model_version) == (END, "qianmian-churn", "1")
    profiles = snapshot.load_current(trained.workspace)
    asked = {
        one_id
        for one_id, days in zip(profiles.one_ids, profiles.tags["days_since_last_order"], strict=True)
        if days is not None and days <= 2 * 28
    }
    assert set(found.values) == asked
    assert set(found.values.values()) <= set(RISK_BANDS)
    assert dict(zip(profiles.one_ids, profiles.tags["churn_risk"], strict=True)) == {
        one_id: found.values.get(one_id) for one_id in profiles.one_ids
    }


@pytest.mark.parametrize("job", ALL)
def test_the_registry_has_a_champion(trained, client, job):
    name = f"qianmian-{job}"
    model = client.get_registered_model(name)
    twice = job == "content"
    assert model.aliases == ({"champion": 2, "previous": 1} if twice else {"champion": 1})
    version = client.get_model_version(name, "1")
    assert version.run_id == trained.results[job].run_id
    assert version.tags["data_digest"] == Lake(trained.workspace).digest
    assert (version.tags["gate"], version.tags["decision"]) == ("passed", "accepted")
    events = [json.loads(value) for tag, value in sorted(model.tags.items()) if tag.startswith("qianmian.event.")]
    changes = [(event["action"], event["version"], event["previous"]) for event in events]
    assert changes == [("register", 1, None), *([("register", 2, 1)] if twice else [])]
    assert events[0]["reason"] == trained.results[job].reason
    assert events[0]["data_digest"] == Lake(trained.workspace).digest


def test_the_same_data_and_seed_give_the_same_model(trained, client, store):
    """The model of `content`; test_no_row_at_or_after_as_of_is_read trains those of the other jobs again."""
    first, second = trained.results["content"], trained.again
    assert (first.version, second.version) == (1, 2)
    # the reasons of the second also say why it is not compared with the first
    assert {**first.report.as_dict(), "reasons": []} == {**second.report.as_dict(), "reasons": []}
    folders = [
        Path(mlflow.artifacts.download_artifacts(f"models:/qianmian-content/{n}")) / "artifacts" / "bundle"
        for n in (1, 2)
    ]
    bundles = [ModelBundle.load(folder) for folder in folders]
    same(*bundles)


@pytest.fixture(scope="module")
def profiles(trained, settings):
    return Builder(Lake(trained.workspace), declared_features(settings)).build(END)


@pytest.mark.parametrize("job", ALL)
def test_pyfunc_predicts_the_same_as_the_bundle(trained, store, profiles, bundle_folder, job):
    bundle = ModelBundle.load(bundle_folder(store, f"qianmian-{job}"))
    assert bundle.facts["evaluation"] == json.loads(json.dumps(trained.results[job].report.summary()))
    assert bundle.as_of == END
    assert bundle.facts["job"] == job
    assert bundle.facts["data_digest"] == Lake(store).digest
    model = mlflow.pyfunc.load_model(f"models:/qianmian-{job}@champion")
    signature = model.metadata.signature
    assert signature.inputs.input_names()
    assert signature.outputs.input_names()
    by_id = job in ("recommend", "lookalike", "content")
    frame = pd.DataFrame({"one_id": bundle.user_ids[:30]}) if by_id else profiles.table.slice(0, 40).to_pandas()
    if job == "recommend":
        got = model.predict(frame[["one_id"]], params={"num_results": 4, "exclude_purchased": True})
        ranked = bundle.model.scene("home").recommend(np.arange(30), 4, exclude_purchased=True)
        assert got["item_id"].tolist() == bundle.item_ids[ranked.ids.ravel()].tolist()
        assert got["rank"].tolist() == [1, 2, 3, 4] * 30
        stranger = model.predict(pd.DataFrame({"one_id": [bundle.user_ids[0], "nobody"]}))
        assert stranger["source"].tolist()[10:] == ["popular"] * 10
        return
    if job == "lookalike":
        got = model.predict(frame, params={"size": 15})
        rows, scores = bundle.model.expand(np.arange(30), 15)
        assert got["one_id"].tolist() == bundle.user_ids[rows].tolist()
        np.testing.assert_array_equal(got["score"], scores)
        return
    if job == "content":
        got = model.predict(frame, params={"num_results": 3})
        ranked = bundle.model.scene("content").recommend(np.arange(30), 3)
        assert got["item_id"].tolist() == bundle.item_ids[ranked.ids.ravel()].tolist()
        return
    X = profiles.matrix(bundle.spec).values[:40]
    if job == "churn":
        got = model.predict(frame[["one_id", *bundle.spec.names]])
        np.testing.assert_array_equal(got["churn_probability"], bundle.model.predict_proba(X)[:, 1])
    elif job == "value":
        got = model.predict(frame[["one_id", *bundle.spec.names]])
        np.testing.assert_array_equal(got["predicted_number_of_orders"], bundle.model.predict(X).orders)
        np.testing.assert_array_equal(got["predicted_clv_high"], bundle.model.predict(X).money_high)
    elif job == "left":
        got, days = model.predict(frame[["one_id", *bundle.spec.names]]), bundle.model.window_days(X)
        assert got["left_days"].tolist() == days.tolist()
        expected = np.where(days <= bundle.facts["longest_days"], bundle.model.predict_proba(X)[:, 1], np.nan)
        np.testing.assert_allclose(got["left_probability"], expected)
    elif job == "propensity":
        got = model.predict(frame[["one_id", *bundle.spec.names]])
        np.testing.assert_array_equal(got["category=grocery"], bundle.model.predict_proba(X)[:, 0])
    else:
        process = process_of(Builder(Lake(store), FEATURES).views(END), profiles.table)
        today = stages_of_build(process, profiles.table)[:40]
        got = model.predict(frame[["one_id", *bundle.spec.names]].assign(lifecycle_stage=today))
        np.testing.assert_array_equal(
            got[bundle.model.classes_.tolist()].to_numpy(), bundle.model.predict_proba(X, today)
        )


def test_files_for_serving_are_published_with_the_models(trained):
    load_current = snapshot.load_current(trained.workspace)
    assert load_current.as_of == END
    assert load_current.data_digest == Lake(trained.workspace).digest


def test_the_tracking_uri_is_reset_after_training(trained):
    """`mlflow.set_tracking_uri` changes the environment, which the next workspace must not inherit."""
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert Workspace(trained.workspace.root.parent / "elsewhere").tracking_uri.endswith("elsewhere/mlflow.db")


@pytest.mark.slow
def test_shuffled_labels_are_refused_by_every_gate(trained, client, settings):
    results = train(trained.workspace, ALL, clock=CLOCK, settings=settings, shuffle_labels=True)
    for result in results:
        assert result.status == "refused", result.job
        assert "does not beat the baseline" in result.reason
        assert not result.report.passed
        name = f"qianmian-{result.job}"
        versions = 2 if result.job == "content" else 1
        assert client.get_registered_model(name).aliases["champion"] == versions
        assert client.get_registered_model(name).aliases["challenger"] == result.version == versions + 1
        assert client.get_model_version(name, str(result.version)).tags["gate"] == "refused"
        assert client.get_run(result.run_id).data.tags["qianmian.gate"] == "refused"
        assert result.report.metrics.keys() == trained.results[result.job].report.metrics.keys()


def test_promotion_and_rollback(trained, client, store):
    """Use a model of another name, so that the champions of the other tests are unchanged."""
    workspace, run_id = trained.workspace, trained.results["churn"].run_id
    source = client.get_model_version("qianmian-churn", "1").source
    times = [NOW + timedelta(minutes=minute) for minute in range(9)]

    def state():
        model = client.get_registered_model("qianmian-made-up")
        return {alias: int(version) for alias, version in model.aliases.items()}

    with pytest.raises(UsageError, match="no model is registered") as caught:
        promotion.promote(workspace, "made-up", 1, NOW)
    assert "qianmian-churn" in str(caught.value)
    assert promotion.register(workspace, "made-up", run_id, source, {"a": "tag"}) == 1
    assert state() == {}  # a registration changes nothing that is served
    promotion.promote(workspace, "made-up", 1, times[0], action="register")
    with pytest.raises(UsageError, match="no previous version") as caught:
        promotion.rollback(workspace, "made-up", times[1])
    assert caught.value.hint
    assert state() == {"champion": 1}
    promotion.register(workspace, "made-up", run_id, source, {})
    promotion.challenge(workspace, "made-up", 2)
    assert state() == {"champion": 1, "challenger": 2}
    promotion.promote(workspace, "made-up", 2, times[1], action="register")
    assert state() == {"champion": 2, "previous": 1}
    with pytest.raises(UsageError, match="has no version 3") as caught:
        promotion.promote(workspace, "made-up", 3, times[2])
    assert "[1, 2]" in str(caught.value)
    assert state() == {"champion": 2, "previous": 1}
    promotion.rollback(workspace, "made-up", times[2])
    assert state() == {"champion": 1, "previous": 2}
    promotion.promote(workspace, "made-up", 2, times[3])
    assert state() == {"champion": 2, "previous": 1}
    promotion.promote(workspace, "made-up", 2, times[4])  # already promoted
    assert state() == {"champion": 2, "previous": 1}
    tags = client.get_registered_model("qianmian-made-up").tags
    events = [json.loads(value) for _, value in sorted(tags.items())]
    assert [(event["action"], event["version"], event["previous"]) for event in events] == [
        ("register", 1, None),
        ("register", 2, 1),
        ("rollback", 1, 2),
        ("promote", 2, 1),
        ("promote", 2, 1),
    ]


def test_the_tracking_uri_of_the_environment_is_used(shop, copy_workspace, settings, tmp_path, monkeypatch):
    """MLFLOW_TRACKING_URI is used, and the store of the workspace is not created."""
    workspace, uri = copy_workspace(shop), f"sqlite:///{tmp_path / 'the store.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = train(workspace, ["content"], clock=CLOCK, settings=settings)[0]
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
    assert not (workspace.root / "mlflow.db").exists()
    client = mlflow.tracking.MlflowClient(uri, uri)
    assert client.get_registered_model("qianmian-content").aliases == {"champion": 1}
    assert client.get_run(result.run_id).info.status == "FINISHED"


def test_without_items_recommend_is_skipped_and_says_why(small_shop, copy_workspace, settings):
    workspace = copy_workspace(
        small_shop,
        {
            # without clock times, so that orders tell no hours either
            "transactions": "SELECT * REPLACE (NULL::VARCHAR AS item_id, true AS date_only) FROM transactions",
            "events": "SELECT * FROM events WHERE false",
        },
    )
    results = {result.job: result for result in train(workspace, ["all"], clock=CLOCK, settings=settings)}
    assert list(results) == list(JOBS)
    assert {result.status for result in results.values()} == {"skipped"}
    assert "have an item_id" in results["recommend"].reason
    assert "item_id" in results["recommend"].reason
    assert "too few customers" in results["lookalike"].reason
    assert results["recommend"].version is results["recommend"].run_id is None
    assert snapshot.load_current(workspace).as_of == datetime(2024, 3, 31)  # the profiles exist nevertheless
    assert not (workspace.root / "mlflow.db").exists()
    with pytest.raises(DataError, match="have an item_id"):
        train(workspace, ["recommend"], clock=CLOCK, settings=settings)


def same(one, other):
    """Assert that two bundles contain the same model of the same users and items."""
    assert one.spec == other.spec
    assert one.config == other.config
    for name in ("user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, values in one.item_attributes.items():
        np.testing.assert_array_equal(values, other.item_attributes[name])
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one.model.save(Path(first) / "model")
        other.model.save(Path(second) / "model")
        files = sorted(path.relative_to(first) for path in Path(first).rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(second) for path in Path(second).rglob("*") if path.is_file())
        for file in files:
            if file.suffix == ".npz":
                arrays, others = load_arrays(Path(first) / file), load_arrays(Path(second) / file)
                assert arrays.keys() == others.keys()
                for name, array in arrays.items():
                    np.testing.assert_array_equal(array, others[name], err_msg=f"{file} {name}")
            else:
                assert (Path(first) / file).read_bytes() == (Path(second) / file).read_bytes(), file


# the last weeks repeated after the date of the training, partly with new customers and new items
FUTURE = {
    "transactions": """
        SELECT * REPLACE (
            ts + INTERVAL 40 DAY AS ts,
            'again' || order_id AS order_id,
            CASE WHEN hash(order_id) % 3 = 0 THEN 'new' || source_user_id ELSE source_user_id END AS source_user_id,
            CASE WHEN hash(item_id) % 5 = 0 THEN 'new' ELSE item_id END AS item_id,
            'kiosk' AS channel
        )
        FROM transactions WHERE ts >= TIMESTAMP '{start}'""",
    "events": """
        SELECT * REPLACE (
            ts + INTERVAL 40 DAY AS ts,
            'again' || event_id AS event_id,
            'coupon_redeem' AS event_type
        )
        FROM events WHERE ts >= TIMESTAMP '{start}'""",
    "touches": """
        SELECT * REPLACE (ts + INTERVAL 60 DAY AS ts, 'again' || touch_id AS touch_id)
        FROM touches WHERE ts >= TIMESTAMP '{start}' - INTERVAL 20 DAY""",
}


@pytest.mark.parametrize(
    "jobs",
    [("recommend", "lifecycle", "content"), pytest.param(("churn", "lookalike"), marks=pytest.mark.slow)],
    ids="-".join,
)
def test_no_row_at_or_after_as_of_is_read(trained, store, copy_workspace, settings, bundle_folder, jobs):
    """Training as of a past date, on a lake with forty more days, gives the same models as before these days."""
    start = END - timedelta(days=40)
    workspace = copy_workspace(
        trained.workspace,
        {name: f"SELECT * FROM {name} UNION ALL {query.format(start=start)}" for name, query in FUTURE.items()},
    )
    assert Lake(workspace).default_as_of > END + timedelta(days=35)
    context = TrainingContext(workspace, END, settings, lambda line: None)
    for job in jobs:
        outcome = with_test_start(JOBS[job].run(context))
        before = trained.results[job].report
        assert judged(outcome, None, settings.gate, TrainingCall()).as_dict() == before.as_dict(), job
        same(ModelBundle.load(bundle_folder(trained.workspace, f"qianmian-{job}")), outcome.bundle)


def test_a_model_says_what_its_lake_had_of_the_event_log(trained, settings):
    known = TrainingContext(trained.workspace, END, settings, lambda line: None, _event_log=LogPosition("a log", 7))
    assert known.facts("recommend")["event_log"] == {"log_id": "a log", "seq": 7}
    assert "event_log" not in TrainingContext(trained.workspace, END, settings, lambda line: None).facts("recommend")


@pytest.mark.parametrize(
    ("jobs", "options", "error", "match"),
    [
        (["nonsense"], {}, UsageError, "unknown job"),
        ([], {}, UsageError, "name a job"),
        (["churn"], {"as_of": datetime(2026, 1, 1)}, DataError, "more than a year after"),
        (["churn"], {"as_of": datetime(2023, 1, 1)}, DataError, ""),
        (["churn"], {"as_of": datetime(2024, 1, 20)}, DataError, "too short"),
        (["lifecycle"], {"as_of": datetime(2024, 1, 20)}, DataError, "too short"),
        (["recommend"], {"as_of": datetime(2024, 1, 3)}, DataError, ""),
    ],
)
def test_unsupported_training_is_rejected(shop, settings, jobs, options, error, match):
    with pytest.raises(error, match=match) as caught:
        train(shop, jobs, clock=CLOCK, settings=settings, **options)
    assert isinstance(caught.value, QianmianError)
    assert not (shop.root / "mlflow.db").exists()


def test_a_missing_workspace_is_rejected(tmp_path):
    with pytest.raises(WorkspaceError, match="workspace does not exist"):
        train(Workspace(tmp_path / "nothing"), ["all"], settings=Settings(), clock=CLOCK)
    assert not (tmp_path / "nothing").exists()


# ---- settings and published profiles ---------------------------------------------------------------------------------


def purchases(*days):
    return {
        "transactions": [
            {
                "source": "app",
                "source_user_id": "1",
                "order_id": f"o{day}",
                "line_no": 1,
                "ts": datetime(2024, 1, 1) + timedelta(days=day),
                "item_id": "i",
                "quantity": 1.0,
                "amount": 5.0,
                "status": "paid",
            }
            for day in days
        ]
    }


def test_training_uses_the_settings_it_is_given_and_not_the_file(tmp_path):
    lake = write_lake(tmp_path / "workspace", purchases(9))
    lake.workspace.config_file.write_text("lifecycle: {new_days: 5}\npack: beauty\n", encoding="utf-8")
    given = Settings.model_validate({"lifecycle": {"new_days": 60}})
    results = train(lake.workspace, ["all"], settings=given, clock=CLOCK, as_of=datetime(2024, 1, 30))
    assert {result.status for result in results} == {"skipped"}
    made = snapshot.load_current(lake.workspace)
    assert made.tags["lifecycle_stage"] == ["new"]
    assert "replenishment_due" not in made.tags
    assert not [name for name in made.spec.names if name.startswith("serum_")]


def test_training_at_an_earlier_moment_does_not_move_the_published_profiles_back(tmp_path):
    lake, lines = write_lake(tmp_path / "workspace", purchases(1, 9, 20)), []
    run = partial(train, lake.workspace, ["all"], settings=Settings(), clock=CLOCK, progress=lines.append)
    late, early = datetime(2024, 1, 30), datetime(2024, 1, 15)
    run(as_of=late)
    assert lines[-1] == "profiles: published as of 2024-01-30"
    run(as_of=early)
    assert snapshot.load_current(lake.workspace).as_of == late
    assert lines[-1] == "profiles: those of 2024-01-30 stay published, because this training is as of 2024-01-15"
    run(as_of=late + timedelta(days=1))
    assert snapshot.load_current(lake.workspace).as_of == late + timedelta(days=1)
