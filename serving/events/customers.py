"""The accepted events of each customer, as the profiles of a snapshot and the logins since then resolve user ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, TypeVar

from features.arrow_column import TextColumn
from features.event_log.base import LogPosition
from features.event_log.rows import EventRow
from features.hashed_texts import HashedTexts
from features.profiles.snapshot import Snapshot
from qianmian.errors import InvalidRequest
from qianmian.interruption import checkpoint
from qianmian.settings import Settings
from serving.events.consents import LiveConsents
from serving.events.erased import ErasedUsers
from serving.events.fresh_tags import FreshTags
from serving.events.joins import NONE, Joins, User

HASHED_AT_ONCE = 1_000  # user ids, between two checkpoints of slow work
Key = TypeVar("Key", str, User)
Owner = str | User  # a one_id, or a user id that no profile knows and that stands for itself


class ReadRows(NamedTuple):
    """The events of a customer that were read from a log, up to a number, and the number of each."""

    generation: int
    through: int
    log_id: str | None = None
    rows: tuple[EventRow, ...] = ()
    numbers: tuple[int, ...] = ()

    def after(self, as_of: datetime, known_through: int | None) -> tuple[EventRow, ...]:
        """The rows from a moment on, and the earlier ones that have a higher number, if one is given."""
        return tuple(
            row
            for row, number in zip(self.rows, self.numbers, strict=True)
            if row.values["ts"] >= as_of or (known_through is not None and number > known_through)
        )


class LiveCustomers:
    """The user ids with events by customer, as the profiles of a snapshot resolve them.

    A user id that no profile knows, of a new customer or an anonymous session, stands for itself. From a login on, all
    events of the id that the visit had before, its visitor, belong to the customer who has logged in, known to the
    profiles or not. If different customers have logged in from one id, it is shared and belongs to none of them.

    Parameters
    ----------
    snapshot : Snapshot
    joins : Joins
        The logins of the log.
    consents : LiveConsents
        What its events tell of consents.
    read : callable
        Returns the events of some user ids.
    has_events : callable
        Whether a user id has events in the log.
    erased : ErasedUsers
        Whom no answer may know.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        joins: Joins,
        consents: LiveConsents,
        read: Callable[[tuple[User, ...]], ReadRows],
        has_events: Callable[[User], bool],
        erased: ErasedUsers,
    ) -> None:
        self.snapshot = snapshot
        self._joins, self._consents, self._read, self._has_events = joins, consents, read, has_events
        self._erased = erased
        self._customers: dict[str, tuple[User, ...]] = {}  # by one_id
        self._strangers: dict[str, tuple[User, ...]] = {}  # by user id
        # visitors who belong to another than the profiles say; each is in `_strangers` too
        self._owners: dict[User, Owner] = {}
        # the customer that the profiles say → such visitors. It stays in `_customers`, even without events, so that no
        # answer to a visitor is taken from the kept lists of that one
        self._left: dict[str, set[User]] = {}
        self._joined: dict[User, tuple[User, ...]] = {}  # a stranger who has logged in, with the visitors
        self._lock = threading.Lock()  # of changes; a request only looks up
        self._fresh_tags: FreshTags | None = None
        self._erased_one_ids: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()  # of which tombstones

    # ---- requests ----------------------------------------------------------------------------------------------------

    def has_any(self, one_id: str | None, user_id: str) -> bool:
        """Whether there may be events of the customer that the profiles resolve a user id to, or logins from the id."""
        return one_id in self._customers if one_id is not None else user_id in self._strangers

    def resolve(self, user_id: str, user_source: str | None) -> str | None:
        """The one_id of a user id, as `Snapshot.resolve`; that of the customer who has logged in from it, if one has.

        Raises
        ------
        InvalidRequest
            The user id belongs to different customers in several sources, and `user_source` is missing.
        """
        one_id = self.snapshot.resolve(user_id, user_source, self._erased.test)
        users = [user for user in self._strangers.get(user_id, NONE) if user_source in (None, user[0])]
        if one_id is not None:
            users = [user for user in users if user in self._owners and self._by_profiles(user) == one_id]
        owners = {self._owners.get(user, user) for user in users}
        if not owners:
            return one_id
        owner = owners.pop()
        return owner if not owners and isinstance(owner, str) else None  # of several ones, `users` raises the error

    def users(self, one_id: str | None, user_id: str, user_source: str | None) -> tuple[User, ...]:
        """The user ids with events of a customer, or of a user id that belongs to no known one.

        Raises
        ------
        InvalidRequest
            Several sources have events of the user id, no profile knows it, and `user_source` is missing.
        """
        if one_id is not None:
            return self._customers.get(one_id, NONE)
        users = [user for user in self._strangers.get(user_id, NONE) if user_source in (None, user[0])]
        owners = {self._owners.get(user, user) for user in users}
        if len(owners) > 1:
            raise InvalidRequest(
                "the user id occurs in more than one source",
                got=user_id,
                allowed=", ".join(source for source, _ in users),
                field="user_source",
                hint="name the source in user_source",
            )
        if not owners:
            return NONE
        owner = owners.pop()
        return self._customers.get(owner, NONE) if isinstance(owner, str) else self._joined.get(owner, (owner,))

    def rows(
        self,
        one_id: str | None,
        user_id: str,
        user_source: str | None,
        as_of: datetime | None = None,
        known: LogPosition | None = None,
    ) -> tuple[EventRow, ...]:
        """The accepted events of a customer in the order of their acceptance; see `users`.

        With `as_of`, without those from before it, unless their number is above that of `known`: they came late.
        """
        users = self.users(one_id, user_id, user_source)
        if not users:
            return ()
        read = self._read(users)
        if as_of is None:
            return read.rows
        return read.after(as_of, known.seq if known is not None and known.log_id == read.log_id else None)

    def rows_after_build(self, one_id: str) -> tuple[EventRow, ...]:
        """The accepted events of a customer that the profiles do not have, in the order of their acceptance.

        The lake of the profiles had the others, or what an export has said in their place; those with a time from the
        `as_of` of the profiles on are not in them all the same. Where it had none of this log, the online state
        recognises those that it has.
        """
        users = self.users(one_id, "", None)
        if not users:
            return ()
        read = self._read(users)
        return read.after(self.snapshot.as_of, self.snapshot.knows_through(read.log_id))

    def consents(self, one_id: str) -> dict[str, bool]:
        """The consents of a customer that follow from accepted events; for all others the profile holds."""
        users = self.users(one_id, "", None)
        return self._consents.of(users, self.snapshot) if users else {}

    def told_consents(self) -> dict[str, dict[str, bool]]:
        """The `consents` of all customers of whom accepted events tell some, by one_id."""
        one_ids = set()
        for source, user_id in self._consents.users():
            one_ids.add(self.resolve(user_id, source))
            checkpoint()
        return {one_id: told for one_id in one_ids if one_id is not None and (told := self.consents(one_id))}

    def erased_one_ids(self) -> frozenset[str]:
        """The customers of the profiles who were erased since; all are hashed once after each erasure."""
        tombstones = self._erased.tombstones
        if tombstones is not self._erased_one_ids[0]:
            found: set[str] = set()
            columns = self.snapshot.customers.select(["source", "source_user_id", "one_id"])
            for batch in columns.to_batches(max_chunksize=HASHED_AT_ONCE):
                one_ids = {user[:2]: user[2] for user in zip(*(column.to_pylist() for column in batch), strict=True)}
                found.update(one_ids[user] for user in self._erased.among(one_ids))
                checkpoint()
            self._erased_one_ids = tombstones, frozenset(found)
        return self._erased_one_ids[1]

    def fresh_tags(self, settings: Settings) -> FreshTags:
        """What computes tags of these profiles anew, made once."""
        if self._fresh_tags is None:  # else no request waits for a change
            with self._lock:
                if self._fresh_tags is None:
                    self._fresh_tags = FreshTags(self.snapshot, settings)
        return self._fresh_tags

    # ---- following ---------------------------------------------------------------------------------------------------

    def add(self, users: Sequence[User]) -> None:
        """Add user ids that have events."""
        for user in users:
            with self._lock:
                if user not in self._owners:
                    self._place(self._by_profiles(user), user, present=True)

    def remove(self, users: Sequence[User]) -> None:
        """Remove user ids that have no events any more."""
        for user in users:
            with self._lock:
                if user not in self._owners:
                    self._place(self._by_profiles(user), user, present=False)

    def join(self, visitors: Iterable[User]) -> None:
        """Let visitors belong to whom the logins say now."""
        for visitor in visitors:
            with self._lock:
                self._join(visitor)

    def _join(self, visitor: User) -> None:
        by_profiles = self._by_profiles(visitor)
        before, after = self._owners.get(visitor, by_profiles), self._owner(visitor, by_profiles)
        if before == after:
            return
        if after == by_profiles:
            del self._owners[visitor]
            if isinstance(by_profiles, str):
                self._left[by_profiles].discard(visitor)
            self._place(by_profiles, visitor, present=self._has_events(visitor))
            for owner in {before, visitor} - {by_profiles}:
                self._place(owner, visitor, present=False)
            return
        for owner in (after, visitor):  # first, so that no request misses the events
            self._place(owner, visitor, present=True)
        self._owners[visitor] = after
        if isinstance(by_profiles, str):
            self._left.setdefault(by_profiles, set()).add(visitor)
            self._customers.setdefault(by_profiles, NONE)
        if before != visitor:
            self._place(before, visitor, present=False)

    def _owner(self, visitor: User, by_profiles: Owner) -> Owner:
        """To whom a visitor belongs: the one customer who has logged in, or else nobody but itself."""
        owners = {self._by_profiles(user) for user in self._joins.of(visitor)}
        if not owners or owners == {by_profiles}:
            return by_profiles
        if not self._is_alone(by_profiles):  # the profiles say that another customer has logged in before
            return visitor
        return owners.pop() if len(owners) == 1 else by_profiles

    def _is_alone(self, by_profiles: Owner) -> bool:
        """Whether a visitor has no customer, or is one without any other user id."""
        return not isinstance(by_profiles, str) or len(self._rows_of.rows(by_profiles)) == 1

    @cached_property
    def _rows_of(self) -> HashedTexts:
        """The user ids of each customer of the profiles; made for the first visitor who has a profile."""
        return HashedTexts(TextColumn(self.snapshot.customers["one_id"]))

    def _by_profiles(self, user: User) -> Owner:
        source, user_id = user
        return self.snapshot.resolve(user_id, source) or user

    def _place(self, owner: Owner, user: User, *, present: bool) -> None:
        """Add a user id to those of its owner, or remove it."""
        if isinstance(owner, str):
            _change(self._customers, owner, user, present, keep=bool(self._left.get(owner)))
        elif owner == user:
            _change(self._strangers, user[1], user, present)
        else:
            if present:
                _change(self._joined, owner, owner, present)
            _change(self._joined, owner, user, present)
            if self._joined.get(owner) == (owner,):
                del self._joined[owner]


def _change(known: dict[Key, tuple[User, ...]], key: Key, user: User, present: bool, *, keep: bool = False) -> None:
    users = {*known.get(key, NONE)}
    users = users | {user} if present else users - {user}
    if users or keep:
        known[key] = tuple(sorted(users))
    else:
        known.pop(key, None)
