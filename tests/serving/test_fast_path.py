"""The fast path gives the answers that BentoML's application gives, and leaves to it what may take long."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import datetime

import orjson
import pytest

from qianmian.errors import NotReady
from qianmian.settings import ServingSettings
from serving.endpoints import ENDPOINTS
from serving.fast_path import SMALL_BODY, FastPath
from serving.requests import parse_request
from serving.server import environment, running
from serving.service import needs_middlewares
from serving.slow_requests import TooManyRequests

NUMPY = orjson.OPT_SERIALIZE_NUMPY
NOW = datetime(2030, 1, 1)
EVENT = {"event_id": "fast", "user_id": "u", "user_source": "s", "event_type": "view", "ts": "2026-05-01T12:00:00Z"}
PADDING = b" " * SMALL_BODY  # makes a body too large for the fast path and says nothing


def comparable(body: dict) -> dict:
    """What two answers to the same request have in common."""
    left_out = {
        "recommendation_id",
        "duplicates",
        *(["as_of", "stale"] if "accepted" in body or "valid" in body else []),
    }
    return {name: value for name, value in body.items() if name not in left_out}


def requests_of(buyers, champions) -> list[tuple[str, bytes]]:
    item_ids = champions.models["recommend"].catalogue.item_ids
    asked = {
        "/recommendations": [
            {"user_id": buyers[0]},
            {"user_id": "nobody we know", "num_results": 3},
            {"user_id": buyers[1], "scene": "discover", "purchased": "never", "user_source": None},
            {"user_id": buyers[0], "user_source": "elsewhere"},
            {"user_id": buyers[0], "filters": {"category": "grocery"}},
            {"user_id": buyers[0], "explain": True},
            {"user_id": buyers[0], "num_results": 400},
            {"user_id": buyers[0], "num_results": 501},
            {"user_id": buyers[0], "scene": "nowhere"},
            {"user_id": buyers[0], "scene": "similar"},
            {"user_id": buyers[0], "scene": "replenish", "purchased": "never"},
            {"user_id": buyers[0], "num_results": 50},
            {"user_id": buyers[0], "num_results": 60},
            {"user_id": buyers[0], "validate_only": True},
            {"user_id": 7},
        ],
        "/rank": [{"user_id": buyers[0], "item_ids": item_ids[:5]}, {"user_id": buyers[0], "item_ids": []}],
        "/similar-items": [{"item_id": item_ids[0]}, {"item_id": "ghost"}],
        "/churn": [{"user_ids": [*buyers[:3], "ghost"], "explain": True}],
        "/predictions": [{"user_ids": buyers[:3]}],
        "/profile": [{"user_id": buyers[0]}, {"user_id": "ghost"}],
        "/lookalike": [{"seed_user_ids": buyers[:30], "size": 5}, {"seed_user_ids": ["ghost"], "size": 5}],
        "/uplift": [{"user_ids": buyers[:3]}, {"user_ids": buyers[:3], "budget": -1}],
        "/events": [
            {"events": [EVENT, {**EVENT, "ts": "?"}]},
            {"events": []},
            {"events": [EVENT], "validate_only": True},
        ],
        "/erase": [{"user_id": "ghost", "validate_only": True}, {"user_id": "ghost", "reason": 7}],
    }
    assert asked.keys() == set(ENDPOINTS)
    bodies = [(route, orjson.dumps(body)) for route, all_bodies in asked.items() for body in all_bodies]
    return [*bodies, *((route, text) for route in asked for text in (b"{", b"", b"[]", b"\xff"))]


def test_answers_are_those_of_bentoml_and_of_the_handlers(serve, buyers, champions):
    for _ in range(2):  # computed, then kept
        for route, body in requests_of(buyers, champions):
            status, fast = serve(f"/v1{route}", body)
            slow_status, slow = serve(f"/v1{route}", PADDING + body)
            if status == 200:
                endpoint = ENDPOINTS[route]
                handled = endpoint.respond(champions, parse_request(endpoint.request, body), NOW)
                assert comparable(fast) == comparable(orjson.loads(orjson.dumps(handled, option=NUMPY)))
            assert status == slow_status
            if body == b"":
                continue  # only spaces: another position of the mistake
            left, right = comparable(fast), comparable(slow)
            if "error" in left:  # the position of a mistake in the text
                left, right = (
                    orjson.loads(re.sub(rb"column \d+", b"", orjson.dumps(found))) for found in (left, right)
                )
            assert left == right, (route, body)
            assert list(fast) == list(slow), "the fields are in the same order"


def counted(serve) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for line in serve("/metrics")[1].decode().splitlines():
        if match := re.fullmatch(r'qianmian_request_seconds_count\{route="(.*?)",status="(\d+)"\} (.*)', line):
            found[match[1], match[2]] += int(float(match[3]))
    return found


def test_requests_are_counted_by_route_and_status(serve, buyers):
    before = counted(serve)
    for _ in range(3):
        serve("/v1/profile", {"user_id": buyers[0]})
    serve("/v1/profile", {})
    serve("/v1/profile", PADDING + b"{}")  # answered by BentoML
    serve("/v1/profile")
    for number in range(20):
        serve(f"/v1/random-{number}", {})
        serve(f"/random-{number}")
    serve("/")
    found = counted(serve) - before
    # clients of other tests that hung up may be counted late
    assert {labels: n for labels, n in found.items() if labels[1] != "499"} == {
        ("/", "200"): 1,
        ("/profile", "200"): 3,
        ("/profile", "422"): 2,
        ("/profile", "405"): 1,
        ("unknown", "404"): 40,
    }
    text = serve("/metrics")[1].decode()
    assert "random-" not in text, "a path that a client invents is no label"
    assert re.search(r'qianmian_request_seconds_count\{route="/profile",status="200"\} \d', text)


def test_the_index_page_names_the_routes_and_loads_nothing(serve):
    status, page = serve("/")
    text = page.decode()
    assert status == 200
    assert all(f"/v1{route}" in text for route in ENDPOINTS)
    assert not re.search(r"https?:|<script|<link|<img|src=", text)
    assert serve("/", method="HEAD") == (200, b"")
    assert serve("/static_content/main.js")[0] == 404


@pytest.mark.parametrize(
    ("first", "passed_on"),
    [
        ({"type": "http.request", "body": b"{}", "more_body": False}, False),
        ({"type": "http.request", "body": b"{}"}, False),
        ({"type": "http.request"}, False),
        ({"type": "http.request", "body": b"{", "more_body": True}, True),
        ({"type": "http.request", "body": b"x" * (SMALL_BODY + 1), "more_body": False}, True),
        ({"type": "http.disconnect"}, True),
    ],
)
def test_what_is_passed_on(first, passed_on):
    """BentoML's application reads the first message again, then the others."""
    read, sent, app = [], [], None

    async def bentoml(scope, receive, send):
        read.extend([await receive(), await receive()])
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app, counted = path_of(bentoml)
    asyncio.run(app(CALL, receiving(first, {"type": "http.request", "body": b"}"}), sending(sent)))
    assert read == ([first, {"type": "http.request", "body": b"}"}] if passed_on else [])
    assert sent[0]["status"] == (418 if passed_on else 503)
    assert counted == [("/profile", 418 if passed_on else 503)]
    if not passed_on:
        assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
        assert orjson.loads(sent[1]["body"])["error"]["code"] == "not_ready"


