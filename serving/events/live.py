"""Accepted events as requests see them, some milliseconds after they were accepted by any process.

A thread follows the event log and keeps, for each user id that has events, the number of its last one, from which ids
of a visit customers have logged in, and which items can be sold. Whether a customer has events is therefore a look-up
in a dictionary, and no request waits for the log but those of customers with events that this process has not read yet.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence

from features.event_log.base import EventLog, LoggedEvent
from features.event_log.erased_users import Hasher
from features.event_log.rows import decode
from features.event_log.tail import ReaderBehind, Tail
from features.profiles.snapshot import Snapshot
from qianmian.errors import QianmianError
from serving.events.availability import LiveItems
from serving.events.consents import LiveConsents
from serving.events.customers import LiveCustomers, ReadRows
from serving.events.erased import ErasedUsers
from serving.events.joins import Joins, User
from serving.stored_errors import fresh

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.005  # at least, between two looks
WAIT_SECONDS = 0.2  # at most, for an event
RETRY_SECONDS = 0.2  # between two looks while the log cannot be read
FORGET_SECONDS = 60.0  # between two looks whether events were removed from the log
MOST_EVENTS = 2_000  # of a customer, the last ones: what a program has sent must not stop the answers to others
SOMEBODY = ("", "")  # a user id that is hashed to see whether there is a key
PAGE = 500  # events that are read at a time; a request that reads meanwhile waits for one page


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
    hasher : Hasher, optional
        Makes tombstones, by which erased users are recognised.
    tombstones : frozenset of str, optional
        Those that are known otherwise, in case that the log cannot be read or is another one.

    Attributes
    ----------
    lost : bool
        Whether the log could not be read lately, or not to its end yet, so that there may be events that are not known.
    items : LiveItems
        Which items can be sold, as the events say.
    erased : ErasedUsers
        Whom no answer may know.
    why_no_answers : QianmianError or None
        Why erased users cannot be recognised, so that no request about a customer may be answered.
    """

    def __init__(
        self,
        open_log: Callable[[], EventLog],
        most: int = 20_000,
        hasher: Hasher | None = None,
        tombstones: frozenset[str] = frozenset(),
    ) -> None:
        self.lost = False
        self.erased, self._erasures = ErasedUsers(hasher), 0  # how many tombstones of the log are known
        self.why_no_answers: QianmianError | None = None
        self.items = LiveItems()
        self._joins, self._consents = Joins(), LiveConsents()
        self._open_log, self._most = open_log, most
        self._log: EventLog | None = None
        self._tail: Tail | None = None
        self._last: dict[User, int] = {}
        self._generation = 0  # of the rows that were read, which another log or an erasure makes wrong
        self._first_seq, self._looked_at = 0, 0.0
        self._views: weakref.WeakSet[LiveCustomers] = weakref.WeakSet()
        self._views_lock, self._making = threading.Lock(), threading.Lock()
        self._read: OrderedDict[tuple[User, ...], ReadRows] = OrderedDict()  # the one used least recently comes first
        self._read_size = 0
        self._read_lock = threading.Lock()
        self._complete_at = time.monotonic()  # when all events of the log were known last
        self._caught_up, self._closed = threading.Event(), threading.Event()
        self._know_erased(tombstones)
        self._thread = threading.Thread(target=self._run, name="qianmian-live-events", daemon=True)

    def start(self) -> None:
        """Start to follow the log, from its first event."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the events of the log are known, or it cannot be read, at most some seconds; then it is `lost`."""
        if not self._caught_up.wait(seconds):
            logger.warning("live_events=behind seconds=%g", seconds)
            self._set_lost()

    @property
    def behind_seconds(self) -> float:
        """Time since all events of the log were known; at most a fraction of a second unless it is `lost`."""
        return time.monotonic() - self._complete_at

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
            view = LiveCustomers(snapshot, self._joins, self._consents, self.read, self._last.__contains__, self.erased)
            with self._views_lock:
                self._views.add(view)  # from now on the thread adds those that are new
            view.add(list(self._last))
            view.join(self._joins.visitors())
            return view

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
            tail = self._tail  # the thread may replace it at any time
            known = ReadRows(generation, 0, tail.log_id if tail is not None else None)
        if last <= known.through or self.lost or self._log is None:
            return known
        try:
            new = self._log.get(users, known.through, MOST_EVENTS)
        except QianmianError as error:
            self._lose(error)
            return known
        known = known._replace(
            through=max(last, new[-1].seq if new else 0),
            rows=(*known.rows, *(decode(event) for _, event in new))[-MOST_EVENTS:],
            numbers=(*known.numbers, *(seq for seq, _ in new))[-MOST_EVENTS:],
        )
        self._keep(users, known)
        return known

    def _keep(self, users: tuple[User, ...], read: ReadRows) -> None:
        with self._read_lock:
            if read.generation != self._generation:  # somebody was erased meanwhile, or it is another log
                return
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
                self._complete_at = time.monotonic()
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
        if self.why_no_answers is not None:  # the key may be there now
            self._know_erased()
        if not self._tail.changed():
            return
        while events := self._tail.read(PAGE):
            self._add(events)
            if len(events) < PAGE:
                break
        if self._tail.erasures != self._erasures:
            self._know_erased(self._log.erased())
            self._erasures = self._tail.erasures
        if (now := time.monotonic()) - self._looked_at > FORGET_SECONDS:
            self._looked_at = now
            self._forget_removed(self._log.header().first_seq)

    def _add(self, events: Sequence[LoggedEvent]) -> None:
        new: list[User] = []
        of_items = [logged for logged in events if not logged.event.source_user_id]
        for seq, event in events:
            if not event.source_user_id:  # of an item, and no customer's
                continue
            user = sys.intern(event.source), event.source_user_id
            if user not in self._last:
                new.append(user)
            self._last[user] = seq
        log_id = self._tail.log_id if self._tail is not None else None
        self._consents.add(events, log_id)
        joined = self._joins.add(events)
        for view in self._all_views() if new or joined else ():
            view.add(new)
            view.join(joined)
        if of_items:
            self.items.add(of_items, log_id)

    def _forget_removed(self, first_seq: int) -> None:
        """Forget what is all in the lake by now: the user ids without other events, logins, and states of items."""
        if first_seq == self._first_seq:
            return
        self._first_seq = first_seq
        removed = [user for user, last in self._last.items() if last < first_seq]
        for user in removed:
            del self._last[user]
        self._update_views(self._joins.forget(first_seq), removed)
        self._consents.forget(first_seq)
        self.items.forget(first_seq)

    def _know_erased(self, tombstones: frozenset[str] = frozenset()) -> None:
        """Know whom no answer may know any more, and forget what is known of them."""
        self.erased.add(tombstones)
        try:
            users = frozenset(self.erased.among([SOMEBODY, *self._last, *self._joins.visitors()]))
        except QianmianError as error:
            if self.why_no_answers is None:
                logger.error("live_events=no_answers reason=%s", error)
            self.why_no_answers = fresh(error)
            return
        self.why_no_answers = None
        for user in users:
            self._last.pop(user, None)
        self._consents.forget_users(users)
        self._update_views(self._joins.forget_users(users), list(users))
        self._forget_read()

    def _begin_again(self) -> None:
        """Forget everything and read the log from its first event: it is another one, or has lost unread events."""
        self._set_lost()  # until it has been read
        self._tail = None
        users = list(self._last)
        self._last.clear()
        self._erasures = 0
        self._update_views(self._joins.clear(), users)
        self._consents.clear()
        self.items.clear()
        self._forget_read()

    def _forget_read(self) -> None:
        """Forget the rows that were read, also those that are being read."""
        with self._read_lock:
            self._generation += 1
            self._read.clear()
            self._read_size = 0

    def _update_views(self, visitors: Sequence[User], removed: Sequence[User]) -> None:
        with self._making:  # a view that is being made may be about to add what was removed
            for view in self._all_views():
                view.join(visitors)
                view.remove(removed)

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
