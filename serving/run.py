"""`serve`: the HTTP server in the foreground, until it is told to stop."""

from __future__ import annotations

import signal
import subprocess
from types import FrameType

from qianmian.workspace import Workspace
from serving.server import check_port, command, environment, stop


def serve(workspace: Workspace, host: str = "127.0.0.1", port: int = 3000, workers: int = 1) -> int:
    """Run the server until it ends or SIGINT or SIGTERM arrives; then it and its workers are ended in order.

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
    # a session of its own: Ctrl-C reaches this process only, which then stops the server and all its workers
    process = subprocess.Popen(command(host, port), env=environment(workspace, workers), start_new_session=True)

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        process.terminate()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop(process)
    return 0 if stopping else code
