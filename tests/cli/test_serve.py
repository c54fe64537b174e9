"""`qianmian serve` without champions, and on a port in use."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def used_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_exit_2_and_names_the_option(qianmian, shop, used_port):
    done = qianmian("serve", "--port", used_port, "--workspace", shop)
    assert done.code == 2
    assert str(used_port) in done.err
    assert "--port" in done.err


def test_an_address_of_another_machine_is_exit_2(qianmian, shop):
    done = qianmian("serve", "--host", "192.0.2.1", "--workspace", shop)
    assert done.code == 2
    assert "192.0.2.1" in done.err


def test_a_missing_champion_is_exit_2_and_names_train(qianmian, shop):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = qianmian("serve", "--port", port, "--workspace", shop, "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "not_ready"
    assert "qianmian train all" in done.json["error"]["hint"]


def test_doctor_warns_of_a_port_in_use(qianmian, shop, used_port):
    findings = qianmian("doctor", "--port", used_port, "--workspace", shop, "--json").json["findings"]
    assert [finding["status"] for finding in findings if finding["check"] == "port"] == ["warn"]
