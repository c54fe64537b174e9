"""`serve`: run the HTTP server in the foreground until a signal stops it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from types import FrameType

from qianmian.workspace import Workspace
from serving.server import STOP_SECONDS, check_port, command, environment, own_home, stop

HURRY_SECONDS = 3.0  # after a second SIGINT, until the server is killed


def serve(
    workspace: Workspace,
    host: str = "127.0.0.1",
    port: int = 3000,
    workers: int = 1,
    *,
    shutdown_seconds: float = 20.0,
    online_store: str | None = None,
    request_seconds: float | None = None,
) -> int:
    """Run the server until it exits or SIGINT or SIGTERM arrives; then let it answer what it has, and stop it.

    A second SIGINT ends it at once; a third one kills what is left.

    Parameters
    ----------
    workspace : Workspace
        Workspace to serve.
    host : str
        Address to listen on.
    port : int
        Port to listen on.
    workers : int
        Number of worker processes.
    shutdown_seconds : float
        Seconds after which the workers end by themselves (`serving.shutdown_seconds`); soon after, they are killed.
    online_store : str, optional
        Path or URL of the event log; default: that of the settings.
    request_seconds : float, optional
        Seconds that a response may take; default: what BentoML's configuration says.

    Returns
    -------
    int
        Exit code of the server; 0 if a signal stopped it.

    Raises
    ------
    UsageError
        If the address is in use or does not belong to this machine.
    """
    check_port(host, port)
    with own_home(workspace, environment(workspace, workers, online_store, request_seconds)) as (env, lock):
        return _serve(command(host, port), env, lock, shutdown_seconds + STOP_SECONDS)


def _serve(arguments: list[str], env: Mapping[str, str], lock: int, most_seconds: float) -> int:
    stopping = hurrying = False
    # in its own session, Ctrl-C reaches only this process, which then stops the server and all its workers
    process = subprocess.Popen(arguments, env=env, start_new_session=True, pass_fds=[lock])

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping, hurrying
        if number == signal.SIGALRM or (hurrying and number == signal.SIGINT):
            process.kill()  # its workers notice, and end
        elif not stopping:
            stopping = True
            process.terminate()
            signal.setitimer(signal.ITIMER_REAL, most_seconds)
        elif number == signal.SIGINT:
            hurrying = True
            process.send_signal(signal.SIGINT)  # the server ends its workers, and then itself
            signal.setitimer(signal.ITIMER_REAL, HURRY_SECONDS)

    previous_handlers = {
        number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    try:
        code = process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        stop(process)
    return 0 if stopping else code
