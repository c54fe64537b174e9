"""`train left`: windows of the customers' own, labels that are over, and refusals that say what would be enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.synthetic import Synthetic
from features.definitions import FEATURES
from models.classify.churn_model import ChurnModel
from models.classify.own_window import OwnWindow, days_needed, longest_window
from models.classify.rhythm import RHYTHM_FEATURES
from qianmian.errors import DataError
from qianmian.model_settings import LeftSettings
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from training.churn.snapshots import Snapshots
from training.jobs import JOBS
from training.jobs.base import TrainingContext
from training.left.windows import Windows

BEGIN, DAYS = datetime(2024, 1, 1), 300
END = BEGIN + timedelta(days=DAYS)
SETTINGS = Settings(left=LeftSettings(min_days=40, multiple=3.0))


def context(workspace: Workspace, as_of: datetime = END, settings: Settings = SETTINGS) -> TrainingContext:
    builder = Builder(Lake(workspace), [one for one in FEATURES if one.name in RHYTHM_FEATURES])
    return TrainingContext(workspace, as_of, settings, lambda line: None, _builder=builder)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    ingest(workspace, Synthetic(customers=350, days=DAYS, seed=2), Settings(), now=datetime(2027, 1, 1))
    return workspace


@pytest.fixture(scope="module")
def snapshots(shop) -> Snapshots:
    one = context(shop)
    first = BEGIN + timedelta(days=28)
    return Snapshots(one.builder, 40, 40, END, first, RHYTHM_FEATURES, (), SETTINGS.lifecycle)


def test_a_window_is_labelled_only_when_it_is_over(snapshots):
    windows = Windows(snapshots, END - timedelta(days=60), OwnWindow(3.0, 40.0), 90.0)
    history = snapshots.history(END)
    dropped = 0
    for as_of in windows.dates()[-3:]:
        found = windows.at(as_of)
        dropped += found.not_over
        assert (
            len(found.rows.y) + found.not_over + found.too_long
            == (history.ends(found.rows.days[0]) > history.starts[:-1]).sum()
        )
        ends = found.rows.days + found.windows
        assert (ends <= (windows.known_at - datetime(1970, 1, 1)).days).all()
        for one_id, window, left in zip(found.rows.owners, found.windows, found.rows.y, strict=True):
            place = np.searchsorted(history.one_ids, one_id)
            days = history.days[history.starts[place] : history.starts[place + 1]]
            inside = (days >= found.rows.days[0]) & (days < found.rows.days[0] + window)
            assert left == (not inside.any())
    assert dropped > 0


def test_labels_do_not_look_past_the_date_at_which_they_are_known(snapshots):
    """Orders after the date change no row."""
    known_at = END - timedelta(days=60)
    windows = Windows(snapshots, known_at, OwnWindow(3.0, 40.0), 90.0)
    earlier = replace(snapshots, end=known_at, _rows={}, _histories={}, _processes={})
    truncated = replace(windows, snapshots=earlier)
    as_of = windows.dates()[-2]
    mine, other = windows.at(as_of), truncated.at(as_of)
    np.testing.assert_array_equal(mine.rows.owners, other.rows.owners)
    np.testing.assert_array_equal(mine.rows.X, other.rows.X)
    np.testing.assert_array_equal(mine.rows.y, other.rows.y)


def test_left_is_trained_and_its_model_reads_back(shop, tmp_path):
    one = context(shop)
    trained = JOBS["left"].run(one)
    report, facts = trained.report, trained.bundle.facts
    assert report.metrics["auc"].value > 0.6
    assert report.differences["brier:base rate"].value < 0
    assert set(report.baselines) >= {"recency", "recency in own gaps", "base rate"}
    assert {"highest 10%", "low risk"} <= set(report.slices)
    assert facts["longest_days"] <= longest_window(DAYS)
    one_ids, bands = trained.tags["left_risk"]
    assert len(one_ids) == len(bands) > 100
    trained.bundle.model.save(tmp_path / "model")
    again = ChurnModel.load(tmp_path / "model")
    X = one.profile(END, trained.bundle.spec).values
    X = X[X[:, trained.bundle.spec.names.index("orders_total")] > 0]
    np.testing.assert_array_equal(again.window_days(X), trained.bundle.model.window_days(X))
    np.testing.assert_allclose(again.predict_proba(X), trained.bundle.model.predict_proba(X))
    assert (again.window_days(X) >= 40).all()


def test_a_history_that_is_too_short_says_what_is_enough(shop):
    with pytest.raises(DataError) as raised:
        JOBS["left"].run(context(shop, BEGIN + timedelta(days=120)))
    error = raised.value
    assert "too short" in error.message
    assert str(days_needed(40)) in str(error.allowed)
    assert "of at most 32" in str(error.hint)


def test_few_customers_are_refused(tmp_path):
    workspace = Workspace(tmp_path)
    ingest(workspace, Synthetic(customers=20, days=DAYS, seed=2), Settings(), now=datetime(2027, 1, 1))
    with pytest.raises(DataError, match="too few customers to tell who left") as raised:
        JOBS["left"].run(context(workspace))
    assert "at least 100 customers" in str(raised.value.allowed)
