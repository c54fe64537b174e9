"""`qianmian serve` before there is anything to serve, and on a port that is taken."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_exit_2_and_says_what_to_do(qianmian, shop, taken):
    done = qianmian("serve", "--port", taken, "--workspace", shop)
    assert done.code == 2
    assert str(taken) in done.err
    assert "--port" in done.err


def test_a_host_that_is_not_ours_is_exit_2(qianmian, shop):
    done = qianmian("serve", "--host", "192.0.2.1", "--workspace", shop)
    assert done.code == 2
    assert "192.0.2.1" in done.err


def test_nothing_to_serve_is_exit_2_and_names_train(qianmian, shop):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = qianmian("serve", "--port", port, "--workspace", shop, "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "not_ready"
    assert "qianmian train all" in done.json["error"]["hint"]


def test_doctor_warns_of_a_port_in_use(qianmian, shop, taken):
    findings = qianmian("doctor", "--port", taken, "--workspace", shop, "--json").json["findings"]
    assert [finding["status"] for finding in findings if finding["check"] == "port"] == ["warn"]
