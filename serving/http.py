"""The HTTP layer: routes of `ENDPOINTS`, a limit on body size, and one error format, also for errors of BentoML."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from qianmian.errors import NotReady, Overloaded, QianmianError, StorageError, WorkspaceError
from serving.endpoints import ENDPOINTS
from serving.endpoints.base import Accepting, Endpoint
from serving.logs import log_request
from serving.metrics import count
from serving.openapi import JSON, operation
from serving.request_ids import HEADER
from serving.requests import BodyTooLarge, parse_request
from serving.responses import error_fields
from serving.slow_requests import SlowRequests, TooManyRequests, slow_requests

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ERROR_FIELDS = frozenset({"code", "message", "field", "hint"})
# A body that is too large is read this far beyond the limit, because a client that is still sending would see a reset
# connection instead of the 413.
DRAIN_BYTES = 8_000_000
ACCEPT_SECONDS = 30.0  # until events are stored; the log itself gives up earlier
MOST_AFTER_SECONDS = 3  # after which senders of too many events, each another time, are told to try again
MISSES_EVENTS = b"ready, but accepted events cannot be read at the moment\n"
CLIENT_CLOSED = 499  # nginx's status for a client that hung up before it had sent its request


Answer = tuple[int, bytes] | tuple[int, bytes, tuple[bytes, bytes]]  # status, body, perhaps a header


class ChampionsProvider(Accepting, Protocol):
    """Access to the champions, which may still be loading, and to the event log."""

    def why_not_ready(self) -> QianmianError | None:
        """Return that error, None when ready."""
        ...

    def misses_events(self) -> bool:
        """Whether there may be accepted events that cannot be read now."""
        ...


def make_app(models: ChampionsProvider, slow: Mapping[str, SlowRequests] | None = None) -> FastAPI:
    """Make a FastAPI app with a POST route for every entry of `ENDPOINTS`.

    Parameters
    ----------
    models : ChampionsProvider
    slow : mapping of str to SlowRequests, optional
        Runs the slow requests of each route; default: those of this app only.
    """
    slow = slow if slow is not None else slow_requests(ENDPOINTS)
    app = FastAPI(title="Qianmian", docs_url=None, redoc_url=None, openapi_url=None)
    for endpoint in ENDPOINTS.values():
        handler = _handler(models, endpoint, slow[endpoint.route])
        app.add_api_route(endpoint.route, handler, methods=["POST"], **operation(endpoint))
    return app


def _handler(
    models: ChampionsProvider, endpoint: Endpoint[Any], slow: SlowRequests
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            if endpoint.accept is not None:
                body = await read_body(request, models.serving_settings.max_body_bytes)
                status, answer = await accept_answer(models, endpoint, body)
                return Response(answer, status, media_type=JSON)
            champions = models.get()
            body = await read_body(request, champions.settings.serving.max_body_bytes)
            parsed = parse_request(endpoint.request, body)
            now = utc_now()
            work = partial(endpoint.json, champions, parsed, now, count)
            if endpoint.is_slow(champions, parsed):
                body = await slow.run(request, champions.settings.serving.most_waiting, work)
            else:
                body = work()
            return Response(body, media_type=JSON)
        except ClientDisconnect:
            log_request(logging.INFO, endpoint.route, CLIENT_CLOSED)
            return Response(status_code=CLIENT_CLOSED)  # no one reads it; it is counted in /metrics
        except Exception as error:  # noqa: BLE001 - logged by `error_answer`
            status, body, *headers = error_answer(endpoint.route, error)
            return Response(body, status, {name.decode(): text.decode() for name, text in headers}, JSON)

    return handle


async def accept_answer(models: ChampionsProvider, endpoint: Endpoint[Any], body: bytes) -> tuple[int, bytes]:
    """Return the status of an endpoint that changes what is stored, and its response as JSON.

    Raises
    ------
    QianmianError
        None of the events was acknowledged.
    """
    assert endpoint.accept is not None
    request = parse_request(endpoint.request, body)
    try:
        async with asyncio.timeout(ACCEPT_SECONDS):
            accepted = await endpoint.accept(models, request, utc_now())
    except QianmianError as error:
        endpoint.count(request, error, count)
        raise
    except TimeoutError as error:
        late = StorageError(
            f"the events were not stored within {ACCEPT_SECONDS:g} s",
            hint="send them again: those that were stored after all are duplicates",
        )
        endpoint.count(request, late, count)
        raise late from error
    endpoint.count(request, accepted, count)
    return endpoint.status_of(accepted), orjson.dumps(accepted)


def error_answer(route: str, error: Exception) -> Answer:
    """Return the response to an error that a route raised; to be called where it is caught."""
    if not isinstance(error, QianmianError):
        log_request(logging.ERROR, route, 500, exc_info=True)
        return 500, error_json(internal_error())
    body = error_json(error.as_dict())
    if isinstance(error, TooManyRequests):
        return error.http_status, body, retry_after(error.retry_after)
    if isinstance(error, Overloaded):
        return error.http_status, body, retry_after(random.randint(1, MOST_AFTER_SECONDS))
    log_error(route, error)
    if isinstance(error, WorkspaceError):  # another process holds a lock: an ingest, a training, an erasure
        return error.http_status, body, retry_after(random.randint(1, MOST_AFTER_SECONDS))
    return error.http_status, body


def retry_after(seconds: int) -> tuple[bytes, bytes]:
    """Return the header that says when a request may be sent again."""
    return b"retry-after", b"%d" % seconds


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body of a request.

    Raises
    ------
    BodyTooLarge
        If it is longer than `limit` bytes.
    ClientDisconnect
        If the client hangs up before it has sent the whole body.
    """
    total = 0
    parts = []
    async for part in request.stream():
        total += len(part)
        if total <= limit:
            parts.append(part)
        elif total > limit + DRAIN_BYTES:
            break
    if total > limit:
        raise BodyTooLarge(
            "the body is too large",
            got=f"{total} bytes or more",
            allowed=f"{limit} bytes",
            hint="send fewer ids at a time, or raise serving.max_body_bytes in qianmian.yaml",
        )
    return b"".join(parts)


