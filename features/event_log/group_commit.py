"""Group commit: one thread stores whatever any number of callers have queued meanwhile, in one transaction.

Making a transaction durable costs about the same for one event and for a thousand. So while one is being written, the
events of all other callers gather for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from features.event_log.base import AcceptedEvent, EventLog, Stored
from features.event_log.erased_users import Hasher, Tombstones
from features.event_log.identity import IdentifiedEvent, identify
from qianmian.errors import Overloaded, QianmianError, StorageError

logger = logging.getLogger(__name__)

MAX_BATCH = 2_000  # events; bounds how long the other processes wait for a transaction
Commit: TypeAlias = Callable[[list[IdentifiedEvent]], list[Stored]]
Result: TypeAlias = list[Stored] | Exception


class QueuedCall(NamedTuple):
    """The events of one call of `append`, and the future that its caller waits for."""

    events: list[IdentifiedEvent]
    future: Future[list[Stored]] | asyncio.Future[list[Stored]]
    loop: asyncio.AbstractEventLoop | None


class GroupCommit:
    """A bounded queue of events and the thread that stores them.

    Parameters
    ----------
    commit : callable
        Makes a batch of events durable and returns a result for each. If it raises, none of them is acknowledged.
    max_waiting : int
        Number of events that may wait. A single larger call is accepted if no other waits.
    """

    def __init__(self, commit: Commit, *, max_waiting: int) -> None:
        self._commit, self._max_waiting = commit, max_waiting
        self._state = threading.Condition()
        self._calls: list[QueuedCall] = []
        self._waiting = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Number of events that wait for being stored, those that are being stored included."""
        return self._waiting

    def append(self, events: Sequence[AcceptedEvent]) -> list[Stored]:
        """Store events, and wait until they are durable."""
        future: Future[list[Stored]] = Future()
        self._enqueue(QueuedCall([identify(event) for event in events], future, None))
        return future.result()

    async def append_async(self, events: Sequence[AcceptedEvent]) -> list[Stored]:
        """Store events, and wait without blocking the loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Stored]] = loop.create_future()
        self._enqueue(QueuedCall([identify(event) for event in events], future, loop))
        return await future

    def close(self) -> None:
        """Store what waits, then end the thread."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _enqueue(self, call: QueuedCall) -> None:
        with self._state:
            if self._closed:
                raise StorageError("the event log is closed")
            if self._waiting and self._waiting + len(call.events) > self._max_waiting:
                raise Overloaded(
                    f"{self._waiting} events wait for being stored, of at most {self._max_waiting}",
                    hint="send them again later, with growing pauses",
                )
            self._waiting += len(call.events)
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
                self._thread.start()
            self._state.notify()

    def _run(self) -> None:
        while calls := self._next_calls():
            events = [event for call in calls for event in call.events]
            results: Iterable[Result]
            try:
                stored = iter(self._commit(events))
                results = [[next(stored) for _ in call.events] for call in calls]
            except QianmianError as error:
                results = [error] * len(calls)
            except Exception as error:
                logger.exception("event_log=failed")
                results = [error] * len(calls)
            with self._state:
                self._waiting -= len(events)
            _answer(calls, results)

    def _next_calls(self) -> list[QueuedCall]:
        """Whole calls of at least one and about `MAX_BATCH` events; none when the log is closed and all are stored."""
        with self._state:
            self._state.wait_for(lambda: self._calls or self._closed)
            count = size = 0
            while count < len(self._calls) and size < MAX_BATCH:
                size += len(self._calls[count].events)
                count += 1
            calls, self._calls = self._calls[:count], self._calls[count:]
            return calls


class GroupCommitLog(EventLog):
    """The writing side of a log whose callers share transactions; a store adds how one of them is committed.

    Parameters
    ----------
    hasher : Hasher or None
        Makes tombstones, without which nothing can be appended once users were erased.
    max_waiting : int
        Events that may wait in this process.
    """

    def __init__(self, hasher: Hasher | None, max_waiting: int) -> None:
        self._hasher = hasher
        self._group = GroupCommit(self._commit, max_waiting=max_waiting)

    @property
    def waiting(self) -> int:
        """Number of events of this process that wait for being stored."""
        return self._group.waiting

    def append(self, events: Sequence[AcceptedEvent]) -> list[Stored]:
        """Store events, and wait until they are durable."""
        return self._group.append(events)

    async def append_async(self, events: Sequence[AcceptedEvent]) -> list[Stored]:
        """The same for a coroutine."""
        return await self._group.append_async(events)

    def close(self) -> None:
        """Store what waits, then close all connections."""
        self._group.close()
        self._disconnect()

    def _tombstones(self, batch: Iterable[IdentifiedEvent]) -> list[list[str]]:
        """The tombstones of the users that each event names; needed only if any users were erased."""
        tombstones = Tombstones(self._hasher)
        return [tombstones.of(identified.event) for identified in batch]

    @abstractmethod
    def _commit(self, batch: list[IdentifiedEvent]) -> list[Stored]:
        """Make a batch durable; called by one thread only."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close all connections."""


def _answer(calls: Iterable[QueuedCall], results: Iterable[Result]) -> None:
    """Wake the callers: threads one by one, the coroutines of a loop all at once."""
    of_loop: dict[asyncio.AbstractEventLoop, list[tuple[QueuedCall, Result]]] = defaultdict(list)
    for call, result in zip(calls, results, strict=True):
        if call.loop is None:
            _settle([(call, result)])
        else:
            of_loop[call.loop].append((call, result))
    for loop, answers in of_loop.items():
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: Iterable[tuple[QueuedCall, Result]]) -> None:
    for call, result in answers:
        if call.future.done():  # cancelled
            continue
        if isinstance(result, Exception):
            call.future.set_exception(result)
        else:
            call.future.set_result(result)
