"""HTTP latency and throughput of `/v1/recommendations`, compared with a no-op server (uvicorn and FastAPI).

Both servers run one worker and are called in turns, for 1,000 customers one after the other. A server keeps the list of
a customer for the next request (`serving.kept_lists`), so two things are measured: plain requests, of which the warm-up
has computed the lists, and requests that name a moment (`context.now`), whose lists are computed each time. Must: the
p50 of sequential computed requests is at most 25 × that of the no-op, and the requests per second at 16 connections are
at least .02 × those of the no-op if computed and .1 × if kept. The goal, which is not a must, is 3,000 requests per
second at 16 connections. The load comes from `wrk` if it is installed, else from an asyncio
client, which needs a core of its own.

    python benchmarks/serving.py [--workspace DIR] [--quick] [--json FILE]

Without --workspace, Complete Journey is ingested and its recommender is trained in a temporary folder first (minutes).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import Must, check, finish, machine, parser, value

from features.profiles import snapshot
from qianmian.workspace import Workspace
from serving.server import environment, free_port, running, stop

CONNECTIONS = 16
ROUNDS = 5  # rounds of load for each server, in turns
OURS, COMPUTED, NO_OP_SERVER = "qianmian", "qianmian, lists computed", "uvicorn + FastAPI no-op"
MUSTS = {
    "p50 of one computed request relative to the no-op": Must("ratio", most=25.0),
    f"computed requests/s at {CONNECTIONS} connections relative to the no-op": Must("ratio", least=0.02),
    f"requests/s at {CONNECTIONS} connections relative to the no-op": Must("ratio", least=0.1),
}
Target = tuple[str, list[bytes]]  # URL of a server, and the bodies of the requests
TARGET_RPS = 3_000
RPS = f"rps@{CONNECTIONS}"
NO_OP = """
from fastapi import FastAPI, Request, Response
app = FastAPI()
@app.post("/v1/recommendations")
async def nothing(request: Request):
    await request.body()
    return Response(b'{"items":[]}', media_type="application/json")
