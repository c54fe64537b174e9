"""What an event log is: the events that were accepted, durable and numbered, until the lake has them.

A log is the only place where an accepted event exists before `qianmian ingest events` takes it into the lake.
`SqliteLog` and `RedisLog` keep the same contract (`tests/features/event_log/test_contract.py`).

Numbers are safe to read on from. A store assigns `seq` only inside the one transaction (or script) that may write at
that moment, and the next one begins after it has been committed. So numbers become visible in ascending order: a reader
that has seen n will never meet a lower one later, and may ask for those after n alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, TypeAlias

FORMAT = 1  # of both stores
ERASED_FORMAT = 2  # of a log from which users were erased; a log of a higher one is refused
MAX_WAITING = 20_000  # events of a process that wait for being stored
Status: TypeAlias = Literal["new", "duplicate", "conflict", "erased"]


class AcceptedEvent(NamedTuple):
    """An event that has passed validation.

    Attributes
    ----------
    source, event_id : str
        Its identity: two events with the same pair are one event. No text may contain NUL.
    source_user_id : str
        User id in that source.
    ts : int
        Microseconds since 1970, UTC.
    body : bytes
        The validated row as JSON. It is compared byte by byte, so the same row must be written the same way.
    """

    source: str
    event_id: str
    source_user_id: str
    ts: int
    body: bytes


class LoggedEvent(NamedTuple):
    """An event and its number in the log. Numbers start at 1 and are never used again; erased events leave gaps."""

    seq: int
    event: AcceptedEvent


class Stored(NamedTuple):
    """What `append` did with one event.

    Attributes
    ----------
    status : Status
        `new`; `duplicate` if the same event was stored before; `conflict` if another event was stored under this
        identity, in which case this one was not stored; `erased` if it names an erased user: it was not stored either.
    seq : int
        Number of the event that is stored under this identity; 0 if erased.
    """

    status: Status
    seq: int


class LogHeader(NamedTuple):
    """State of a log at one moment.

    Attributes
    ----------
    format : int
        Version of its layout.
    log_id : str
        Random name of this log; another one has taken its place if the name differs.
    created_at : str
        ISO time by the clock of the store.
    first_seq, last_seq : int
        Lowest number that compaction has not removed, and highest one that was assigned; `last_seq = first_seq - 1` if
        it has removed all.
    erasures : int
        Number of tombstones, each of one user id that was erased.
    """

    format: int
    log_id: str
    created_at: str
    first_seq: int
    last_seq: int
    erasures: int = 0


class LogPosition(NamedTuple):
    """A log, and the number up to which somebody has its events."""

    log_id: str
    seq: int


class TailPage(NamedTuple):
    """Events after a number, with the header of the same moment."""

    header: LogHeader
    events: list[LoggedEvent]


class Compacted(NamedTuple):
    """How many events and identities a compaction has removed."""

    events: int
    identities: int


class EventLog(Protocol):
    """A durable log of accepted events. All methods may be called from any thread."""

    @property
    def waiting(self) -> int:
        """Number of events of this process that wait for being stored."""
        ...

    def append(self, events: Sequence[AcceptedEvent]) -> list[Stored]:
        """Store events; returns when all of them are durable, with one result for each, in their order.

        Raises
        ------
        DataError
            An event is not of the types of `AcceptedEvent`; no event of this call is stored.
        Overloaded
            Too many events wait already.
        StorageFull, StorageError
            None of these events was acknowledged. They may be sent again: what was stored after all is a duplicate.
            So it is if users were erased and the log was opened without a hasher, which would let them come back.
        """
        ...

    async def append_async(self, events: Sequence[AcceptedEvent]) -> list[Stored]:
        """The same for a coroutine, which blocks no thread. Events of a cancelled call may be stored."""
        ...

    def version(self) -> int:
        """A number that differs whenever events were appended, or users erased, by any process."""
        ...

    def wait(self, after: int, seconds: float) -> None:
        """Return when there may be an event with a number above `after`, at the latest after some seconds.

        An erasure does not have to end the wait.

        It costs nothing meanwhile. It may return for nothing, so `version` tells. One thread at a time may wait.
        """
        ...

    def header(self) -> LogHeader:
        """State of the log."""
        ...

    def tail(self, after: int, limit: int) -> TailPage:
        """The first `limit` events with a number above `after`, in order."""
        ...

    def get(self, users: Sequence[tuple[str, str]], after: int = 0, most: int | None = None) -> list[LoggedEvent]:
        """Events of some users, each the pair (source, source_user_id), with a number above `after`, in order.

        Of more than `most` events, those with the highest numbers.
        """
        ...

    def compact(self, through: int, keep_identities_days: float, now: datetime) -> Compacted:
        """Remove the events up to a number, which are in the lake by now, in small steps between which others write.

        Their identities stay, so that they are still recognised as duplicates. A call forgets those whose events were
        removed at least `keep_identities_days` before `now`.
        """
        ...

    def erase(self, users: Sequence[tuple[str, str]], tombstones: Sequence[str]) -> int:
        """Remove all events that name some users, each the pair (source, source_user_id), and let none come back.

        From the moment when the tombstones are stored, in one step with respect to the appends of all processes, an
        event that names such a user is `erased` and not stored. When this returns, neither the events nor their
        identities are in the files of the store, deleted or not. A call that was interrupted is made again.

        Parameters
        ----------
        users : sequence of (str, str)
        tombstones : sequence of str
            Their tombstones, 32 hex digits each (`features.erasure.tombstones`).

        Returns
        -------
        int
            How many events this call has removed: those of the users, and logins that name one as the visitor.

        Raises
        ------
        StorageError
            It could not be done to its end. The tombstones may be stored nevertheless.
        """
        ...

    def erased(self) -> frozenset[str]:
        """The tombstones of all users that were erased."""
        ...

    def close(self) -> None:
        """Store what waits, then close all connections."""
        ...
