"""The fast path gives the answers that BentoML's application gives, and leaves to it what may take long."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import orjson
import pytest

from qianmian.errors import NotReady
from serving.endpoints import ENDPOINTS
from serving.fast_path import SMALL_BODY, FastPath
from serving.service import needs_middlewares

CHANGING = {"recommendation_id"}
PADDING = b" " * SMALL_BODY  # makes a body too large for the fast path and says nothing


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
            {"user_id": buyers[0], "validate_only": True},
            {"user_id": 7},
        ],
        "/rank": [{"user_id": buyers[0], "item_ids": item_ids[:5]}, {"user_id": buyers[0], "item_ids": []}],
        "/similar-items": [{"item_id": item_ids[0]}, {"item_id": "ghost"}],
        "/churn": [{"user_ids": [*buyers[:3], "ghost"], "explain": True}],
        "/predictions": [{"user_ids": buyers[:3]}],
        "/profile": [{"user_id": buyers[0]}, {"user_id": "ghost"}],
        "/lookalike": [{"seed_user_ids": buyers[:30], "size": 5}, {"seed_user_ids": ["ghost"], "size": 5}],
    }
    assert asked.keys() == set(ENDPOINTS)
    bodies = [(route, orjson.dumps(body)) for route, all_bodies in asked.items() for body in all_bodies]
    return [*bodies, *((route, text) for route in asked for text in (b"{", b"", b"[]", b"\xff"))]


def test_answers_are_those_of_bentoml(serve, buyers, champions):
    for _ in range(2):  # computed, then kept
        for route, body in requests_of(buyers, champions):
            status, fast = serve(f"/v1{route}", body)
            slow_status, slow = serve(f"/v1{route}", PADDING + body)
            assert status == slow_status
            if body == b"":
                continue  # only spaces: another position of the mistake
            left, right = (
                {name: value for name, value in found.items() if name not in CHANGING} for found in (fast, slow)
            )
            if "error" in left:  # the position of a mistake in the text
                left, right = (
                    orjson.loads(re.sub(rb"column \d+", b"", orjson.dumps(found))) for found in (left, right)
                )
            assert left == right, (route, body)
            assert list(fast) == list(slow), "the fields are in the same order"


def counted(serve) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for line in serve("/metrics")[1].decode().splitlines():
        if match := re.fullmatch(r'qianmian_requests_total\{route="(.*?)",status="(\d+)"\} (.*)', line):
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
    assert counted(serve) - before == {
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
    read, sent = [], []
    messages = [first, {"type": "http.request", "body": b"}"}]

    async def bentoml(scope, receive, send):
        read.extend([await receive(), await receive()])
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    class Loading:
        def get(self):
            raise NotReady("loading")

        def why_not_ready(self):
            return NotReady("loading")

    class Counted:
        def count(self, route, status, seconds):
            sent.append((route, status))
            assert seconds >= 0

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    app = FastPath(bentoml, Loading())
    app.metrics = Counted()
    scope = {"type": "http", "method": "POST", "path": "/v1/profile"}
    asyncio.run(app(scope, receive, send))
    assert read == ([first, {"type": "http.request", "body": b"}"}] if passed_on else [])
    assert sent[0]["status"] == (418 if passed_on else 503)
    assert sent[-1] == ("/profile", 418 if passed_on else 503)
    if not passed_on:
        assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
        assert orjson.loads(sent[1]["body"])["error"]["code"] == "not_ready"


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
