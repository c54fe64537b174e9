"""A client of the HTTP API that needs the standard library only, and repeats what is safe to repeat.

Every route can be asked again without harm: an event has an id, under which it is stored once.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MAX_EVENTS = 1_000  # of a request
MAX_BATCH_BYTES = 900_000  # below the default of `serving.max_body_bytes`
REPEATED = frozenset({429, 502, 503, 504, 507})  # the server says that another try may succeed
KEY_VARIABLE = "QIANMIAN_API_KEY"
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 30.0


class ClientError(Exception):
    """A request failed for good.

    Attributes
    ----------
    code : str
        Code of the error of the server; `unreachable` if no try was answered, `invalid_response` if one was answered
        by something else.
    message, field, hint : str or None
        As in the error object of the server.
    status : int or None
        HTTP status of the last answer.
    unsent : sequence of dict
        `send`: the events that were not acknowledged, with their ids. Send these, and none is stored twice.
    """

    def __init__(
        self, code: str, message: str, field: str | None = None, hint: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(f"{code}: {message}" + (f". Fix: {hint}" if hint else ""))
        self.code, self.message, self.field, self.hint, self.status = code, message, field, hint, status
        self.unsent: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class RefusedEvent:
    """An event that the server refused: its place in the events that were sent, and why."""

    index: int
    event: dict[str, Any]
    code: str
    message: str
    field: str | None
    hint: str | None


@dataclass(frozen=True)
class EventsResult:
    """What became of events.

    Attributes
    ----------
    accepted : int
        Events that are stored durably, duplicates included.
    duplicates : int
        Events among them that had been stored before, for example by a try whose answer was lost.
    rejected : tuple of RefusedEvent
        Events that are wrong; sending them again does not help.
    """

    accepted: int
    duplicates: int
    rejected: tuple[RefusedEvent, ...]


class Client:
    """A client of one server. Its methods may be called from any thread; each thread has a connection that is kept.

    Parameters
    ----------
    url : str
        Address of the server, such as ``http://127.0.0.1:3000``.
    timeout : float
        Seconds that one try may take.
    retries : int
        Tries after the first one, with growing random pauses of at most 30 s, or of what `Retry-After` says.
    api_key : str, optional
        Key that the server needs; default: that in the environment variable ``QIANMIAN_API_KEY``, if there is one.

    Examples
    --------
    >>> client = Client("http://127.0.0.1:3000")
    >>> view = {"user_id": "1", "event_type": "view", "item_id": "995242", "ts": "2026-05-01T12:00:00Z"}
    >>> client.send([view]).accepted  # doctest: +SKIP
    1
    """

    def __init__(self, url: str, timeout: float = 5.0, retries: int = 5, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not the address of a server: {url!r}")
        key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE)
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("the API key has characters that no key has")  # and is not repeated here
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._parts, self.timeout, self.retries = parts, timeout, retries
        self._local = threading.local()

    def send(self, events: Sequence[Mapping[str, Any]]) -> EventsResult:
        """Send events, in batches of at most 1,000; those without `event_id` get a random one.

        Raises
        ------
        ClientError
            A batch was not acknowledged; `unsent` has its events and those of the batches after it.
        """
        identified = [{**event, "event_id": event.get("event_id") or str(uuid.uuid4())} for event in events]
        accepted = duplicates = 0
        rejected: list[RefusedEvent] = []
        for start, bodies in _batches(identified):
            try:
                answer = self._post("/v1/events", b'{"events":[' + b",".join(bodies) + b"]}")
            except ClientError as error:
                error.unsent = identified[start:]
                raise
            accepted += answer["accepted"]
            duplicates += answer["duplicates"]
            for each in answer["rejected"]:
                at, why = start + each["index"], each["error"]
                rejected.append(
                    RefusedEvent(at, identified[at], why["code"], why["message"], why.get("field"), why.get("hint"))
                )
        return EventsResult(accepted, duplicates, tuple(rejected))

    def recommendations(self, user_id: str, **options: Any) -> dict[str, Any]:
        """The items to show one customer; the options are the fields of `/v1/recommendations`."""
        return self.post("/v1/recommendations", {"user_id": user_id, **options})

    def profile(self, user_id: str, **options: Any) -> dict[str, Any]:
        """The tags of one customer; the options are the fields of `/v1/profile`."""
        return self.post("/v1/profile", {"user_id": user_id, **options})

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response of any route to a request.

        Raises
        ------
        ClientError
            The server refused the request, or all tries failed.
        """
        return self._post(route, _json(body))

    def close(self) -> None:
        """Close the connection of this thread; a later call opens another one."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _post(self, route: str, body: bytes) -> dict[str, Any]:
        for attempt in range(self.retries + 1):
            wait = 0.0
            try:
                status, wait, content = self._try(route, body)
            except (OSError, http.client.HTTPException) as error:  # a timeout too
                self.close()
                failure = ClientError("unreachable", f"{self._parts.geturl()}: {error or type(error).__name__}")
            else:
                answer = _answer(status, content)
                if isinstance(answer, dict):
                    return answer
                failure = answer
                if status not in REPEATED:
                    break
            if attempt < self.retries:
                growing = FIRST_PAUSE_SECONDS * 2**attempt
                time.sleep(min(max(wait, growing) * random.uniform(1.0, 1.5), MAX_PAUSE_SECONDS))
        raise failure

    def _try(self, route: str, body: bytes) -> tuple[int, float, bytes]:
        """Status, seconds to wait, and content of one answer."""
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            try:
                return self._exchange(kept, route, body)
            except ConnectionError:  # the server closes connections that were idle
                self.close()
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = self._local.connection = kind(self._parts.netloc, timeout=self.timeout)
        return self._exchange(connection, route, body)

    def _exchange(self, connection: http.client.HTTPConnection, route: str, body: bytes) -> tuple[int, float, bytes]:
        connection.request("POST", self._parts.path.rstrip("/") + route, body, self._headers)
        response = connection.getresponse()
        content = response.read()
        wait = response.headers.get("Retry-After", "")
        return response.status, float(wait) if wait.isdigit() else 0.0, content


def _answer(status: int, content: bytes) -> dict[str, Any] | ClientError:
    try:
        answer = json.loads(content)
        if status == 200 and isinstance(answer, dict):
            return answer
        error = answer["error"]
        return ClientError(error["code"], error["message"], error.get("field"), error.get("hint"), status)
    except (ValueError, KeyError, TypeError):
        return ClientError("invalid_response", f"status {status}, and no JSON of this API", status=status)


def _batches(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, list[bytes]]]:
    """The place of the first event of each batch, and the JSON of its events."""
    bodies: list[bytes] = []
    start = size = 0
    for place, event in enumerate(events):
        body = _json(event)
        if bodies and (len(bodies) == MAX_EVENTS or size + len(body) > MAX_BATCH_BYTES):
            yield start, bodies
            bodies, start, size = [], place, 0
        bodies.append(body)
        size += len(body) + 1
    if bodies:
        yield start, bodies


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
