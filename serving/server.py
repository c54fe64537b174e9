"""The BentoML server as a process: its command and environment, starting, waiting until it is ready, stopping."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import orjson

from features.data.locking import try_lock
from features.event_log.location import ENVIRONMENT_VARIABLE as STORE_VARIABLE
from features.event_log.location import absolute
from qianmian.errors import NotReady, UsageError
from qianmian.workspace import ENVIRONMENT_VARIABLE, Workspace

SERVICE = "serving.service:Qianmian"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
HOME_PREFIX = ".serve-"
LOCK = "lock"
# what /readyz says while a server starts: its own text, that of a 503 of BentoML before its service runs, and that of
# a worker on the same port whose killed server has not ended yet
PASSING = ("the models are being loaded", "the server is not ready", "the server is shutting down")
TIMEOUT_OPTION = "services.qianmian.traffic.timeout"  # of BentoML's configuration


def command(host: str = "127.0.0.1", port: int = 3000, target: str = SERVICE) -> list[str]:
    """Return the `bentoml serve` command for this interpreter; `target` may be the tag of a Bento."""
    return [sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port)]


def environment(
    workspace: Workspace | None,
    workers: int = 1,
    online_store: str | None = None,
    request_seconds: float | None = None,
) -> dict[str, str]:
    """Return the environment of the server: that of this process, telemetry off, and the arguments, where given.

    `request_seconds` holds unless `BENTOML_CONFIG_OPTIONS` sets that time itself.
    """
    variables = {**os.environ, "BENTOML_DO_NOT_TRACK": "True"}
    options = os.environ.get("BENTOML_CONFIG_OPTIONS", "")
    options = f"{options} services.qianmian.workers={workers}".strip()
    if request_seconds is not None and TIMEOUT_OPTION not in options:
        options += f" {TIMEOUT_OPTION}={request_seconds:g}"
    variables["BENTOML_CONFIG_OPTIONS"] = options
    if workspace is not None:
        variables[ENVIRONMENT_VARIABLE] = str(workspace.root)
    if online_store is not None:
        variables[STORE_VARIABLE] = absolute(online_store)
    return variables


@contextlib.contextmanager
def own_home(workspace: Workspace, environment: Mapping[str, str]) -> Iterator[tuple[dict[str, str], int]]:
    """Context manager of the environment of a server with a ``BENTOML_HOME`` of its own, in the workspace.

    BentoML keeps the metrics of its processes there and empties the folder at its start, so that two servers with the
    same one would lose theirs. In a workspace that cannot be written it is a temporary folder.

    The second value is a file descriptor that the server has to inherit: the folder is locked as long as a process has
    it open. Folders that nobody has locked are those of servers that were killed, and are removed.
    """
    folder = workspace.root if os.access(workspace.root, os.W_OK) else None
    if folder is not None:
        remove_leftovers(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=HOME_PREFIX, ignore_cleanup_errors=True) as home:
        new = Path(home, f"{LOCK}.new")
        with new.open("w") as handle:
            try_lock(handle)
            new.rename(Path(home, LOCK))  # now only, so that no other server finds it unlocked
            yield {**environment, "BENTOML_HOME": home}, handle.fileno()


def remove_leftovers(folder: Path) -> None:
    """Remove the homes of servers of which no process is left."""
    for lock in folder.glob(f"{HOME_PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as handle:  # another server may be removing it
            if try_lock(handle):
                shutil.rmtree(lock.parent, ignore_errors=True)


def check_port(host: str, port: int) -> None:
    """Check that the address can be listened on.

    Raises
    ------
    UsageError
        If the port is in use, or the host is not an address of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                "cannot listen on this address",
                where=f"{host}:{port}",
                got=os.strerror(error.errno) if error.errno else str(error),
                hint="stop the process that uses the port, or choose another one with --port",
            ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is not in use."""
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
    online_store: str | None = None,
    target: str = SERVICE,
    log: IO[bytes] | None = None,
    wait: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[str]:
    """Context manager of a running server; yields its base URL and stops the server at the end.

    Parameters
    ----------
    workspace : Workspace or None
        Workspace to serve; None for a Bento.
    port : int, optional
        Port to listen on; default: a free one.
    online_store : str, optional
        Path or URL of the event log; default: that of the settings.
    log : binary file, optional
        Receives the output of the server; default: discarded.
    wait : bool
        Wait until `/readyz` returns 200.
    env : mapping, optional
        Environment of the server; default: that of `environment`, with `own_home` for a workspace.
    cwd : Path, optional
        Working directory of the server.

    Raises
    ------
    NotReady
        If the server exits, or is not ready within two minutes.
    """
    chosen = port if port is not None else free_port(host)
    check_port(host, chosen)
    with contextlib.ExitStack() as stack:
        locks = []
        if env is None:
            env = environment(workspace, workers, online_store)
            if workspace is not None:  # a Bento is looked up in the home of the caller
                env, lock = stack.enter_context(own_home(workspace, env))
                locks.append(lock)
        process = subprocess.Popen(
            command(host, chosen, target),
            env=dict(env),
            cwd=cwd,
            stdout=log or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=locks,
        )
        stack.callback(stop, process)
        url = f"http://{host}:{chosen}"
        if wait:
            wait_ready(url, process)
        yield url


def wait_ready(url: str, process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> None:
    """Wait until `/readyz` returns 200.

    Raises
    ------
    NotReady
        If the server exits, cannot load its models, or takes longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    last_message = "no response"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReady(
                "the server exited before it was ready",
                where=url,
                got=f"exit code {process.returncode}",
                hint="see the log of the server",
            )
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as error:
            body = error.read()
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                problem = orjson.loads(body)["error"]
                last_message = problem["message"]
                if last_message not in PASSING:
                    raise NotReady(last_message, where=url, hint=problem["hint"]) from error
        except OSError:
            pass  # not listening yet
        time.sleep(0.1)
    raise NotReady(
        f"the server was not ready after {seconds:g} s", where=url, got=last_message, hint="see the log of the server"
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers; SIGKILL follows if SIGTERM does not end them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
