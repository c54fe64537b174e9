"""Trace spans of OpenTelemetry, which BentoML's middleware makes, without what may say who sent a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


class WithoutSender:
    """ASGI wrapper that hides the address, the user agent and the query of a request, of which nothing here needs any.

    The middleware would make attributes of them. Bodies and other headers it does not read, unless it is told to.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] != b"user-agent"]
            scope = {**scope, "client": None, "query_string": b"", "headers": headers}
        await self.app(scope, receive, send)
