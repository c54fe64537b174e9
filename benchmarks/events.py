"""How many events a server makes durable, how soon the answers of another one know them, and whether one is ever lost.

    python benchmarks/events.py [--workspace DIR] [--quick] [--json FILE]

All runs are on a copy of the workspace. 16 connections from a process of their own send single events, then batches of
100, to one worker. Then one event after the other is sent to it, and a worker of another server is asked for the list
of its customer until the list knows it (`seen`); the second time beside 500 other events and 100 other lists a second
(`busy`). At last, senders send events to two workers while processes of the server are killed at random with SIGKILL: a
worker, the supervisor, or all at once. Senders repeat what was not acknowledged. After each kill every event that was
acknowledged has to be in the log exactly once.

Without --workspace, Complete Journey is ingested and its models are trained in a temporary folder first (minutes).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from common import Must, check, finish, machine, parser, value
from http_load import CONNECTIONS, PATH, Target, copied_workspace, server

from features.profiles import snapshot
from qianmian.workspace import Workspace
from serving.events.live import POLL_SECONDS
from serving.server import free_port, running

ROUTE = "/v1/events"
BATCH = 100
KILLS, QUICK_KILLS = 50, 4
KINDS = ["worker"] * 4 + ["supervisor", "all"]  # what is killed; a new server takes seconds
SENDERS = 4  # of each of the two sizes while processes are killed
PAUSE_SECONDS = 0.01  # of a sender between two requests while processes are killed: the next server has to start
EVENT_RATE, LIST_RATE = 500, 100  # others a second while the answers of another worker are awaited
LOST_SECONDS = 10.0
SEED = 16
MUSTS = {
    "events_per_s": Must("metric", least=1_000),
    "batched_events_per_s": Must("metric", least=20_000),
    "batched_cpu_us": Must("metric", most=60),  # measured 42 to 51; a quarter more on a busy day is no fault
    "seen_p99_ms": Must("metric", most=10 * POLL_SECONDS * 1e3),
    "lost_events": Must("metric", most=0),
    "duplicated_events": Must("metric", most=0),
}


def body_of(sender: str, number: int, size: int) -> bytes:
    """Body of a request with events that no other one has."""
    ts = datetime.now(UTC).isoformat().encode()
    return b'{"events":[%b]}' % b",".join(
        b'{"event_id":"%b-%d-%d","user_id":"u%d","user_source":"benchmark","event_type":"view","ts":"%b",'
        b'"item_id":"item-%d","session_id":"%b","channel":"web"}'
        % (sender.encode(), number, place, number % 1_000, ts, place, sender.encode())
        for place in range(size)
    )


class Connection:
    """One HTTP connection of a coroutine."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, route: str, body: bytes) -> bytes:
        """Send a request and return the body of the response, whose status has to be 200."""
        self.streams = self.streams or await asyncio.open_connection(self.url.hostname, self.url.port)
        reader, writer = self.streams
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (route.encode(), len(body)) + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        answer = await reader.readexactly(int(length[1]) if length else 0)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise SystemExit(f"{self.url.geturl()} responded with {head!r} {answer!r}")
        return answer


# ---- throughput ------------------------------------------------------------------------------------------------------


async def send_for(url: str, size: int, seconds: float, name: str) -> tuple[int, float]:
    """Number of events that a server acknowledged to `CONNECTIONS` connections, and the seconds it took."""
    end, acknowledged = time.perf_counter() + seconds, 0

    async def send(sender: str) -> None:
        nonlocal acknowledged
        connection, number = Connection(url), 0
        while time.perf_counter() < end:
            answer = await connection.post(ROUTE, body_of(sender, number, size))
            if json.loads(answer)["accepted"] != size:
                raise SystemExit(f"{url} responded with {answer!r}")
            number += 1
            acknowledged += size

    started = time.perf_counter()
    await asyncio.gather(*(send(f"{name}-{number}") for number in range(CONNECTIONS)))
    return acknowledged, time.perf_counter() - started


def send_from_process(url: str, size: int, seconds: float, results: Any) -> None:
    """`send_for` in a process of its own."""
    results.put(asyncio.run(send_for(url, size, seconds, f"load-{os.getpid()}")))


