"""How the process that supervises the workers stops them."""

from __future__ import annotations

import os
import signal
from typing import Any

PROCESS_VARIABLE = "QIANMIAN_SUPERVISOR"  # environment variable of the workers: the process id of their supervisor


def prepare() -> None:
    """Let this process, which has not started its workers yet, stop them well.

    The workers get its process id, by which they notice its end. It closes the listening sockets before it stops them:
    otherwise clients could connect until it has ended, with nobody to accept them, and would be reset then. A SIGINT
    while it waits for them, such as a second Ctrl-C, ends them at once.
    """
    from bentoml._internal.utils import circus  # which the workers, who import this module too, do not need

    class Supervisor(circus.Arbiter):
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
