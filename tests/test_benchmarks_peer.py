"""The benchmark of `home` beside its peer: other seeds of the same models, households paired, a peer that cannot run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.recommend.blend import BlendRecommender
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.repeat import RepeatPurchaseRecommender

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])

    def module(name):
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)
        return loaded

    return module


def test_another_seed_changes_nothing_else(load):
    benchmark = load("completejourney")
    stages = (("repeat", {"half_life_days": 30.0}, 10),)
    ranker = benchmark.with_seed(TwoStageRecommender(target="new", stages=stages, rounds=7), 3)
    assert (ranker.seed, ranker.target, ranker.rounds) == (3, "new", 7)
    assert [tuple(stage) for stage in ranker.stages] == list(stages)
    blend = benchmark.with_seed(BlendRecommender([("two_stage", {"rounds": 7}, 0.9), ("repeat", {}, 0.1)]), 3)
    (_, of_ranker, weight), (name, _, _) = blend.components
    assert (of_ranker["seed"], of_ranker["rounds"], weight, name) == (3, 7, 0.9, "repeat")
    repeat = benchmark.with_seed(RepeatPurchaseRecommender(half_life_days=30.0), 3)
    assert repeat.get_params() == RepeatPurchaseRecommender(half_life_days=30.0).get_params()


def test_a_household_is_the_mean_of_its_seeds(load):
    benchmark = load("completejourney")
    seeds = [{"ndcg": np.array([0.0, 1.0])}, {"ndcg": np.array([0.5, 1.0])}]
    assert benchmark.mean_of_seeds(seeds, "ndcg").tolist() == [0.25, 1.0]


def test_a_peer_that_cannot_be_installed_is_skipped_with_a_message(load, tmp_path, monkeypatch, capsys):
    peer = load("recommenders_peer")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made in it
    assert peer.peer_lists(pd.DataFrame(), pd.DataFrame(), 10, 1) is None
    assert "the peer is skipped, because its environment cannot be made:" in capsys.readouterr().out
