"""Requests whose end can be read in two ways: none is executed twice, and no response goes to another request."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from urllib.parse import urlsplit

import pytest

PROFILE = b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\n"


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def responses(url: str, sent: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each response to some bytes, until the server closes the connection."""
    found = []
    with connect(url) as client, client.makefile("rb") as stream:
        client.sendall(sent)
        client.settimeout(5)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while line := stream.readline():
                headers = http.client.parse_headers(stream)
                found.append((int(line.split()[1]), stream.read(int(headers.get("content-length", 0)))))
    return found


def profile(user: str, head: bytes = b"") -> bytes:
    body = json.dumps({"user_id": user}).encode()
    return PROFILE + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


HIDDEN, LAST = profile("smuggled"), profile("two", b"Connection: close\r\n")
CHUNK = b'{"user_id": "u"}'


def chunked(*chunks: bytes, head: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    return PROFILE + head + b"\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def with_head(*lines: bytes, body: bytes = b"") -> bytes:
    return PROFILE + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


@pytest.mark.parametrize(
    "sent",
    [
        with_head(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"Transfer-Encoding: chunked", b"Content-Length: 6", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"Content-Length: 2", b"Content-Length: 3", body=b"{}" + HIDDEN),
        with_head(b"Content-Length: 2, 3", body=b"{}" + HIDDEN),
        with_head(b"Content-Length: +2", body=b"{}" + HIDDEN),
        with_head(b"Content-Length: -2", body=b"{}" + HIDDEN),
        with_head(b"Content-Length: 0x2", body=b"{}" + HIDDEN),
        with_head(b"Content-Length: 2 2", body=b"{}" + HIDDEN),
        with_head(b"Content-Length : 2", body=b"{}" + HIDDEN),
        with_head(b"Content-Length: " + b"9" * 40, body=b"{}" + HIDDEN),
        with_head(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"X: y\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
        with_head(b"X: y", b" folded: z", b"Content-Length: 2", body=b"{}" + HIDDEN),
        with_head(b"X: \0y", b"Content-Length: 2", body=b"{}" + HIDDEN),
        PROFILE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + CHUNK + b"\r\n0\r\n\r\n" + HIDDEN,
        PROFILE + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + HIDDEN,
        PROFILE + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n" + HIDDEN,
        PROFILE + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n" + HIDDEN,
        chunked(CHUNK) + b"0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
        profile("one").replace(b"\r\n", b"\n") + HIDDEN,
        chunked(CHUNK).replace(b"chunked\r\n\r\n10\r\n", b"chunked\r\n\r\n10\n") + b"0\r\n\r\n" + HIDDEN,
        b"POST /v1/profile HTTP/1.1 HTTP/1.0\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
        b"POST /v1/profile\r\n\r\n" + HIDDEN,
    ],
)
def test_a_request_of_two_readings_is_refused_and_nothing_behind_it_is_read(serve, sent):
    found = responses(serve.url, sent)
    assert b"smuggled" not in b"".join(body for _, body in found)
    assert len(found) <= 1
    assert all(400 <= status < 500 for status, _ in found)
    assert serve("/v1/profile", {"user_id": "after"})[1]["user_id"] == "after"


@pytest.mark.parametrize(
    "sent",
    [
        profile("one"),
        chunked(b'{"user_id"', b': "one"}') + b"0\r\n\r\n",
        PROFILE
        + b'Transfer-Encoding: chunked\r\n\r\n10;a=b;c="d"\r\n'
        + CHUNK.replace(b'u"}', b'o"}')
        + b"\r\n0\r\n\r\n",
        chunked(CHUNK) + b"0\r\nX: y\r\nHost: other\r\nOrigin: https://evil.example\r\n\r\n",
    ],
    ids=["length", "chunks", "extensions", "trailers"],
)
def test_what_follows_a_complete_request_is_the_next_one(serve, sent):
    found = responses(serve.url, sent + LAST)
    assert [status for status, _ in found] == [200, 200]
    assert json.loads(found[0][1])["user_id"] in ("one", "o", "u")
    assert json.loads(found[1][1])["user_id"] == "two"


def test_responses_come_in_the_order_of_pipelined_requests(serve, buyers):
    """Fast ones, slow ones that leave the event loop, and errors."""
    slow = json.dumps({"seed_user_ids": buyers[:30], "size": 5}).encode()
    lookalike = b"POST /v1/lookalike HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(slow) + slow
    sent = b"".join(profile(f"u{n}") + (lookalike if n % 4 == 0 else b"") for n in range(8))
    with connect(serve.url) as client:
        client.sendall(sent + profile("last", b"Connection: close\r\n"))
        text = b"".join(iter(lambda: client.recv(65_536), b""))
    ids = [part.split(b'"')[0] for part in text.split(b'"user_id":"')[1:]]
    profiles = [one for one in ids if one.startswith((b"u", b"last")) and one.decode() not in buyers]
    assert profiles == [*(b"u%d" % n for n in range(8)), b"last"]


def test_a_body_that_looks_like_a_request_is_a_body(serve):
    body = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN
    found = responses(serve.url, PROFILE + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert [status for status, _ in found] == [400]


def test_a_get_with_a_body_does_not_leave_it_for_the_next_request(serve):
    head = b"GET /v1/profile HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    found = responses(serve.url, head + HIDDEN + LAST)
    assert [status for status, _ in found] == [405, 200]
    assert json.loads(found[1][1])["user_id"] == "two"


def test_an_upgrade_is_no_way_around(serve):
    upgrade = b"GET /v1/profile HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n"
    for protocol in (b"h2c", b"websocket", b"TLS/1.0"):
        with connect(serve.url) as client:
            client.sendall(upgrade % protocol + b"HTTP2-Settings: AAMAAABk\r\n\r\n")
            assert re.match(rb"HTTP/1.1 4\d\d ", client.recv(1_000)), protocol
    assert responses(serve.url, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0][0] == 400
    assert responses(serve.url, b"CONNECT shop:80 HTTP/1.1\r\nConnection: close\r\n\r\n")[0][0] in (400, 404, 405)
