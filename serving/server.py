"""Running the BentoML server as a process: the command, its environment, and waiting until it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import orjson

from qianmian.errors import NotReady, UsageError
from qianmian.workspace import ENVIRONMENT_VARIABLE, Workspace

SERVICE = "serving.service:Qianmian"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


def command(host: str = "127.0.0.1", port: int = 3000, target: str = SERVICE) -> list[str]:
    """The `bentoml serve` of this interpreter; `target` may be the tag of a Bento."""
    return [sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port)]


def environment(workspace: Workspace | None, workers: int = 1) -> dict[str, str]:
    """The environment of the server: this one, the workspace, the number of workers; BentoML reports nothing home."""
    found = {**os.environ, "BENTOML_DO_NOT_TRACK": "True"}
    options = f"services.qianmian.workers={workers}"
    found["BENTOML_CONFIG_OPTIONS"] = " ".join(filter(None, (os.environ.get("BENTOML_CONFIG_OPTIONS"), options)))
    if workspace is not None:
        found[ENVIRONMENT_VARIABLE] = str(workspace.root)
    return found


def check_port(host: str, port: int) -> None:
    """Nothing else listens there.

    Raises
    ------
    UsageError
        The port is taken, or the host is not this machine's.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                "cannot listen there",
                where=f"{host}:{port}",
                got=os.strerror(error.errno) if error.errno else str(error),
                hint="stop what is using the port, or choose another with --port",
            ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    workspace: Workspace | None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    workers: int = 1,
    target: str = SERVICE,
    log: IO[bytes] | None = None,
    wait: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[str]:
    """A server for the length of the block, stopped after it; gives its base URL.

    Parameters
    ----------
    port : int, optional
        Default: a free one.
    wait : bool
        Only enter the block once `/readyz` is 200.
    env : mapping, optional
        Instead of `environment(workspace, workers)`.

    Raises
    ------
    NotReady
        The server stopped, or was not ready in two minutes; with what it said itself.
    """
    chosen = port if port is not None else free_port(host)
    check_port(host, chosen)
    process = subprocess.Popen(
        command(host, chosen, target),
        env=dict(env) if env is not None else environment(workspace, workers),
        cwd=cwd,
        stdout=log or subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url = f"http://{host}:{chosen}"
    try:
        if wait:
            wait_ready(url, process)
        yield url
    finally:
        stop(process)


def wait_ready(url: str, process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> None:
    """Return once `/readyz` is 200.

    Raises
    ------
    NotReady
        The server stopped, gave up loading, or took longer.
    """
    deadline = time.monotonic() + seconds
    said = "nothing yet"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReady(
                "the server stopped while starting",
                where=url,
                got=f"exit code {process.returncode}",
                hint="see its log",
            )
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as error:
            body = error.read()
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                problem = orjson.loads(body)["error"]
                said = problem["message"]
                if said != "the models are being loaded":
                    raise NotReady(said, where=url, hint=problem["hint"]) from error
        except OSError:
            pass  # not listening yet
        time.sleep(0.1)
    raise NotReady(f"the server was not ready after {seconds:g} s", where=url, got=said, hint="see its log")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers; by force where it does not listen."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
