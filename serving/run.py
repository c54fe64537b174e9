"""`serve`: run the HTTP server in the foreground until a signal stops it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from types import FrameType

from qianmian.workspace import Workspace
from serving.server import check_port, command, environment, own_home, stop


def serve(workspace: Workspace, host: str = "127.0.0.1", port: int = 3000, workers: int = 1) -> int:
    """Run the server until it exits or SIGINT or SIGTERM arrives; then stop it and its workers.

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
    with own_home(workspace, environment(workspace, workers)) as env:
        return _serve(command(host, port), env)


def _serve(arguments: list[str], env: Mapping[str, str]) -> int:
    stopping = False
    # in its own session, Ctrl-C reaches only this process, which then stops the server and all its workers
    process = subprocess.Popen(arguments, env=env, start_new_session=True)

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        process.terminate()

    previous_handlers = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        stop(process)
    return 0 if stopping else code
