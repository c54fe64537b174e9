"""Processes that change a champion are killed: one whole champion is left, and the next command finishes the change."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from qianmian.workspace import Workspace

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WRITES = ["set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_tag"]


@pytest.fixture(scope="module")
def kills():
    """The benchmark, whose folder is behind the packages: features.py there is not the package of that name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
        import measurement_kills

        yield measurement_kills


@pytest.fixture(scope="module")
def shop(kills, tmp_path_factory):
    """A workspace with two versions, the second in production."""
    return kills.Shop(Workspace(tmp_path_factory.mktemp("kills") / "work space").create())


def killed_at(action, write, place):
    """The action, in which the process kills itself after a write to the registry, the `place`-th of its name."""

    def run(begin):
        from mlflow.tracking import MlflowClient

        former, calls = getattr(MlflowClient, write), []

        def wrapped(*arguments, **more):
            former(*arguments, **more)
            calls.append(1)
            if len(calls) == place:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(MlflowClient, write, wrapped)  # in the process that was forked for it
        return action(begin)

    return run


# the writes of a promotion in their order: intent; previous, champion; event; the intent is gone
POINTS = [(WRITES[0], 1), (WRITES[1], 1), (WRITES[1], 2), (WRITES[0], 2), (WRITES[2], 1)]


@pytest.mark.parametrize(
    ("action", "write", "place"),
    [
        pytest.param(
            action,
            *point,
            marks=() if (action, point) == ("promote", POINTS[2]) else pytest.mark.slow,
        )
        for action in ("train", "promote", "rollback")
        for point in POINTS
    ],
)
def test_a_kill_after_any_write_leaves_a_champion_and_is_mended(kills, shop, action, write, place):
    shop._before = before = shop.look()
    mended = shop.mended[action]
    # a training sets the alias `challenger` first
    later = place + (action == "train" and write == WRITES[1])
    with pytest.raises(RuntimeError, match="-9"):
        kills.in_a_process(killed_at(shop._actions()[action], write, later))
    assert shop.check(action, before) == []
    assert shop.mended[action] == mended + (write != WRITES[2])
    assert shop.look()["champion"] != before["champion"]


@pytest.mark.slow
@pytest.mark.parametrize("action", ["train", "promote", "rollback"])
def test_kills_at_random_moments_leave_a_whole_registry(shop, action):
    assert [problem for number in range(6) for problem in shop.kill(action, number)] == []
