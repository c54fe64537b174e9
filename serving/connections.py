"""The connections of a worker: heads of requests are bounded, and a server that has to end answers what it was sent.

BentoML's worker runs `uvicorn.Server` and has no option for either; `UniformService.to_asgi` replaces it by `Server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from qianmian.settings import ServingSettings
from serving.http import error_for_status, error_json
from serving.loading import BackgroundLoader
from serving.openapi import JSON
from serving.request_ids import header_in, header_of
from serving.supervisor import PROCESS_VARIABLE

logger = logging.getLogger(__name__)

TICKS = 10  # of uvicorn's main loop, ten a second, from one look at all connections to the next
LINGER_SECONDS = 2.0  # that a refused connection is read on
CLOSE_SECONDS = 0.05  # until the event loop has closed what it was told to close
STRAGGLER_SECONDS = 1  # until requests that were cut have noticed


class WorkerState(ServerState):
    """What the connections of a worker share.

    Attributes
    ----------
    draining : bool
        Whether the worker has to end.
    head_bytes : int
        A longer head may pass, depending on how it arrives, but none of twice as many bytes does.
    head_seconds : float
        Until the head of a request is complete; also until a new connection sends its first one.
    unread_seconds : float
        That a client may take nothing of what waits for it.
    """

    draining = False

    def __init__(self) -> None:
        super().__init__()
        self.take(ServingSettings())

    def take(self, settings: ServingSettings) -> None:
        """Take the bounds over from the settings."""
        self.head_bytes, self.head_seconds = settings.max_head_bytes, settings.head_seconds
        self.unread_seconds = settings.unread_seconds


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a bound on the size of heads, and with errors in the uniform format.

    `Server` bounds their time: one look at all connections now and then is cheaper than a timer for each request.
    """

    server_state: WorkerState
    head_bytes = 0  # that have arrived of an incomplete head, or after the body: the trailers of chunks
    has_body = False  # whether the piece that is being parsed has some of a body

    @property
    def reads_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    @property
    def has_request(self) -> bool:
        """Whether a request waits for its response."""
        return self.cycle is not None and not self.cycle.response_complete

    def unread_bytes(self) -> int:
        """Number of bytes that the client has not taken, also those in the socket; 0 if none wait for the socket."""
        waiting = self.transport.get_write_buffer_size()
        if waiting:
            # a socket has room again only once much of what it holds is taken, which a slow client needs long for
            with contextlib.suppress(ImportError, OSError):  # not on every system
                import fcntl
                import termios

                sock = self.transport.get_extra_info("socket")
                waiting += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return waiting

    def data_received(self, data: bytes) -> None:
        most = self.server_state.head_bytes
        if len(data) > most:  # in parts, so that a long head is not parsed before it is counted
            for start in range(0, len(data), most):
                if self in self.connections:
                    self.data_received(data[start : start + most])
            return
        last, self.has_body = self.cycle, False
        super().data_received(data)
        if self.cycle is not last or self.has_body:  # a head is complete; what follows its body is counted like a head
            self.head_bytes = 0
            if self.server_state.draining:
                self.close_after_response()
        elif self in self.connections:  # it is neither closed nor a websocket now
            self.head_bytes += len(data)
            if self.head_bytes > most:
                self.refuse(431)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if not self.reads_head:  # an upgrade of the connection looks at its headers again
            self.headers = []  # trailers go there: uvicorn would add them to the headers, a second Host or a key

    def on_body(self, body: bytes) -> None:
        self.has_body = True
        super().on_body(body)

    def close_after_response(self) -> None:
        """Let the response to the last request, if it has not begun, announce the end of the connection."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, {**error_for_status(400), "message": "the request is not valid HTTP"})

    def refuse(self, status: int, error: dict[str, Any] | None = None) -> None:
        """Send an error instead of a response, and close the connection.

        What still arrives is read for a moment, because a client that is sending would see a reset connection instead.
        """
        if self.transport.is_closing() or (self.has_request and self.cycle.response_started):
            self.transport.abort()  # a response is on its way, which the client does not read
            return
        body = error_json(error or error_for_status(status))
        name, request_id = header_in(self.cycle.scope) if self.has_request else header_of(())
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {JSON}\r\n"
            f"content-length: {len(body)}\r\n{name.decode()}: {request_id.decode()}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.transport.set_protocol(asyncio.Protocol())  # reads and forgets; closes once the client has closed
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
        # closing waits for the client
        self.loop.call_later(LINGER_SECONDS + self.server_state.head_seconds, self.transport.abort)
        self.connection_lost(ConnectionAbortedError())  # tells the request, if there is one


class Server(uvicorn.Server):
    """uvicorn's server of a worker, which drains before it ends and closes connections without a complete head.

    After SIGTERM or SIGINT, `/readyz` returns 503, and every response announces the end of its connection. Connections
    are accepted for `drain_seconds` more, so that a load balancer finds out before the server refuses them. Then the
    server waits for the requests that it has; those that are left `shutdown_seconds` after the signal get a 503. A
    worker whose supervisor was killed, which can send no signal, ends without waiting, as does one that gets SIGINT
    during the shutdown.

    Parameters
    ----------
    config : uvicorn.Config
    loader : BackgroundLoader
        Is told of the shutdown, and has the settings.
    publish : callable
        Publishes the metrics of this worker; called once a second.
    """

    server_state: WorkerState

    def __init__(
        self, config: uvicorn.Config, loader: BackgroundLoader, publish: Callable[[], None] = lambda: None
    ) -> None:
        config.http = BoundedHttp
        config.proxy_headers = False  # any program of this machine could name the address of another client
        super().__init__(config)
        self.server_state = WorkerState()
        self.loader, self._publish = loader, publish
        # the parent of this process may have ended already, while it started
        self._supervisor = int(os.environ.get(PROCESS_VARIABLE, os.getppid()))
        self._headless: dict[BoundedHttp, tuple[object, float]] = {}  # their last request, and when they were noticed
        self._unread: dict[BoundedHttp, tuple[int, float]] = {}  # their unread bytes, and when some were taken last

    def http_connections(self) -> list[BoundedHttp]:
        """The open connections that are no websockets."""
        return [connection for connection in self.server_state.connections if isinstance(connection, BoundedHttp)]

    # ---- slow clients ------------------------------------------------------------------------------------------------

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS == 0:
            now = time.monotonic()
            self.server_state.take(self.loader.settings_or_defaults())
            self.close_headless(now)
            self.abort_unread(now)
            self._publish()
            if self.abandoned():
                logger.warning("shutdown=abandoned reason=the supervisor has ended")
                self.loader.shut_down()
                self.should_exit = True
        return bool(await super().on_tick(counter))

    def close_headless(self, now: float) -> None:
        """Close the connections that have sent no complete head for `serving.head_seconds`.

        Those that are idle after a response have a timer of uvicorn's, which the next byte stops.
        """
        noticed, self._headless = self._headless, {}
        for connection in self.http_connections():
            if connection.has_request or connection.timeout_keep_alive_task is not None:
                continue
            last, begun = noticed.get(connection, (connection.cycle, now))
            if last is not connection.cycle:  # it has had a request meanwhile
                begun = now
            if now - begun < self.server_state.head_seconds:
                self._headless[connection] = connection.cycle, begun
            elif connection.reads_head:
                connection.refuse(408)
            else:  # browsers open connections in advance, and expect no response on them
                connection.transport.close()

    def abort_unread(self, now: float) -> None:
        """Abort the connections whose clients have taken nothing for `serving.unread_seconds` of what waits for them.

        Closing a connection waits for its client, however long that takes, and keeps what was to be sent.
        """
        noticed, self._unread = self._unread, {}
        for connection in self.http_connections():
            if not (unread := connection.unread_bytes()):
                continue
            before, shrunk = noticed.get(connection, (unread, now))
            if unread < before:
                shrunk = now
            if now - shrunk < self.server_state.unread_seconds:
                self._unread[connection] = unread, shrunk
            else:
                connection.transport.abort()

    # ---- draining ----------------------------------------------------------------------------------------------------

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.loader.shut_down()
        super().handle_exit(sig, frame)

    def abandoned(self) -> bool:
        """Whether the supervisor has ended before the worker."""
        return os.getppid() != self._supervisor

    def hurries(self) -> bool:
        """Whether the worker has to end at once."""
        return self.force_exit or self.abandoned()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        settings, started = self.loader.settings_or_defaults(), time.monotonic()
        end = started + settings.shutdown_seconds
        logger.info("shutdown=draining seconds=%g most_seconds=%g", settings.drain_seconds, settings.shutdown_seconds)
        self.server_state.draining = True
        for connection in self.http_connections():
            connection.close_after_response()
        drained = min(started + settings.drain_seconds, end)
        while time.monotonic() < drained and not self.hurries():
            await asyncio.sleep(0.02)
        await self.stop_accepting(sockets or [])
        # the request of a connection that was made a moment ago is on its way
        await self.until_closed(min(time.monotonic() + settings.drain_seconds, end))
        for connection in self.http_connections():
            if not connection.has_request:
                connection.transport.close()
        await self.until_closed(end)
        if cut := self.http_connections():
            logger.warning("shutdown=cut connections=%d seconds=%.1f", len(cut), time.monotonic() - started)
        for connection in cut:
            reason = self.loader.why_not_ready()
            connection.refuse(503, reason.as_dict() if reason is not None else None)
        self.config.timeout_graceful_shutdown = STRAGGLER_SECONDS
        await super().shutdown(sockets)

    async def stop_accepting(self, sockets: list[socket.socket]) -> None:
        """Accept the connections that clients have made, and no more; closing a listening socket would reset them.

        All workers and the supervisor have the same socket, and clients are refused once the last of them closes it.
        """
        held = [listening.dup() for listening in sockets]
        for server in self.servers:
            server.close()
        await asyncio.sleep(CLOSE_SECONDS)  # the loop closes its sockets in its next round; these are still open
        waiting = [connection for listening in held for connection in accepted(listening)]
        for listening in (*held, *sockets):
            listening.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self.make_protocol, connection, ssl=self.config.ssl)

    def make_protocol(self) -> BoundedHttp:
        """Return the protocol of a new connection, as `uvicorn.Server.startup` does."""
        return BoundedHttp(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def until_closed(self, end: float) -> None:
        """Wait until all connections are closed, at most until a moment of the monotonic clock."""
        while self.server_state.connections and time.monotonic() < end and not self.hurries():
            await asyncio.sleep(0.02)


def accepted(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait at a listening socket."""
    listening.setblocking(False)
    while True:
        try:
            yield listening.accept()[0]
        except OSError:  # there is none, or it is gone
            return
