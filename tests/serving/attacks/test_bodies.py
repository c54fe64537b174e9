"""Hostile requests that are valid HTTP: each is answered at once with the right status, and repeats little of itself."""

from __future__ import annotations

import gzip
import json
import socket
import time
from urllib.parse import urlsplit

import psutil
import pytest

from serving.endpoints import ENDPOINTS

SECONDS = 3.0  # of CPU that one hostile request may take; the measured ones take milliseconds
GROWTH = 200e6  # bytes that the worker may grow by during all of them


def worker_of(url: str) -> psutil.Process:
    port = urlsplit(url).port
    return next(
        worker
        for server in psutil.process_iter(["cmdline"])  # which has no command line of a process that has ended
        if str(port) in (server.info["cmdline"] or ())
        for worker in server.children()
    )


@pytest.fixture(scope="module")
def attack(serve, buyers):
    """Send a request, check its cost, and that the server answers normally afterwards."""
    worker = worker_of(serve.url)
    before = worker.memory_info().rss

    def send(path, body, **options):
        begun = worker.cpu_times()
        status, answer = serve(path, body, **options)
        spent = worker.cpu_times()
        assert spent.user - begun.user < SECONDS
        if status != 200:
            assert set(answer["error"]) == {"code", "message", "field", "hint"}
            assert len(json.dumps(answer)) < 20_000, "little of the request is repeated"
        assert serve("/v1/profile", {"user_id": buyers[0]})[0] == 200
        return status, answer

    yield send
    assert worker.memory_info().rss - before < GROWTH


