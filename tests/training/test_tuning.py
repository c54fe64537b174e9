"""`--tune`: each trial is a nested run; the best parameters are stored and used, but never for their own period."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import partial

import pytest
from mlflow.tracking import MlflowClient

from models.recommend import RECOMMENDERS
from models.recommend.base import Choice
from qianmian.errors import UsageError
from training import train
from training.tasks import TASKS
from training.tuning import load_tuned_parameters

CLOCK = partial(datetime, 2025, 1, 1, 12, 0)
END = datetime(2024, 5, 30)
BUDGET = 10


@pytest.fixture(scope="module")
def found(shop, copy_workspace, settings):
    workspace, lines = copy_workspace(shop), []
    quick = settings.model_copy(update={"recommend": settings.recommend.model_copy(update={"tune_seconds": BUDGET})})
    result = train(workspace, ["recommend"], clock=CLOCK, settings=quick, progress=lines.append, tune=True)[0]
    return workspace, lines, result


@pytest.mark.slow
def test_every_trial_is_a_nested_run(found):
    workspace, _, result = found
    assert result.status == "registered", result.reason
    kept = json.loads((workspace.root / "tuned" / "recommend.json").read_text())
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    experiment = client.get_experiment_by_name("qianmian-recommend").experiment_id
    trials = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{kept['run_id']}'", max_results=500)
    tried = {run.data.params["model"] for run in trials}
    assert tried == set(kept["models"]) == {name for task in TASKS.values() for name in task.tuned_models}
    for run in trials:
        assert run.info.status == "FINISHED"
        if "qianmian.refused" not in run.data.tags:
            assert 0 <= run.data.metrics["ndcg_at_10"] <= 1
    for name, given in kept["models"].items():
        for key, value in given.items():
            space = RECOMMENDERS[name].search_space[key]
            assert value in space.values if isinstance(space, Choice) else space.low <= value <= space.high
    # the first trial is the default model, so the best trial is not worse in the validation period
    for name in kept["models"]:
        mine = sorted((run for run in trials if run.data.params["model"] == name), key=lambda run: run.info.start_time)
        values = [run.data.metrics["ndcg_at_10"] for run in mine if "ndcg_at_10" in run.data.metrics]
        assert max(values) >= values[0]


@pytest.mark.slow
def test_tuned_parameters_are_used_and_reported(found):
    workspace, lines, _ = found
    assert any("trials on home" in line for line in lines)
    said: list[str] = []
    before = END - timedelta(days=28)
    kept = load_tuned_parameters(workspace, "recommend", before, said.append)
    assert kept["repeat"]["half_life_days"] > 0
    assert "delete the file" in said[0]


@pytest.mark.slow
def test_tuned_parameters_are_not_used_on_their_own_period(found):
    workspace, _, _ = found
    said: list[str] = []
    assert load_tuned_parameters(workspace, "recommend", END - timedelta(days=29), said.append) == {}
    assert "the defaults are used" in said[0]


def test_a_job_that_cannot_be_tuned_says_so(shop, settings):
    with pytest.raises(UsageError, match="no parameters to tune"):
        train(shop, ["churn"], clock=CLOCK, settings=settings, tune=True)
