"""Connections of the real server: heads are bounded, SIGTERM cuts no request, and no URL comes from the Host header."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psutil
import pytest

from qianmian.settings import ServingSettings
from qianmian.workspace import Workspace
from serving.server import running

BOUNDS = ServingSettings()
ERROR = {"code", "message", "field", "hint"}


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=40)


def answer_to(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The response that arrives on a connection: status, headers, body."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def error_on(client: socket.socket) -> tuple[int, str]:
    """Status and code of the error that arrives on a connection, which then ends."""
    status, headers, body = answer_to(client)
    assert headers["connection"] == "close"
    error = json.loads(body)["error"]
    assert error.keys() == ERROR
    assert client.recv(1) == b""
    return status, error["code"]


# ---- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_connections_without_a_complete_head_are_closed_while_others_are_answered(serve, buyers):
    body = json.dumps({"user_id": buyers[0]}).encode()
    request = b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(serve.url)) for _ in range(220)]
        silent, again, begins = clients[:10], clients[10:20], clients[10:]
        for client in again:  # a connection that has had a response is no exception
            client.sendall(request)
            assert answer_to(client)[0] == 200
        head = b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nX-Begun: "
        for number, client in enumerate(begins):
            client.sendall(head if number < 50 else head[: number % len(head) + 1])
        with ThreadPoolExecutor(len(clients)) as pool:
            ended = [pool.submit(client.recv, 1, socket.MSG_PEEK) for client in clients]
            while not all(end.done() for end in ended) and time.monotonic() < begun + BOUNDS.head_seconds + 5:
                for client in begins[:50]:  # a byte now and then does not help
                    with contextlib.suppress(OSError):
                        client.sendall(b"x")
                assert serve("/v1/profile", {"user_id": buyers[0]})[0] == 200
                time.sleep(0.2)
            assert all(end.done() for end in ended)
            assert time.monotonic() - begun > BOUNDS.head_seconds - 1
        assert {error_on(client) for client in begins} == {(408, "timeout")}
        assert {client.recv(1) for client in silent} == {b""}


@pytest.mark.parametrize(
    "head",
    [b"x: " + b"y" * 1_000_000, b"x: y\r\n" * 50_000, b"x" * 1_000_000],
    ids=["a long header", "many headers", "a long name"],
)
def test_a_head_that_is_too_large_is_refused(serve, head):
    with connect(serve.url) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
        assert error_on(client) == (431, "head_too_large")
    with connect(serve.url) as client:
        client.sendall(b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n")
        assert error_on(client) == (431, "head_too_large")


def test_a_large_head_is_answered_and_does_not_count_for_the_next_one(serve):
    with connect(serve.url) as client:
        for _ in range(3):
            for part in (
                b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nx: ",
                b"y" * (BOUNDS.max_head_bytes - 100),
                b"\r\n\r\n",
            ):
                client.sendall(part)
                time.sleep(0.02)
            assert answer_to(client)[0] == 200


CHUNKED = b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize("trailers", [b"x: y\r\n" * 50_000, b"x: " + b"y" * 1_000_000], ids=["many", "a long one"])
def test_trailers_are_bounded_like_heads(serve, trailers):
    with connect(serve.url) as client:
        client.sendall(CHUNKED + b"0\r\n" + trailers)
        assert error_on(client) == (431, "head_too_large")


def test_small_trailers_and_large_chunked_bodies_are_answered(serve):
    with connect(serve.url) as client:
        for _ in range(3):
            for part in (CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n", b"0\r\n", b"x: y\r\n" * 100, b"\r\n"):
                client.sendall(part)
                time.sleep(0.02)
            assert answer_to(client)[0] == 422


def test_a_large_body_is_no_head(serve):
    body = b'{"user_id": "' + b"x" * 900_000 + b'"}'
    with connect(serve.url) as client:
        for _ in range(2):
            client.sendall(
                b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            status, _, text = answer_to(client)
            assert status == 422
            assert json.loads(text)["error"]["field"] == "user_id"


def test_what_is_no_http_gets_an_error_in_the_uniform_format(serve):
    with connect(serve.url) as client:
        client.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        assert error_on(client) == (400, "bad_request")


# ---- responses that are not read -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_connections_whose_responses_are_not_read_are_aborted_while_slow_readers_are_served(serve):
    def open_ports() -> set[int]:
        """Ports of the clients whose connections the server has open."""
        (worker,) = server_of(serve.url).children()
        return {connection.raddr.port for connection in worker.net_connections("tcp") if connection.raddr}

    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            client.connect((urlsplit(serve.url).hostname, urlsplit(serve.url).port))
            client.sendall(b"GET /docs.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)  # more than any buffer takes
            clients.append(client)
        ports = [client.getsockname()[1] for client in clients]
        time.sleep(1)
        assert set(ports) <= open_ports()
        filled = time.monotonic()
        slow = clients[0]
        while time.monotonic() < filled + BOUNDS.unread_seconds + 6 or open_ports() & set(ports[1:]):
            assert time.monotonic() < filled + BOUNDS.unread_seconds + 30
            assert slow.recv(20_000)
            time.sleep(0.3)
        assert ports[0] in open_ports()


# ---- the Host header -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_url_is_built_from_the_host_header(serve, method):
    """A redirect to the host that the client names would let a link lead anywhere."""
    own = ["/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/schema.json", "/static_content", "/assets"]
    paths = ["", *own, "/v1", "/v1/profile", "/v1/lookalike", "//evil.example", "/%2fevil.example", "/\\evil.example"]
    for path in [*paths, *(f"{path}/" for path in paths), *(f"/{path}/.." for path in own), "http://evil.example/"]:
        with connect(serve.url) as client:
            client.sendall(
                f"{method} {path or '*'} HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n"
                "Content-Length: 2\r\nConnection: close\r\n\r\n{}".encode()
            )
            status, headers, body = answer_to(client)
            assert not 300 <= status < 400, path
            assert "location" not in headers, path
            assert b"evil.example" not in body, path


# ---- draining --------------------------------------------------------------------------------------------------------


def server_of(url: str) -> psutil.Process:
    """The process of a server that this process started."""
    port = str(urlsplit(url).port)
    return next(child for child in psutil.Process().children() if port in child.cmdline())


def ended_within(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def hammer(url: str, path: str, body: dict, found: Counter[str], first: threading.Barrier) -> None:
    """Send requests one after another, over a connection that is kept, until connections are refused."""
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    answered = 0
    while True:
        kept = client.sock is not None
        try:
            if not kept:
                client.connect()
        except ConnectionRefusedError:
            found["refused"] += 1
            return
        try:
            client.request("POST", path, json.dumps(body))
            response = client.getresponse()
            json.loads(response.read())
            found[f"status {response.status}"] += 1
            found["told to close"] += response.will_close
        except (OSError, http.client.HTTPException) as error:
            found[f"{type(error).__name__} on a {'kept' if kept else 'new'} connection"] += 1
            client.close()
        answered += 1
        if answered == 1:
            first.wait(60)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_cuts_no_request(workspace, buyers, workers, tmp_path, request_):
    found, first = Counter[str](), threading.Barrier(17)
    slow = ("/v1/lookalike", {"seed_user_ids": buyers[:60], "size": 50})
    explain = ("/v1/recommendations", {"user_id": buyers[0], "num_results": 250, "explain": True})
    plain = [("/v1/recommendations", {"user_id": user}) for user in buyers[:12]]
    log = tmp_path / "log"
    with log.open("wb") as handle, running(workspace, workers=workers, log=handle) as url:
        threads = [
            threading.Thread(target=hammer, args=(url, path, body, found, first))
            for path, body in (slow, slow, explain, explain, *plain)
        ]
        while log.read_text().count("Service qianmian initialized") < workers:  # each then begins to accept
            # connections go to either worker, and none of them accepts one before both have loaded
            assert all(request_(url + "/readyz")[0] == 200 for _ in range(10))
            time.sleep(0.1)
        time.sleep(0.5)
        assert all(request_(url + "/readyz")[0] == 200 for _ in range(30))
        for thread in threads:
            thread.start()
        first.wait(60)
        process = server_of(url)
        process.terminate()
        seen = set()
        with contextlib.suppress(OSError):
            while True:
                with connect(url) as client:
                    client.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    status, headers, body = answer_to(client)
                    seen.add((status, headers.get("connection"), b"shutting down" in body))
                time.sleep(0.02)
        assert ended_within(process, 20)
        for thread in threads:
            thread.join()
    assert (503, "close", True) in seen
    assert found.keys() == {"status 200", "told to close", "refused"}, (found, log.read_text())
    assert found["refused"] == 16
    assert found["told to close"] >= 16
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_request_that_outlasts_the_shutdown_is_cut_and_logged(workspace, buyers, tmp_path):
    shop, log = Workspace(tmp_path / "shop"), tmp_path / "log"
    shutil.copytree(workspace.root, shop.root)
    shop.config_file.write_text("serving: {drain_seconds: 0.2, shutdown_seconds: 1.5}")
    body = json.dumps({"user_id": buyers[0]}).encode()
    with log.open("wb") as handle, running(shop, log=handle) as url:
        with connect(url) as client, connect(url) as begins:
            client.sendall(
                b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1)
            )
            client.sendall(body)  # the last byte never comes
            begins.sendall(b"POST /v1/profile HTTP/1.1\r\n")
            time.sleep(0.2)
            process = server_of(url)
            process.terminate()
            started = time.monotonic()
            assert error_on(client) == (503, "not_ready")
            assert time.monotonic() - started > 1
            assert begins.recv(1) == b""
        assert ended_within(process, 10)
    assert "shutdown=cut connections=1" in log.read_text()
    assert "Traceback" not in log.read_text()
