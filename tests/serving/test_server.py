"""Two servers on one machine keep their metrics apart."""

from __future__ import annotations

import os

from serving.server import environment, own_home, running


def test_each_server_has_a_home_of_its_own(monkeypatch):
    monkeypatch.setenv("BENTOML_HOME", "/home of the caller")
    with own_home(environment(None)) as first, own_home(environment(None)) as second:
        assert len({first["BENTOML_HOME"], second["BENTOML_HOME"], "/home of the caller"}) == 3
        assert os.path.isdir(first["BENTOML_HOME"])
    assert not os.path.exists(first["BENTOML_HOME"])


def test_a_second_server_does_not_empty_the_metrics_of_the_first(workspace, buyers, request_):
    def requests(url: str) -> list[str]:
        text = request_(url + "/metrics")[1].decode()
        return [line for line in text.splitlines() if line.startswith("qianmian_requests_total")]

    with running(workspace) as first:
        request_(first + "/v1/profile", {"user_id": buyers[0]})
        before = requests(first)
        assert before == ['qianmian_requests_total{route="/profile",status="200"} 1.0']
        with running(workspace) as second:
            assert requests(second) == []
            assert requests(first) == before
