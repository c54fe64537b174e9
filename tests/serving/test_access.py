"""Who may call which path, decided by the fast path in front of everything else."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from datetime import datetime, timedelta

import orjson
import pytest

from qianmian.errors import NotReady
from qianmian.settings import ServingSettings
from serving.endpoints import ENDPOINTS
from serving.fast_path import FastPath
from serving.openapi import OPEN_PATHS
from serving.security import access as access_module
from serving.security.access import NOBODY, Access
from serving.security.key_file import KeyFile
from serving.security.keys import SCOPES, new_key

NOW = datetime(2026, 5, 1, 12)
NEEDED = {f"/v1{route}": endpoint.scope for route, endpoint in ENDPOINTS.items()}
NEEDED |= dict.fromkeys(("/", "/metrics", "/docs.json", "/schema.json"), "read")
ALLOWED = {"read": {"read", "admin"}, "events": {"events", "admin"}, "admin": {"admin"}}
LOCAL = ("127.0.0.1", 3000)


class Shop:
    """An access to a file of keys, and the texts of the keys."""

    def __init__(self, folder, **settings) -> None:
        self.file, self.now = KeyFile(folder / "secrets" / "api_keys.json"), NOW
        self.settings = ServingSettings(**settings)
        self.texts = {scope: self.add(scope) for scope in SCOPES}
        self.access = Access(self.file, lambda: self.settings, lambda: self.now)

    def add(self, *scopes, **options) -> str:
        text, key = new_key("a key", scopes, NOW, **options)
        self.file.add(key)
        return text


@pytest.fixture
def shop(tmp_path) -> Shop:
    return Shop(tmp_path)


def head(*headers: tuple[str, str], path: str = "/v1/profile", method: str = "POST", server=LOCAL) -> dict:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "server": server,
        "client": ("127.0.0.1", 40_000),
        "headers": encoded,
    }


def bearer(text: str) -> tuple[str, str]:
    return "authorization", f"Bearer {text}"


class Loading:
    serving_settings = ServingSettings()

    def get(self):
        raise NotReady("loading")


def answered(access: Access, scope: dict, *, answers: bool = True) -> tuple[int, dict, dict]:
    """Status, body and headers of the answer; a request that is let through gets 503 or 422 here, 418 of BentoML."""
    sent: list[dict] = []
    read: list[str] = []

    async def bentoml(scope, receive, send):
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive():
        read.append(scope["path"])
        return {"type": "http.request", "body": b"{}"}

    async def send(message):
        sent.append(message)

    app = FastPath(bentoml, Loading(), access=access, answers=answers)
    app.metrics.count = lambda *_: None
    asyncio.run(app(scope, receive, send))
    status, body = sent[0]["status"], sent[1]["body"]
    assert not (read and status in (400, 401, 403, 429)), "the body of a refused request is not read"
    return status, orjson.loads(body) if body.startswith(b"{") else {}, dict(sent[0]["headers"])


# ---- keys and scopes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [True, False], ids=["fast path", "BentoML sees all"])
@pytest.mark.parametrize("path", list(NEEDED))
def test_every_path_refuses_all_keys_but_those_with_its_scope(shop, path, answers):
    method = "POST" if path.startswith("/v1") else "GET"

    def ask(*headers):
        return answered(shop.access, head(*headers, path=path, method=method), answers=answers)

    status, body, headers = ask()
    assert (status, body["error"]["code"]) == (401, "unauthorized")
    assert headers[b"www-authenticate"].startswith(b"Bearer")
    right = shop.texts["admin"]
    wrong = [right[:-1], right + "0", right.upper(), "qm_", "qm__", "", "x" * 10_000, right.replace("qm", "km"), "é"]
    wrong += [f"{right.rpartition('_')[0]}_{'0' * 64}", f"qm_{'0' * 12}_{right.rpartition('_')[2]}"]
    for text in wrong:
        assert ask(bearer(text))[0] == 401, text
        assert ask(("x-api-key", text))[0] == 401, text
    for scope, text in shop.texts.items():
        for header in (bearer(text), ("authorization", f"bearer  {text} "), ("x-api-key", text)):
            status, body, _ = ask(header)
            if scope in ALLOWED[NEEDED[path]]:
                assert status in (200, 418, 422, 503), "it is let through"
            else:
                assert (status, body["error"]["code"]) == (403, "forbidden")
                assert NEEDED[path] in body["error"]["message"]


def test_paths_that_are_no_path_need_a_key_and_balancers_none(shop):
    for path in ("/v1/nope", "/v1/profile//", "/metrics/", "//metrics", "/static_content/x"):
        assert answered(shop.access, head(path=path))[0] == 401
        assert answered(shop.access, head(bearer(shop.texts["admin"]), path=path))[0] == 404
    for path in OPEN_PATHS:
        assert answered(shop.access, head(path=path, method="GET"))[0] == 418
        assert answered(shop.access, head(path=f"{path}/", method="GET"))[0] == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "INVENTED"])
def test_no_method_passes_by_the_key(shop, method):
    assert answered(shop.access, head(method=method))[0] == 401
    assert answered(shop.access, head(bearer(shop.texts["read"]), method=method))[0] == 405
    expected = 418 if method == "OPTIONS" else 401  # browsers send preflight requests without keys
    assert answered(shop.access, head(method=method), answers=False)[0] == expected


def test_a_key_in_the_url_is_none(shop):
    scope = {**head(), "query_string": f"api_key={shop.texts['admin']}".encode()}
    assert answered(shop.access, scope)[0] == 401


def test_more_than_one_key_is_none(shop):
    read, admin = bearer(shop.texts["read"]), bearer(shop.texts["admin"])
    same = ("x-api-key", shop.texts["read"])
    for headers in ([read, read], [read, admin], [read, same], [same, same], [("authorization", "Basic x"), read]):
        assert answered(shop.access, head(*headers))[0] == 401
    assert answered(shop.access, head(("authorization", "Basic x"), same))[0] == 503, "Basic is for a proxy"


def test_a_key_that_is_made_revoked_or_has_expired_is_noticed(shop):
    def status(text):
        return answered(shop.access, head(bearer(text)))[0]

    text = shop.add("read", expires_at=NOW + timedelta(days=1))
    assert status(text) == 401, "nothing is read for a request"
    shop.access.look()
    assert status(text) == 503
    shop.now += timedelta(days=1)
    shop.access.look()
    assert status(text) == 401
    assert status(shop.texts["read"]) == 503
    shop.file.revoke(shop.texts["read"].split("_")[1], NOW)
    shop.access.look()
    assert status(shop.texts["read"]) == 401


def test_a_server_that_has_had_keys_is_never_open_again(shop, caplog):
    def statuses():
        shop.access.look()
        return [answered(shop.access, head(*headers))[0] for headers in ([], [bearer(shop.texts["read"])])]

    kept = shop.file.path.read_text(encoding="utf-8")
    shop.file.path.chmod(0o644)
    assert statuses() == statuses() == [401, 503]
    shop.file.path.write_text("{", encoding="utf-8")
    shop.file.path.chmod(0o600)
    assert statuses() == [401, 503]
    shop.file.path.unlink()
    assert statuses() == statuses() == [401, 503]
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 3, "each problem is logged once"
    shop.file.path.write_text(kept.replace('"read"', '"events"'), encoding="utf-8")
    shop.file.path.chmod(0o600)
    assert statuses() == [401, 403]
    for text in shop.texts.values():
        shop.file.revoke(text.split("_")[1], NOW)
    assert statuses() == [401, 401]


def test_a_server_whose_keys_cannot_be_read_answers_nobody(shop, tmp_path):
    shop.file.path.chmod(0o644)
    for file in (shop.file, KeyFile(tmp_path / "missing.json", is_named=True)):
        access = Access(file)
        assert answered(access, head())[0] == answered(access, head(bearer(shop.texts["read"])))[0] == 401


def test_an_open_server_closes_when_the_first_key_is_made(tmp_path):
    file = KeyFile(tmp_path / "secrets" / "api_keys.json")
    access = Access(file)
    assert answered(access, head())[0] == 503
    file.add(new_key("first", ("read",), NOW)[1])
    access.look()
    assert answered(access, head())[0] == 401


# ---- timing ----------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_hashed_and_compared_as_one_with_a_wrong_secret(shop, monkeypatch):
    compared = []
    compare = access_module.compare_digest
    monkeypatch.setattr(access_module, "compare_digest", lambda *both: compared.append(both) or compare(*both))
    known = shop.texts["read"].rpartition("_")[0]
    for text in (f"{known}_{'0' * 64}", f"qm_{'0' * 12}_{'0' * 64}", "0" * 64, ""):
        assert shop.access.refusal(head(bearer(text)), "read").status == 401
    assert [len(presented) for presented, _ in compared] == [32] * 4
    assert compared[0][0] == compared[1][0] == compared[2][0], "the same hash was computed"
    assert [expected == NOBODY.digest for _, expected in compared] == [False, True, True, True]


def test_the_time_does_not_tell_an_unknown_key_from_a_wrong_secret(shop):
    known = shop.texts["read"].rpartition("_")
    right_start = known[2][:-1] + ("0" if known[2][-1] != "0" else "1")
    texts = [f"qm_{'0' * 12}_{known[2]}", f"{known[0]}_{'0' * 64}", f"{known[0]}_{right_start}"]
    scopes = [head(bearer(text)) for text in texts]
    seconds: list[list[int]] = [[] for _ in scopes]
    for _ in range(3_000):
        for found, scope in zip(seconds, scopes, strict=True):
            begun = time.perf_counter_ns()
            shop.access.refusal(scope, "read")
            found.append(time.perf_counter_ns() - begun)
    medians = [statistics.median(found) for found in seconds]
    assert max(medians) < 1.5 * min(medians)


# ---- a server without keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [("10.0.0.5", 3000), ("0.0.0.0", 3000), ("::", 3000), ("8.8.8.8", 80), None])
def test_without_keys_other_addresses_are_not_answered(server):
    for path in NEEDED:
        status, body, _ = answered(Access(), head(("host", "localhost"), path=path, server=server))
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert "qianmian keys create" in body["error"]["hint"]


@pytest.mark.parametrize("server", [("127.0.0.1", 1), ("::1", 1), ("127.8.8.8", 1), ("::ffff:127.0.0.1", 1)])
def test_without_keys_loopback_is_answered(server):
    assert answered(Access(), head(("host", "localhost:3000"), server=server))[0] == 503


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name + port, 503) for name in ("localhost", "LocalHost", "127.0.0.1", "[::1]") for port in ("", ":3000")),
        *((name, 403) for name in ("shop.example", "evil.example:3000", "localhost.evil.example", "127.0.0.1.nip.io")),
        *((name, 403) for name in ("", "0.0.0.0:3000", "localhost@evil.example", "evil#localhost", "[::1].evil:80")),
        *((name, 403) for name in ("localhost:evil", "localhost, evil", "2130706433", "127.1", "é")),
    ],
)
def test_without_keys_only_names_of_this_machine_are_answered(host, status):
    """A page of a browser can let its own name point to 127.0.0.1, but it sends that name as Host."""
    assert answered(Access(), head(("host", host)))[0] == status


def test_without_keys_no_page_of_another_site_is_answered(shop):
    """A browser sends what a page asks for, to this machine too; the page cannot read the answer, but erase with it."""
    local, foreign = ("host", "localhost:3000"), ("https://shop.example", "null", "", "http://localhost.evil.example")
    for origin in ("http://localhost:8080", "https://127.0.0.1", "http://[::1]:3000"):
        assert answered(Access(), head(local, ("origin", origin)))[0] == 503
    for origin in (*foreign, "localhost", "http://localhost:" + "0" * 200):
        for answers in (True, False):
            scope = head(local, ("origin", "http://localhost"), ("origin", origin), path="/v1/erase")
            assert answered(Access(), scope, answers=answers)[0] == 403, origin
        key = bearer(shop.texts["admin"])  # which the page would have to know
        assert answered(shop.access, head(local, ("origin", origin), key))[0] == 503


def test_what_clients_send_as_host_fills_no_memory():
    access_module.local_name.cache_clear()
    for number in range(20):
        assert answered(Access(), head(("host", "x" * 60_000 + str(number))))[0] == 403
    assert access_module.local_name.cache_info().currsize == 0


def test_two_host_headers_are_refused(shop):
    hosts = [("host", "localhost"), ("host", "localhost")]
    assert answered(Access(), head(*hosts))[0] == 400
    status, body, _ = answered(shop.access, head(*hosts, bearer(shop.texts["read"])))
    assert (status, body["error"]["code"]) == (400, "bad_request")


def test_allowed_hosts_are_the_only_ones(tmp_path):
    shop = Shop(tmp_path, allowed_hosts=("Shop.example", "[::1]"))
    key = bearer(shop.texts["read"])
    for host in ("shop.example", "SHOP.example:443", "[::1]:3000"):
        assert answered(shop.access, head(("host", host), key))[0] == 503
    for host in ("evil.example", "shop.example.evil", "localhost", ""):
        assert answered(shop.access, head(("host", host), key))[0] == 403
    assert answered(shop.access, head(key))[0] == 403
    shop.settings = ServingSettings()
    shop.access.look()
    assert answered(shop.access, head(("host", "evil.example"), key))[0] == 503


# ---- rate limits -----------------------------------------------------------------------------------------------------


def test_each_key_has_a_rate_limit_of_its_own(tmp_path):
    shop = Shop(tmp_path, rate_limit="3/day")
    more = shop.add("read", rate_limit="5/day")
    shop.access.look()

    def statuses(text):
        return [answered(shop.access, head(bearer(text)))[0] for _ in range(7)]

    assert statuses(shop.texts["read"]) == [503] * 3 + [429] * 4
    assert statuses(more) == [503] * 5 + [429] * 2
    assert statuses(shop.texts["admin"]) == [503] * 3 + [429] * 4
    status, body, headers = answered(shop.access, head(bearer(more)))
    assert (status, body["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(headers[b"retry-after"]) <= 2 * 86_400
    assert answered(shop.access, head(bearer(f"{more}0")))[0] == 401, "wrong keys use up nobody's limit"
    assert answered(shop.access, head(path="/livez"))[0] == 418


def test_without_keys_the_rate_limit_is_that_of_an_address():
    access = Access(settings=lambda: ServingSettings(rate_limit="2/day"))
    for client in ("127.0.0.1", "127.0.0.2"):
        scope = {**head(), "client": (client, 1)}
        assert [answered(access, scope)[0] for _ in range(3)] == [503, 503, 429]


def test_counters_of_the_past_are_removed_without_a_thread_for_each_request(tmp_path):
    shop = Shop(tmp_path, rate_limit="1000/second")
    scope = head(bearer(shop.texts["read"]))
    assert shop.access.refusal(scope, "read") is None
    storage = shop.access._limits._storage
    storage.expirations["old"], storage.storage["old"] = 0.0, 7
    assert not any(shop.access.refusal(scope, "read") for _ in range(100))
    assert storage.timer is shop.access._limits._no_sweep
    shop.access.look()
    assert shop.access.refusal(scope, "read") is None
    deadline = time.monotonic() + 10
    while "old" in storage.storage:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_a_flood_of_refusals_writes_one_line_without_the_key(shop, caplog):
    caplog.set_level(logging.INFO)
    for number in range(200):
        answered(shop.access, head(bearer(f"{shop.texts['read']}{number}"), path=f"/invented-{number}"))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["refused=1 route=unknown status=401 reason=wrong_key"]
    assert not any(text.rpartition("_")[2] in caplog.text for text in shop.texts.values())
    answered(shop.access, head())
    assert len(caplog.records) == 2, "another reason is another line"
    shop.access._refused = {kind: (number, last - 60) for kind, (number, last) in shop.access._refused.items()}
    answered(shop.access, head(bearer("x"), path="/x"))
    assert "refused=200 " in caplog.text
