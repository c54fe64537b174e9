"""Two servers on one machine keep their metrics apart."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from qianmian.errors import NotReady
from qianmian.workspace import Workspace
from serving.server import (
    PASSING,
    check_port,
    environment,
    free_port,
    own_home,
    remove_leftovers,
    running,
    wait_ready,
)


def test_each_server_has_a_home_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("BENTOML_HOME", "/home of the caller")
    shop = Workspace(tmp_path)
    with own_home(shop, environment(shop)) as (first, _), own_home(shop, environment(shop)) as (second, _):
        assert len({first["BENTOML_HOME"], second["BENTOML_HOME"], "/home of the caller"}) == 3
        assert Path(first["BENTOML_HOME"]).parent == tmp_path
        assert Path(first["BENTOML_HOME"]).is_dir()
    assert not list(tmp_path.iterdir())
    missing = Workspace(tmp_path / "not there")
    with own_home(missing, environment(missing)) as (elsewhere, _):
        assert Path(elsewhere["BENTOML_HOME"]).is_dir()


def test_the_folder_of_a_killed_server_is_removed_and_that_of_a_living_one_stays(tmp_path):
    shop = Workspace(tmp_path)
    (tmp_path / ".serve-unknown").mkdir()  # no one says whose it is
    with own_home(shop, environment(shop)) as (living, lock):
        server = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
        dead = tmp_path / ".serve-dead"
        shutil.copytree(living["BENTOML_HOME"], dead)
        remove_leftovers(tmp_path)
        assert not dead.exists()
        assert Path(living["BENTOML_HOME"]).exists()
        kept = tmp_path / ".serve-kept"
        Path(living["BENTOML_HOME"]).rename(kept)  # as if its process had been killed
    try:
        remove_leftovers(tmp_path)
        assert kept.exists(), "the server lives, although the process that started it does not"
    finally:
        server.kill()
        server.wait()
    remove_leftovers(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == [".serve-unknown"]


def test_a_server_that_is_not_up_yet_is_waited_for():
    answers = [
        *((503, {"error": {"message": text, "hint": None}}) for text in PASSING),
        (200, {}),
        (503, {"error": {"message": "no model fits", "hint": "train"}}),
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    process = subprocess.Popen(["sleep", "60"])
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            wait_ready(url, process, 30)
            with pytest.raises(NotReady, match="no model fits"):
                wait_ready(url, process, 30)
        finally:
            server.shutdown()
            process.kill()
            process.wait()


def start_in_foreground(workspace: Workspace, port: int) -> subprocess.Popen[bytes]:
    """Start `qianmian serve` with two workers."""
    code = (
        "import sys; from pathlib import Path; from qianmian.workspace import Workspace; from serving.run import serve; "
        "serve(Workspace(Path(sys.argv[1])), port=int(sys.argv[2]), workers=2)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(workspace.root), str(port)])


@pytest.mark.slow
def test_a_killed_server_leaves_no_worker_and_the_next_one_removes_its_folder(workspace, request_):
    port, before = free_port(), set(workspace.root.glob(".serve-*"))
    started = start_in_foreground(workspace, port)
    wait_ready(f"http://127.0.0.1:{port}", started)
    (supervisor,) = psutil.Process(started.pid).children()
    workers = supervisor.children()
    (home,) = set(workspace.root.glob(".serve-*")) - before

    started.kill()
    started.wait()
    remove_leftovers(workspace.root)
    assert home.exists(), "the server still runs"
    assert request_(f"http://127.0.0.1:{port}/livez")[0] == 200

    supervisor.kill()
    _, alive = psutil.wait_procs([supervisor, *workers], timeout=20)
    assert not alive
    with own_home(workspace, environment(workspace)):
        assert not home.exists()
    check_port("127.0.0.1", port)


@pytest.mark.slow
def test_a_worker_ends_if_its_supervisor_is_killed_while_it_starts(workspace):
    port = free_port()
    with running(workspace, port=port, wait=False):
        (supervisor,) = (child for child in psutil.Process().children() if str(port) in child.cmdline())
        while not (workers := supervisor.children()):
            time.sleep(0.005)
        supervisor.kill()
        _, alive = psutil.wait_procs(workers, timeout=40)
        for worker in alive:
            worker.kill()
        assert not alive
    check_port("127.0.0.1", port)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["qianmian serve", "bentoml serve"])
def test_a_second_ctrl_c_ends_the_server_at_once(workspace, tmp_path, who):
    shop, port = Workspace(tmp_path / "shop"), free_port()
    shutil.copytree(workspace.root, shop.root, ignore=shutil.ignore_patterns(".serve-*"))
    shop.config_file.write_text("serving: {drain_seconds: 60, shutdown_seconds: 120}")
    started = start_in_foreground(shop, port)
    try:
        wait_ready(f"http://127.0.0.1:{port}", started)
        (supervisor,) = psutil.Process(started.pid).children()
        processes = [supervisor, *supervisor.children()]
        first = started if who == "qianmian serve" else supervisor
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
            first.send_signal(signal.SIGINT)
            gone, _ = psutil.wait_procs(processes, timeout=1.5)
            assert not gone, "it waits for the request"
            first.send_signal(signal.SIGINT)
            _, alive = psutil.wait_procs(processes, timeout=10)
            assert not alive
            assert client.recv(100).startswith(b"HTTP/1.1 503")
        started.wait(10)
        check_port("127.0.0.1", port)
    finally:
        started.terminate()
        started.wait(20)


@pytest.mark.slow
def test_a_second_server_does_not_empty_the_metrics_of_the_first(workspace, buyers, request_):
    def requests(url: str) -> list[str]:
        text = request_(url + "/metrics")[1].decode()
        return [line for line in text.splitlines() if line.startswith("qianmian_request_seconds_count")]

    with running(workspace) as first:
        request_(first + "/v1/profile", {"user_id": buyers[0]})
        before = requests(first)
        assert before == ['qianmian_request_seconds_count{route="/profile",status="200"} 1.0']
        with running(workspace) as second:
            assert requests(second) == []
            assert requests(first) == before


def workers_of(url: str) -> list[psutil.Process]:
    """The worker processes of a server that this process started, oldest first."""
    port, found = str(urlsplit(url).port), []
    for server in psutil.Process().children():
        if port not in server.cmdline():
            continue
        for child in server.children():
            with contextlib.suppress(psutil.Error):  # one that has ended
                if "worker" in " ".join(child.cmdline()):
                    found.append(child)
    return sorted(found, key=lambda process: process.create_time())


@pytest.mark.slow
def test_a_worker_that_replaces_another_accepts_only_once_it_has_loaded(workspace, buyers, request_):
    with running(workspace, workers=2) as url:
        deadline = time.monotonic() + 60

        def answer(path: str, body: dict | None = None) -> int:
            assert time.monotonic() < deadline
            return request_(url + path, body)[0]

        while any(answer("/readyz") != 200 for _ in range(30)):  # connections go to either worker
            time.sleep(0.1)
        before = workers_of(url)
        assert len(before) == 2
        os.kill(before[1].pid, signal.SIGKILL)
        while (now := workers_of(url))[-1].pid == before[1].pid or len(now) < 2:
            answer("/livez")
        started = time.monotonic()
        statuses = set()
        while time.monotonic() < started + 6:
            statuses.add(answer("/v1/profile", {"user_id": buyers[0]}))
        assert statuses == {200}


def test_the_supervisor_gets_no_models_and_none_of_their_libraries():
    code = (
        "import sys, serving.service; heavy = ('fastapi', 'numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'xgboost')\n"
        "print([name for name in (*heavy, 'serving.champions') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
