"""`qianmian train`: exit 4 if the gate refuses a model, exit 3 if the data support no job."""

from __future__ import annotations

import pytest

from training import JobResult
from training.report import EvalReport, Metric

REPORT = EvalReport(
    {"auc": Metric(0.81, 0.79, 0.83, 500)},
    {"recency": {"auc": Metric(0.7, 0.68, 0.72, 500)}},
    notes=("left out: member_tier",),
)


@pytest.fixture
def trained(monkeypatch):
    """Replace `training.train`: return the results that a test sets, and record the calls."""
    calls = []

    def set_results(*results: JobResult):
        def train(workspace, jobs, **options):
            calls.append((jobs, options))
            options["progress"]("features at 2024-03-31")
            return list(results)

        monkeypatch.setattr("training.train", train)
        return calls

    return set_results


REGISTERED = JobResult("churn", "registered", "beats it", 3, "abc", REPORT, 1.0)
REFUSED = JobResult("churn", "refused", "auc does not beat recency", None, "abc", REPORT, 1.0)
SKIPPED = JobResult("lifecycle", "skipped", "the history is too short")


def test_a_registered_job_shows_its_report_beside_the_baselines(qianmian, shop, trained):
    trained(REGISTERED)
    done = qianmian("train", "churn", "--workspace", shop)
    assert done.code == 0
    for text in (
        "auc",
        "0.810",
        "0.790 – 0.830",
        "recency",
        "0.700",
        "left out: member_tier",
        "registered as version 3",
    ):
        assert text in done.out


def test_json_contains_the_report(qianmian, shop, trained):
    trained(REGISTERED)
    found = qianmian("train", "churn", "--workspace", shop, "--json").json
    assert found["results"][0]["report"]["metrics"]["auc"] == {"value": 0.81, "low": 0.79, "high": 0.83, "n": 500}
    assert found["as_of"] == "2024-03-31T00:00:00"


def test_a_refusal_of_the_gate_is_exit_4(qianmian, shop, trained):
    trained(REFUSED)
    done = qianmian("train", "churn", "--workspace", shop)
    assert done.code == 4
    assert "auc does not beat recency" in done.err
    found = qianmian("train", "churn", "--workspace", shop, "--json")
    assert found.code == 4
    assert found.json["error"]["code"] == "gate_refused"
    assert found.json["results"][0]["status"] == "refused"


def test_all_prints_skipped_jobs_with_the_reason(qianmian, shop, trained):
    calls = trained(REGISTERED, SKIPPED)
    done = qianmian("train", "all", "--workspace", shop)
    assert done.code == 0
    assert "lifecycle: skipped: the history is too short" in done.out
    assert calls[0][0] == ["all"]


def test_all_with_a_refusal_is_exit_4(qianmian, shop, trained):
    trained(REFUSED, SKIPPED)
    assert qianmian("train", "all", "--workspace", shop).code == 4


def test_all_without_a_supported_job_is_exit_3(qianmian, shop, trained):
    trained(SKIPPED)
    assert qianmian("train", "all", "--workspace", shop).code == 3


def test_options_reach_the_job(qianmian, shop, trained):
    calls = trained(REGISTERED)
    qianmian(
        "train", "churn", "--as-of", "2024-03-01", "--horizon-days", "14", "--active-days", "30", "--workspace", shop
    )
    options = calls[0][1]
    assert (options["horizon_days"], options["active_days"], f"{options['as_of']:%Y-%m-%d}") == (14, 30, "2024-03-01")
    assert options["settings"].churn.horizon_days == 28


def test_data_too_short_for_a_job_is_exit_3(qianmian, shop):
    done = qianmian("train", "churn", "--workspace", shop, "--json")
    assert done.code == 3
    assert "--horizon-days" in done.json["error"]["hint"]


@pytest.mark.parametrize(
    "arguments", [["fly"], ["churn", "--horizon-days", "0"], ["churn", "--as-of", "x"]], ids=" ".join
)
def test_usage_is_exit_2(qianmian, shop, arguments):
    assert qianmian("train", *arguments, "--workspace", shop).code == 2


def test_wrong_settings_are_exit_2_and_all_are_named(qianmian, fresh_shop):
    (fresh_shop / "qianmian.yaml").write_text("churn: {horizon_days: 0}\nrecomend: {}\n")
    done = qianmian("train", "churn", "--workspace", fresh_shop)
    assert done.code == 2
    assert "churn.horizon_days" in done.err
    assert "recomend" in done.err