CALL = {
    "type": "http",
    "method": "POST",
    "path": "/v1/profile",
    "raw_path": b"/v1/profile",
    "server": ("127.0.0.1", 3000),
    "headers": [],
}


class Loading:
    serving_settings = ServingSettings(body_seconds=0.05)

    def get(self):
        raise NotReady("loading")

    def why_not_ready(self):
        return NotReady("loading")


def path_of(bentoml, **options) -> tuple[FastPath, list]:
    """The fast path before an application, and what it counts."""
    app, counted = FastPath(bentoml, Loading(), **options), []

    class Counted:
        def count(self, route, status, seconds):
            assert seconds >= 0
            counted.append((route, status))

    app.metrics = Counted()
    return app, counted


def receiving(*messages):
    left = list(messages)

    async def receive():
        return left.pop(0) if left else await asyncio.Event().wait()

    return receive


def sending(sent):
    async def send(message):
        sent.append(message)

    return send


def test_a_client_that_sends_no_body_is_not_waited_for():
    app, counted = path_of(None)
    sent = []
    asyncio.run(app(CALL, receiving(), sending(sent)))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert orjson.loads(sent[1]["body"])["error"]["code"] == "timeout"
    assert counted == [("/profile", 408)]


def test_an_application_that_raises_is_counted():
    async def bentoml(scope, receive, send):
        raise RuntimeError("broken")

    app, counted = path_of(bentoml)
    with pytest.raises(RuntimeError):
        asyncio.run(app(CALL, receiving({"type": "http.request", "body": b"{", "more_body": True}), sending([])))
    assert counted == [("/profile", 500)]


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
def test_where_bentoml_has_to_see_every_request_only_unknown_paths_are_kept_from_it(method):
    seen = []

    async def bentoml(scope, receive, send):
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app, counted = path_of(bentoml, answers=False)
    for path in ("/v1/profile", "/v1/profile/", "/v1/nope"):
        asyncio.run(app({**CALL, "method": method, "path": path}, receiving(), sending([])))
    assert seen == ["/v1/profile", "/v1/profile"]
    assert counted == [("/profile", 200), ("/profile", 200), ("unknown", 404)]


