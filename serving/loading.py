"""Loading in the background: the server answers `/livez` at once, and everything else as soon as the models are there."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable

from qianmian.errors import NotReady, QianmianError
from serving.champions import Champions

logger = logging.getLogger(__name__)

GC_THRESHOLD = (
    50_000,
    50,
    50,
)  # a request leaves few cycles; the default walks everything the imports left every 700 objects


class BackgroundLoader:
    """Champions that arrive later.

    Parameters
    ----------
    load : callable
        Gives the champions or raises a `QianmianError`.
    """

    def __init__(self, load: Callable[[], Champions]) -> None:
        self._load = load
        self._champions: Champions | None = None
        self._error: QianmianError = NotReady(
            "the models are being loaded", hint="try again in a moment; /readyz says when"
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="qianmian-load", daemon=True)
            self._thread.start()

    def get(self) -> Champions:
        """The champions.

        Raises
        ------
        QianmianError
            They are not loaded yet, or cannot be.
        """
        if self._champions is None:
            raise self._error
        return self._champions

    def why_not_ready(self) -> QianmianError | None:
        """The error `get` would raise, None when it would not."""
        return self._error if self._champions is None else None

    def _run(self) -> None:
        began = time.perf_counter()
        try:
            champions = self._load()
            champions.warm()
        except QianmianError as error:
            self._error = error
            logger.error("loading=failed reason=%s", error)
            return
        except Exception:
            self._error = NotReady("the models could not be loaded", hint="the reason is in the server's log")
            logger.exception("loading=failed")
            return
        freeze_garbage_collector()
        self._champions = champions
        versions = " ".join(f"{champion.name}={champion.version}" for champion in champions.models.values())
        logger.info(
            "loading=done seconds=%.1f problems=%d %s", time.perf_counter() - began, len(champions.problems), versions
        )


def freeze_garbage_collector() -> None:
    """Take all that was loaded out of the garbage collector's rounds: full collections over it are what a slow tail is made of."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
