"""`qianmian monitor` on a small shop: what it says of labels, vanished features, old models, and too little data."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from cli.main import run
from features.data.lake import Lake
from features.definitions.building import make_builder
from models.bundle import REFERENCE_FILE, ModelBundle
from models.classify.churn_model import ChurnModel, Member
from models.classify.logistic import LogisticClassifier
from models.classify.rhythm import Design
from models.classify.risk_bands import FACT
from models.persist import load_arrays
from qianmian.errors import ArtifactError, DataError, UsageError
from qianmian.schema import EVALUATION
from training import JOBS, train
from training.jobs.base import TrainingContext
from training.jobs.churn import labelled_examples
from training.monitoring import monitor as monitoring
from training.monitoring.freshness import _volume
from training.monitoring.labels import ALL, calibration, discrimination
from training.monitoring.monitor import Monitor, monitored_jobs
from training.monitoring.page import write_page
from training.monitoring.rows import MonitoringContext, reference_of
from training.monitoring.texts import TEXTS, CheckText

HORIZON = timedelta(days=28)
CHURN = JOBS["churn"].monitored
FEATURES = ("days_since_last_order", "orders_total", "orders_28d", "amount_28d")


@pytest.fixture(scope="module")
def builder(shop, settings):
    return make_builder(Lake(shop), settings)


@pytest.fixture(scope="module")
def champion(shop, builder, settings):
    """A hand-made champion: a logistic regression of four features, trained 56 days before the end of the shop."""
    as_of = Lake(shop).default_as_of - 2 * HORIZON
    computed = [feature for feature in builder.declared if feature.name in FEATURES]
    spec = builder.build(as_of, computed).matrix().neutral_spec().select(FEATURES)
    facts = {
        "horizon_days": 28,
        "active_days": 56,
        FACT: [0.1, 0.3],
        EVALUATION: {"metrics": {"auc": [0.7, 0.65, 0.75, 400]}},
    }
    bundle = ModelBundle("churn", None, as_of, spec, facts=facts)
    context = MonitoringContext.of(TrainingContext(shop, as_of, settings, print, _builder=builder), CHURN, bundle)
    learnt = labelled_examples(context, as_of - HORIZON, 28, 56, spec)
    model = ChurnModel(Design(FEATURES), (Member("logistic", FEATURES, LogisticClassifier().fit(learnt.X, learnt.y)),))
    bundle = replace(bundle, model=model)
    return replace(bundle, reference=reference_of(context, bundle))


@pytest.fixture(scope="module")
def monitor(builder, settings):
    """A monitor of a bundle; all of them share the profiles of the shop, which are built once."""
    contexts = {}
    return lambda bundle: Monitor(builder, settings, bundle, "1", _contexts=contexts)


@pytest.fixture(scope="module")
def look(monitor, settings):
    """Reports on a bundle; of another workspace, if one is given."""

    def report(bundle, as_of, workspace=None):
        found = monitor(bundle)
        if workspace is not None:
            found = Monitor(make_builder(Lake(workspace), settings), settings, bundle, "1")
        return found.report(as_of, as_of)

    return report


@pytest.fixture(scope="module")
def later(look, champion):
    return look(champion, champion.as_of + 2 * HORIZON)


def status(report, name):
    (check,) = (one for one in report.checks if one.name == name)
    return check.status, check.statement.say("en")


# ---- the reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", monitored_jobs())
def test_a_trained_model_has_a_small_reference_of_numbers_only(job, trained, bundle_folder):
    path = bundle_folder(trained.workspace, f"qianmian-{job}") / REFERENCE_FILE
    champion = ModelBundle.load(path.parent)
    assert path.stat().st_size < 500_000
    assert {array.dtype.kind for array in load_arrays(path).values()} == {"f"}
    assert champion.reference.days[0] == champion.reference.days.max()
    scores, outcomes = JOBS[job].monitored.columns(champion)
    assert champion.reference.sums.shape[2] == len((*champion.spec.names, *scores, *outcomes))


def test_a_reference_that_is_computed_later_is_the_one_that_was_stored(monitor, champion):
    computed = monitor(replace(champion, reference=None)).reference
    np.testing.assert_allclose(computed.counts, champion.reference.counts)
    np.testing.assert_allclose(computed.sums, champion.reference.sums, rtol=1e-6)


def test_a_bundle_without_a_reference_is_read(champion, tmp_path):
    replace(champion, reference=None).save(tmp_path / "bundle")
    assert ModelBundle.load(tmp_path / "bundle").reference is None


# ---- reports ---------------------------------------------------------------------------------------------------------


def test_on_the_day_of_its_training_a_model_has_no_drift_and_no_labels_yet(look, champion):
    found = look(champion, champion.as_of)
    assert status(found, "features")[0] == "fine"
    assert status(found, "scores")[0] == "fine"
    due = f"{champion.as_of + HORIZON:%Y-%m-%d}"
    for name in ("outcomes", "calibration", "discrimination"):
        assert status(found, name) == (
            "unknown",
            f"the outcomes of the first customers scored after the training are known on {due}",
        )
    assert found.reference_stored
    assert status(found, "fallback")[0] == "unknown"


def test_arrived_outcomes_are_compared_with_the_predictions_of_then(later, champion):
    assert later.calibration["all"].observed.n >= 100
    assert 0 < later.calibration["all"].predicted < 1
    assert later.discrimination["all"].at_training is not None
    assert f"{champion.as_of + HORIZON:%Y-%m-%d}" in status(later, "calibration")[1]
    assert "outcome" in later.columns


def test_no_row_after_the_moment_changes_what_is_said(look, champion, shop, copy_workspace):
    at = champion.as_of + HORIZON
    cut = {"transactions": f"SELECT * FROM transactions WHERE ts < '{at}'"}
    found = [look(champion, at, workspace).columns for workspace in (copy_workspace(shop, cut), None)]
    assert repr(found[0]) == repr(found[1])  # NaN equals itself as a text


def test_a_replay_has_a_report_for_each_horizon(monitor, champion):
    found = list(monitor(champion).replay(champion.as_of + 2 * HORIZON))
    assert [one.as_of for one in found] == [champion.as_of + HORIZON, champion.as_of + 2 * HORIZON]


def test_a_feature_without_data_has_vanished(look, champion, shop, copy_workspace):
    query = "SELECT * REPLACE (NULL::DOUBLE AS amount) FROM transactions"
    names = [feature.name for feature in champion.spec.features if feature.column == "amount"]
    found = look(champion, champion.as_of, copy_workspace(shop, {"transactions": query}))
    assert names
    assert status(found, "vanished")[0] == "alarm"
    assert all(name in status(found, "vanished")[1] for name in names)


def test_a_month_of_one_class_has_calibration_but_no_auc(look, champion, shop, copy_workspace):
    stop = champion.as_of + HORIZON
    closed = copy_workspace(shop, {"transactions": f"SELECT * FROM transactions WHERE ts < '{stop}'"})
    found = look(champion, stop + HORIZON, closed)
    assert status(found, "discrimination")[0] == "unknown"
    assert "needs both outcomes" in status(found, "discrimination")[1]
    assert status(found, "calibration")[0] == "alarm"
    assert found.calibration["all"].observed.value == 1
    assert status(found, "rows_transactions")[0] == "alarm"


def test_of_too_few_customers_nothing_is_said(look, champion, monkeypatch):
    monkeypatch.setattr(monitoring, "MIN_CUSTOMERS", 10_000)
    found = look(champion, champion.as_of + HORIZON)
    for name in ("features", "scores", "outcomes", "calibration", "discrimination"):
        assert status(found, name)[0] == "unknown"
        assert "at least 10,000 are needed" in status(found, name)[1]


def test_rows_without_a_user_id_are_noticed(look, champion, shop, copy_workspace):
    at = champion.as_of + HORIZON
    lost = f"ts >= '{at - timedelta(days=14)}' AND ts < '{at}'"
    query = f"SELECT * REPLACE (CASE WHEN {lost} THEN NULL ELSE source_user_id END AS source_user_id) FROM transactions"
    found = look(champion, at, copy_workspace(shop, {"transactions": query}))
    assert status(found, "ids_transactions")[0] == "alarm"


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_moment_before_the_training_is_refused(look, champion):
    with pytest.raises(DataError, match="trained on later data"):
        look(champion, champion.as_of - HORIZON)


def test_a_model_of_a_version_that_stored_no_periods_is_refused(look, champion):
    old = replace(champion, facts={name: value for name, value in champion.facts.items() if name != "active_days"})
    with pytest.raises(ArtifactError, match="an earlier version trained this model"):
        look(old, champion.as_of)


def test_a_model_of_another_job_is_refused(look, champion):
    with pytest.raises(UsageError, match="models of this job are not monitored"):
        look(replace(champion, kind="recommend"), champion.as_of)


# ---- labels and freshness --------------------------------------------------------------------------------------------


def test_calibration_is_out_beyond_its_limit_and_beyond_noise_only():
    rng = np.random.default_rng(0)
    p = np.full(2000, 0.2)
    right = (rng.random(2000) < 0.2).astype(np.int64)
    twice = (rng.random(2000) < 0.4).astype(np.int64)
    assert not calibration({ALL: (right, p)}, 1.25, 0.05)[ALL].out
    assert calibration({ALL: (twice, p)}, 1.25, 0.05)[ALL].out
    assert not calibration({ALL: (twice, p)}, 3.0, 0.05)[ALL].out
    assert not calibration({ALL: (np.array([1, 0, 0, 0]), np.full(4, 0.1))}, 1.25, 0.05)[ALL].out


def test_auc_is_lost_beyond_noise_and_cannot_be_compared_without_that_of_the_training():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.3).astype(np.int64)
    noise = rng.random(3000)
    stored = {"metrics": {"auc": [0.85, 0.83, 0.87, 2000]}}
    assert discrimination(y, noise, stored, "auc", 0.03, 0.05, 0).lost
    assert not discrimination(y, y + noise, stored, "auc", 0.03, 0.05, 0).lost
    assert discrimination(y, noise, None, "auc", 0.03, 0.05, 0).at_training is None


@pytest.mark.parametrize(
    ("last", "expected"),
    [([100] * 7, "fine"), ([10] * 7, "alarm"), ([200] * 7, "alarm"), ([130] * 6 + [0], "alarm")],
)
def test_a_week_is_compared_with_the_weeks_before(last, expected):
    assert _volume("rows_transactions", last + [100] * 56, 8).status == expected


def test_a_table_that_stopped_weeks_ago_stays_an_alarm():
    assert _volume("rows_transactions", [0] * 28 + [100] * 35, 8).status == "alarm"


def test_what_is_usual_needs_some_weeks():
    check = _volume("rows_transactions", [100] * 63, 2)
    assert (check.status, check.statement.say("en")[:7]) == ("unknown", "2 weeks")


# ---- words, page and command -----------------------------------------------------------------------------------------


def test_every_text_has_both_languages_and_the_same_values():
    import string

    for key, (english, chinese) in TEXTS.items():
        names = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in (english, chinese)]
        assert names[0] == names[1], key


def test_a_statement_may_contain_others():
    inner = CheckText("none_vanished", {"n": 3})
    assert CheckText("one_window", {"text": inner}).say("en").startswith("all 3 features of the model are computed; ")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_whole_and_names_no_customer(later, settings, shop, tmp_path, lang):
    path = tmp_path / "report.html"
    write_page([later], settings.monitoring, path, lang)
    text = path.read_text(encoding="utf-8")

    class Balanced(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.svgs = [], 0

        def handle_starttag(self, tag, attributes):
            self.svgs += tag == "svg"
            if tag not in ("meta",):
                self.open.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert parser.svgs >= 3
    assert TEXTS["title"][lang == "zh"] in text
    customers = Lake(shop).connect(["customers"]).table("customers").source_user_id.to_pyarrow().to_pylist()
    assert not any(f">{one}<" in text for one in customers if one)


# ---- every job -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", monitored_jobs())
def test_every_job_has_scores_and_those_that_declare_outcomes_are_compared_with_them(
    job, trained, settings, bundle_folder
):
    champion = ModelBundle.load(bundle_folder(trained.workspace, f"qianmian-{job}"))
    monitored = JOBS[job].monitored
    days = monitored.periods(champion).outcome_days
    # as if an earlier version had trained it, before the last outcomes that are known
    old = replace(champion, as_of=champion.as_of - timedelta(days=days or 28), reference=None)
    found = Monitor(make_builder(Lake(trained.workspace), settings), settings, old, "1").report(
        champion.as_of, champion.as_of
    )
    scores, outcomes = monitored.columns(champion)
    assert set(scores) <= set(found.columns)
    assert np.isfinite([found.means(name) for name in scores]).all()
    if days is None:
        assert status(found, "outcomes")[0] == "unknown"
        return
    assert len(found.calibration) >= len(outcomes)
    for one in found.calibration.values():
        assert 0 <= one.predicted <= 1
        assert 0 <= one.observed.value <= 1
    assert len(found.discrimination) <= len(monitored.auc(champion))
    assert {check.name for check in found.checks if check.name == "discrimination"} == (
        {"discrimination"} if monitored.auc(champion) else set()
    )


@pytest.fixture
def command_in(capfd, monkeypatch):
    """Run `qianmian monitor` in a workspace; returns exit code and output."""
    monkeypatch.setattr("cli.main.quieten", lambda debug: None)

    def call(workspace, *words):
        capfd.readouterr()
        code = run(["monitor", *map(str, words), "--workspace", str(workspace.root)])
        return code, capfd.readouterr().out

    return call


@pytest.fixture
def command(command_in, trained):
    return lambda *words: command_in(trained.workspace, *words)


@pytest.fixture(scope="module")
def day(trained):
    """A fortnight after the cutoff of the trained shop."""
    return f"{Lake(trained.workspace).default_as_of + timedelta(days=14):%Y-%m-%d}"


def test_all_champions_are_looked_at_and_the_exit_code_is_that_of_the_worst(command, day, tmp_path):
    page = tmp_path / "report.html"
    code, out = command("--as-of", day, "--report", page, "--json")
    found = json.loads(out)
    assert code == 5
    assert found["alarm"]
    assert set(found["models"]) == {job for job in monitored_jobs() if job not in found["not_monitored"]}
    assert "recommend" in found["not_monitored"]
    churn = found["models"]["churn"]
    assert (churn["reference"], churn["alarm"]) == ("stored", True)
    assert "data_age" in {check["check"] for check in churn["checks"] if check["status"] == "alarm"}
    assert page.exists()


def test_a_model_is_not_trained_again_while_the_data_need_attention(command, day):
    code, out = command("--model", "churn", "--as-of", day, "--retrain", "--json")
    assert code == 5
    assert "results" not in json.loads(out)


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "code"), [(True, 0), (False, 4)])
def test_an_alarm_trains_again_as_the_champion_was_trained(command_in, shop, settings, copy_workspace, gate, code):
    workspace, end = copy_workspace(shop), Lake(shop).default_as_of
    champion = train(workspace, ["churn"], clock=lambda: end, settings=settings, as_of=end - timedelta(days=35))
    assert champion[0].status == "registered"
    rules = {} if gate else {"gate": {"max_size_mb": 1e-6}}
    workspace.config_file.write_text(json.dumps({"monitoring": {"max_model_days": 30}, **rules}))
    words = ["--model", "churn", "--as-of", f"{end:%Y-%m-%d}", "--retrain", "--json"]
    found = command_in(workspace, *words)
    assert found[0] == code
    (result,) = json.loads(found[1])["results"]
    assert result["status"] == ("registered" if gate else "refused")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model", "recommend"], 2, "models of this job are not monitored"),
        (["--report", "x.pdf"], 2, ".html"),
        (["--replay", "--retrain"], 2, "--replay prints a table of the past only"),
        (["--model", "churn", "--replay"], 3, "no horizon has passed"),
    ],
)
def test_what_cannot_be_done_is_refused(command, words, code, message):
    found = command(*words, "--json")
    assert found[0] == code
    assert message in json.dumps(json.loads(found[1])["error"])
