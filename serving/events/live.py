"""Accepted events as requests see them, some milliseconds after they were accepted by any process.

A thread follows the event log and keeps, for each user id that has events, the number of its last one. Whether a
customer has events is therefore a look-up in a dictionary, and no request waits for the log but those of customers with
events that this process has not read yet.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from features.event_log.base import EventLog, LoggedEvent, LogPosition
from features.event_log.rows import EventRow, decode
from features.event_log.tail import ReaderBehind, Tail
from features.profiles.snapshot import Snapshot
from qianmian.errors import InvalidRequest, QianmianError
from qianmian.settings import Settings
from serving.events.fresh_tags import FreshTags

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.005  # at least, between two looks
WAIT_SECONDS = 0.2  # at most, for an event
RETRY_SECONDS = 0.2  # between two looks while the log cannot be read
FORGET_SECONDS = 60.0  # between two looks whether events were removed from the log
MOST_EVENTS = 2_000  # of a customer, the last ones: what a program has sent must not stop the answers to others
PAGE = 500  # events that are read at a time; a request that reads meanwhile waits for one page
User = tuple[str, str]  # source, source_user_id
NONE: tuple[User, ...] = ()


class ReadRows(NamedTuple):
    """The events of a customer that were read, up to a number in the log, and the number of each."""

    generation: int
    through: int
    rows: tuple[EventRow, ...]
    numbers: tuple[int, ...]


class LiveEvents:
    """The events in a log, followed by one thread of this process. Any thread may ask for them.

    If the log cannot be read, the last known state stays, `lost` is true, and the thread tries again until it can.

    Parameters
    ----------
    open_log : callable
        Returns the log, or raises a `QianmianError` if it cannot be opened now; called by the thread until it can. The
        log is not closed here.
    most : int, default 20_000
        Events of customers that are kept in memory for their next request, each of about 1 KB.

    Attributes
    ----------
    lost : bool
        Whether the log could not be read lately, so that there may be events that are not known.
    """

    def __init__(self, open_log: Callable[[], EventLog], most: int = 20_000) -> None:
        self.lost = False
        self._open_log, self._most = open_log, most
        self._log: EventLog | None = None
        self._tail: Tail | None = None
        self._last: dict[User, int] = {}
        self._generation = 0  # of the numbers in `_last`, which begin anew with another log
        self._first_seq, self._looked_at = 0, 0.0
        self._views: weakref.WeakSet[LiveCustomers] = weakref.WeakSet()
        self._views_lock, self._making = threading.Lock(), threading.Lock()
        self._read: OrderedDict[tuple[User, ...], ReadRows] = OrderedDict()  # the one used least recently comes first
        self._read_size = 0
        self._read_lock = threading.Lock()
        self._caught_up, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="qianmian-live-events", daemon=True)

    def start(self) -> None:
        """Start to follow the log, from its first event."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the events of the log are known, or it cannot be read, at most some seconds."""
        self._caught_up.wait(seconds)

    def close(self) -> None:
        """End the thread; what is known stays."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def of(self, snapshot: Snapshot) -> LiveCustomers:
        """The events by customer, as these profiles resolve user ids. Kept as long as somebody uses it."""
        with self._making:  # so that nobody gets one that is not complete yet
            for view in self._all_views():
                if view.snapshot is snapshot:
                    return view
            view = LiveCustomers(self, snapshot)
            with self._views_lock:
                self._views.add(view)  # from now on the thread adds those that are new
            view.add(list(self._last))
            return view

    def position(self) -> LogPosition | None:
        """Up to where this process knows the log; None as long as it knows nothing of it."""
        tail = self._tail
        return LogPosition(tail.log_id, tail.after) if tail is not None and tail.log_id is not None else None

    def read(self, users: tuple[User, ...]) -> ReadRows:
        """The last `MOST_EVENTS` events of some user ids in the order of their acceptance.

        The log is read only for those that were not read yet.
        """
        generation, last = self._generation, max((self._last.get(user, 0) for user in users), default=0)
        with self._read_lock:
            known = self._read.get(users)
            if known is not None:
                self._read.move_to_end(users)
        if known is None or known.generation != generation:
            known = ReadRows(generation, 0, (), ())
        if last <= known.through or self.lost or self._log is None:
            return known
        try:
            new = self._log.get(users, known.through, MOST_EVENTS)
        except QianmianError as error:
            self._lose(error)
            return known
        through = max(last, new[-1].seq if new else 0)
        rows = (*known.rows, *(decode(event) for _, event in new))
        numbers = (*known.numbers, *(seq for seq, _ in new))
        known = ReadRows(generation, through, rows[-MOST_EVENTS:], numbers[-MOST_EVENTS:])
        self._keep(users, known)
        return known

    def _keep(self, users: tuple[User, ...], read: ReadRows) -> None:
        with self._read_lock:
            before = self._read.pop(users, None)
            self._read_size -= len(before.rows) if before is not None else 0
            if len(read.rows) > self._most:
                return
            self._read[users] = read
            self._read_size += len(read.rows)
            while self._read_size > self._most:
                self._read_size -= len(self._read.popitem(last=False)[1].rows)

    # ---- following: the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.wait(RETRY_SECONDS if self.lost else POLL_SECONDS):
            try:
                if self._tail is not None and not self.lost:
                    self._tail.wait(WAIT_SECONDS)
                self._follow()
            except ReaderBehind as error:
                logger.warning("live_events=restarted reason=%s", error)
                self._begin_again()
            except QianmianError as error:
                self._lose(error)
            except Exception:  # what is known is served, and the next look may succeed
                if not self.lost:
                    logger.exception("live_events=failed")
                self._set_lost()
            else:
                if self.lost:
                    self.lost = False
                    logger.info("live_events=recovered last=%d", self._tail.after if self._tail else 0)
                self._caught_up.set()

    def _follow(self) -> None:
        """Take in what is new."""
        if self._log is None:
            self._log = self._open_log()
        if self._tail is None:
            self._tail = Tail(self._log, self._log.header().first_seq - 1)
        if not self._tail.changed():
            return
        while events := self._tail.read(PAGE):
            self._add(events)
            if len(events) < PAGE:
                break
        if (now := time.monotonic()) - self._looked_at > FORGET_SECONDS:
            self._looked_at = now
            self._forget_removed(self._log.header().first_seq)

    def _add(self, events: Iterable[LoggedEvent]) -> None:
        new: list[User] = []
        for seq, event in events:
            user = sys.intern(event.source), event.source_user_id
            if user not in self._last:
                new.append(user)
            self._last[user] = seq
        if new:
            for view in self._all_views():
                view.add(new)

    def _forget_removed(self, first_seq: int) -> None:
        """Forget the user ids whose events are all in the lake by now."""
        if first_seq == self._first_seq:
            return
        self._first_seq = first_seq
        removed = [user for user, last in self._last.items() if last < first_seq]
        for user in removed:
            del self._last[user]
        for view in self._all_views():
            view.remove(removed)

    def _begin_again(self) -> None:
        """Forget everything and read the log from its first event: it is another one, or has lost unread events."""
        self._tail = None
        users = list(self._last)
        self._last.clear()
        self._generation += 1
        for view in self._all_views():
            view.remove(users)
        with self._read_lock:
            self._read.clear()
            self._read_size = 0

    def _all_views(self) -> list[LiveCustomers]:
        with self._views_lock:
            return list(self._views)

    def _lose(self, error: QianmianError) -> None:
        if not self.lost:
            logger.warning("live_events=lost reason=%s", error)
        self._set_lost()

    def _set_lost(self) -> None:
        self.lost = True
        self._caught_up.set()  # nobody waits for a log that may come back in hours


class LiveCustomers:
    """The user ids with events by customer, as the profiles of a snapshot resolve them.

    A user id that no profile knows, of a new customer or an anonymous session, stands for itself.

    Parameters
    ----------
    events : LiveEvents
    snapshot : Snapshot
    """

    def __init__(self, events: LiveEvents, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._events = events
        self._customers: dict[str, tuple[User, ...]] = {}  # by one_id
        self._strangers: dict[str, tuple[User, ...]] = {}  # by user id
        self._lock = threading.Lock()  # of changes; a request only looks up
        self._fresh_tags: FreshTags | None = None

    def has_any(self, one_id: str | None, user_id: str) -> bool:
        """Whether a customer, or a user id that no profile knows, may have events."""
        return one_id in self._customers if one_id is not None else user_id in self._strangers

    def users(self, one_id: str | None, user_id: str, user_source: str | None) -> tuple[User, ...]:
        """The user ids with events of a customer, or of a user id that no profile knows.

        Raises
        ------
        InvalidRequest
            Several sources have events of the user id, no profile knows it, and `user_source` is missing.
        """
        if one_id is not None:
            return self._customers.get(one_id, NONE)
        users = self._strangers.get(user_id, NONE)
        if user_source is not None:
            return tuple(user for user in users if user[0] == user_source)
        if len(users) > 1:
            raise InvalidRequest(
                "the user id occurs in more than one source",
                got=user_id,
                allowed=", ".join(source for source, _ in users),
                field="user_source",
                hint="name the source in user_source",
            )
        return users

    def rows(self, one_id: str | None, user_id: str, user_source: str | None) -> tuple[EventRow, ...]:
        """The accepted events of a customer in the order of their acceptance; see `users`."""
        users = self.users(one_id, user_id, user_source)
        return self._events.read(users).rows if users else ()

    def rows_after_build(self, one_id: str) -> tuple[EventRow, ...]:
        """The accepted events of a customer that the profiles do not have, in the order of their acceptance.

        The lake of the profiles had the others, or what an export has said in their place; those with a time from the
        `as_of` of the profiles on are not in them all the same.
        """
        users, built, at = self.users(one_id, "", None), self.snapshot.event_log, self._events.position()
        if not users:
            return ()
        read = self._events.read(users)
        if built is None or at is None or built.log_id != at.log_id:
            return read.rows
        as_of = self.snapshot.as_of
        pairs = zip(read.rows, read.numbers, strict=True)
        return tuple(row for row, number in pairs if number > built.seq or row.values["ts"] >= as_of)

    def fresh_tags(self, settings: Settings) -> FreshTags:
        """What computes tags of these profiles anew, made once."""
        with self._lock:
            if self._fresh_tags is None:
                self._fresh_tags = FreshTags(self.snapshot, settings)
            return self._fresh_tags

    def add(self, users: Sequence[User]) -> None:
        """Add user ids that have events."""
        for user in users:
            known, key = self._place(user)
            with self._lock:
                known[key] = tuple(sorted({*known.get(key, NONE), user}))

    def remove(self, users: Sequence[User]) -> None:
        """Remove user ids that have no events any more."""
        for user in users:
            known, key = self._place(user)
            with self._lock:
                left = tuple(other for other in known.get(key, NONE) if other != user)
                if left:
                    known[key] = left
                else:
                    known.pop(key, None)

    def _place(self, user: User) -> tuple[dict[str, tuple[User, ...]], str]:
        source, user_id = user
        one_id = self.snapshot.resolve(user_id, source)
        return (self._customers, one_id) if one_id is not None else (self._strangers, user_id)
