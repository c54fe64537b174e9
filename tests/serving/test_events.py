"""`/v1/events` of a running server: what is acknowledged is in the log, once, whatever happens to the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import psutil
import pytest

from features.event_log import open_log
from features.event_log.location import ENVIRONMENT_VARIABLE, absolute, locate
from features.event_log.rows import decode
from features.event_log.sqlite import SqliteLog
from features.event_log.sqlite_file import writing
from qianmian.errors import ConfigError, NotReady, QianmianError, StorageError
from qianmian.settings import ServingSettings
from qianmian.workspace import Workspace
from serving.events import store as stores
from serving.events.store import OnlineStore
from serving.fast_path import SMALL_BATCH, FastPath
from serving.loading import BackgroundLoader
from serving.server import free_port, running

PATH = "/v1/events"


def event(event_id: Any, **values: Any) -> dict[str, Any]:
    moment = {"ts": "2026-05-01T12:00:00Z", "event_type": "view"}
    return {"event_id": str(event_id), "user_id": "u1", "user_source": "shop", **moment, **values}


def stored(workspace: Workspace) -> list[str]:
    log = open_log(workspace.online / "events.db")
    try:
        return [logged.event.event_id for logged in log.tail(0, 100_000).events]
    finally:
        log.close()


# ---- a server with models --------------------------------------------------------------------------------------------


def test_good_and_bad_events_of_one_request(serve, workspace):
    now = datetime.now(UTC)
    events = [
        event("购买-🛒", event_type="purchase", item_id="milk", order_id="o1", amount=2.5),
        event("future", ts=(now + timedelta(seconds=400)).isoformat()),
        event("skewed", ts=(now + timedelta(seconds=200)).isoformat()),
        event("far future", ts="9999-12-31T23:59:59Z"),
        event("later", user_id="nobody knows", properties={"a": [1]}),
        "no event",
        event("colour", colour="red"),
    ]
    status, body = serve(PATH, {"events": events})
    assert status == 200
    assert (body["accepted"], body["duplicates"]) == (3, 0)
    assert [(found["index"], found["error"]["field"]) for found in body["rejected"]] == [
        (1, "ts"),
        (3, "ts"),
        (5, None),
        (6, "colour"),
    ]
    assert body["model"]["name"] == "events"
    assert body["stale"] is False
    ids = stored(workspace)
    assert {"购买-🛒", "skewed", "later"} <= set(ids)
    assert not {"future", "far future", "colour"} & set(ids)
    again = serve(PATH, {"events": events})[1]
    assert (again["accepted"], again["duplicates"]) == (3, 3)
    conflict = serve(PATH, {"events": [event("later", user_id="another")]})[1]
    assert (conflict["accepted"], conflict["rejected"][0]["error"]["code"]) == (0, "conflict")
    log = open_log(workspace.online / "events.db")
    (purchase,) = [found.event for found in log.tail(0, 10_000).events if found.event.event_id == "购买-🛒"]
    log.close()
    row = decode(purchase)
    assert row.table == "transactions"
    assert (row.values["order_id"], row.values["amount"], row.values["quantity"]) == ("o1", 2.5, 1.0)


def test_a_thousand_events_and_a_large_body_go_through_bentoml(serve, workspace):
    events = [event(f"large-{n}", page="p" * 200) for n in range(1_000)]
    assert len(orjson.dumps({"events": events})) > SMALL_BATCH
    assert serve(PATH, {"events": events})[1]["accepted"] == 1_000
    assert len([name for name in stored(workspace) if name.startswith("large-")]) == 1_000
    status, body = serve(PATH, {"events": [*events, event("one more")]})
    assert (status, body["error"]["field"]) == (422, "events")
    assert serve(PATH, {"events": [event(n, page="p" * 1_000) for n in range(1_000)]})[0] == 413
    metrics = serve("/metrics")[1].decode()
    assert 'qianmian_request_seconds_count{route="/events",status="200"}' in metrics


# ---- a server that is killed -----------------------------------------------------------------------------------------


def wait_until_it_accepts(call: Any) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            status, body = call({"events": [event("first")]})
            assert status == 200, body
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("lives", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_without_models_nothing_that_was_acknowledged_is_lost_by_kills(tmp_path, server_environment, request_, lives):
    """Two workers and no model; one worker is killed, then all processes at once, while events are sent."""
    workspace = Workspace(tmp_path).create()
    acknowledged: set[str] = set()
    env = server_environment(workspace, 2)
    for life in range(lives):
        port = free_port()
        with running(workspace, port=port, workers=2, env=env, wait=False) as url:

            def call(body: Any, url: str = url) -> tuple[int, Any]:
                return request_(url + PATH, body)

            wait_until_it_accepts(call)
            assert request_(f"{url}/readyz")[0] == 503
            assert request_(f"{url}/v1/profile", {"user_id": "u"})[0] == 503
            nameless = call({"events": [event("nameless", user_source=None)]})
            assert (nameless[0], nameless[1]["error"]["code"]) == (503, "not_ready")
            (supervisor,) = [child for child in psutil.Process().children() if str(port) in child.cmdline()]
            ended = threading.Event()

            def send(sender: int, call: Any = call, life: int = life, ended: threading.Event = ended) -> set[str]:
                sent: set[str] = set()
                number = 0
                while not ended.is_set():
                    ids = [f"{life}-{sender}-{number}-{place}" for place in range(1 + 9 * (sender % 2))]
                    try:
                        status, body = call({"events": [event(name) for name in ids]})
                    except (OSError, HTTPException):  # of the connection; sent again
                        time.sleep(0.02)
                        continue
                    assert status == 200, body
                    assert body["accepted"] == len(ids)
                    sent |= set(ids)
                    number += 1
                return sent

            with ThreadPoolExecutor(4) as pool:
                sending = [pool.submit(send, sender) for sender in range(4)]
                time.sleep(0.7)
                workers = [child for child in supervisor.children(recursive=True) if "worker" in str(child.cmdline())]
                workers[life % len(workers)].send_signal(signal.SIGKILL)
                time.sleep(0.7)
                os.killpg(supervisor.pid, signal.SIGKILL)
                ended.set()
                for future in sending:
                    acknowledged |= future.result()
    ids = stored(workspace)
    assert len(acknowledged) > 20
    assert acknowledged <= set(ids)
    assert len(ids) == len(set(ids)), "what was repeated is stored once"
    assert {"nameless"} & set(ids) == set()


# ---- a log that fails ------------------------------------------------------------------------------------------------


def post(loader: BackgroundLoader, *bodies: Any) -> list[tuple[int, dict[str, Any], dict[bytes, bytes]]]:
    """Send bodies at once to the fast path of a server, in this process; statuses, bodies and headers."""
    app = FastPath(None, loader)  # type: ignore[arg-type]
    app.metrics = SimpleNamespace(count=lambda *_: None)  # type: ignore[assignment]
    here = {"server": ("127.0.0.1", 3000), "headers": []}
    scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), **here}

    async def one(body: Any) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": orjson.dumps(body)}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], orjson.loads(sent[1]["body"]), dict(sent[0]["headers"])

    async def all_at_once() -> Any:
        return await asyncio.gather(*map(one, bodies))

    return asyncio.run(all_at_once())


@pytest.fixture
def loader(tmp_path):
    """A server without models whose log is a file."""
    loader = BackgroundLoader(lambda: None, store=OnlineStore(Workspace(tmp_path).create()))  # type: ignore[arg-type, return-value]
    yield loader
    if loader.store._log is not None:
        loader.store._log.close()


def test_a_full_disk_is_a_507_and_what_was_acknowledged_stays(loader):
    """`max_page_count` makes SQLite report what it reports for a full disk, at the same place."""
    ((status, _, _),) = post(loader, {"events": [event("first")]})
    assert status == 200
    log = loader.store.open()
    assert isinstance(log, SqliteLog)
    log._writer.execute("PRAGMA max_page_count = 1")
    many = {"events": [event(n, page="p" * 900) for n in range(60)]}
    ((status, body, _),) = post(loader, many)
    assert (status, body["error"]["code"]) == (507, "storage_full")
    assert "make room" in body["error"]["hint"]
    assert log.header().last_seq == 1
    ((status, body, _),) = post(loader, many)
    assert (status, body["accepted"], body["duplicates"]) == (200, 60, 0)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; only root can mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_takes_events_again_when_there_is_room(small_disk, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(small_disk / "events.db"))
    loader = BackgroundLoader(lambda: None, store=OnlineStore())  # type: ignore[arg-type, return-value]
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 800_000)
    acknowledged: list[str] = []
    for call in range(100):
        ids = [f"{call}-{n}" for n in range(40)]
        ((status, body, _),) = post(loader, {"events": [event(name, page="p" * 900) for name in ids]})
        if status != 200:
            break
        acknowledged += ids
    assert (status, body["error"]["code"]) == (507, "storage_full")
    assert len(acknowledged) >= 80
    log = loader.store.open()
    assert [logged.event.event_id for logged in log.tail(0, 10_000).events] == acknowledged
    ballast.unlink()
    ((status, body, _),) = post(loader, {"events": [event(name, page="p" * 900) for name in ids]})
    assert (status, body["accepted"], body["duplicates"]) == (200, 40, 0)
    log.close()
    log = open_log(small_disk / "events.db")  # as after a restart
    assert [logged.event.event_id for logged in log.tail(0, 10_000).events] == [*acknowledged, *ids]
    log.close()


def test_too_many_waiting_events_are_a_429_with_retry_after(loader, tmp_path):
    log = loader.store.open()
    assert isinstance(log, SqliteLog)
    log._group._max_waiting = 5
    release = threading.Timer(0.3, lambda: held.__exit__(None, None, None))
    held = writing(log.path, 5)
    held.__enter__()
    release.start()
    answers = post(loader, *({"events": [event(f"{call}-{n}") for n in range(4)]} for call in range(2)))
    release.join()
    assert sorted(status for status, _, _ in answers) == [200, 429]
    ((body, headers),) = [(body, headers) for status, body, headers in answers if status == 429]
    assert body["error"]["code"] == "overloaded"
    assert 1 <= int(headers[b"retry-after"]) <= 3


def test_a_log_that_cannot_be_opened_is_a_503_and_is_opened_once_it_can(loader, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.2)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "missing" / "events.db"))
    for _ in range(2):  # the second is the error that is kept
        ((status, body, _),) = post(loader, {"events": [event("e")]})
        assert (status, body["error"]["code"]) == (503, "storage")
    with pytest.raises(StorageError):
        loader.store.open()
    assert "create the folder" in body["error"]["hint"]
    (tmp_path / "missing").mkdir()
    time.sleep(0.3)
    ((status, body, _),) = post(loader, {"events": [event("e")]})
    assert (status, body["accepted"]) == (200, 1)
    assert loader.store.open() is not None


def test_a_log_that_does_not_answer_is_a_503(loader, monkeypatch):
    from serving import http

    log = loader.store.open()
    assert isinstance(log, SqliteLog)
    monkeypatch.setattr(http, "ACCEPT_SECONDS", 0.1)
    with writing(log.path, 5):
        ((status, body, _),) = post(loader, {"events": [event("e")]})
    assert (status, body["error"]["code"]) == (503, "storage")
    assert "duplicates" in body["error"]["hint"]


# ---- where the log is ------------------------------------------------------------------------------------------------


def test_where_the_log_is(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    workspace, other = Workspace(tmp_path), ServingSettings(online_store="events/of.db")
    with pytest.raises(QianmianError, match="workspace does not exist"):
        locate(workspace, ServingSettings())
    workspace.create()
    assert locate(workspace, ServingSettings()) == str(tmp_path / "online" / "events.db")
    assert locate(workspace, other) == str(tmp_path / "events" / "of.db")
    assert locate(workspace, ServingSettings(online_store="redis://host:1/0")) == "redis://host:1/0"
    assert locate(None, ServingSettings()) is None
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "redis://given/0")
    for place in (workspace, None):
        assert locate(place, other) == "redis://given/0"
    monkeypatch.chdir(tmp_path)
    assert absolute("events.db") == str(tmp_path / "events.db")


def test_a_server_without_a_workspace_says_how_to_give_it_a_log(monkeypatch, tmp_path):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    with pytest.raises(NotReady, match="no event log") as caught:
        OnlineStore().open()
    assert ENVIRONMENT_VARIABLE in caught.value.hint
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "postgres://host")  # a mistake of the operator, not of the request
    with pytest.raises(StorageError, match="cannot be opened"):
        OnlineStore().open()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "events.db"))
    log = OnlineStore().open()
    assert Path(tmp_path / "events.db").exists()
    log.close()


def test_settings_that_cannot_be_read_are_said(tmp_path):
    def load() -> ServingSettings:
        raise ConfigError(["serving: wrong"], where="qianmian.yaml")

    loader = BackgroundLoader(lambda: None, store=OnlineStore(Workspace(tmp_path).create(), load))  # type: ignore[arg-type, return-value]
    ((status, body, _),) = post(loader, {"events": [event("e")]})
    assert (status, body["error"]["code"]) == (500, "config")