# ---- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/v1/../../../../etc/passwd",
        "/v1/%2e%2e/%2e%2e/etc/passwd",
        "/v1/..%2f..%2fetc%2fpasswd",
        "/v1/%252e%252e/etc/passwd",
        "/v1/..\\..\\etc\\passwd",
        "/v1/profile/../../metrics",
        "/v1//profile",
        "/v1/profile%00.json",
        "/v1/profile;a=b",
        "/v1/PROFILE",
        "/static_content/../../../etc/passwd",
        "/static_content/..%2f..%2f..%2fetc%2fpasswd",
        "/%c0%ae%c0%ae/etc/passwd",
        "/%ff",
        "/" + "a/" * 5_000,
        "file:///etc/passwd",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_path_leads_out_of_the_routes(serve, path, method):
    address = urlsplit(serve.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.split()[1] in (b"400", b"404", b"405"), answer[:200]
    assert b"root:" not in answer
    assert b"etc/passwd" not in answer


# ---- ids and texts ---------------------------------------------------------------------------------------------------

HOSTILE_IDS = [
    "../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "a\r\nSet-Cookie: a=b",
    "a\nroute=/forged status=200",
    "' OR 1=1 --",
    '"; DROP TABLE customers; --',
    "{{7*7}}${7*7}%s%n{0.__class__}",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "\u202e\u2066\ufeff",
    "ａｄｍｉｎ",
    "e\u0301" * 100,
    "\x1b[2J\x1b]0;title\x07",
    "\U0001f469\u200d\U0001f4bb" * 60,
    "a\u2028b\u2029c\x85d",
]


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_an_id_is_a_text_and_nothing_else(attack, serve, hostile):
    """It is answered as an unknown id, byte by byte, is in no header, and makes no line in the log."""
    logged = len(serve.log.read_bytes())
    for path, body in (
        ("/v1/profile", {"user_id": hostile}),
        ("/v1/recommendations", {"user_id": hostile, "exclude": [hostile]}),
        ("/v1/churn", {"user_ids": [hostile]}),
    ):
        status, answer = attack(path, body)
        assert status == 200
        assert hostile in (answer.get("user_id"), *(row["user_id"] for row in answer.get("scores", ())))
    for path, body in (
        ("/v1/similar-items", {"item_id": hostile}),
        ("/v1/profile", {"user_id": "u", hostile: 1}),
        ("/v1/recommendations", {"user_id": "u", "scene": hostile}),
        ("/v1/recommendations", {"user_id": "u", "filters": {hostile: hostile}}),
        (
            "/v1/recommendations",
            {"user_id": "u", "filters": {"and": [{"attribute": "price", "op": hostile, "value": 1}]}},
        ),
        ("/v1/recommendations", {"user_id": "u", "diversity": {"max_per": {hostile: 1}}}),
    ):
        status, answer = attack(path, body)
        assert status in (404, 422), answer
    new = serve.log.read_bytes()[logged:]
    assert hostile.encode() not in new
    assert b"forged" not in new


def test_the_content_type_of_answers_lets_no_browser_run_them(serve):
    """An error that repeats a script is JSON, never HTML."""
    address = urlsplit(serve.url)
    body = b'{"<script>alert(1)</script>": 1}'
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(
            b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    head = answer.split(b"\r\n\r\n")[0].lower()
    assert b"content-type: application/json" in head
    assert b"<script>" not in head


# ---- sizes, numbers and nesting --------------------------------------------------------------------------------------


def nested(depth: int, head: str = "not") -> dict:
    rule: dict = {"brand": "a"}
    for _ in range(depth):
        rule = {head: rule if head == "not" else [rule]}
    return rule


@pytest.mark.parametrize(
    ("path", "body", "allowed"),
    [
        ("/v1/churn", {"user_ids": ["u"] * 10_001}, {422}),
        ("/v1/churn", b'{"user_ids": [' + b'"u",' * 250_000 + b'"u"]}', {413}),
        ("/v1/profile", {"user_id": "x" * 500_000}, {422}),
        ("/v1/profile", b'{"user_id": "u", ' + b'"user_source": "a",' * 900 + b'"user_source": "b"}', {200, 422}),
        ("/v1/profile", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {400, 413}),
        ("/v1/recommendations", {"user_id": "u", "filters": nested(21)}, {422}),
        ("/v1/recommendations", {"user_id": "u", "filters": nested(150)}, {422, 400}),
        ("/v1/recommendations", {"user_id": "u", "filters": nested(21, "and")}, {422}),
        ("/v1/recommendations", {"user_id": "u", "filters": {"and": [{"brand": "a"}] * 501}}, {422}),
        ("/v1/recommendations", {"user_id": "u", "filters": {"and": [{"and": [{"brand": "a"}] * 100}] * 100}}, {422}),
        ("/v1/recommendations", {"user_id": "u", "filters": {"brand": ["(a+)+$" + "a" * 900] * 500}}, {200}),
        ("/v1/recommendations", {"user_id": "u", "filters": {"brand": {"contains": "(" * 900}}}, {422}),
        ("/v1/recommendations", b'{"user_id": "u", "num_results": ' + b"9" * 100_000 + b"}", {400, 422}),
        ("/v1/recommendations", b'{"user_id": "u", "num_results": 1e400}', {400, 422}),
        ("/v1/recommendations", b'{"user_id": "u", "num_results": -0}', {422}),
        ("/v1/recommendations", b'{"user_id": "u", "filters": {"price": NaN}}', {400, 422}),
        ("/v1/recommendations", b'{"user_id": "u", "filters": {"price": -Infinity}}', {400, 422}),
        ("/v1/recommendations", b'{"user_id": "u", "filters": {"price": 1' + b"0" * 5_000 + b"}}", {400, 422}),
        ("/v1/recommendations", b'{"user_id": "u", "filters": {"price": 1e999}}', {400, 422}),
        ("/v1/lookalike", b'{"seed_user_ids": ["a"], "size": 1e20}', {400, 422}),
        ("/v1/profile", b'\xef\xbb\xbf{"user_id": "u"}', {400}),
        ("/v1/profile", '{"user_id": "u"}'.encode("utf-16"), {400}),
        ("/v1/profile", b'{"user_id": "\xc0\xaf"}', {400}),
        ("/v1/profile", b'{"user_id": "\xed\xa0\x80"}', {400}),
    ],
)
def test_a_body_of_any_size_and_shape_is_answered_at_once(attack, path, body, allowed):
    status, answer = attack(path, body)
    assert status in allowed, answer


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x-gzip, gzip"])
def test_a_compressed_body_is_never_expanded(attack, encoding):
    """Twenty megabytes of zeros are twenty kilobytes of gzip; no encoding is supported, so it is not JSON."""
    bomb = gzip.compress(b"0" * 20_000_000)
    status, answer = attack("/v1/profile", bomb, headers={"Content-Encoding": encoding})
    assert (status, answer["error"]["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_polluting_keys_are_unknown_fields(attack, route):
    for key in ("__proto__", "constructor", "__class__", "__init__", "", "a.b", "$where"):
        status, answer = attack(f"/v1{route}", {key: {"admin": True}})
        assert status == 422, answer


def test_an_error_is_cut(attack):
    status, answer = attack("/v1/profile", {"x" * 200_000: "y" * 200_000})
    assert status == 422
    assert len(json.dumps(answer)) < 10_000


def test_headers_of_a_gateway_change_nothing(serve, buyers):
    """Nobody may choose a path, a host, a method or an address of a client by a header."""
    plain = serve("/v1/profile", {"user_id": buyers[0]})
    for name, value in {
        "X-Original-URL": "/metrics",
        "X-Rewrite-URL": "/metrics",
        "X-HTTP-Method-Override": "DELETE",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=127.0.0.1;host=evil.example",
        "Range": "bytes=0-1",
        "Expect": "200-ok",
        "Origin": "http://localhost:8080",
        "Accept": "text/html",
        "Accept-Encoding": "gzip, br",
    }.items():
        assert serve("/v1/profile", {"user_id": buyers[0]}, headers={name: value}) == plain, name
    status, answer = serve("/v1/erase", {"user_id": buyers[0]}, headers={"Origin": "https://evil.example"})
    assert (status, answer["error"]["code"]) == (403, "forbidden"), "a page of another site, and the server has no keys"


def test_all_of_it_took_no_time_of_others(serve, buyers):
    begun = time.monotonic()
    for _ in range(20):
        assert serve("/v1/profile", {"user_id": buyers[0]})[0] == 200
    assert time.monotonic() - begun < 5
