"""The client against a server that fails as it is told: nothing is lost, doubled, or repeated without end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from qianmian.client import MAX_BATCH_BYTES, Client, ClientError


class Server(ThreadingHTTPServer):
    """Stores events by their ids. `plan` has what it does to the next requests: a status, or what else goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Any] = []
        self.stored: dict[str, dict[str, Any]] = {}
        self.batches: list[int] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((path, body))
        if path != "/v1/events":
            return {"path": path, "body": body}
        events, duplicates, rejected = body["events"], 0, []
        self.batches.append(len(events))
        for index, event in enumerate(events):
            if "ts" not in event:
                error = {"code": "invalid_request", "message": "no time", "field": "ts", "hint": None}
                rejected.append({"index": index, "error": error})
            else:
                duplicates += event["event_id"] in self.stored
                self.stored[event["event_id"]] = event
        return {"accepted": len(events) - len(rejected), "duplicates": duplicates, "rejected": rejected}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        todo = self.server.plan.pop(0) if self.server.plan else 200
        if todo == "slow":
            self.server.released.wait(10)
        if todo == "lost":  # stored, and the answer is lost
            self.server.answer(self.path, body)
        if todo in ("lost", "cut", "slow"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers = todo if isinstance(todo, tuple) else (todo, {})
        if status == 200:
            content = json.dumps(self.server.answer(self.path, body)).encode()
        elif status == 502:
            content = b"<html>bad gateway</html>"
        else:
            error = {"code": f"code_{status}", "message": "no", "field": "user_id", "hint": "wait"}
            content = json.dumps({"error": error}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        if "idle" in headers.get("X-Then", ""):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses, which are not waited for."""
    found: list[float] = []
    # of the client alone: other threads of this process sleep too
    monkeypatch.setattr("qianmian.client.time", SimpleNamespace(sleep=found.append))
    return found


def event(number: int, **values: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "user_id": "u", "event_type": "view", "ts": "2026-05-01", **values}


def test_events_go_in_batches_over_one_connection(server):
    result = Client(server.url).send([event(n) for n in range(2_300)])
    assert (result.accepted, result.duplicates, result.rejected) == (2_300, 0, ())
    assert server.batches == [1_000, 1_000, 300]
    assert len(server.stored) == 2_300
    assert server.connections == 1


def test_a_batch_is_not_larger_than_a_body_may_be(server):
    Client(server.url).send([event(n, page="é" * 100_000) for n in range(10)])
    assert server.batches == [4, 4, 2]
    assert 4 * 200_000 < MAX_BATCH_BYTES < 5 * 200_000


def test_no_events_are_no_request(server):
    assert Client(server.url).send([]).accepted == 0
    assert server.batches == []


def test_an_event_without_id_keeps_the_one_it_got_and_the_caller_s_is_unchanged(server, pauses):
    mine = {"user_id": "u", "event_type": "view", "ts": "2026-05-01", "event_id": None}
    server.plan = ["lost", 503]
    result = Client(server.url).send([mine])
    assert (result.accepted, result.duplicates) == (1, 1)
    assert len(server.stored) == 1
    assert mine["event_id"] is None


def test_rejected_events_have_their_place_among_all(server):
    events = [event(n) for n in range(1_001)]
    del events[1_000]["ts"], events[3]["ts"]
    result = Client(server.url).send(events)
    assert result.accepted == 999
    assert [(each.index, each.event["event_id"], each.code, each.field) for each in result.rejected] == [
        (3, "e3", "invalid_request", "ts"),
        (1_000, "e1000", "invalid_request", "ts"),
    ]


@pytest.mark.parametrize("trouble", [429, 502, 503, 504, 507, "cut", "lost"])
def test_what_may_succeed_is_repeated_with_growing_pauses(server, pauses, trouble):
    server.plan = [trouble] * 3
    assert Client(server.url).send([event(1)]).accepted == 1
    assert len(pauses) == 3
    assert all(base <= pause <= 1.5 * base for base, pause in zip((0.1, 0.2, 0.4), pauses, strict=True))


def test_a_timeout_is_repeated(server, pauses):
    server.plan = ["slow"]
    assert Client(server.url, timeout=0.2).send([event(1)]).accepted == 1


@pytest.mark.parametrize(("said", "least", "most"), [("2", 2.0, 3.0), ("9999", 30.0, 30.0), ("soon", 0.1, 0.15)])
def test_retry_after_is_waited_for(server, pauses, said, least, most):
    server.plan = [(429, {"Retry-After": said})]
    Client(server.url).send([event(1)])
    assert len(pauses) == 1
    assert least <= pauses[0] <= most


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_other_errors_are_not_repeated(server, pauses, status):
    server.plan = [status]
    with pytest.raises(ClientError, match="wait") as caught:
        Client(server.url).profile("u")
    error = caught.value
    assert (error.code, error.message, error.field, error.hint, error.status) == (
        f"code_{status}",
        "no",
        "user_id",
        "wait",
        status,
    )
    assert pauses == []


def test_after_the_last_try_the_unsent_events_can_be_sent_without_doubling_any(server, pauses):
    client = Client(server.url, retries=0)
    server.plan = [200, "lost", 502]
    events = [{**event(n), "event_id": None} for n in range(2_500)]
    with pytest.raises(ClientError) as caught:
        client.send(events)
    assert (caught.value.code, caught.value.status) == ("invalid_response", 502)
    assert len(caught.value.unsent) == 1_500
    result = client.send(caught.value.unsent)
    assert (result.accepted, result.duplicates) == (1_500, 1_000)
    assert len(server.stored) == 2_500


def test_nobody_listens(pauses):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ClientError) as caught:
        Client(f"http://127.0.0.1:{port}", retries=2).profile("u")
    assert (caught.value.code, caught.value.status, len(pauses)) == ("unreachable", None, 2)


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure(server, pauses):
    client = Client(server.url, retries=0)
    server.plan = [(200, {"X-Then": "idle"})]
    client.profile("u")
    client.profile("u")
    assert (server.connections, pauses) == (2, [])


def test_requests_have_the_fields_of_their_routes(server):
    client = Client(server.url + "/behind/")
    client.recommendations("u", num_results=3)
    client.profile("u", user_source="shop")
    assert client.post("/v1/churn", {"user_ids": ["u"]})["path"] == "/behind/v1/churn"
    assert server.requests == [
        ("/behind/v1/recommendations", {"user_id": "u", "num_results": 3}),
        ("/behind/v1/profile", {"user_id": "u", "user_source": "shop"}),
        ("/behind/v1/churn", {"user_ids": ["u"]}),
    ]


def test_each_thread_has_a_connection_of_its_own(server):
    client = Client(server.url)
    threads = [
        threading.Thread(target=lambda n=n: [client.send([event(100 * n + k)]) for k in range(20)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.stored) == 80
    assert server.connections == 4


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://host", "http://"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="not the address of a server"):
        Client(url)


def test_the_client_imports_the_standard_library_only():
    code = "import sys, qianmian.client; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["qianmian", "__main__"], ["__main__", "qianmian"], ["qianmian"])
