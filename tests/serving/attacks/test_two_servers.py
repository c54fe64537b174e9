"""Two servers in one workspace, while a third process ingests and promotes: all answer, none harms another's files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from qianmian.workspace import Workspace
from serving.server import HOME_PREFIX, running

EVENT = {"user_id": "u", "user_source": "s", "event_type": "view", "ts": "2024-08-02T12:00:00"}


def post(url: str, path: str, body: dict) -> dict:
    with urllib.request.urlopen(url + path, json.dumps(body).encode(), timeout=60) as answer:
        return json.load(answer)


def homes(workspace: Workspace) -> set[Path]:
    return set(workspace.root.glob(f"{HOME_PREFIX}*"))


@pytest.mark.slow
def test_two_servers_share_a_workspace_with_a_command_that_writes_it(workspace, buyers, tmp_path):
    shop, logs = Workspace(tmp_path / "shop"), [tmp_path / "log0", tmp_path / "log1"]
    shutil.copytree(workspace.root, shop.root)
    command = [sys.executable, "-m", "cli.main"]
    with logs[0].open("wb") as log, running(shop, log=log) as first:
        own = homes(shop)
        assert len(own) == 1
        with logs[1].open("wb") as log, running(shop, log=log) as second:
            assert own < homes(shop), "the second server has left the files of the first"
            writers = [
                subprocess.Popen([*command, *arguments, "--workspace", shop.root], stdout=subprocess.DEVNULL)
                for arguments in (["ingest", "events"], ["models", "promote", "churn", "1"])
            ]
            sent = 0
            while any(writer.poll() is None for writer in writers) or sent < 10:
                for number, url in enumerate((first, second)):
                    event = {**EVENT, "event_id": f"{sent}-{number}"}
                    assert post(url, "/v1/events", {"events": [event]})["accepted"] == 1
                    assert post(url, "/v1/profile", {"user_id": buyers[0]})["user_id"] == buyers[0]
                sent += 1
            assert [writer.returncode for writer in writers] == [0, 0]
            assert post(second, "/v1/events", {"events": [{**EVENT, "event_id": "0-0"}]})["duplicates"] == 1, (
                "both have one event log"
            )
        assert homes(shop) == own, "the end of the second server removes its own files only"
        assert post(first, "/v1/profile", {"user_id": buyers[0]})["user_id"] == buyers[0]
        with urllib.request.urlopen(first + "/metrics", timeout=30) as answer:
            assert b"qianmian_request_seconds" in answer.read()
    assert homes(shop) == set()
    assert all("Traceback" not in log.read_text() for log in logs)
