"""The fast path: small requests to `/v1` are answered in front of BentoML's application, which gets all others.

BentoML's middlewares and routing take ten times as long as the answer to a plain request (`benchmarks/serving.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from qianmian.errors import QianmianError
from qianmian.settings import ServingSettings
from serving.endpoints import ENDPOINTS
from serving.endpoints.base import Endpoint
from serving.http import (
    CLIENT_CLOSED,
    Answer,
    Application,
    ChampionsProvider,
    Message,
    Receive,
    Scope,
    Send,
    accept_answer,
    error_answer,
    error_for_status,
    error_json,
    respond,
    utc_now,
)
from serving.index_page import index_page
from serving.logs import REQUEST_LOG
from serving.metrics import RequestMetrics, count, count_refused
from serving.openapi import OPEN_PATHS
from serving.request_ids import begin
from serving.requests import parse_request
from serving.security.access import Access, Refusal
from serving.security.keys import Scope as KeyScope
from serving.slow_requests import LoopState, SlowRequests

PREFIX = "/v1"
SMALL_BODY = 16_384  # bytes; parsing and validating a longer body may take milliseconds
SMALL_BATCH = 65_536  # of a batch of events, which others may interrupt; a hundred take 30,000
BENTOML_PATHS = frozenset({"/metrics", "/docs.json", "/schema.json"})
INDEX_PATH = ""  # "/" without its slash
UNKNOWN = "unknown"  # route of the metrics of all other paths


class FastPath:
    """ASGI application in front of BentoML's.

    It answers a POST request to a route of `ENDPOINTS` itself if its body is small and arrives in one piece and
    it is not slow (`Endpoint.is_slow`): such an answer takes so little time that a deadline, or a bound on concurrent
    requests, has nothing to do. All other requests to these routes go through BentoML's middlewares, which have both.
    A path that neither has is refused here, because BentoML's metrics would keep it as a label.

    Parameters
    ----------
    app : ASGI application
        That of BentoML, with uniform errors.
    models : ChampionsProvider
    slow : mapping of str to SlowRequests, optional
        Runs the slow requests of each route; those that it would refuse are refused here.
    loop : LoopState, optional
        Told when an answer is computed.
    access : Access, optional
        Decides about every request but those of `OPEN_PATHS`; default: that of a server without API keys.
    answers : bool
        Whether requests are answered here; else all requests to the endpoints go through BentoML's middlewares.
    publish : callable
        Publishes the metrics of this worker; called before `/metrics` is answered.
    """

    def __init__(
        self,
        app: Application,
        models: ChampionsProvider,
        slow: Mapping[str, SlowRequests] | None = None,
        loop: LoopState | None = None,
        access: Access | None = None,
        *,
        answers: bool = True,
        publish: Callable[[], None] = lambda: None,
    ) -> None:
        self.app, self.models, self.answers, self.metrics = app, models, answers, RequestMetrics()
        self.slow, self.loop = slow if slow is not None else {}, loop if loop is not None else LoopState()
        self._publish = publish
        self.access = access if access is not None else Access()
        self._silent, self._gate = SilentClients(self._body_seconds), asyncio.Lock()
        self.endpoints: dict[str, Endpoint[Any]] = {PREFIX + route: ENDPOINTS[route] for route in ENDPOINTS}
        self._scopes: dict[str, KeyScope] = {path: endpoint.scope for path, endpoint in self.endpoints.items()}
        self._scopes |= dict.fromkeys((INDEX_PATH, *BENTOML_PATHS), "read")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none; BentoML would count their paths too
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        begin(scope)
        if scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        path = scope["path"].removesuffix("/")
        endpoint = self.endpoints.get(path)
        # a browser asks without a key whether it may send one; only BentoML's middlewares answer that
        is_preflight = not self.answers and scope["method"] == "OPTIONS"
        refusal = None if is_preflight else self.access.refusal(scope, self._scopes.get(path))
        if refusal is None and scope["path"] in BENTOML_PATHS:
            if scope["path"] == "/metrics":
                self._publish()
            await self.app(scope, receive, send)
            return
        route = endpoint.route if endpoint is not None else "/" if scope["path"] == "/" else UNKNOWN
        try:
            if refusal is not None:
                status = await self._refuse(refusal, route, send)
            elif endpoint is None:
                status = await self._other(scope, send)
            elif scope["method"] == "POST" or not self.answers:
                # Starlette would redirect a path with a slash at its end
                scope = scope if scope["path"] == path else {**scope, "path": path, "raw_path": path.encode()}
                status = await self._call(endpoint, scope, receive, send)
            else:
                status = await send_error(send, 405, (b"allow", b"POST"))
        finally:
            seconds = time.perf_counter() - started
            self.metrics.count(route, status, seconds)
            if seconds >= REQUEST_LOG.least_seconds:
                REQUEST_LOG.log(route, status, seconds)

    async def _refuse(self, refusal: Refusal, route: str, send: Send) -> int:
        """Send a refusal, without reading the body; returns the status."""
        self.access.log(route, refusal)
        count_refused(refusal.reason)
        await respond(send, refusal.status, refusal.body, *refusal.headers)
        return refusal.status

    def _body_seconds(self) -> float:
        """Seconds until a body begins to arrive."""
        try:
            return self.models.serving_settings.body_seconds
        except QianmianError:  # the settings cannot be read
            return ServingSettings().body_seconds

    async def _call(self, endpoint: Endpoint[Any], scope: Scope, receive: Receive, send: Send) -> int:
        """Answer a request to an endpoint here or by BentoML's application; returns the status."""
        if not self.answers:
            return await self._pass_on(scope, receive, send)
        try:
            message = await self._silent.first_message(receive)
        except TimeoutError:
            return await send_error(send, 408, (b"connection", b"close"))
        if endpoint.is_always_slow:
            await self._turn()
        answer = await self._accept(endpoint, message) if endpoint.accept else self._answer(endpoint, message)
        if answer is None:
            await self._turn()
            unread = [message]

            async def receive_again() -> Message:
                return unread.pop() if unread else await receive()

            return await self._pass_on(scope, receive_again, send)
        await respond(send, *answer)
        return answer[0]

    async def _turn(self) -> None:
        """Wait until those that came before were let in, so that of many slow requests one is let in at a time.

        BentoML's middlewares alone take a millisecond. Other requests are answered between two that arrived together.
        """
        async with self._gate:
            await asyncio.sleep(0)

    def _answer(self, endpoint: Endpoint[Any], message: Message) -> Answer | None:
        """Status, body and perhaps a header of the response; None if BentoML's application has to answer."""
        if (body := _whole_body(message, SMALL_BODY)) is None:
            return None
        self.loop.answering = True
        try:
            champions = self.models.get()
            if len(body) > champions.settings.serving.max_body_bytes:
                return None
            request = parse_request(endpoint.request, body)
            if endpoint.is_slow(champions, request):
                if endpoint.route in self.slow:  # BentoML's application would take ten times as long to refuse it
                    self.slow[endpoint.route].refuse(champions.settings.serving.most_waiting)
                return None
            return 200, endpoint.json(champions, request, utc_now(), count)
        except Exception as error:  # noqa: BLE001 - logged by `error_answer`
            return error_answer(endpoint.route, error)
        finally:
            self.loop.answering = False

    async def _accept(self, endpoint: Endpoint[Any], message: Message) -> Answer | None:
        """`_answer` of an endpoint that changes what is stored, without champions too."""
        body = _whole_body(message, SMALL_BATCH)
        try:
            if body is None or len(body) > self.models.serving_settings.max_body_bytes:
                return None
            return await accept_answer(self.models, endpoint, body)
        except Exception as error:  # noqa: BLE001 - logged by `error_answer`
            return error_answer(endpoint.route, error)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Let BentoML's application answer a request; returns the status."""
        status = CLIENT_CLOSED

        async def watched_send(sent: Message) -> None:
            nonlocal status
            if sent["type"] == "http.response.start":
                status = sent["status"]
            await send(sent)

        await self.app(scope, receive, watched_send)
        return status

    async def _other(self, scope: Scope, send: Send) -> int:
        """Answer a request that is no call of an endpoint: the index page, or an error."""
        if scope["path"] != "/":
            return await send_error(send, 404)
        if scope["method"] not in ("GET", "HEAD"):
            return await send_error(send, 405, (b"allow", b"GET, HEAD"))
        await respond(send, 200, index_page(), content_type=b"text/html; charset=utf-8")
        return 200


