"""`Endpoint`: the parts of one HTTP route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol

import orjson

from features.event_log import EventLog
from qianmian.errors import QianmianError
from qianmian.settings import ServingSettings
from serving.champions import Champions
from serving.costs import LIMIT_MS
from serving.counting import Result
from serving.erasures import Erasures
from serving.metrics import Count, Increments, ignore
from serving.requests import R
from serving.responses import Response, ResponseBody
from serving.security.keys import Scope


class Accepting(Protocol):
    """What an endpoint that stores or erases needs of the server, which may have no models."""

    @property
    def serving_settings(self) -> ServingSettings:
        """The settings."""
        ...

    async def event_log(self) -> EventLog:
        """Return the event log, or raise the error that explains why there is none."""
        ...

    def get(self) -> Champions:
        """Return the champions, or raise the error that explains why there are none."""
        ...

    @property
    def erasures(self) -> Erasures:
        """What takes customers out of the workspace."""
        ...


@dataclass(frozen=True)
class Endpoint(Generic[R]):
    """One HTTP route.

    Attributes
    ----------
    route : str
        Path below ``/v1``.
    summary : str
        Title in the API documentation.
    request : type of Request
        Request model.
    response : type of Response
        Response model.
    handle : callable
        (champions, request, now) → response body; a pure function, so tests call it without a server.
    response_metadata : callable
        (champions, now) → the response fields `model`, `as_of` and `stale`.
    check : callable
        (champions, request) → anything; run for `validate_only`. It raises the errors that `handle` would raise about
        the request.
    estimated_ms : callable
        request → CPU milliseconds that it is likely to cost, from the constants of `serving.costs`.
    is_always_slow : bool
        Whether every request costs so much that it leaves the event loop.
    is_kept : callable
        (champions, request) → whether the answer is kept, so that it costs next to nothing.
    ready_json : callable
        (champions, request, now, count) → the body of the response as JSON where it is put together from parts that are
        kept, else None. It says what `handle` would, and counts it.
    counted : callable
        (request, body of the response, or the error that `handle` raised) → what the metrics count of it.
    accept : callable, optional
        (server, request, now) → awaitable response body, also for `validate_only`. An endpoint that has it changes
        what is stored: it is called in place of `handle`, and without champions too.
    status_of : callable
        response body of `accept` → HTTP status; default: 200.
    is_heavy : callable, optional
        (champions, request) → whether the answer takes so long, for this customer, that it leaves the event loop
        whatever the estimate says; default: never.
    scope : Scope
        What an API key must allow for this route: `read` answers, send `events`, or `admin`.
    errors : mapping of int to str
        Statuses that only this route returns, or for another reason, and what they mean; one below 400 is a response.
    """

    route: str
    summary: str
    request: type[R]
    response: type[Response]
    handle: Callable[[Champions, R, datetime], ResponseBody]
    response_metadata: Callable[[Champions, datetime], ResponseBody]
    estimated_ms: Callable[[R], float]
    check: Callable[[Champions, R], object] = lambda _champions, _request: None
    is_always_slow: bool = False
    is_kept: Callable[[Champions, R], bool] = lambda _champions, _request: False
    ready_json: Callable[[Champions, R, datetime, Count], bytes | None] = lambda *_: None
    counted: Callable[[R, Result], Increments] = lambda _request, _result: ()
    accept: Callable[[Accepting, R, datetime], Awaitable[ResponseBody]] | None = None
    status_of: Callable[[ResponseBody], int] = lambda _body: 200
    is_heavy: Callable[[Champions, R], bool] | None = None
    scope: Scope = "read"
    errors: Mapping[int, str] = field(default_factory=dict)

    def is_slow(self, champions: Champions, request: R) -> bool:
        """Whether the request has to leave the event loop."""
        if self.estimated_ms(request) > LIMIT_MS and not self.is_kept(champions, request):
            return True
        return self.is_heavy is not None and self.is_heavy(champions, request)

    def json(self, champions: Champions, request: R, now: datetime, count: Count = ignore) -> bytes:
        """Return the body of the response as JSON; `count` gets what the metrics count of it."""
        ready = self.ready_json(champions, request, now, count)
        if ready is not None:
            return ready
        try:
            body = self.respond(champions, request, now)
        except QianmianError as error:
            self.count(request, error, count)
            raise
        self.count(request, body, count)
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def count(self, request: R, result: Result, count: Count) -> None:
        """Count what became of a request, unless it was only to be checked."""
        if not request.validate_only and (increments := self.counted(request, result)):
            count(increments)

    def respond(self, champions: Champions, request: R, now: datetime) -> ResponseBody:
        """Handle the request, or only check it if `validate_only` is set."""
        if request.validate_only:
            self.check(champions, request)
            return {"valid": True, **self.response_metadata(champions, now)}
        return self.handle(champions, request, now)
