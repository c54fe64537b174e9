"""How long a plain recommendation waits while others send slow requests, beside its median alone in the same minute.

    python benchmarks/starvation.py [--workspace DIR] [--quick] [--json FILE]

One client asks for plain recommendations, one after the other, of one worker of a copy of the workspace: first alone,
then while other clients, in a process of their own, ask for lookalikes (64 at a time) and for 250 items with reasons
(16 at a time). A client that is refused with 429 tries again after `Retry-After`; any other status, or a connection
that the server closes, ends the benchmark. The longest wait beside the load is divided by the median alone, and so is
the 99th percentile.

Musts: the ratio of the longest wait, of a server that keeps no lists. Of one that keeps them (`_cached`) there is no
such must: ten times its median is less than the time for which the operating system lets another process have the
core. And every load has answers meanwhile, else the waits were those without a load.

Without --workspace, Complete Journey is ingested and its models are trained in a temporary folder first (minutes).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import Must, check, finish, machine, parser, value
from http_load import PATH, copied_workspace, server

from features.profiles import snapshot
from qianmian.workspace import Workspace

LOADS = {"lookalike": 64, "explain": 16}  # clients of each load
SECONDS = 15  # of plain requests, alone and beside each load
KINDS: dict[str, dict[str, int]] = {"": {"kept_lists": 0}, "_cached": {}}  # settings of the servers, by suffix of names
MUSTS = {f"longest_wait_ratio_{load}": Must("ratio", most=10) for load in LOADS} | {
    f"answered_{load}{kind}": Must("metric", least=1) for kind in KINDS for load in LOADS
}
ANSWERED, REFUSED, OTHERS = range(3)  # places in the counts of a load's responses: status 200, 429, any other


def load_body(load: str, users: Sequence[str], number: int) -> tuple[str, bytes]:
    """Route and body of a slow request."""
    if load == "lookalike":
        seed = np.random.default_rng(number).choice(users, 60, replace=False).tolist()
        return "/v1/lookalike", json.dumps({"seed_user_ids": seed, "size": 100}).encode()
    user = users[number % len(users)]
    return PATH, json.dumps({"user_id": user, "num_results": 250, "explain": True}).encode()


async def client(url: str, load: str, users: Sequence[str], number: int, counts: Any) -> None:
    """Send slow requests for ever, one after the other; a refused one again when the server says."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    reader, writer = await asyncio.open_connection(host, port)
    while True:
        route, body = load_body(load, users, number)
        writer.write(f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        first_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        await reader.readexactly(int(headers["content-length"]))
        status = int(first_line.split()[1])
        counts[{200: ANSWERED, 429: REFUSED}.get(status, OTHERS)] += 1
        if status == 200:
            number += 1_000
        elif status == 429:
            writer.close()  # the server closes idle connections
            await asyncio.sleep(float(headers.get("retry-after", 1)))
            reader, writer = await asyncio.open_connection(host, port)
        else:
            raise SystemExit(f"a request of the load {load} was answered with {status}")


def run_clients(url: str, load: str, users: Sequence[str], counts: Any) -> None:
    """Run the clients of a load; ended by SIGTERM."""

    async def all_clients() -> None:
        await asyncio.gather(*(client(url, load, users, number, counts) for number in range(LOADS[load])))

    asyncio.run(all_clients())


@contextmanager
def loaded(url: str, load: str, users: Sequence[str]) -> Iterator[Any]:
    """Context manager of a process with the clients of a load; yields its numbers of responses.

    Raises
    ------
    SystemExit
        If the clients have ended, or got no response meanwhile.
    """
    context = multiprocessing.get_context("spawn")
    counts = context.Array("l", 3)
    process = context.Process(target=run_clients, args=(url, load, users, counts), daemon=True)
    process.start()
    try:
        while not sum(counts):  # the clients have come
            if not process.is_alive():
                raise SystemExit(f"the clients of the load {load} have ended")
            time.sleep(0.001)
        before = sum(counts)
        yield counts
        if counts[OTHERS] or not process.is_alive():
            raise SystemExit(f"the clients of the load {load} have ended during the measurement")
        if sum(counts) == before:
            raise SystemExit(f"the clients of the load {load} got no response during the measurement")
    finally:
        process.terminate()
        process.join()


def waits(url: str, users: Iterable[str], seconds: float) -> np.ndarray:
    """Milliseconds of plain requests, one after the other for some seconds."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    found = []
    end = time.perf_counter() + seconds
    for user in users:
        body = json.dumps({"user_id": user}).encode()
        started = time.perf_counter()
        connection.request("POST", PATH, body)
        answer = connection.getresponse()
        answer.read()
        found.append(time.perf_counter() - started)
        if answer.status != 200:
            raise SystemExit(f"a plain request was answered with {answer.status}")
        if started > end:
            break
    connection.close()
    return np.asarray(found) * 1e3


def measure(workspace: Workspace, quick: bool) -> dict[str, dict[str, Any]]:
    """Median, 99th percentile and longest wait alone and beside each load, by name."""
    users = snapshot.load_current(workspace).table["user_id"].to_pylist()
    users = np.random.default_rng(0).permutation(users).tolist()
    seconds = SECONDS / 5 if quick else SECONDS
    result: dict[str, dict[str, Any]] = {}
    for kind, settings in KINDS.items():
        with server(workspace, **settings) as target:
            if not settings:
                waits(target.url, users, 60)  # the server has computed the lists that it keeps
            for load in LOADS:
                alone = waits(target.url, cycle(users), seconds)
                with loaded(target.url, load, users) as counts:
                    before = counts[:]
                    under = waits(target.url, cycle(users), seconds)
                    answered, refused, _ = np.subtract(counts[:], before).tolist()
                name = load + kind
                for where, found in (("alone", alone), ("beside", under)):
                    median, p99 = np.quantile(found, (0.5, 0.99)).tolist()
                    result[f"median_ms_{where}_{name}"] = value(median, n=len(found))
                    result[f"p99_ms_{where}_{name}"] = value(p99, n=len(found))
                    result[f"longest_ms_{where}_{name}"] = value(float(found.max()), n=len(found))
                median = float(np.median(alone))
                result |= {
                    f"p99_wait_ratio_{name}": value(float(np.quantile(under, 0.99)) / median, n=len(under)),
                    f"longest_wait_ratio_{name}": value(float(under.max()) / median, n=len(under)),
                    f"answered_{name}": value(answered),
                    f"answered_per_second_{name}": value(answered / seconds, n=answered),
                    f"refused_per_second_{name}": value(refused / seconds, n=refused),
                }
    return result


def main() -> None:
    """Measure the waits and print the results."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with all models in production")
    options = arguments.parse_args()
    print(machine())
    with copied_workspace(options.workspace, "recommend", "lookalike") as workspace:
        found = measure(workspace, options.quick)
    print(
        f"{'ms':>16}: alone median, p99, longest, beside the load the same · p99, longest / median alone"
        " · answered/s, refused/s"
    )
    for name in (load + kind for kind in KINDS for load in LOADS):
        times = [f"{time}_ms_{where}" for where in ("alone", "beside") for time in ("median", "p99", "longest")]
        print(f"{name:>16}:", *(f"{found[f'{key}_{name}']['value']:6.2f}" for key in times), end=" · ")
        print(*(f"{found[f'{key}_wait_ratio_{name}']['value']:.1f}" for key in ("p99", "longest")), end=" · ")
        print(*(f"{found[f'{key}_per_second_{name}']['value']:.1f}" for key in ("answered", "refused")))
    checks = check(MUSTS, {name: found[name]["value"] for name in MUSTS})
    finish({"serving": {"qianmian": found}}, checks, options.json)


if __name__ == "__main__":
    main()
