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
from models.classify.risk_bands import RiskBands
from models.persist import load_arrays
from qianmian.errors import ArtifactError, DataError, UsageError
from training import JobResult
from training.monitoring import monitor as monitoring
from training.monitoring.freshness import _volume
from training.monitoring.labels import calibration, discrimination
from training.monitoring.monitor import Monitor
from training.monitoring.page import write_page
from training.monitoring.texts import TEXTS, CheckText

HORIZON = timedelta(days=28)


@pytest.fixture(scope="module")
def champion(trained, bundle_folder):
    return ModelBundle.load(bundle_folder(trained.workspace, "qianmian-churn"))


@pytest.fixture(scope="module")
def earlier(champion):
    """The champion as if it had been trained 56 days before, by a version that stored no reference."""
    return replace(champion, as_of=champion.as_of - 2 * HORIZON, reference=None)


@pytest.fixture(scope="module")
def monitor(trained, settings):
    """A monitor of a bundle; all of them share the profiles of the trained shop, which are built once."""
    builder, profiles = make_builder(Lake(trained.workspace), settings), {}
    return lambda bundle: Monitor(builder, settings, bundle, "1", _profiles=profiles)


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
def later(look, earlier):
    return look(earlier, earlier.as_of + 2 * HORIZON)


def status(report, name):
    (check,) = (one for one in report.checks if one.name == name)
    return check.status, check.statement.say("en")


# ---- the reference ---------------------------------------------------------------------------------------------------


def test_a_trained_model_has_a_small_reference_of_numbers_only(trained, champion, bundle_folder):
    path = bundle_folder(trained.workspace, "qianmian-churn") / REFERENCE_FILE
    assert path.stat().st_size < 500_000
    assert {array.dtype.kind for array in load_arrays(path).values()} == {"f"}
    assert champion.reference.days[0] == champion.reference.days.max()
    assert champion.reference.sums.shape[2] == len(champion.spec.names) + 2


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


def test_arrived_outcomes_are_compared_with_the_predictions_of_then(later, earlier):
    assert later.calibration["all"].observed.n >= 100
    assert 0 < later.calibration["all"].predicted < 1
    assert later.discrimination.at_training is not None
    assert f"{earlier.as_of + HORIZON:%Y-%m-%d}" in status(later, "calibration")[1]
    assert "outcome" in later.columns
    assert not later.reference_stored


@pytest.mark.slow
def test_no_row_after_the_moment_changes_what_is_said(look, earlier, trained, copy_workspace):
    at = earlier.as_of + HORIZON
    cut = {"transactions": f"SELECT * FROM transactions WHERE ts < '{at}'"}
    found = [look(earlier, at, workspace).columns for workspace in (copy_workspace(trained.workspace, cut), None)]
    assert repr(found[0]) == repr(found[1])  # NaN equals itself as a text


def test_a_replay_has_a_report_for_each_horizon(monitor, earlier):
    found = list(monitor(earlier).replay(earlier.as_of + 2 * HORIZON))
    assert [one.as_of for one in found] == [earlier.as_of + HORIZON, earlier.as_of + 2 * HORIZON]


@pytest.mark.slow
def test_a_feature_without_data_has_vanished(look, champion, trained, copy_workspace):
    query = "SELECT * REPLACE (NULL::DOUBLE AS amount) FROM transactions"
    names = [feature.name for feature in champion.spec.features if feature.column == "amount"]
    found = look(champion, champion.as_of, copy_workspace(trained.workspace, {"transactions": query}))
    assert names
    assert status(found, "vanished")[0] == "alarm"
    assert all(name in status(found, "vanished")[1] for name in names)


@pytest.mark.slow
def test_a_month_of_one_class_has_calibration_but_no_auc(look, earlier, trained, copy_workspace):
    stop = earlier.as_of + HORIZON
    closed = copy_workspace(trained.workspace, {"transactions": f"SELECT * FROM transactions WHERE ts < '{stop}'"})
    found = look(earlier, stop + HORIZON, closed)
    assert status(found, "discrimination")[0] == "unknown"
    assert "needs both outcomes" in status(found, "discrimination")[1]
    assert status(found, "calibration")[0] == "alarm"
    assert found.calibration["all"].observed.value == 1
    assert status(found, "rows_transactions")[0] == "alarm"


def test_of_too_few_customers_nothing_is_said(look, earlier, monkeypatch):
    monkeypatch.setattr(monitoring, "MIN_CUSTOMERS", 10_000)
    found = look(earlier, earlier.as_of + HORIZON)
    for name in ("features", "scores", "outcomes", "calibration", "discrimination"):
        assert status(found, name)[0] == "unknown"
        assert "at least 10,000 are needed" in status(found, name)[1]


