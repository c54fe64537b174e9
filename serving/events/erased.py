"""The erased users of an event log, as a server knows them: they are unknown to all of its answers."""

from __future__ import annotations

from collections.abc import Iterable

from features.erasure.customer import User
from features.event_log.erased_users import Hasher
from features.profiles.snapshot import IsErased
from qianmian.errors import NotReady


def _no_hasher(source: str, user_id: str) -> str:
    raise NotReady("users were erased, and this server has no key that recognises them")


class ErasedUsers:
    """The tombstones of a log, and the test whether a user id has one. None is ever forgotten.

    Parameters
    ----------
    hasher : Hasher, optional
        Makes tombstones; called only if there are any.

    Attributes
    ----------
    tombstones : frozenset of str
    test : callable or None
        (source, user id) → whether the user was erased; None if nobody was, so that requests then pay nothing. Without
        a key it raises a `QianmianError`: no answer may then be about a customer.
    """

    def __init__(self, hasher: Hasher | None = None) -> None:
        self._hasher: Hasher = hasher if hasher is not None else _no_hasher
        self.tombstones: frozenset[str] = frozenset()
        self.test: IsErased | None = None

    def add(self, tombstones: frozenset[str]) -> None:
        """Know some tombstones from now on."""
        self.tombstones |= tombstones
        self.test = self._is_erased if self.tombstones else None

    def among(self, users: Iterable[User]) -> list[User]:
        """Those of some users who were erased."""
        test = self.test
        return [] if test is None else [user for user in users if test(*user)]

    def _is_erased(self, source: str, user_id: str) -> bool:
        return self._hasher(source, user_id) in self.tombstones
