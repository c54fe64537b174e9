"""Joins of anonymous ids: who has logged in or registered from the id that a visit had before, as events say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from features.event_log.base import LoggedEvent
from features.event_log.rows import visitor_of

User = tuple[str, str]  # source, source_user_id
NONE: tuple[User, ...] = ()


class Joins:
    """Visitors (ids used before the login), and the user ids that have logged in from each.

    An id that has itself logged in from another one is an account and no visitor, as in the lake: otherwise an
    application that names the user before as `anonymous_id` would give that customer's answers to the next one.

    One thread changes an object; others may read it.
    """

    def __init__(self) -> None:
        # visitor → user id → number of its last login; replaced, never changed, so that a reader sees one state
        self._logins: dict[User, dict[User, int]] = {}
        self._visitors_of: Counter[User] = Counter()  # how many visitors each account has

    def of(self, visitor: User) -> tuple[User, ...]:
        """The user ids that have logged in from the id of a visitor; none if it is that of an account."""
        return NONE if visitor in self._visitors_of else tuple(self._logins.get(visitor, NONE))

    def visitors(self) -> list[User]:
        """All visitors from whose ids somebody has logged in."""
        return list(self._logins)

    def add(self, events: Iterable[LoggedEvent]) -> list[User]:
        """Add the logins among some events; returns the visitors that this changes."""
        changed = []
        for seq, event in events:
            if (visitor := visitor_of(event)) is None:
                continue
            user, before = (event.source, event.source_user_id), self._logins.get(visitor, {})
            self._logins[visitor] = {**before, user: seq}
            if user not in before:
                changed += [visitor] if user in self._visitors_of else [visitor, user]
                self._visitors_of[user] += 1
        return changed

    def forget(self, first_seq: int) -> list[User]:
        """Forget the logins with a lower number; returns the visitors that this changes."""
        return self._keep(lambda _visitor, _user, seq: seq >= first_seq)

    def forget_users(self, users: Collection[User]) -> list[User]:
        """Forget the logins of some users, and those from their ids; returns the visitors that this changes."""
        return self._keep(lambda visitor, user, _seq: visitor not in users and user not in users)

    def _keep(self, is_kept: Callable[[User, User, int], bool]) -> list[User]:
        changed = []
        for visitor, logins in list(self._logins.items()):
            left = {user: seq for user, seq in logins.items() if is_kept(visitor, user, seq)}
            if len(left) == len(logins):
                continue
            changed.append(visitor)
            for user in logins.keys() - left.keys():
                self._visitors_of[user] -= 1
                if not self._visitors_of[user]:
                    del self._visitors_of[user]
                    changed.append(user)
            if left:
                self._logins[visitor] = left
            else:
                del self._logins[visitor]
        return changed

    def clear(self) -> list[User]:
        """Forget all; returns the visitors."""
        visitors = self.visitors()
        self._logins.clear()
        self._visitors_of.clear()
        return visitors