@pytest.mark.slow
def test_rows_without_a_user_id_are_noticed(look, earlier, trained, copy_workspace):
    at = earlier.as_of + HORIZON
    lost = f"ts >= '{at - timedelta(days=14)}' AND ts < '{at}'"
    query = f"SELECT * REPLACE (CASE WHEN {lost} THEN NULL ELSE source_user_id END AS source_user_id) FROM transactions"
    found = look(earlier, at, copy_workspace(trained.workspace, {"transactions": query}))
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
    with pytest.raises(UsageError, match="only models of these jobs are monitored"):
        look(replace(champion, kind="value"), champion.as_of)


# ---- labels and freshness --------------------------------------------------------------------------------------------


def test_calibration_is_out_beyond_its_limit_and_beyond_noise_only():
    rng = np.random.default_rng(0)
    p = np.full(2000, 0.2)
    right = (rng.random(2000) < 0.2).astype(np.int64)
    twice = (rng.random(2000) < 0.4).astype(np.int64)
    assert not calibration(right, p, None, 1.25, 0.05)["all"].out
    assert calibration(twice, p, None, 1.25, 0.05)["all"].out
    assert not calibration(twice, p, None, 3.0, 0.05)["all"].out
    assert not calibration(np.array([1, 0, 0, 0]), np.full(4, 0.1), None, 1.25, 0.05)["all"].out
    bands = calibration(right, p, RiskBands(0.1, 0.5), 1.25, 0.05)
    assert list(bands) == ["all", "medium"]


def test_auc_is_lost_beyond_noise_and_cannot_be_compared_without_that_of_the_training():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.3).astype(np.int64)
    noise = rng.random(3000)
    stored = {"metrics": {"auc": [0.85, 0.83, 0.87, 2000]}}
    assert discrimination(y, noise, stored, 0.03, 0).lost
    assert not discrimination(y, y + noise, stored, 0.03, 0).lost
    assert discrimination(y, noise, None, 0.03, 0).at_training is None


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
def test_the_page_is_whole_and_names_no_customer(later, settings, trained, tmp_path, lang):
    path = tmp_path / "report.html"
    write_page(later, settings.monitoring, path, lang)
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
    customers = (
        Lake(trained.workspace).connect(["customers"]).table("customers").source_user_id.to_pyarrow().to_pylist()
    )
    assert not any(f">{one}<" in text for one in customers if one)


@pytest.fixture
def command(capfd, monkeypatch, trained):
    """Run `qianmian monitor` on the trained shop; returns exit code and output."""
    monkeypatch.setattr("cli.main.quieten", lambda debug: None)

    def call(*words):
        capfd.readouterr()
        code = run(["monitor", *map(str, words), "--workspace", str(trained.workspace.root)])
        return code, capfd.readouterr().out

    return call


def test_an_alarm_has_an_exit_code_of_its_own_and_a_page(command, champion, tmp_path):
    page = tmp_path / "report.html"
    code, out = command("--as-of", f"{champion.as_of + timedelta(days=14):%Y-%m-%d}", "--report", page, "--json")
    found = json.loads(out)
    assert code == 5
    assert (found["model"], found["reference"], found["alarm"]) == ("churn", "stored", True)
    assert "data_age" in {check["check"] for check in found["checks"] if check["status"] == "alarm"}
    assert page.exists()


@pytest.mark.slow
def test_an_alarm_can_train_again_as_the_champion_was_trained(command, champion, monkeypatch):
    calls = []

    def train(workspace, jobs, **options):
        calls.append((jobs, options["horizon_days"], options["active_days"]))
        return [JobResult("churn", "refused", "not better", None, "abc")]

    monkeypatch.setattr("training.train", train)
    code, _ = command("--as-of", f"{champion.as_of + timedelta(days=40):%Y-%m-%d}", "--retrain")
    assert code == 4
    assert calls == [(["churn"], 28, champion.facts["active_days"])]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "value"], "this model is not monitored"),
        (["--report", "x.pdf"], ".html"),
        (["--replay", "--retrain"], "--replay prints a table of the past only"),
        (["--replay"], "no horizon has passed"),
    ],
)
def test_what_cannot_be_done_is_refused(command, words, message):
    code, out = command(*words, "--json")
    assert code == 2
    assert message in json.dumps(json.loads(out)["error"])
