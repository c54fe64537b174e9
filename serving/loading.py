"""Background loading: the server answers `/livez` at once, and all other routes when the models are loaded.

What moves later is loaded in the same thread, and takes the place of what is served when it has shown that it answers.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from features.event_log import EventLog
from models.parallel import return_freed_memory
from models.recommend.ranking.compiled import COMPILED
from qianmian.errors import NotReady, QianmianError
from qianmian.settings import ServingSettings
from serving.champions import Champions
from serving.checks import check_answers
from serving.erasures import Erasures
from serving.events.live import LiveEvents
from serving.events.store import OnlineStore
from serving.following import WorkspaceSource
from serving.fresh_profiles import keep_fresh
from serving.metrics import count_reload
from serving.recommending.fill import fill_kept_lists
from serving.stored_errors import fresh

logger = logging.getLogger(__name__)

# The default thresholds would scan older objects far too often, because a request creates few reference cycles. All
# requests wait for a scan: one of 50,000 young objects takes 13 ms.
GC_THRESHOLD = (5_000, 50, 50)
EVENTS_SECONDS = 10.0  # that loading waits for the events of the log; more than a million take longer


class BackgroundLoader:
    """Loads the champions in a thread, and then what has moved of them.

    A request calls `get` once, so that its answer is made from one set of champions, the former ones or the new ones.

    Parameters
    ----------
    load : callable
        Returns the champions or raises a `QianmianError`.
    loaded : callable
        Called once the champions are there.
    source : WorkspaceSource, optional
        What is followed; default: nothing.
    store : OnlineStore, optional
        The event log, whose events the answers take into account (`LiveEvents`); default: one that only the environment
        can name.
    """

    def __init__(
        self,
        load: Callable[[], Champions],
        loaded: Callable[[], None] = lambda: None,
        source: WorkspaceSource | None = None,
        store: OnlineStore | None = None,
    ) -> None:
        self.store = store if store is not None else OnlineStore()
        self.erasures = Erasures(self.store.workspace, self.store.hasher)
        self._load, self._loaded, self._source = load, loaded, source
        self._live: LiveEvents | None = None
        self._ended = threading.Event()
        self._champions: Champions | None = None
        self._error: QianmianError = NotReady("the models are being loaded", hint="try again when /readyz returns 200")
        self._thread: threading.Thread | None = None
        self._shut_down: NotReady | None = None

    def start(self) -> None:
        """Start loading, and opening the event log; further calls have no effect."""
        if self._thread is None:
            threading.Thread(target=self._open_store, name="qianmian-store", daemon=True).start()
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
            raise fresh(self._error)
        return self._champions

    @property
    def champions(self) -> Champions | None:
        """The champions, None as long as there are none."""
        return self._champions

    @property
    def serving_settings(self) -> ServingSettings:
        """The settings of the champions, or as long as there are none those of the workspace."""
        return self.store.settings if self._champions is None else self._champions.settings.serving

    def settings_or_defaults(self) -> ServingSettings:
        """The settings; the defaults if they cannot be read, in which case there are no champions either."""
        try:
            return self.serving_settings
        except QianmianError:
            return ServingSettings()

    async def event_log(self) -> EventLog:
        """Return the event log; see `OnlineStore.open`."""
        return await self.store.opened()

    def why_not_ready(self) -> QianmianError | None:
        """Return the error that `get` would raise, or that requests about customers get, or the shutdown; else None."""
        if self._shut_down is not None or self._champions is None:
            return self._shut_down or self._error
        return self._live.why_no_answers if self._live is not None else None

    def misses_events(self) -> bool:
        """Whether there are champions, and accepted events that they may not know because the log cannot be read."""
        return self._champions is not None and self._champions.misses_events

    def shut_down(self) -> None:
        """Be ready no more; requests that still arrive get the champions."""
        self._shut_down = NotReady("the server is shutting down", hint="send the request to another server")

    def _run(self) -> None:
        try:
            self._load_all()
        finally:
            self._ended.set()
        self._fill()
        while self._source is not None and self._source.seconds:
            time.sleep(self._source.seconds)
            try:
                self._follow(self._source)
            except Exception:  # the next look may succeed
                logger.exception("following=failed")

    def _open_store(self) -> None:
        """Open the event log before the first event comes; the models do not wait for it."""
        try:
            self.store.open()
        except NotReady:  # a server without one
            pass
        except QianmianError as error:
            logger.warning("event_log=unavailable reason=%s", error)

    def _fill(self) -> None:
        if self._champions is not None:
            try:
                fill_kept_lists(self._champions)
            except Exception:  # lists that are not kept are computed
                logger.exception("kept_lists=unfilled")

    def _follow(self, source: WorkspaceSource) -> None:
        """Load what has moved, one part after the other, so that a broken one does not keep the others back."""
        moved = source.moved()
        if moved and self._champions is None:
            self._load_all()
            self._fill()
            return
        for part, pointer in moved.items():
            self._reload(source, part, pointer)
            # no local variable holds here what is not served; it is freed without the collector, also if it was frozen
            freeze_garbage_collector()
            return_freed_memory(always=True)

    def _reload(self, source: WorkspaceSource, part: str, pointer: str) -> None:
        """Serve a part that has moved, if it can be loaded and answers."""
        started, now = time.perf_counter(), self.get()
        try:
            changed = source.with_part(now, part, pointer)
            if changed is now:
                return
            changed.warm()
            keep_fresh(now, changed)
            check_answers(changed, part)
            fill_kept_lists(changed)
        except Exception as error:
            known = isinstance(error, QianmianError)
            reason = str(error) if known else type(error).__name__  # a text of others may name a customer
            logger.error("reload=refused part=%s moved_to=%s reason=%s", part, pointer, reason, exc_info=not known)
            count_reload(part, "refused")
        else:
            self._champions = changed
            logger.info("reload=done part=%s moved_to=%s seconds=%.1f", part, pointer, time.perf_counter() - started)
            count_reload(part, "loaded")

    def _load_all(self) -> None:
        started = time.perf_counter()
        try:
            champions = self._with_events(self._load())
            champions.warm()
        except QianmianError as error:
            self._error = fresh(error)
            logger.error("loading=failed reason=%s", error)
            return
        except Exception:
            self._error = NotReady("the models could not be loaded", hint="the log of the server has the details")
            logger.exception("loading=failed")
            return
        freeze_garbage_collector()
        self._champions = champions
        try:
            self._loaded()
        except Exception:  # the champions are served, and followed, all the same
            logger.exception("loaded=failed")
        versions = " ".join(f"{champion.name}={champion.version}" for champion in champions.models.values())
        logger.info(
            "loading=done seconds=%.1f problems=%d %s", time.perf_counter() - started, len(champions.problems), versions
        )
        if not COMPILED:
            logger.warning("extensions=missing reason=they were not built on this platform: lists take longer")

    def _with_events(self, champions: Champions) -> Champions:
        """Let the champions know the accepted events; those that are in the log now are known when this returns."""
        if not self.store.exists:
            return champions
        if self._live is None:
            most, hasher = champions.settings.serving.kept_events, self.store.hasher
            self._live = LiveEvents(self.store.open, most, hasher, self.store.tombstones())
            self._live.start()
        self._live.wait(EVENTS_SECONDS)
        return replace(champions, events=self._live)


def freeze_garbage_collector() -> None:
    """Exclude all loaded objects from garbage collection, because full collections over them cause slow requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