def _whole_body(message: Message, most: int) -> bytes | None:
    """The body of a request if it is in its first message and not longer than `most`."""
    if message["type"] != "http.request" or message.get("more_body", False):
        return None
    body: bytes = message.get("body", b"")
    return body if len(body) <= most else None


class SilentClients:
    """Ends the wait for the body of clients that send none.

    A body has nearly always arrived with the head. One timer for all requests therefore looks now and then for those
    that still wait, because `asyncio.timeout` would take a twentieth of the time of a kept list.

    Parameters
    ----------
    seconds : callable
        Returns the seconds that it waits.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._begun: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def first_message(self, receive: Receive) -> Message:
        """Receive the first message of a request.

        Raises
        ------
        TimeoutError
            It did not arrive in that time, or some more.
        """
        task = asyncio.current_task()
        assert task is not None
        self._begun[task] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds() / 10, self._look)
        try:
            return await receive()
        except asyncio.CancelledError:
            if task in self._begun:  # cancelled by another
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            self._begun.pop(task, None)

    def _look(self) -> None:
        """Cancel the tasks that have waited too long, and look again later if any is left."""
        now, seconds, self._timer = time.monotonic(), self._seconds(), None
        for task, begun in list(self._begun.items()):
            if now - begun > seconds:
                del self._begun[task]
                task.cancel()
        if self._begun:
            self._timer = asyncio.get_running_loop().call_later(seconds / 10, self._look)


async def send_error(send: Send, status: int, *headers: tuple[bytes, bytes]) -> int:
    """Send the error of a status, and return the status."""
    await respond(send, status, error_json(error_for_status(status)), *headers)
    return status
