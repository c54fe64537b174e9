"""`--tune`: each trial is a nested run; the best parameters are stored and used, but never for their own period."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.recommend import RECOMMENDERS
from models.recommend.base import Choice
from models.search_space import TREE_SPACE
from qianmian.errors import UsageError
from training import train
from training.jobs.base import TrainingContext
from training.tasks import TASKS
from training.tuning import load_tuned_parameters, tuned_parameters
from training.tuning_trees import TREES, tune_trees

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
        train(shop, ["left"], clock=CLOCK, settings=settings, tune=True)


DEFAULTS = {
    "n_estimators": 150,
    "max_depth": 3,
    "learning_rate": 0.05,
    "min_child_weight": 20.0,
    "subsample": 0.7,
    "reg_lambda": 5.0,
}
OWNERS = np.repeat(np.arange(60), 2)


@pytest.fixture(scope="module")
def searched(small_shop, copy_workspace):
    """A workspace in which only searches are made."""
    return copy_workspace(small_shop)


@pytest.fixture
def context(searched, settings, monkeypatch):
    """With few trials, however long they take."""
    monkeypatch.setattr("training.tuning.MAX_TRIALS", 6)
    return TrainingContext(searched, END, settings, lambda line: None)


def test_parameters_that_are_better_beyond_noise_are_kept(context):
    """The loss of every customer falls with the depth, so depth 6 is found; the first trial has the defaults."""
    tried = []

    def losses(given):
        tried.append(given)
        return np.full(len(OWNERS), 10.0 - given["max_depth"])

    found = tune_trees(context, "value", DEFAULTS, losses, OWNERS, END, 600.0)
    assert tried[0] == DEFAULTS
    assert found[TREES]["max_depth"] > 3
    assert set(found[TREES]) == set(TREE_SPACE)
    assert load_tuned_parameters(context.workspace, "value", END, lambda line: None) == found
    assert load_tuned_parameters(context.workspace, "value", END - timedelta(days=1), lambda line: None) == {}


def test_within_noise_the_defaults_stay(context):
    """The best of several trials is better by chance; that of one customer is no evidence."""
    rng, said = np.random.default_rng(0), []
    context.progress = said.append
    found = tune_trees(context, "churn", DEFAULTS, lambda given: rng.normal(5.0, 5.0, len(OWNERS)), OWNERS, END, 0.0)
    assert found == {}, "one trial, that of the defaults"
    assert "the defaults stay" in " ".join(said)
    first = rng.normal(5.0, 1.0, len(OWNERS))
    luck = np.where(OWNERS == 7, -40.0, 0.0)

    def losses(given):
        return first + (0.0 if given == DEFAULTS else luck)

    assert tune_trees(context, "churn", DEFAULTS, losses, OWNERS, END, 600.0) == {}


def test_parameters_of_a_run_come_before_a_search_and_the_workspace(context):
    context.inherited["churn"] = {TREES: {"max_depth": 5}}
    found = tuned_parameters(context, "churn", END, lambda: pytest.fail("no search"))
    assert found == {TREES: {"max_depth": 5}}


@pytest.mark.slow
@pytest.mark.parametrize("job", ["churn", "propensity", "value"])
def test_the_trees_of_a_job_are_tuned(shop, copy_workspace, settings, job):
    workspace, lines = copy_workspace(shop), []
    section = getattr(settings, job).model_copy(update={"tune_seconds": BUDGET})
    quick = settings.model_copy(update={job: section})
    result = train(workspace, [job], clock=CLOCK, settings=quick, progress=lines.append, tune=True)[0]
    assert result.status == "registered", result.reason
    kept = json.loads((workspace.root / "tuned" / f"{job}.json").read_text())
    assert datetime.fromisoformat(kept["until"]) < END - timedelta(days=27), "before the test period"
    client = MlflowClient(workspace.tracking_uri, workspace.tracking_uri)
    experiment = client.get_run(kept["run_id"]).info.experiment_id
    trials = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{kept['run_id']}'", max_results=500)
    assert len(trials) > 1
    losses = [run.data.metrics["loss"] for run in sorted(trials, key=lambda run: run.info.start_time)]
    assert min(losses) <= losses[0]
    for key, value in kept["models"].get(TREES, {}).items():
        assert TREE_SPACE[key].low <= value <= TREE_SPACE[key].high
