"""`Endpoint`: what a route is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

from serving.champions import Champions
from serving.requests import R
from serving.responses import Response, ResponseBody


@dataclass(frozen=True)
class Endpoint(Generic[R]):
    """One route.

    Attributes
    ----------
    handle : callable
        (champions, request, now) → the answer, JSON-ready; pure, so batch scoring and tests call it too.
    response_metadata : callable
        (champions, now) → the `model`, `as_of` and `stale` of its answers.
    check : callable
        (champions, request): all that `validate_only` runs; raises what `handle` would raise about the request itself.
    runs_in_thread : callable
        Whether this request takes more than about 5 ms and must not run on the event loop.
    """

    route: str
    summary: str
    request: type[R]
    response: type[Response]
    handle: Callable[[Champions, R, datetime], ResponseBody]
    response_metadata: Callable[[Champions, datetime], ResponseBody]
    check: Callable[[Champions, R], object] = lambda _champions, _request: None
    runs_in_thread: Callable[[R], bool] = lambda _: False

    def respond(self, champions: Champions, request: R, now: datetime) -> ResponseBody:
        """Handle the request, or only check it where it says `validate_only`."""
        if request.validate_only:
            self.check(champions, request)
            return {"valid": True, **self.response_metadata(champions, now)}
        return self.handle(champions, request, now)
