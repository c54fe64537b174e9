"""A client that hangs up is no error of the server: status 499 or the status of the answer, and no traceback."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections import Counter
from urllib.parse import urlparse

import pytest

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends a reset instead of an end


def statuses(serve, route: str) -> Counter[str]:
    """Number of requests to a route by status, from /metrics."""
    counted = Counter[str]()
    for line in serve("/metrics")[1].decode().splitlines():
        found = re.fullmatch(r'qianmian_request_seconds_count\{route="(.*?)",status="(\d+)"\} (.*)', line)
        if found and f"/v1{found[1]}" == route:
            counted[found[2]] += int(float(found[3]))
    return counted


def hang_up(serve, route: str, head: str, sent: bytes, *, reset: bool) -> None:
    """Send the start of a request and close the connection without reading the answer."""
    address = urlparse(serve.url)
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(f"POST {route} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode() + sent)
        time.sleep(0.1)  # the server has begun to read the body
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def counted_since(serve, route: str, before: Counter[str], number: int) -> Counter[str]:
    """The requests counted since `before`; waits until there are `number` of them."""
    deadline = time.monotonic() + 20
    while (found := statuses(serve, route) - before).total() < number and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize(
    ("head", "sent"),
    [
        ("Content-Length: 30", b'{"use'),
        ("Content-Length: 30", b""),
        ("Content-Length: 9000000", b"x" * 2_000_000),  # beyond the limit, where the rest is read and dropped
        ("Transfer-Encoding: chunked", b'5\r\n{"use\r\n'),
    ],
    ids=["part", "nothing", "too large", "chunk"],
)
def test_hanging_up_while_sending_the_body(serve, head, sent, reset):
    before, written = statuses(serve, "/v1/profile"), serve.log.stat().st_size
    for _ in range(2):
        hang_up(serve, "/v1/profile", head, sent, reset=reset)
    assert counted_since(serve, "/v1/profile", before, 2) == {"499": 2}
    assert "ERROR" not in serve.log.read_text()[written:]
    assert "Traceback" not in serve.log.read_text()[written:]


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("route", ["/v1/lookalike", "/v1/profile"])
def test_hanging_up_while_the_answer_is_computed(serve, buyers, route, reset):
    before, written = statuses(serve, route), serve.log.stat().st_size
    request = {"seed_user_ids": buyers[:60], "size": 50} if route == "/v1/lookalike" else {"user_id": buyers[0]}
    body = json.dumps(request).encode()
    hang_up(serve, route, f"Content-Length: {len(body)}", body, reset=reset)
    assert counted_since(serve, route, before, 1).keys() <= {"200", "499"}
    assert "ERROR" not in serve.log.read_text()[written:]
    assert "Traceback" not in serve.log.read_text()[written:]
    assert serve("/v1/profile", {"user_id": buyers[0]})[0] == 200