"""


def measure_sequential(targets: Mapping[str, Target], count: int) -> dict[str, np.ndarray]:
    """Seconds of sequential requests over one connection per target, shape (count,); the targets take turns."""
    connections = {name: http.client.HTTPConnection(urlsplit(url).netloc) for name, (url, _) in targets.items()}
    seconds = {name: np.empty(count) for name in targets}
    for i in range(-50, count):  # the first 50 requests are a warm-up
        for name, connection in connections.items():
            started = time.perf_counter()
            url, bodies = targets[name]
            connection.request("POST", "/v1/recommendations", bodies[i % len(bodies)])
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                sys.exit(f"{url} responded with status {response.status}")
            if i >= 0:
                seconds[name][i] = time.perf_counter() - started
    for connection in connections.values():
        connection.close()
    return seconds


def under_load(url: str, bodies: list[bytes], duration: int) -> dict[str, float]:
    """Requests per second and latency quantiles in milliseconds at `CONNECTIONS` connections."""
    return with_wrk(url, bodies, duration) if shutil.which("wrk") else asyncio.run(with_asyncio(url, bodies, duration))


def with_wrk(url: str, bodies: list[bytes], duration: int) -> dict[str, float]:
    """`under_load` by wrk; each request is for another user."""
    script = (
        "bodies = {"
        + ",".join(f"[==[{body.decode()}]==]" for body in bodies)
        + "}\n"
        + (
            "local i = 0\n"
            "request = function()\n"
            "  i = i % #bodies + 1\n"
            "  return wrk.format('POST', '/v1/recommendations', nil, bodies[i])\nend\n"
            "done = function(summary, latency, requests)\n"
            "  io.write(string.format('RESULT %f %f %f %d\\n', summary.requests / summary.duration * 1e6, "
            "latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, "
            "summary.errors.status + summary.errors.read + summary.errors.timeout))\nend\n"
        )
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as handle:
        handle.write(script)
        handle.flush()
        output = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{duration}s", "-s", handle.name, url],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found = re.search(r"RESULT (\S+) (\S+) (\S+) (\d+)", output)
    if not found or int(found[4]):
        sys.exit(f"wrk reported errors:\n{output}")
    return {"rps": float(found[1]), "p50_ms": float(found[2]), "p99_ms": float(found[3])}


async def with_asyncio(url: str, bodies: list[bytes], duration: int) -> dict[str, float]:
    """`under_load` by a small asyncio client."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    latencies: list[float] = []
    deadline = time.perf_counter() + duration

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        i = number
        while time.perf_counter() < deadline:
            body = bodies[i % len(bodies)]
            i += CONNECTIONS
            started = time.perf_counter()
            writer.write(
                b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                sys.exit(f"{url} responded with {head!r}")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            latencies.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    milliseconds = np.asarray(latencies) * 1e3
    return {
        "rps": len(latencies) / duration,
        "p50_ms": float(np.median(milliseconds)),
        "p99_ms": float(np.quantile(milliseconds, 0.99)),
    }


@contextlib.contextmanager
def bare() -> Iterator[str]:
    """Run the no-op server with one worker and no access log, and yield its URL."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "no_op.py").write_text(NO_OP)
        port = free_port()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "no_op:app",
                "--port",
                str(port),
                "--log-level",
                "error",
                "--no-access-log",
            ],
            cwd=folder,
            start_new_session=True,
        )
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)


def as_of(url: str, body: bytes) -> str:
    """Cutoff of the model that answers a request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/v1/recommendations", body)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return str(answer["as_of"])


def measure(targets: Mapping[str, Target], quick: bool) -> dict[str, dict[str, Any]]:
    """Metrics of each target; those under load are the median of the rounds, with minimum and maximum."""
    for url, bodies in targets.values():  # warm-up
        under_load(url, bodies, 4)
    single = measure_sequential(targets, 500 if quick else 3_000)
    loads: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, (url, bodies) in targets.items():
            loads[name].append(under_load(url, bodies, 1 if quick else 3))
    result: dict[str, dict[str, Any]] = {}
    for name, rounds in loads.items():
        quarter, median, three_quarters, p99 = np.quantile(single[name] * 1e3, (0.25, 0.5, 0.75, 0.99)).tolist()
        n = len(single[name])
        result[name] = {"p50_ms": value(median, quarter, three_quarters, n), "p99_ms": value(p99, n=n)}
        for metric in rounds[0]:
            figures = [load[metric] for load in rounds]
            central = float(np.median(figures))
            result[name][f"{metric}@{CONNECTIONS}"] = value(central, min(figures), max(figures), ROUNDS)
    return result


@contextlib.contextmanager
def open_workspace(given: Path | None) -> Iterator[Workspace]:
    """The given workspace, or a temporary one with Complete Journey and its trained recommender."""
    if given is not None:
        yield Workspace(given.absolute()).require()
        return
    with tempfile.TemporaryDirectory() as folder:
        for words in (["ingest", "completejourney"], ["train", "recommend", "--as-of", "2017-12-01"]):
            subprocess.run(
                [sys.executable, "-m", "cli.main", *words, "--workspace", folder],
                check=True,
                cwd=Path(__file__).parents[1],
            )
        yield Workspace(Path(folder))


def main() -> None:
    """Measure both servers and print the results."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--workspace", type=Path, default=None, help="a workspace with a recommender in production")
    options: argparse.Namespace = arguments.parse_args()
    print(machine())
    with open_workspace(options.workspace) as workspace, tempfile.TemporaryDirectory() as home:
        users = snapshot.load_current(workspace).table["user_id"].to_pylist()
        chosen = np.random.default_rng(0).permutation(len(users))[:1_000]
        plain = [{"user_id": users[row]} for row in chosen.tolist()]
        bodies = [json.dumps(fields).encode() for fields in plain]
        env = {**environment(workspace), "BENTOML_HOME": os.environ.get("BENTOML_HOME", home)}
        with bare() as no_op_url, running(workspace, env=env) as own_url:
            moment = {"context": {"now": as_of(own_url, bodies[0])}}
            timed = [json.dumps(fields | moment).encode() for fields in plain]
            targets = {OURS: (own_url, bodies), COMPUTED: (own_url, timed), NO_OP_SERVER: (no_op_url, bodies)}
            results = measure(targets, options.quick)
    own, computed, peer = results[OURS], results[COMPUTED], results[NO_OP_SERVER]
    ratios = {}
    print(f"{'':>12}  {'kept':>10}  {'computed':>10}  {'no-op':>10}  {'ratios':>14}")
    for name in peer:
        figures = [found[name]["value"] for found in (own, computed, peer)]
        ratios[name] = figures[0] / figures[2], figures[1] / figures[2]
        print(f"{name:>12}  " + "  ".join(f"{figure:>10.2f}" for figure in figures), end="")
        print(f"  {ratios[name][0]:>6.3f}  {ratios[name][1]:>6.3f}")
    for place, found in enumerate((own, computed)):
        found |= {f"ratio_{name}": value(ratios[of][place]) for name, of in (("p50", "p50_ms"), ("rps", RPS))}
    values = dict(zip(MUSTS, (ratios["p50_ms"][1], ratios[RPS][1], ratios[RPS][0]), strict=True))
    if own[RPS]["value"] < TARGET_RPS:
        print(f"the goal of {TARGET_RPS:,} requests per second is not reached")
    finish({f"{len(users)} customers": results}, check(MUSTS, values), options.json)


if __name__ == "__main__":
    main()
