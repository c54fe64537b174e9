"""The event log of a server: opened when it is first needed, and again some time after that has failed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import cached_property

from features.erasure.hasher import TombstoneHasher
from features.erasure.tombstones import read_tombstones
from features.event_log import EventLog, open_log
from features.event_log.location import ENVIRONMENT_VARIABLE, locate
from qianmian.errors import NotReady, QianmianError, StorageError
from qianmian.settings import ServingSettings
from qianmian.workspace import Workspace
from serving.stored_errors import fresh

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0  # from a failed opening to the next one; meanwhile its error is the answer


class OnlineStore:
    """The event log of a server. It depends on no models, and no other route depends on it.

    Parameters
    ----------
    workspace : Workspace, optional
        Where the log is by default; a Bento has none.
    load_settings : callable
        Returns the settings, which are read once.

    Attributes
    ----------
    hasher : TombstoneHasher
        Makes the tombstones by which erased users are recognised.
    """

    def __init__(
        self,
        workspace: Workspace | None = None,
        load_settings: Callable[[], ServingSettings] = ServingSettings,
    ) -> None:
        self.workspace, self._load_settings = workspace, load_settings
        self._lock = threading.Lock()
        self._log: EventLog | None = None
        self._error: QianmianError | None = None
        self._failed_at = 0.0
        self.hasher = TombstoneHasher(workspace)

    @cached_property
    def settings(self) -> ServingSettings:
        """The settings, as long as no champions have any."""
        return self._load_settings()

    @property
    def exists(self) -> bool:
        """Whether this server has an event log, which may not be open yet."""
        return locate(self.workspace, self.settings) is not None

    def tombstones(self) -> frozenset[str]:
        """The tombstones of the workspace, which it has beside those in the log."""
        return read_tombstones(self.workspace) if self.workspace is not None else frozenset()

    @property
    def waiting(self) -> int:
        """Number of events that wait for being stored; 0 while the log is not open."""
        return self._log.waiting if self._log is not None else 0

    async def opened(self) -> EventLog:
        """Return the log, as `open` does, without blocking the event loop."""
        return self._log if self._log is not None else await asyncio.to_thread(self.open)

    def open(self) -> EventLog:
        """Return the log; open it unless it is open.

        Raises
        ------
        NotReady
            Nothing says where it is.
        QianmianError
            It cannot be opened now.
        """
        with self._lock:
            if self._log is not None:
                return self._log
            if self._error is not None and time.monotonic() - self._failed_at < RETRY_SECONDS:
                raise fresh(self._error)
            try:
                self._log = self._open()
            except QianmianError as error:
                self._error, self._failed_at = fresh(error), time.monotonic()
                raise
            return self._log

    def _open(self) -> EventLog:
        location = locate(self.workspace, self.settings)
        if location is None:
            raise NotReady(
                "this server has no event log",
                hint=f"start it with the path of a file or a redis:// URL in {ENVIRONMENT_VARIABLE}",
            )
        if "://" not in location and self.workspace is not None:
            self.workspace.require().online.mkdir(exist_ok=True)
        try:
            log = open_log(location, self.hasher)
        except QianmianError as error:
            if error.http_status >= 500:
                raise
            raise StorageError(f"the event log cannot be opened: {error.message}", hint=error.hint) from error
        logger.info("event_log=opened kind=%s", type(log).__name__)  # a URL may have a password
        return log