def throughput(target: Target, size: int, seconds: float) -> tuple[float, float, int]:
    """Events per second, CPU microseconds of the server for each, and their number."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    before = target.cpu_seconds()
    process = context.Process(target=send_from_process, args=(target.url, size, seconds, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the senders have failed")
    events, took = results.get()
    return events / took, (target.cpu_seconds() - before) / events * 1e6, events


# ---- how soon another worker's answers know an event -----------------------------------------------------------------


async def seen_ms(url: str, other_url: str, users: Sequence[str]) -> np.ndarray:
    """Milliseconds from the acknowledgement of an event by one process to an answer of another that knows it.

    Each event is of another user. Lists are requested one after the other until one knows the event, so the time of a
    computed list is part of it.
    """
    events, lists, waits = Connection(url), Connection(other_url), []
    answer = json.loads(await lists.post(PATH, json.dumps({"user_id": users[0]}).encode()))
    items = [item["item_id"] for item in answer["items"]]
    generator = random.Random(SEED)
    for number, user in enumerate(users):
        request = json.dumps({"user_id": user}).encode()
        event = {"event_id": f"seen-{user}-{len(users)}", "event_type": "purchase", "ts": datetime.now(UTC).isoformat()}
        event |= {"user_id": user, "item_id": items[number % len(items)]}
        await events.post(ROUTE, json.dumps({"events": [event]}).encode())
        acknowledged = time.perf_counter()
        while b'"recent_events"' not in await lists.post(PATH, request):
            if time.perf_counter() > acknowledged + LOST_SECONDS:
                raise SystemExit(f"the event of {user} was not seen")
        waits.append(time.perf_counter() - acknowledged)
        await asyncio.sleep(generator.uniform(0, 2 * POLL_SECONDS))  # no step with the other process
    return np.array(waits) * 1e3


async def keep_sending(url: str, route: str, bodies: Sequence[bytes], per_second: float) -> None:
    """Send requests at a steady rate for ever, each at its time or as soon as the one before is answered."""
    connection, due = Connection(url), time.perf_counter()
    for number in itertools.count():
        await connection.post(route, bodies[number % len(bodies)])
        due += 1 / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


def keep_busy(url: str, other_url: str, users: Sequence[str]) -> None:
    """Send other events to one process and requests for lists to the other, in a process of its own."""
    lists = [json.dumps({"user_id": user}).encode() for user in users]

    async def run() -> None:
        streams = [
            keep_sending(url, ROUTE, [body_of(f"busy-{stream}", number, 1) for number in range(50_000)], EVENT_RATE / 4)
            for stream in range(4)
        ]
        await asyncio.gather(*streams, keep_sending(other_url, PATH, lists, LIST_RATE))

    asyncio.run(run())


def seen(workspace: Workspace, target: Target, count: int) -> dict[str, Any]:
    """`seen_ms` between two servers of a workspace, first without other requests, then with them."""
    users = [str(user) for user in snapshot.load_current(workspace).table["user_id"].to_pylist()]
    random.Random(SEED).shuffle(users)
    count = min(count, len(users) // 3)
    found = {}
    with running(workspace) as other_url:
        quiet = asyncio.run(seen_ms(target.url, other_url, users[:count]))
        context = multiprocessing.get_context("spawn")
        others = users[2 * count : 3 * count]
        process = context.Process(target=keep_busy, args=(target.url, other_url, others), daemon=True)
        process.start()
        time.sleep(2)
        busy = asyncio.run(seen_ms(target.url, other_url, users[count : 2 * count]))
        if not process.is_alive():
            raise SystemExit("the other requests have failed")
        process.terminate()
        process.join()
    for prefix, waits in (("", quiet), ("busy_", busy)):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            found[f"{prefix}seen_{name}_ms"] = value(float(np.quantile(waits, share)), n=len(waits))
    return found


# ---- kills -----------------------------------------------------------------------------------------------------------


class Sender(threading.Thread):
    """Sends events until it is told to stop; what is not acknowledged is sent again, perhaps to the next server."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name=name, daemon=True)
        self.size, self.acknowledged, self.repeated, self.stopped = size, set[str](), 0, False
        self.port: int | None = None

    def run(self) -> None:
        """Send for ever."""
        number, body, connection = 0, body_of(self.name, 0, self.size), None
        while not self.stopped:
            if self.port is None:
                time.sleep(0.01)
                continue
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                connection.request("POST", ROUTE, body)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException):
                connection = None
                self.repeated += 1
                time.sleep(0.02)
                continue
            if response.status == 200:
                assert json.loads(answer)["accepted"] == self.size, answer
                self.acknowledged |= {f"{self.name}-{number}-{place}" for place in range(self.size)}
                number += 1
                body = body_of(self.name, number, self.size)
                time.sleep(PAUSE_SECONDS)
            elif response.status not in (429, 503):
                raise SystemExit(f"an event was answered with {response.status} {answer!r}")
            else:
                time.sleep(0.02)


