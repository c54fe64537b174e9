"""Slow requests: run on threads beside the event loop, one at a time for each route, with a bounded number waiting."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request

from qianmian.errors import QianmianError
from qianmian.interruption import checking
from serving.metrics import QUEUE_REFUSED, count_one

T = TypeVar("T")
THREADS = 2  # more threads would only compete with the event loop for the interpreter lock
WORK_SECONDS = 0.001  # of slow work before it gives way again
MOST_PAUSE_SECONDS = 0.02  # for which it gives way, so that it gets on beside an event loop that is always busy
LOOK_SECONDS = 0.0005  # from one look to the next whether it may go on
# The event loop may want the interpreter lock back several times for one answer. It waits for so long, and again from
# the start if slow work has given the lock up for a moment and taken it back, as matrix operations do all the time.
SWITCH_SECONDS = 0.0002


class TooManyRequests(QianmianError):
    """So many slow requests of a route are waiting that a further one is refused.

    Attributes
    ----------
    retry_after : int
        Seconds until it may be sent again. Clients that are refused at the same time are told different ones, within
        the time that those waiting are likely to take, so that they do not come back at once.
    """

    code, http_status, exit_code = "too_many_requests", 429, 1

    def __init__(self, route: str, waiting: int, retry_after: int) -> None:
        super().__init__(
            f"{waiting} requests to {route} are waiting",
            where=route,
            hint=f"try again in {retry_after} s, send smaller requests, or start more workers",
        )
        self.retry_after = retry_after


class Unwanted(Exception):
    """Nobody waits for the result of some work any more: its client hung up, or its deadline has passed."""


class Ending(Generic[T]):
    """What some work returned, or its error.

    An error that is raised through a task or a future is in a reference cycle with it. It would keep the frames of the
    work, and so the models that it used, until the garbage collector comes: for ever, if they were frozen meanwhile.
    """

    def __init__(self, value: T | None = None, error: Exception | None = None) -> None:
        self._value, self._error = value, error

    def result(self) -> T:
        """Return what the work returned, or raise its error; to be called once."""
        error, self._error = self._error, None
        if error is None:
            return cast("T", self._value)
        try:
            raise error
        finally:
            del error


class LoopState:
    """What slow work knows about the event loop: whether it computes an answer at the moment."""

    def __init__(self) -> None:
        self.answering = False


class SlowWork:
    """Work on a thread, at its checkpoints: it gives way to the event loop, and ends once it is unwanted."""

    def __init__(self, loop: LoopState) -> None:
        self.unwanted = False
        self._loop, self._begun = loop, time.perf_counter()

    def check(self) -> None:
        """Pause while the event loop computes an answer, unless the last pause has just ended.

        Raises
        ------
        Unwanted
            If nobody waits for the result.
        """
        if self.unwanted:
            raise Unwanted
        if not self._loop.answering or (now := time.perf_counter()) - self._begun < WORK_SECONDS:
            return
        while self._loop.answering and time.perf_counter() - now < MOST_PAUSE_SECONDS:
            time.sleep(LOOK_SECONDS)
        self._begun = time.perf_counter()


class SlowRequests:
    """Runs the slow requests of one route in the order of their arrival.

    A route runs one request at a time, so that many requests to one route leave a thread for the others. A request
    whose client hangs up, or whose deadline passes, while it waits is not run; one that runs ends at its next
    checkpoint.

    Parameters
    ----------
    route : str
        Name of the route, for errors.
    threads : anyio.CapacityLimiter
        Threads that all routes share.
    loop : LoopState, optional
        The event loop that slow work gives way to.
    """

    def __init__(self, route: str, threads: anyio.CapacityLimiter, loop: LoopState | None = None) -> None:
        self.route, self.waiting = route, 0
        self._loop = loop if loop is not None else LoopState()
        self._threads, self._turn = threads, anyio.Semaphore(1)
        self._seconds = 0.1  # of a request, as a moving average
        self._refused = 0
        self._begun: set[asyncio.Task[Any]] = set()

    def refuse(self, most_waiting: int) -> None:
        """Refuse a request if one runs and so many wait already.

        Raises
        ------
        TooManyRequests
            So many are waiting.
        """
        if not self._turn.value and self.waiting >= most_waiting:
            self._refused += 1
            count_one(QUEUE_REFUSED, self.route)
            until_empty = math.ceil(self._seconds * (self.waiting + 1))
            raise TooManyRequests(self.route, self.waiting, 1 + self._refused % until_empty)

    async def run(self, request: Request, most_waiting: int, work: Callable[[], T]) -> T:
        """Run some work when it is its turn.

        Parameters
        ----------
        request : Request
            The request, whose body has been read.
        most_waiting : int
            Number of requests that may wait.

        Raises
        ------
        TooManyRequests
            So many are waiting already.
        ClientDisconnect
            The client hung up before the work was done.
        """
        self.refuse(most_waiting)
        ending = await self._ending(request, work)
        if ending is None:
            raise ClientDisconnect
        try:
            return ending.result()
        finally:
            del ending  # this frame is in the traceback of its error

    async def _ending(self, request: Request, work: Callable[[], T]) -> Ending[T] | None:
        """Run some work when it is its turn; None if the client hangs up before it is done."""
        endings: list[Ending[T]] = []
        async with anyio.create_task_group() as group:

            async def give_up() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(give_up)
            self.waiting += 1
            try:
                await self._turn.acquire()
            finally:
                self.waiting -= 1
            # the thread ends at a checkpoint: until then the task keeps the turn, even if the request is cancelled
            running = SlowWork(self._loop)
            task = asyncio.get_running_loop().create_task(self._work(work, running))
            self._begun.add(task)
            task.add_done_callback(self._ended)
            try:
                endings.append(await asyncio.shield(task))
            finally:
                running.unwanted = True
            group.cancel_scope.cancel()
        return endings[0] if endings else None

    async def _work(self, work: Callable[[], T], running: SlowWork) -> Ending[T]:
        started = time.perf_counter()

        def work_with_pauses() -> Ending[T]:
            try:
                with checking(running.check):
                    return Ending(work())
            except Exception as error:  # noqa: BLE001 - `Ending.result` raises it
                return Ending(error=error)

        try:
            return await anyio.to_thread.run_sync(work_with_pauses, limiter=self._threads)
        finally:
            self._turn.release()
            self._seconds += 0.2 * (time.perf_counter() - started - self._seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # of a request that was cancelled, no one else asks for it


def slow_requests(routes: Iterable[str], loop: LoopState | None = None) -> dict[str, SlowRequests]:
    """Return what runs the slow requests of each route, on threads that they share."""
    threads = anyio.CapacityLimiter(THREADS)
    return {route: SlowRequests(route, threads, loop) for route in routes}
