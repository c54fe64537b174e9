"""A reader that follows a log: it waits until there is anything new, and never skips an event."""

from __future__ import annotations

from features.event_log.base import EventLog, LoggedEvent
from qianmian.errors import QianmianError


class ReaderBehind(QianmianError):
    """Events that a reader has not read were removed, or the log was replaced: it has to start again from the lake."""

    code, http_status, exit_code = "reader_behind", 503, 3


class Tail:
    """A position in a log.

    Parameters
    ----------
    log : EventLog
        The log to follow.
    after : int
        Number of the last event that is known.
    log_id : str, optional
        The log that `after` belongs to, where the reader remembers it across restarts.

    Attributes
    ----------
    erasures : int
        Number of tombstones of the log when it was last read.
    """

    def __init__(self, log: EventLog, after: int, log_id: str | None = None) -> None:
        self.after, self.log_id, self.erasures = after, log_id, 0
        self._log = log
        self._read_version: int | None = None

    def changed(self) -> bool:
        """Whether `read` may return anything."""
        return self._log.version() != self._read_version

    def wait(self, seconds: float) -> None:
        """Return when `read` may return anything, at the latest after some seconds; one thread at a time may wait."""
        self._log.wait(self.after, seconds)

    def read(self, limit: int = 1_000) -> list[LoggedEvent]:
        """The next events, at most `limit`; moves the position behind them, and behind erased ones if these are all.

        Raises
        ------
        ReaderBehind
            Events after this position have been removed, or this is another log.
        """
        version = self._log.version()  # before reading: what is committed meanwhile changes it again
        header, events = self._log.tail(self.after, limit)
        self.log_id = self.log_id or header.log_id
        if self.log_id != header.log_id or not header.first_seq - 1 <= self.after <= header.last_seq:
            raise ReaderBehind(
                f"the events after {self.after} of log {self.log_id} are not there",
                got=f"log {header.log_id} with the events {header.first_seq} to {header.last_seq}",
                hint="read the lake, and follow the log from where it was ingested",
            )
        self.erasures = header.erasures
        if len(events) < limit:
            self.after, self._read_version = header.last_seq, version
        else:
            self.after = events[-1].seq
        return events