def utc_now() -> datetime:
    """The current moment, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def log_error(route: str, error: QianmianError) -> None:
    """Log an error that is not the client's."""
    if error.http_status >= 500 and not isinstance(error, NotReady):
        log_request(logging.WARNING, route, error.http_status, "error=%s", error)


def error_json(fields: dict[str, Any]) -> bytes:
    """Return the body of an error response; what it repeats of the request is cut."""
    return orjson.dumps({"error": error_fields(fields)})


def internal_error() -> dict[str, Any]:
    """Return an error that reveals no internals."""
    return {
        "code": "internal",
        "message": "internal server error",
        "field": None,
        "hint": "the log of the server has the details",
    }


# ---- errors of BentoML, Starlette and uvicorn ------------------------------------------------------------------------

STATUS_ERRORS: dict[int, tuple[str, str, str | None]] = {
    401: ("unauthorized", "the request has no valid API key", "send one: Authorization: Bearer KEY"),
    403: ("forbidden", "the request is not allowed", None),
    404: ("not_found", "unknown path", "/docs.json lists the paths"),
    405: ("method_not_allowed", "the method is not allowed", "send a POST request to /v1 paths"),
    408: ("timeout", "the request took too long to arrive", "send it again"),
    413: ("body_too_large", "the body is too large", "send fewer ids at a time"),
    429: ("too_many_requests", "the server has too many requests", "try again later"),
    431: ("head_too_large", "the head of the request is too large", "send fewer or shorter headers"),
    CLIENT_CLOSED: ("client_closed", "the client hung up before it had sent the body", None),
    500: ("internal", "internal server error", "the log of the server has the details"),
    503: ("not_ready", "the server is not ready", "try again when /readyz returns 200"),
    504: ("timeout", "the response took too long", "send smaller requests"),
}


class UniformErrorMiddleware:
    """ASGI wrapper that gives every error the uniform format; other responses pass unchanged.

    Only `/readyz` of a server that is ready says so if accepted events cannot be read. It stays 200, because the server
    answers, and the others have lost the same log.
    """

    def __init__(self, app: Application, models: ChampionsProvider) -> None:
        self.app = app
        self.models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error_start: Message | None = None
        body: list[bytes] = []
        started = False
        misses_events = scope.get("path") == "/readyz" and self.models.misses_events()

        async def intercept_send(message: Message) -> None:
            nonlocal error_start, started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400:
                    error_start = message
                    return
            elif error_start is not None and message["type"] == "http.response.body":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._send_error(error_start, b"".join(body), send)
                return
            if misses_events:
                if message["type"] == "http.response.start":
                    await respond(send, 200, MISSES_EVENTS, content_type=b"text/plain; charset=utf-8")
                return
            if message["type"] == "http.response.start" and (request_id := HEADER.get()) is not None:
                message["headers"] = [*message.get("headers", ()), request_id]
            await send(message)

        try:
            await self.app(scope, receive, intercept_send)
        except Exception:
            # Starlette has sent its own 500 unless the response had started; uvicorn must still log the exception
            if not started:
                await self._send_error({"status": 500, "headers": []}, b"", send)
            raise

    async def _send_error(self, start: Message, body: bytes, send: Send) -> None:
        status = int(start["status"])
        headers = [
            (name, value)
            for name, value in start.get("headers", [])
            if name.lower() not in (b"content-length", b"content-type")
        ]
        if not has_error_shape(body):
            reason = self.models.why_not_ready() if status == 503 else None
            body = error_json(reason.as_dict() if reason is not None else error_for_status(status))
        await respond(send, status, body, *headers)


async def respond(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], content_type: bytes = JSON.encode()
) -> None:
    """Send a response in two messages."""
    first = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if (request_id := HEADER.get()) is not None:
        first.append(request_id)
    await send({"type": "http.response.start", "status": status, "headers": [*first, *headers]})
    await send({"type": "http.response.body", "body": body})


def error_for_status(status: int) -> dict[str, Any]:
    """Return the fields of an error of which only the status is known."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "error"
    code, message, hint = STATUS_ERRORS.get(
        status, ("internal" if status >= 500 else "bad_request", phrase.lower(), None)
    )
    return {"code": code, "message": message, "field": None, "hint": hint}


def has_error_shape(body: bytes) -> bool:
    """Whether the body is ``{"error": {code, message, field, hint}}``.

    Examples
    --------
    >>> has_error_shape(b'{"error": "no"}')
    False
    >>> has_error_shape(b'{"error": {"code": "c", "message": "m", "field": null, "hint": null}}')
    True
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and isinstance(value.get("error"), dict) and value["error"].keys() == ERROR_FIELDS
