"""What the accepted events of a customer make of the profile: fresh features, of which fresh tags and scores follow."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from serving.champions import Champions
from serving.events.fresh_features import FreshValues
from serving.users import ResolvedUser


def makes_fresh(champions: Champions) -> bool:
    """Whether profiles are computed anew for customers with accepted events, as far as is known."""
    live = champions.live
    if live is None or not champions.settings.serving.fresh_profiles or champions.misses_events:
        return False
    return not live.fresh_tags(champions.settings).features.off


def has_events(champions: Champions, users: Iterable[ResolvedUser]) -> bool:
    """Whether the profile of any of these users may be computed anew, which takes milliseconds for each of them."""
    live = champions.live
    if live is None or not makes_fresh(champions):
        return False
    return any(user.one_id is not None and live.has_any(user.one_id, user.user_id) for user in users)


def fresh_features(champions: Champions, user: ResolvedUser, now: datetime) -> FreshValues | None:
    """Return the features of a customer with the accepted events; None if those of the profiles hold.

    They do for a customer without events, while the events cannot be read, and without the online state.
    """
    live = champions.live
    if live is None or user.one_id is None or not has_events(champions, [user]):
        return None
    rows = live.rows_after_build(user.one_id)
    return live.fresh_tags(champions.settings).features.of(user.one_id, rows, now) if rows else None


def keep_fresh(before: Champions, after: Champions) -> None:
    """Load the online state of new profiles if that of the former ones is loaded.

    To be called before the new ones are served: until theirs is loaded, answers would forget accepted events.
    """
    old, new = before.live, after.live
    if old is None or new is None or new is old or not old.fresh_tags(before.settings).features.names:
        return
    new.fresh_tags(after.settings).features.load()
