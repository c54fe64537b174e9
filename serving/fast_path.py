"""The fast path: small requests to `/v1` are answered in front of BentoML's application, which gets all others.

BentoML's middlewares and routing take ten times as long as the answer to a plain request (`benchmarks/serving.py`).
"""

from __future__ import annotations

import logging
import time
from typing import Any

import orjson

from qianmian.errors import QianmianError
from serving.endpoints import ENDPOINTS
from serving.endpoints.base import Endpoint
from serving.http import (
    CLIENT_CLOSED,
    JSON,
    Application,
    ChampionsProvider,
    Message,
    Receive,
    Scope,
    Send,
    error_for_status,
    internal_error,
    log_error,
    utc_now,
)
from serving.index_page import index_page
from serving.metrics import RequestMetrics
from serving.requests import parse_request

logger = logging.getLogger(__name__)

PREFIX = "/v1"
SMALL_BODY = 16_384  # bytes; parsing and validating a longer body may take milliseconds
BENTOML_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/schema.json"})
UNKNOWN = "unknown"  # route of the metrics of all other paths


class FastPath:
    """ASGI application in front of BentoML's.

    It answers a POST request to a route of `ENDPOINTS` itself if its body is small and arrives in one piece and
    `Endpoint.runs_in_thread` is false: such an answer takes so little time that a deadline, or a bound on concurrent
    requests, has nothing to do. All other requests to these routes go through BentoML's middlewares, which have both.
    A path that neither has is refused here, because BentoML's metrics would keep it as a label.

    Parameters
    ----------
    app : ASGI application
        That of BentoML, with uniform errors.
    models : ChampionsProvider
    """

    def __init__(self, app: Application, models: ChampionsProvider) -> None:
        self.app, self.models, self.metrics = app, models, RequestMetrics()
        self.endpoints: dict[str, Endpoint[Any]] = {PREFIX + route: ENDPOINTS[route] for route in ENDPOINTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in BENTOML_PATHS:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        endpoint = self.endpoints.get(scope["path"])
        if endpoint is not None and scope["method"] == "POST":
            message = await receive()
            answer = self._answer(endpoint, message)
            if answer is None:
                status = await self._pass_on(scope, message, receive, send)
            else:
                status = answer[0]
                await respond(send, *answer)
        else:
            status = await self._other(scope, endpoint, send)
        self.metrics.count(endpoint.route if endpoint is not None else UNKNOWN, status, time.perf_counter() - started)

    def _answer(self, endpoint: Endpoint[Any], message: Message) -> tuple[int, bytes] | None:
        """Status and body of the response; None if BentoML's application has to answer."""
        if message["type"] != "http.request" or message.get("more_body", False):
            return None
        body = message.get("body", b"")
        if len(body) > SMALL_BODY:
            return None
        try:
            champions = self.models.get()
            if len(body) > champions.settings.serving.max_body_bytes:
                return None
            request = parse_request(endpoint.request, body)
            if endpoint.runs_in_thread(request):
                return None
            return 200, endpoint.json(champions, request, utc_now())
        except QianmianError as error:
            log_error(endpoint.route, error)
            return error.http_status, error_json(error.as_dict())
        except Exception:
            logger.exception("route=%s status=500", endpoint.route)
            return 500, error_json(internal_error())

    async def _pass_on(self, scope: Scope, message: Message, receive: Receive, send: Send) -> int:
        """Let BentoML's application answer a request whose first message was read; returns the status."""
        unread, status = [message], CLIENT_CLOSED

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        async def watched_send(sent: Message) -> None:
            nonlocal status
            if sent["type"] == "http.response.start":
                status = sent["status"]
            await send(sent)

        await self.app(scope, receive_again, watched_send)
        return status

    async def _other(self, scope: Scope, endpoint: Endpoint[Any] | None, send: Send) -> int:
        """Answer a request that is no call of an endpoint: the index page, or an error."""
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await respond(send, 200, index_page(), b"text/html; charset=utf-8")
            return 200
        status = 405 if endpoint is not None or scope["path"] == "/" else 404
        allowed = [(b"allow", b"POST" if endpoint is not None else b"GET, HEAD")] if status == 405 else []
        await respond(send, status, error_json(error_for_status(status)), more_headers=allowed)
        return status


def error_json(fields: dict[str, Any]) -> bytes:
    """The body of an error response."""
    return orjson.dumps({"error": fields})


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = JSON.encode(),
    more_headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a response in two messages."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(more_headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
