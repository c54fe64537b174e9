"""Erased users of an event log: which users an event names, and the tombstones by which a store recognises them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from features.erasure.customer import User
from features.event_log.base import AcceptedEvent, LoggedEvent
from features.event_log.rows import visitor_of
from qianmian.errors import StorageError

Hasher: TypeAlias = Callable[[str, str], str]  # source and user id → tombstone


def users_of(event: AcceptedEvent) -> tuple[User, ...]:
    """The users that an event names: its own, and of a login the visitor.

    Examples
    --------
    >>> users_of(AcceptedEvent("shop", "e1", "u1", 0, b"{}"))
    (('shop', 'u1'),)
    """
    user, visitor = (event.source, event.source_user_id), visitor_of(event)
    return (user,) if visitor is None else (user, visitor)


def naming(events: Iterable[LoggedEvent], users: Iterable[User]) -> list[LoggedEvent]:
    """Those of some events that name any of some users."""
    named = frozenset(users)
    return [logged for logged in events if not named.isdisjoint(users_of(logged.event))]


class Tombstones:
    """The tombstones of the users that events name; each user is hashed once.

    Parameters
    ----------
    hasher : Hasher, optional
        Without one, asking for a tombstone is an error: an event of an erased user would not be recognised.
    """

    def __init__(self, hasher: Hasher | None) -> None:
        self._hasher = hasher
        self._known: dict[User, str] = {}

    def of(self, event: AcceptedEvent) -> list[str]:
        """The tombstones of the users that an event names.

        Raises
        ------
        StorageError
            There is no hasher.
        """
        if self._hasher is None:
            raise StorageError(
                "users were erased from the event log, and it was opened without the key that recognises them",
                hint="open it with the key of personal data of the workspace",
            )
        found = []
        for user in users_of(event):
            if user not in self._known:
                self._known[user] = self._hasher(*user)
            found.append(self._known[user])
        return found
