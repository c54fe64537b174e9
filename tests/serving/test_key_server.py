"""API keys of real servers: two workers follow their file, and nothing listens on a public address without one."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from qianmian.client import Client, ClientError
from qianmian.workspace import Workspace
from serving.endpoints import ENDPOINTS
from serving.fast_path import SMALL_BODY
from serving.security.key_file import FILE_VARIABLE, KeyFile
from serving.security.keys import new_key
from serving.server import command, free_port, running

NOW = datetime.now(UTC).replace(tzinfo=None)
FOLLOWED_SECONDS = 20.0  # half a second where the machine has nothing else to do


@dataclass
class KeyServer:
    """A server of two workers with keys, its log, and the texts of the keys."""

    url: str
    file: KeyFile
    log: Path
    texts: dict[str, str]

    def status(self, path: str, body: bytes | None = None, key: str | None = None, **headers: str) -> int:
        """Status of a request on a connection of its own, which any worker may get."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        sent = {**headers, **({"Authorization": f"Bearer {key}"} if key is not None else {})}
        connection.request("GET" if body is None else "POST", path, body, sent)
        status = connection.getresponse().status
        connection.close()
        return status

    def wait(self, key: str, expected: int) -> None:
        """Wait until both workers answer requests with a key so: forty connections in a row."""
        end = time.monotonic() + FOLLOWED_SECONDS
        while any(self.status("/metrics", key=key) != expected for _ in range(40)):
            assert time.monotonic() < end


@pytest.fixture(scope="module")
def key_server(workspace, server_environment, tmp_path_factory) -> Iterator[KeyServer]:
    folder = tmp_path_factory.mktemp("keys")
    file, texts = KeyFile(folder / "api_keys.json", is_named=True), {}
    for scope in ("read", "events", "admin"):
        texts[scope], key = new_key(scope, (scope,), NOW)
        file.add(key)
    texts["limited"], key = new_key("limited", ("read",), NOW, None, "2/day")
    file.add(key)
    env = {**server_environment(workspace, workers=2), FILE_VARIABLE: str(file.path)}
    env["QIANMIAN_ONLINE_STORE"] = str(folder / "events.db")
    log = folder / "server.log"
    with log.open("wb") as handle, running(workspace, env=env, log=handle) as url:
        yield KeyServer(url, file, log, texts)


def test_every_path_of_a_real_server_needs_the_right_key(key_server):
    needed = {f"/v1{route}": (endpoint.scope, b"{}", 422) for route, endpoint in ENDPOINTS.items()}
    needed |= dict.fromkeys(("/", "/metrics", "/docs.json", "/schema.json"), ("read", None, 200))
    for path, (scope, body, expected) in needed.items():
        found = {name: key_server.status(path, body, key_server.texts[name]) for name in ("read", "events", "admin")}
        others = dict.fromkeys(found.keys() - {scope, "admin"}, 403)
        assert found == {scope: expected, "admin": expected, **others}, path
        assert key_server.status(path, body) == key_server.status(path, body, "wrong") == 401
    # what BentoML's application would answer is refused in front of it
    assert key_server.status("/v1/profile", b" " * (SMALL_BODY + 1) + b"{}") == 401
    assert key_server.status("/v1/profile", b" " * (SMALL_BODY + 1) + b"{}", key_server.texts["read"]) == 422
    assert [key_server.status(path) for path in ("/livez", "/readyz", "/healthz")] == [200, 200, 200]
    assert key_server.status("/", None, key_server.texts["read"], Host="any.example") == 200


def test_keys_are_made_and_revoked_without_a_restart(key_server):
    text, key = new_key("late", ("read",), NOW)
    assert key_server.status("/metrics", key=text) == 401
    key_server.file.add(key)
    key_server.wait(text, 200)
    key_server.file.revoke(key.id, NOW)
    key_server.wait(text, 401)


def test_a_damaged_file_leaves_the_former_keys(key_server):
    key_server.file.path.chmod(0o644)
    try:
        end = time.monotonic() + FOLLOWED_SECONDS
        while key_server.log.read_text().count("api_keys=kept") < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        key_server.wait(key_server.texts["read"], 200)
    finally:
        key_server.file.path.chmod(0o600)