def processes_of(port: int) -> list[psutil.Process]:
    """The supervisor of the server on the port, then its workers."""
    servers = [child for child in psutil.Process().children() if str(port) in child.cmdline()]
    return [process for server in servers for process in (server, *server.children(recursive=True))]


def accepts(port: int) -> bool:
    """Whether the server on the port accepts events."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", ROUTE, b'{"events": [], "validate_only": true}')
        return connection.getresponse().status == 422  # there is none
    return False


@contextlib.contextmanager
def accepting_server(workspace: Workspace, senders: list[Sender]) -> Iterator[int]:
    """A server with two workers to which the senders send; its models may still be loading. Yields its port."""
    port = free_port()
    with running(workspace, port=port, workers=2, wait=False):
        while not accepts(port):
            time.sleep(0.05)
        for sender in senders:
            sender.port = port
        try:
            yield port
        finally:
            for sender in senders:  # one that connects to a port without a server may get it as its own
                sender.port = None


def kill_at_random(workspace: Workspace, path: Path, kills: int) -> dict[str, int]:
    """Kill processes of servers under load, and count what was lost or stored twice."""
    generator = random.Random(SEED)
    senders = [Sender(f"sender-{number}-{size}", size) for number in range(SENDERS) for size in (1, BATCH)]
    for sender in senders:
        sender.start()
    lost = duplicated = done = 0
    while done < kills:
        with accepting_server(workspace, senders) as port:
            alive = True
            while alive and done < kills:
                time.sleep(generator.uniform(0.3, 1.5))
                while len(processes := processes_of(port)) < 2:  # the killed worker has no successor yet
                    time.sleep(0.02)
                kind = generator.choice(KINDS)
                chosen = {"worker": [generator.choice(processes[1:])], "supervisor": processes[:1], "all": processes}
                for process in chosen[kind]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)
                done += 1
                alive = kind == "worker"
                missing, twice = compare(path, senders)
                lost, duplicated = max(lost, missing), max(duplicated, twice)
                print(f"kill {done:2} ({kind}): {missing} lost, {twice} twice", flush=True)
            psutil.wait_procs(processes, timeout=30)  # workers end by themselves when their supervisor has
    for sender in senders:
        sender.stopped = True
    for sender in senders:
        sender.join(60)
    missing, twice = compare(path, senders)
    return {
        "kills": done,
        "lost_events": max(lost, missing),
        "duplicated_events": max(duplicated, twice),
        "acknowledged_events": sum(len(sender.acknowledged) for sender in senders),
        "repeated_requests": sum(sender.repeated for sender in senders),
    }


def compare(path: Path, senders: list[Sender]) -> tuple[int, int]:
    """Number of acknowledged events that are not in the log, and of events that are there more than once."""
    acknowledged = set[str]().union(*(sender.acknowledged.copy() for sender in senders))  # before the log is read
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
        stored = [row[0] for row in connection.execute("SELECT event_id FROM events WHERE event_id LIKE 'sender-%'")]
    different = set(stored)
    return len(acknowledged - different), len(stored) - len(different)


def measure(workspace: Workspace, quick: bool) -> dict[str, Any]:
    """All results by name."""
    path, seconds = workspace.online / "events.db", 3 if quick else 15
    result = {}
    with server(workspace, kept_lists=0) as target:  # others are filled after the start
        for name, size in (("", 1), ("batched_", BATCH)):
            rate, cpu_us, events = throughput(target, size, seconds)
            result |= {f"{name}events_per_s": value(rate, n=events), f"{name}cpu_us": value(cpu_us, n=events)}
        result |= seen(workspace, target, 100 if quick else 1_000)
    found = kill_at_random(workspace, path, QUICK_KILLS if quick else KILLS)
    return result | {name: value(number) for name, number in found.items()}


def main() -> None:
    """Measure, and print the results."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with models in production")
    options = arguments.parse_args()
    print(machine())
    with copied_workspace(options.workspace, "recommend") as workspace:
        found = measure(workspace, options.quick)
    for name, result in found.items():
        print(f"{name:>24}: {result['value']:,.1f}")
    finish({"events": {"qianmian": found}}, check(MUSTS, {name: found[name]["value"] for name in MUSTS}), options.json)


if __name__ == "__main__":
    main()
