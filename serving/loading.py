"""Background loading: the server answers `/livez` at once, and all other routes when the models are loaded."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable

from models.recommend.ranking.flat_trees import COMPILED
from qianmian.errors import NotReady, QianmianError
from serving.champions import Champions
from serving.recommending.fill import fill_kept_lists

logger = logging.getLogger(__name__)

# A request creates few reference cycles; the default thresholds would scan all imported objects far too often.
GC_THRESHOLD = (50_000, 50, 50)


class BackgroundLoader:
    """Loads the champions in a thread.

    Parameters
    ----------
    load : callable
        Returns the champions or raises a `QianmianError`.
    loaded : callable
        Called once the champions are there.
    """

    def __init__(self, load: Callable[[], Champions], loaded: Callable[[], None] = lambda: None) -> None:
        self._load, self._loaded = load, loaded
        self._ended = threading.Event()
        self._champions: Champions | None = None
        self._error: QianmianError = NotReady("the models are being loaded", hint="try again when /readyz returns 200")
        self._thread: threading.Thread | None = None
        self._shut_down: NotReady | None = None

    def start(self) -> None:
        """Start loading; further calls have no effect."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="qianmian-load", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until loading has ended, well or not, at most some seconds."""
        self._ended.wait(seconds)

    def get(self) -> Champions:
        """Return the champions.

        Raises
        ------
        QianmianError
            If they are not loaded yet, or cannot be loaded.
        """
        if self._champions is None:
            raise self._error
        return self._champions

    def why_not_ready(self) -> QianmianError | None:
        """Return the error that `get` would raise, or that the server shuts down; else None."""
        return self._shut_down or (self._error if self._champions is None else None)

    def shut_down(self) -> None:
        """Be ready no more; requests that still arrive get the champions."""
        self._shut_down = NotReady("the server is shutting down", hint="send the request to another server")

    def _run(self) -> None:
        try:
            self._load_all()
        finally:
            self._ended.set()
        if self._champions is not None:
            try:
                fill_kept_lists(self._champions)
            except Exception:  # lists that are not kept are computed
                logger.exception("kept_lists=unfilled")

    def _load_all(self) -> None:
        started = time.perf_counter()
        try:
            champions = self._load()
            champions.warm()
        except QianmianError as error:
            self._error = error
            logger.error("loading=failed reason=%s", error)
            return
        except Exception:
            self._error = NotReady("the models could not be loaded", hint="the log of the server has the details")
            logger.exception("loading=failed")
            return
        freeze_garbage_collector()
        self._champions = champions
        self._loaded()
        versions = " ".join(f"{champion.name}={champion.version}" for champion in champions.models.values())
        logger.info(
            "loading=done seconds=%.1f problems=%d %s", time.perf_counter() - started, len(champions.problems), versions
        )
        if not COMPILED:
            logger.warning("trees=xgboost reason=the extension was not built on this platform: lists take longer")


def freeze_garbage_collector() -> None:
    """Exclude all loaded objects from garbage collection, because full collections over them cause slow requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
