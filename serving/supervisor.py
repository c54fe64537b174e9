"""How the process that supervises the workers stops them, and where it refuses to listen."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from qianmian.errors import QianmianError
from serving.security.exposure import refuse_exposure
from serving.security.key_file import KeyFile

PROCESS_VARIABLE = "QIANMIAN_SUPERVISOR"  # environment variable of the workers: the process id of their supervisor


def prepare(key_file: KeyFile | None) -> None:
    """Let this process, which has not started its workers yet, stop them well, and refuse what would be open to all.

    The workers get its process id, by which they notice its end. It closes the listening sockets before it stops them:
    otherwise clients could connect until it has ended, with nobody to accept them, and would be reset then. A SIGINT
    while it waits for them, such as a second Ctrl-C, ends them at once.

    It ends before it listens if the API keys cannot be read, or if there are none and others reach the address, however
    that was set: BentoML's own default is all addresses.
    """
    from bentoml._internal.utils import circus  # which the workers, who import this module too, do not need

    try:
        has_keys = key_file is not None and key_file.read() is not None
    except QianmianError as error:
        end(error)

    class Supervisor(circus.Arbiter):
        def initialize(self) -> None:
            try:
                for listening in self.sockets.values():
                    if listening.path is None:
                        refuse_exposure(listening.host, has_keys)
            except QianmianError as error:
                end(error)
            super().initialize()

        def stop(self) -> Any:
            self.sockets.close_all()
            signal.signal(signal.SIGINT, self.hurry)
            return super().stop()

        def hurry(self, _number: int, _frame: object) -> None:
            for watcher in self.iter_watchers():
                for worker in list(watcher.processes):
                    watcher.send_signal(worker, signal.SIGINT)

    os.environ[PROCESS_VARIABLE] = str(os.getpid())
    circus.Arbiter = Supervisor  # type: ignore[misc]


def end(error: QianmianError) -> NoReturn:
    """End this process with the message of an error."""
    sys.stderr.write(f"qianmian: {error}\n")
    raise SystemExit(error.exit_code)
