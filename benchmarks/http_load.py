"""Load on an HTTP server: one connection after another request, or several connections at once; and the servers.

The load of several connections comes from `wrk` if it is installed, else from an asyncio client, which needs a core of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import common  # noqa: F401 - puts the packages in front of this folder
import numpy as np
import psutil
import yaml

from qianmian.workspace import Workspace
from serving.server import free_port, running, stop

CONNECTIONS = 16
PATH = "/v1/recommendations"
NO_OP = """
from fastapi import FastAPI, Request, Response
app = FastAPI()
@app.post("/v1/recommendations")
async def nothing(request: Request):
    await request.body()
    return Response(b'{"items":[]}', media_type="application/json")
"""


@dataclass(frozen=True)
class Target:
    """A server and the bodies of the requests to it."""

    url: str
    bodies: list[bytes]

    @property
    def processes(self) -> list[psutil.Process]:
        """The server's processes: the child of this process that was given the port, and its children."""
        port = str(urlsplit(self.url).port)
        servers = [child for child in psutil.Process().children() if port in child.cmdline()]
        return [process for server in servers for process in (server, *server.children(recursive=True))]

    def worker_bytes(self) -> list[int]:
        """Proportional set size of each process of the server but the first, which supervises them."""
        return [process.memory_full_info().pss for process in self.processes[1:]]

    def cpu_seconds(self) -> float:
        """CPU seconds of the server's processes since they started."""
        times = [process.cpu_times() for process in self.processes]
        return sum(found.user + found.system for found in times)


@dataclass(frozen=True)
class Load:
    """What a server did under load: requests per second, latency in milliseconds, CPU microseconds of a request."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def measure_sequential(targets: Mapping[str, Target], count: int) -> dict[str, np.ndarray]:
    """Seconds of sequential requests over one connection per target, shape (count,); the targets take turns."""
    connections = {name: http.client.HTTPConnection(urlsplit(target.url).netloc) for name, target in targets.items()}
    seconds = {name: np.empty(count) for name in targets}
    for i in range(-50, count):  # the first 50 requests are a warm-up
        for name, connection in connections.items():
            started = time.perf_counter()
            url, bodies = targets[name].url, targets[name].bodies
            connection.request("POST", PATH, bodies[i % len(bodies)])
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                sys.exit(f"{url} responded with status {response.status}")
            if i >= 0:
                seconds[name][i] = time.perf_counter() - started
    for connection in connections.values():
        connection.close()
    return seconds


def ask_each(target: Target) -> None:
    """Send each body once, so that the server has computed all lists that it keeps."""
    measure_sequential({"": target}, len(target.bodies))


def under_load(target: Target, duration: int) -> Load:
    """Load of `CONNECTIONS` connections for some seconds."""
    before, started = target.cpu_seconds(), time.perf_counter()
    if shutil.which("wrk"):
        requests, p50_ms, p99_ms = with_wrk(target.url, target.bodies, duration)
    else:
        requests, p50_ms, p99_ms = asyncio.run(with_asyncio(target.url, target.bodies, duration))
    seconds, cpu_seconds = time.perf_counter() - started, target.cpu_seconds() - before
    return Load(requests / seconds, p50_ms, p99_ms, cpu_seconds / requests * 1e6)


def with_wrk(url: str, bodies: list[bytes], duration: int) -> tuple[int, float, float]:
    """Requests, median and 99th percentile of their milliseconds, by wrk; each request is another body."""
    script = (
        "bodies = {"
        + ",".join(f"[==[{body.decode()}]==]" for body in bodies)
        + "}\n"
        + (
            "local i = 0\n"
            "request = function()\n"
            "  i = i % #bodies + 1\n"
            f"  return wrk.format('POST', '{PATH}', nil, bodies[i])\nend\n"
            "done = function(summary, latency, requests)\n"
            "  io.write(string.format('RESULT %d %f %f %d\\n', summary.requests, "
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
    return int(found[1]), float(found[2]), float(found[3])


async def with_asyncio(url: str, bodies: list[bytes], duration: int) -> tuple[int, float, float]:
    """`with_wrk` by a small asyncio client."""
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
                f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
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
    return len(latencies), float(np.median(milliseconds)), float(np.quantile(milliseconds, 0.99))


@contextlib.contextmanager
def no_op_server() -> Iterator[str]:
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


@contextlib.contextmanager
def server(workspace: Workspace, *, workers: int = 1, **serving: int) -> Iterator[Target]:
    """A server of the workspace with these settings under ``serving``, ready; its bodies are to be added."""
    path = workspace.config_file
    before = path.read_text() if path.exists() else None
    settings = {**(yaml.safe_load(before or "") or {})}
    path.write_text(yaml.safe_dump({**settings, "serving": {**settings.get("serving", {}), **serving}}))
    try:
        with running(workspace, workers=workers) as url:
            yield Target(url, [])
    finally:
        path.write_text(before) if before is not None else path.unlink()


@contextlib.contextmanager
def copied_workspace(given: Path | None, *jobs: str) -> Iterator[Workspace]:
    """A copy of the given workspace, or a temporary one with Complete Journey and the trained models of some jobs."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "workspace")
        if given is not None:
            shutil.copytree(Workspace(given.absolute()).require().root, root, symlinks=True)
        else:
            for words in (["ingest", "completejourney"], *(["train", job, "--as-of", "2017-12-01"] for job in jobs)):
                command = [sys.executable, "-m", "cli.main", *words, "--workspace", str(root)]
                subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        yield Workspace(root)
