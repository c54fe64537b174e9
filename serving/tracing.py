"""Trace spans of OpenTelemetry, which BentoML's middleware makes, without what may say who sent a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]
HIDDEN = frozenset({b"user-agent", b"authorization", b"x-api-key", b"cookie"})


class WithoutSender:
    """ASGI wrapper that hides the address, user agent, query and key of a request, of which nothing here needs any.

    The middleware would make attributes of them: of the key if it is told to record the headers, as a variable of
    OpenTelemetry can. Bodies it does not read.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] not in HIDDEN]
            scope = {**scope, "client": None, "query_string": b"", "headers": headers}
        await self.app(scope, receive, send)
