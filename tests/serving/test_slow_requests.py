"""Slow requests run one at a time for each route; further ones wait, up to a number, unless their client hangs up."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable

import anyio
import orjson
import pytest
from starlette.requests import ClientDisconnect

from qianmian.errors import InvalidRequest
from qianmian.interruption import checkpoint
from serving.slow_requests import THREADS, SlowRequests, TooManyRequests


class Client:
    """The request of a client that hangs up when it is told to."""

    def __init__(self):
        self.gone = anyio.Event()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}


class Work:
    """Work that ends when it is told to; notes what runs."""

    def __init__(self):
        self.running, self.most, self.done = [], 0, []
        self.may_end = threading.Event()
        self._lock = threading.Lock()

    def named(self, name: str) -> Callable[[], str]:
        def run() -> str:
            with self._lock:
                self.running.append(name)
                self.most = max(self.most, len(self.running))
            assert self.may_end.wait(10)
            with self._lock:
                self.running.remove(name)
                self.done.append(name)
            return name

        return run


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await anyio.sleep(0.005)


def test_one_at_a_time_for_each_route_in_order_of_arrival():
    async def scenario():
        threads, work, found = anyio.CapacityLimiter(THREADS), Work(), []
        first, second = SlowRequests("/a", threads), SlowRequests("/b", threads)

        async def ask(route, name):
            found.append(await route.run(Client(), 9, work.named(name)))

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(ask, first, f"a{number}")
                await until(lambda number=number: first.waiting == number)
            group.start_soon(ask, second, "b0")
            await until(lambda: sorted(work.running) == ["a0", "b0"])
            work.may_end.set()
        assert work.most == THREADS == 2
        assert [name for name in work.done if name[0] == "a"] == ["a0", "a1", "a2", "a3"]
        assert sorted(found) == ["a0", "a1", "a2", "a3", "b0"]
        assert first.waiting == second.waiting == 0

    anyio.run(scenario)


@pytest.mark.parametrize("most", [0, 2])
def test_further_requests_are_refused(most):
    async def scenario():
        route, work = SlowRequests("/a", anyio.CapacityLimiter(THREADS)), Work()
        async with anyio.create_task_group() as group:
            for number in range(most + 1):
                group.start_soon(route.run, Client(), most, work.named(str(number)))
                await until(lambda number=number: bool(work.running) and route.waiting == number)
            with pytest.raises(TooManyRequests, match=f"{most} requests to /a are waiting") as refused:
                await route.run(Client(), most, work.named("refused"))
            assert refused.value.retry_after >= 1
            assert refused.value.hint
            work.may_end.set()
        assert work.done == [str(number) for number in range(most + 1)]
        assert await route.run(Client(), most, work.named("later")) == "later"

    anyio.run(scenario)


def test_a_request_whose_client_hangs_up_while_it_waits_is_not_run():
    async def scenario():
        route, work, client = SlowRequests("/a", anyio.CapacityLimiter(THREADS)), Work(), Client()
        ended = []

        async def ask():
            try:
                await route.run(client, 9, work.named("left"))
            except ClientDisconnect:
                ended.append("left")

        async with anyio.create_task_group() as group:
            group.start_soon(route.run, Client(), 9, work.named("first"))
            await until(lambda: work.running == ["first"])
            group.start_soon(ask)
            await until(lambda: route.waiting == 1)
            client.gone.set()
            await until(lambda: ended == ["left"])
            assert route.waiting == 0
            group.start_soon(route.run, Client(), 9, work.named("next"))
            await until(lambda: route.waiting == 1)
            work.may_end.set()
        assert work.done == ["first", "next"]

    anyio.run(scenario)


def test_a_client_that_hangs_up_later_and_a_failure_leave_the_route_free():
    async def scenario():
        route, work, client = SlowRequests("/a", anyio.CapacityLimiter(THREADS)), Work(), Client()

        def fails():
            raise ZeroDivisionError("the work's own error")

        with pytest.raises(ZeroDivisionError, match="own error"):
            await route.run(Client(), 9, fails)
        request = asyncio.create_task(route.run(client, 9, work.named("begun")))
        await until(lambda: work.running == ["begun"])
        client.gone.set()
        with pytest.raises(ClientDisconnect):
            await request
        assert work.running == ["begun"], "the thread goes on"
        work.may_end.set()
        assert await route.run(Client(), 9, work.named("later")) == "later"

    anyio.run(scenario)


def test_a_request_that_is_cancelled_keeps_its_turn_until_its_thread_ends():
    """A deadline cancels the task of a request; its thread goes on, and the next one waits for it."""

    async def scenario():
        route, work = SlowRequests("/a", anyio.CapacityLimiter(THREADS)), Work()
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(route.run(Client(), 9, work.named(str(number)))))
            await until(lambda number=number: work.running == ["0"] and route.waiting == number)
        tasks[0].cancel()  # while it runs
        tasks[1].cancel()  # while it waits
        await asyncio.wait(tasks[:2])
        await anyio.sleep(0.05)
        assert work.running == ["0"]
        work.may_end.set()
        assert [await task for task in tasks[2:]] == ["2", "3"]
        assert work.done == ["0", "2", "3"]
        assert work.most == 1

    anyio.run(scenario)


@pytest.mark.parametrize("end", ["success", "error", "client hung up", "deadline"])
def test_what_a_request_used_is_freed_without_the_garbage_collector(end):
    """A reload freezes all objects: those in a reference cycle, and the models that they refer to, would stay."""

    class Models:
        """Stands for the champions, which the work of a request refers to."""

    async def request(route, client, models, may_end) -> str:
        def work(models=models) -> None:
            assert may_end.wait(10)
            checkpoint()
            if end == "error":
                raise InvalidRequest("too few known seeds")

        try:
            async with asyncio.timeout(0.2 if end == "deadline" else None):
                await route.run(client, 9, work)
        except (InvalidRequest, ClientDisconnect, TimeoutError) as error:
            return type(error).__name__
        return "done"

    async def scenario():
        route, client, models = SlowRequests("/a", anyio.CapacityLimiter(THREADS)), Client(), Models()
        used = weakref.ref(models)
        may_end = threading.Event()
        task = asyncio.create_task(request(route, client, models, may_end))
        del models
        await until(lambda: bool(route._begun))
        gc.freeze()
        if end == "client hung up":
            client.gone.set()
            await asyncio.wait([task])
        elif end == "deadline":
            await asyncio.wait([task])
        may_end.set()
        found = await task
        del task
        await until(lambda: not route._begun and used() is None)
        return found

    gc.collect()
    gc.disable()
    try:
        found = anyio.run(scenario)
    finally:
        gc.unfreeze()
        gc.enable()
    expected = {"error": "InvalidRequest", "client hung up": "ClientDisconnect", "deadline": "TimeoutError"}
    assert found == expected.get(end, "done")


def test_the_server_says_when_to_try_again(serve, buyers, request_):
    """More lookalikes at a time than may wait: some are refused, and a recommendation is not."""
    import http.client
    from concurrent.futures import ThreadPoolExecutor
    from urllib.parse import urlsplit

    body = orjson.dumps({"seed_user_ids": buyers[:60], "size": 50})

    def ask(_):
        connection = http.client.HTTPConnection(urlsplit(serve.url).netloc, timeout=60)
        connection.request("POST", "/v1/lookalike", body)
        answer = connection.getresponse()
        found = answer.status, answer.headers.get("Retry-After"), orjson.loads(answer.read())
        connection.close()
        return found

    with ThreadPoolExecutor(60) as pool:
        asked = pool.map(ask, range(60))
        assert serve("/v1/recommendations", {"user_id": buyers[0]})[0] == 200
        found = list(asked)
    statuses = [status for status, _, _ in found]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 17  # one that runs and those that wait
    assert 429 in statuses, "60 lookalikes take seconds, and arrive within a few milliseconds"
    for status, after, answer in found:
        assert (after is None) == (status == 200)
        if status == 429:
            assert int(after) >= 1
            assert answer["error"]["code"] == "too_many_requests"
            assert set(answer["error"]) == {"code", "message", "field", "hint"}
