"""The profiles as they were known at a past moment, from the table `profile_history`."""

from __future__ import annotations

from collections.abc import Collection

import ibis
import ibis.expr.types as ir

KEYS = ("source", "source_user_id")


def past_profiles(
    current: ir.Table, history: ir.Table, cutoff: ir.TimestampScalar, allow_undated: Collection[str] = ()
) -> ir.Table:
    """The profiles before `cutoff`: the last row of the history before it, and the fixed attributes.

    An attribute that is not known to have had its value then is null.

    Parameters
    ----------
    current, history : Table
        The tables `profiles` and `profile_history`.
    cutoff : TimestampScalar
        Naive UTC.
    allow_undated : collection of str
        Attributes whose first known value is taken for every moment before it.

    Returns
    -------
    Table
        One row per row of `current`, with its columns except `valid_from`.
    """
    names = [name for name in current.columns if name not in (*KEYS, "valid_from") and name in history.columns]
    dated = history.filter(history.valid_from.notnull())
    before = dated.filter(dated.valid_from < cutoff)
    place = ibis.row_number().over(group_by=list(KEYS), order_by=ibis.desc(before.valid_from))
    latest = before.mutate(place=place)
    latest = latest.filter(latest.place == 0)
    fixed = history.filter(history.valid_from.isnull())
    t = _joined(current.select(*KEYS), fixed.select(*KEYS, **{f"fixed_{name}": fixed[name] for name in names}))
    t = _joined(t, latest.select(*KEYS, **{f"then_{name}": latest[name] for name in names}))
    candidates = {name: [f"fixed_{name}", f"then_{name}"] for name in names}
    allowed = [name for name in names if name in allow_undated]
    if allowed:
        first = dated.group_by(list(KEYS)).aggregate(
            **{f"first_{c}": dated[c].argmin(dated.valid_from, where=dated[c].notnull()) for c in allowed}
        )
        t = _joined(t, first)
        # a value that was ingested without a moment is in no row of the history
        t = _joined(t, current.select(*KEYS, **{f"now_{name}": current[name] for name in allowed}))
        candidates |= {name: [*candidates[name], f"first_{name}", f"now_{name}"] for name in allowed}
    return t.select(*KEYS, **{name: ibis.coalesce(*(t[one] for one in found)) for name, found in candidates.items()})


def without_later_registrations(profiles: ir.Table, cutoff: ir.TimestampScalar) -> ir.Table:
    """The profiles without the registration dates at or after `cutoff`, which were not known before."""
    at = profiles.registered_at
    return profiles.mutate(registered_at=ibis.ifelse(at < cutoff, at, ibis.null("timestamp")))


def _joined(t: ir.Table, more: ir.Table) -> ir.Table:
    return t.left_join(more, list(KEYS)).drop(*(f"{key}_right" for key in KEYS))