def test_a_slow_request_that_would_be_refused_is_refused_here(champions, buyers):
    class Models:
        serving_settings = ServingSettings()

        def get(self):
            return champions

    class Full:
        def refuse(self, most_waiting):
            raise TooManyRequests("/lookalike", most_waiting, 3)

    body = orjson.dumps({"seed_user_ids": buyers[:30], "size": 5})
    app, counted = path_of(None, slow={"/lookalike": Full()})
    app.models = Models()
    sent = []
    call = {**CALL, "path": "/v1/lookalike", "raw_path": b"/v1/lookalike"}
    asyncio.run(app(call, receiving({"type": "http.request", "body": body}), sending(sent)))
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"3") in sent[0]["headers"]
    assert orjson.loads(sent[1]["body"])["error"]["code"] == "too_many_requests"
    assert counted == [("/lookalike", 429)]


def test_websockets_are_closed():
    app, counted = path_of(None)
    sent = []
    asyncio.run(app({"type": "websocket", "path": "/invented"}, receiving(), sending(sent)))
    assert sent == [{"type": "websocket.close", "code": 1000}]
    assert counted == []


def test_a_slash_at_the_end_of_a_path_is_ignored(serve, buyers):
    assert serve("/v1/profile/", {"user_id": buyers[0]})[0] == 200
    assert serve("/v1/profile/", PADDING + orjson.dumps({"user_id": buyers[0]}))[0] == 200
    assert serve("/v1/profile//", {"user_id": buyers[0]})[0] == 404


def test_a_server_with_an_access_log_has_the_same_metrics_and_index_page(workspace, buyers, request_, monkeypatch):
    monkeypatch.setenv("BENTOML_CONFIG_OPTIONS", "services.qianmian.logging.access.enabled=true")
    assert "access" in environment(workspace)["BENTOML_CONFIG_OPTIONS"]
    with running(workspace) as url:

        def ask(path, body=None):
            return request_(url + path, body)

        assert ask("/v1/profile", {"user_id": buyers[0]})[0] == 200
        assert ask("/v1/random", {})[0] == 404
        assert b"/v1/profile" in ask("/")[1]
        text = ask("/metrics")[1].decode()
    assert 'qianmian_request_seconds_count{route="/profile",status="200"} 1.0' in text
    assert re.search(r'bentoml_service_request_total\{endpoint="/v1/profile"', text)
    assert "random" not in text


def test_a_mistake_of_the_server_is_logged_and_hidden(champions, monkeypatch, caplog):
    class Models:
        def get(self):
            return champions

    def fails(*_):
        raise RuntimeError("secret")

    app = FastPath(None, Models())
    endpoint = app.endpoints["/v1/profile"]
    monkeypatch.setitem(endpoint.__dict__, "handle", fails)
    status, body = app._answer(endpoint, {"type": "http.request", "body": b'{"user_id": "x"}'})
    assert status == 500
    assert orjson.loads(body)["error"]["code"] == "internal"
    assert b"secret" not in body
    assert "secret" in caplog.text


@pytest.mark.parametrize("cors", [False, True])
@pytest.mark.parametrize("access_log", [False, True])
@pytest.mark.parametrize(("exporter", "excluded"), [(None, None), ("otlp", ".*"), ("otlp", None)])
def test_what_bentoml_does_for_every_request_turns_the_fast_path_off(cors, access_log, exporter, excluded):
    from bentoml._internal.container import BentoMLContainer

    config = BentoMLContainer.config
    values = {
        config.api_server.http.cors.enabled: cors,
        config.api_server.logging.access.enabled: access_log,
        config.tracing.exporter_type: exporter,
        config.tracing.excluded_urls: excluded,
    }
    before = {option: option.get() for option in values}
    try:
        for option, value in values.items():
            option.set(value)
        assert needs_middlewares() is (cors or access_log or (exporter is not None and excluded is None))
    finally:
        for option, value in before.items():
            option.set(value)
