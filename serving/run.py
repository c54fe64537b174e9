"""Starting the HTTP server as its own process: the port is checked first, signals are passed on, readiness is waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from qianmian.errors import NotReady, UsageError
from qianmian.workspace import ENVIRONMENT_VARIABLE, Workspace

SERVICE = "serving.service:Qianmian"
READY_SECONDS = 120.0  # a cold start imports BentoML, XGBoost and LightFM and loads all champions
STOP_SECONDS = 15.0


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, with the way to mend it.

    Raises
    ------
    UsageError
        The port is taken, not allowed to this user, or the host is not one of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            probe.bind(address)
            probe.listen(1)
    except PermissionError as error:
        raise UsageError(
            f"this user may not listen on port {port}", where=f"{host}:{port}", hint="name one above 1023 with --port"
        ) from error
    except socket.gaierror as error:
        raise UsageError(
            "that is no address of this machine", where="--host", got=host, hint="--host 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    except OSError as error:
        raise UsageError(
            f"port {port} is in use or cannot be listened on", where=f"{host}:{port}", got=os.strerror(error.errno or 0),
            hint=f"stop what listens there, or name another port: --port {free_port()}",
        ) from error  # fmt: skip


def command(host: str, port: int, workers: int) -> list[str]:
    """The server's command line."""
    return [
        sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port), "--api-workers", str(workers),
        "--working-dir", str(Path(__file__).resolve().parent.parent),
    ]  # fmt: skip


def environment(workspace: Workspace) -> dict[str, str]:
    """The server's environment: this one, with the workspace named and BentoML's usage reports off."""
    return {**os.environ, ENVIRONMENT_VARIABLE: str(workspace.root), "BENTOML_DO_NOT_TRACK": "true"}


def serve(workspace: Workspace, host: str = "127.0.0.1", port: int = 3000, workers: int = 1) -> int:
    """Run the server until it ends or is told to stop; SIGINT and SIGTERM reach it and end it in order.

    Returns
    -------
    int
        Its exit code; 0 when it was stopped on purpose.

    Raises
    ------
    UsageError
        The address cannot be listened on.
    """
    check_port(host, port)
    stopping = False
    process = subprocess.Popen(command(host, port, workers), env=environment(workspace), start_new_session=True)

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM if number == signal.SIGTERM else signal.SIGINT)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop(process)
    return 0 if stopping else code


@contextlib.contextmanager
def start(
    workspace: Workspace, host: str = "127.0.0.1", port: int | None = None, workers: int = 1, *,
    ready_seconds: float = READY_SECONDS, progress: Callable[[str], None] | None = None,
) -> Iterator[str]:  # fmt: skip
    """A server that is ready inside the block and stopped after it.

    Yields
    ------
    str
        Its base URL.

    Raises
    ------
    UsageError
        The address cannot be listened on.
    NotReady
        The server ended, or was not ready in time; the end of its log is in the message.
    """
    port = free_port(host) if port is None else port
    check_port(host, port)
    url = f"http://{host}:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command(host, port, workers), env=environment(workspace), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            begun = time.monotonic()
            while not _ready(url):
                waited = time.monotonic() - begun
                if process.poll() is not None or waited > ready_seconds:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()[-12:]
                    what = f"ended with exit code {process.poll()}" if process.poll() is not None else f"was not ready after {waited:.0f} s"
                    raise NotReady(
                        f"the server {what}", where=url, got="\n".join(said), hint="run `qianmian doctor`, then `qianmian serve`"
                    )
                time.sleep(0.1)
            if progress is not None:
                progress(f"server ready at {url} after {time.monotonic() - begun:.1f} s")
            yield url
        finally:
            _stop(process)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: politely, and after a while not."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing of ours is in that group but the server
    process.wait()
