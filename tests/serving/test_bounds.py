"""The bounds of requests are settings of the workspace, also before there are models."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from qianmian.settings import ServingSettings
from qianmian.workspace import Workspace
from serving.connections import WorkerState
from serving.server import TIMEOUT_OPTION, environment, running

SETTINGS = "serving: {max_head_bytes: 2048, head_seconds: 1, body_seconds: 1, allowed_hosts: [localhost, 127.0.0.1]}"
FEW_SECONDS = 8.0  # less than the defaults


@pytest.fixture(scope="module")
def url(tmp_path_factory, server_environment) -> Iterator[str]:
    """A server of an empty workspace."""
    workspace = Workspace(tmp_path_factory.mktemp("bounds")).create()
    workspace.config_file.write_text(SETTINGS)
    with running(workspace, env=server_environment(workspace), wait=False) as found:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{found}/livez").close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        time.sleep(1.5)  # the connections take the settings over once a second
        yield found


def answer(url: str, sent: bytes) -> tuple[int, str]:
    """Status and code of the error that follows what was sent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        client.sendall(sent)
        response = http.client.HTTPResponse(client)
        response.begin()
        return response.status, json.loads(response.read())["error"]["code"]


def test_heads_are_bounded_as_the_settings_say(url):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 5_000 + b"\r\n\r\n"
    assert answer(url, head) == (431, "head_too_large")
    begun = time.monotonic()
    assert answer(url, b"GET / HTTP/1.1\r\nHost: localhost\r\n") == (408, "timeout")
    assert time.monotonic() - begun < FEW_SECONDS


def test_a_body_is_waited_for_as_the_settings_say(url):
    begun = time.monotonic()
    assert answer(url, b"POST /v1/profile HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n") == (408, "timeout")
    assert time.monotonic() - begun < FEW_SECONDS


def test_only_allowed_hosts_are_answered_as_the_settings_say(url):
    assert answer(url, b"GET /nope HTTP/1.1\r\nHost: [::1]\r\n\r\n") == (403, "forbidden")
    assert answer(url, b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n") == (404, "not_found")


def test_connections_take_the_bounds_over():
    state = WorkerState()
    assert (state.head_bytes, state.head_seconds, state.unread_seconds) == (32_768, 10.0, 10.0)
    state.take(ServingSettings(max_head_bytes=4_096, head_seconds=2, unread_seconds=3))
    assert (state.head_bytes, state.head_seconds, state.unread_seconds) == (4_096, 2.0, 3.0)


def test_the_time_of_a_response_is_told_to_bentoml_unless_its_options_say_it(monkeypatch):
    monkeypatch.delenv("BENTOML_CONFIG_OPTIONS", raising=False)
    assert TIMEOUT_OPTION not in environment(None)["BENTOML_CONFIG_OPTIONS"]
    assert environment(None, request_seconds=2.5)["BENTOML_CONFIG_OPTIONS"].endswith(f" {TIMEOUT_OPTION}=2.5")
    monkeypatch.setenv("BENTOML_CONFIG_OPTIONS", f"{TIMEOUT_OPTION}=9")
    found = environment(None, 2, request_seconds=2.5)["BENTOML_CONFIG_OPTIONS"].split()
    assert found == [f"{TIMEOUT_OPTION}=9", "services.qianmian.workers=2"]