def test_the_rate_limit_is_counted_in_each_worker(key_server):
    statuses = [key_server.status("/", key=key_server.texts["limited"]) for _ in range(60)]
    assert statuses.count(200) in (2, 4)
    assert set(statuses) == {200, 429}


def test_a_client_with_a_key_is_answered(key_server, buyers, monkeypatch):
    with pytest.raises(ClientError, match="unauthorized") as caught:
        Client(key_server.url).profile(buyers[0])
    assert caught.value.status == 401
    assert Client(key_server.url, api_key=key_server.texts["read"]).profile(buyers[0])["user_id"] == buyers[0]
    monkeypatch.setenv("QIANMIAN_API_KEY", key_server.texts["events"])
    with pytest.raises(ClientError, match="forbidden"):
        Client(key_server.url).profile(buyers[0])
    event = {"user_id": "u", "user_source": "s", "event_type": "view", "ts": "2024-05-01T12:00:00Z"}
    assert Client(key_server.url).send([event]).accepted == 1
    with pytest.raises(ValueError, match="characters") as refused:
        Client(key_server.url, api_key="qm_secret\r\nX: y")
    assert "secret" not in str(refused.value)


def test_the_log_and_the_document_have_no_key(key_server):
    for name, text in key_server.texts.items():
        key_server.status(f"/{text}", None, f"{text}x")
        assert text.rpartition("_")[2] not in key_server.log.read_text(), name
    connection = http.client.HTTPConnection(urlsplit(key_server.url).netloc)
    connection.request("GET", "/docs.json", headers={"X-API-Key": key_server.texts["read"]})
    document = connection.getresponse().read().decode()
    connection.close()
    assert not any(part in document for text in key_server.texts.values() for part in text.split("_")[1:])


def test_a_server_without_keys_answers_this_machine_only(serve, buyers, request_):
    body = {"user_id": buyers[0]}
    assert serve("/v1/profile", body)[0] == 200
    status, answer = serve("/v1/profile", body, headers={"Host": "evil.example"})
    assert (status, answer["error"]["code"]) == (403, "forbidden")
    assert serve("/readyz", headers={"Host": "evil.example"})[0] == 200
    connection = http.client.HTTPConnection(urlsplit(serve.url).netloc)
    connection.putrequest("POST", "/v1/profile")
    connection.putheader("Host", "localhost")
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{}")
    response = connection.getresponse()
    assert (response.status, orjson.loads(response.read())["error"]["code"]) == (400, "bad_request")
    connection.close()
    assert "api_keys=none" in serve.log.read_text()


def refused(environment: dict[str, str], host: str) -> tuple[int, str]:
    """Exit code and output of `bentoml serve` on an address; it ends before it listens."""
    arguments = command(host, free_port())
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_bentoml_serve_does_not_start_open_on_a_public_address(tmp_path, server_environment, host):
    code, output = refused(server_environment(Workspace(tmp_path)), host)
    assert code == 2
    assert host in output
    assert "qianmian keys create" in output
    assert "Traceback" not in output


def test_bentoml_serve_does_not_start_with_keys_that_others_can_read(tmp_path, server_environment):
    file = KeyFile(tmp_path / "secrets" / "api_keys.json")
    file.add(new_key("a", ("read",), NOW)[1])
    file.path.chmod(0o666)
    code, output = refused(server_environment(Workspace(tmp_path)), "127.0.0.1")
    assert code == 2
    assert "chmod 600" in output
    missing = {**server_environment(Workspace(tmp_path)), FILE_VARIABLE: str(tmp_path / "missing.json")}
    code, output = refused(missing, "127.0.0.1")
    assert code == 2
    assert FILE_VARIABLE in output


@pytest.mark.slow
def test_a_server_with_keys_listens_on_all_addresses(workspace, server_environment, tmp_path, request_):
    file = KeyFile(tmp_path / "api_keys.json")
    text, key = new_key("a", ("read",), NOW)
    file.add(key)
    env = {**server_environment(workspace), FILE_VARIABLE: str(file.path)}
    with running(workspace, host="0.0.0.0", env=env) as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert request_(f"{url}/")[0] == 401
        assert request_(f"{url}/", headers={"Authorization": f"Bearer {text}"})[0] == 200
