"""Consents that accepted events give or withdraw: in the profile at once, and never one that was withdrawn."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from features.event_log.base import AcceptedEvent, LoggedEvent
from features.event_log.rows import UNREADABLE, decode
from features.profiles.snapshot import Snapshot
from qianmian.schema import CONSENTS
from serving.events.joins import User

TABLE = "profiles"
IN_BODY = b'"table":"profiles"'  # a cheap test, which no text of a row passes: its quotes are escaped


class Told(NamedTuple):
    """What an event tells of a consent. Of two the greater holds: the newest, at the same time the withdrawal."""

    ts: datetime
    is_withdrawn: bool
    seq: int


class LiveConsents:
    """What the events of a log tell of consents, by user id.

    Of each user id and channel the newest grant and the newest withdrawal are kept: the others never count. They are
    kept apart from all other events, of which a customer may have too many to be read.

    One thread changes an object; others may read it.
    """

    def __init__(self) -> None:
        # user id → (column, is_withdrawn) → event; replaced, never changed, so that a reader sees one state
        self._told: dict[User, dict[tuple[str, bool], Told]] = {}
        self.log_id: str | None = None

    def of(self, users: Iterable[User], snapshot: Snapshot) -> dict[str, bool]:
        """The consents of a customer that follow from events; for all others the profile holds.

        Events that were in the lake when the profiles were built, and before their `as_of`, are left to the profile. A
        grant from before the `as_of` that came late is too, because the lake may know that it was withdrawn later. A
        withdrawal that came late counts: at worst a consent is shown too late.

        Parameters
        ----------
        users : iterable of tuple of str
            The user ids of the customer.
        snapshot : Snapshot
            The profiles.
        """
        known, as_of = snapshot.knows_through(self.log_id), snapshot.as_of
        newest: dict[str, Told] = {}
        for user in users:
            for (name, _), told in self._told.get(user, {}).items():
                if told.seq > known or told.ts >= as_of:
                    newest[name] = max(told, newest.get(name, told))
        return {name: not told.is_withdrawn for name, told in newest.items() if told.is_withdrawn or told.ts >= as_of}

    def users(self) -> tuple[User, ...]:
        """The user ids of whose consents events tell."""
        return tuple(self._told)

    def add(self, events: Iterable[LoggedEvent], log_id: str | None) -> None:
        """Add what some events of a log tell."""
        self.log_id = log_id
        for seq, event in events:
            if IN_BODY not in event.body:
                continue
            user = event.source, event.source_user_id
            changed = dict(self._told.get(user, {}))
            for name, told in _told(seq, event):
                key = name, told.is_withdrawn
                changed[key] = max(told, changed.get(key, told))
            self._told[user] = changed

    def forget(self, first_seq: int) -> None:
        """Forget the events with a lower number."""
        for user, told in list(self._told.items()):
            left = {key: one for key, one in told.items() if one.seq >= first_seq}
            if not left:
                del self._told[user]
            elif len(left) < len(told):
                self._told[user] = left

    def forget_users(self, users: Iterable[User]) -> None:
        """Forget the events of some user ids."""
        for user in users:
            self._told.pop(user, None)

    def clear(self) -> None:
        """Forget all."""
        self._told.clear()


def _told(seq: int, event: AcceptedEvent) -> list[tuple[str, Told]]:
    try:
        row = decode(event)
        granted = [(name, row.values[name]) for name in CONSENTS if row.values.get(name) is not None]
        return [(name, Told(row.values["ts"], not value, seq)) for name, value in granted if row.table == TABLE]
    except UNREADABLE:  # an event that another version has written
        return []
