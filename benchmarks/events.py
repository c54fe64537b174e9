"""How many events a server makes durable, how soon another process has them, and whether one is ever lost.

    python benchmarks/events.py [--workspace DIR] [--quick] [--json FILE]

All runs are on a copy of the workspace. 16 connections from a process of their own send single events, then batches of
100, to one worker. Then one event after the other is sent, and another process that follows the log says when it has it
(`seen`). At last, senders send events to two workers while processes of the server are killed at random with SIGKILL:
a worker, the supervisor, or all at once. Senders repeat what was not acknowledged. After each kill every event that was
acknowledged has to be in the log exactly once.

Without --workspace, Complete Journey is ingested and its models are trained in a temporary folder first (minutes).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from common import Must, check, finish, machine, parser, value
from http_load import CONNECTIONS, Target, copied_workspace, server

from features.event_log import Tail, open_log
from qianmian.workspace import Workspace
from serving.server import free_port, running

ROUTE = "/v1/events"
BATCH = 100
KILLS, QUICK_KILLS = 50, 4
KINDS = ["worker"] * 4 + ["supervisor", "all"]  # what is killed; a new server takes seconds
SENDERS = 4  # of each of the two sizes while processes are killed
PAUSE_SECONDS = 0.01  # of a sender between two requests while processes are killed: the next server has to start
POLL_SECONDS = 0.005
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


# ---- throughput ------------------------------------------------------------------------------------------------------


async def send_for(url: str, size: int, seconds: float, name: str) -> tuple[int, float]:
    """Number of events that a server acknowledged to `CONNECTIONS` connections, and the seconds it took."""
    end, acknowledged = time.perf_counter() + seconds, 0

    async def connection(sender: str) -> None:
        nonlocal acknowledged
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        number = 0
        while time.perf_counter() < end:
            body = body_of(sender, number, size)
            number += 1
            writer.write(
                b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (ROUTE.encode(), len(body)) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            answer = await reader.readexactly(int(length[1]) if length else 0)
            if b" 200 " not in head.split(b"\r\n", 1)[0] or json.loads(answer)["accepted"] != size:
                raise SystemExit(f"{url} responded with {head!r} {answer!r}")
            acknowledged += size
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(connection(f"{name}-{number}") for number in range(CONNECTIONS)))
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


# ---- how soon others have an event -----------------------------------------------------------------------------------


def follow(path: str, count: int, arrivals: Any) -> None:
    """Follow the log, as another worker does; after so many events, send the time at which each arrived, by its id."""
    log = open_log(path)
    tail = Tail(log, log.header().last_seq)
    tail.read()
    arrivals.send({})
    arrived: dict[str, float] = {}
    while len(arrived) < count:
        if tail.changed():
            now_known = tail.read()
            at = time.monotonic()  # the same clock in all processes of a machine
            arrived |= {logged.event.event_id: at for logged in now_known}
        time.sleep(POLL_SECONDS)
    arrivals.send(arrived)  # not one by one: a pipe that nobody reads yet would stop it


def seen_ms(target: Target, path: Path, count: int) -> np.ndarray:
    """Milliseconds from the acknowledgement of an event until another process has it, shape (count,)."""
    context = multiprocessing.get_context("spawn")
    arrivals, sending = context.Pipe(duplex=False)
    process = context.Process(target=follow, args=(str(path), count, sending), daemon=True)
    process.start()
    arrivals.recv()  # it follows
    connection, acknowledged = http.client.HTTPConnection(urlsplit(target.url).netloc), {}
    generator = random.Random(SEED)
    try:
        for number in range(count):
            connection.request("POST", ROUTE, body_of("seen", number, 1))
            connection.getresponse().read()
            acknowledged[f"seen-{number}-0"] = time.monotonic()
            time.sleep(generator.uniform(0, 2 * POLL_SECONDS))  # no step with the other process
        arrived = arrivals.recv()
    finally:
        process.terminate()
        process.join()
    return np.array([max(0.0, arrived[name] - at) * 1e3 for name, at in acknowledged.items()])


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
        seen = seen_ms(target, path, 200 if quick else 2_000)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        result[f"seen_{name}_ms"] = value(float(np.quantile(seen, share)), n=len(seen))
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
