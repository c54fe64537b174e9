"""Ctrl-C ends a training at once, without a traceback, and leaves the workspace as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from qianmian.settings import Settings
from qianmian.workspace import Workspace


@pytest.mark.slow
def test_ctrl_c_ends_a_training_at_once(tmp_path):
    workspace = Workspace(tmp_path / "a shop")
    ingest(workspace, SOURCES["synthetic"](customers=2_000, days=300, seed=1), Settings())
    before = Lake(workspace).digest
    command = [sys.executable, "-m", "cli.main", "train", "recommend", "--workspace", str(workspace.root)]
    training = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert training.stderr is not None
    for line in training.stderr:
        if "comparing the candidates" in line:
            break
    time.sleep(3)  # the fits run in threads
    training.send_signal(signal.SIGINT)
    interrupted = time.perf_counter()
    out, error = training.communicate(timeout=60)
    assert time.perf_counter() - interrupted < 5
    assert training.returncode == 130
    assert "interrupted; existing data is unchanged" in error
    assert "Traceback" not in out + error
    assert Lake(workspace).digest == before
    assert not list(workspace.root.rglob("*.part"))
