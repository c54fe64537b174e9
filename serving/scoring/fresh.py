"""Scores of the customers of a request: by the profiles, and by fresh features for customers with accepted events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.profiles.snapshot import Snapshot
from features.profiles.tags.declare import TagValue
from qianmian.interruption import checkpoint
from serving.champions import Champions
from serving.events.fresh_features import FreshValues
from serving.fresh_profiles import fresh_features, has_events
from serving.requests import UsersRequest
from serving.responses import ResponseBody, utc_text
from serving.users import ResolvedUser, profile_rows, resolve_users

# champions, rows of their profiles, −1 for an unknown customer, and the moment of each row (None: that of the profiles)
# → fields of each row
ScoreRows = Callable[[Champions, NDArray[np.int64], NDArray[np.datetime64] | None], list[ResponseBody]]


def any_fresh(champions: Champions, request: UsersRequest) -> bool:
    """Whether any customer of a request may be scored by fresh features, so that it leaves the event loop."""
    return has_events(champions, resolve_users(champions, request.user_ids, request.user_source))


def score_users(
    champions: Champions,
    users: Sequence[ResolvedUser],
    now: datetime,
    score: ScoreRows,
    tags: Collection[str] = (),
) -> list[ResponseBody]:
    """Score customers by the profiles, and those with accepted events as a build with their events would be scored.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    users : sequence of ResolvedUser
    now : datetime
        Current time, naive UTC.
    score : callable
        Scores rows of profiles.
    tags : collection of str
        Tags that the scores read. If they cannot be computed anew, all scores are those of the profiles.

    Returns
    -------
    list of dict
        Per user the fields of `UserScore` and of the score.
    """
    rows = profile_rows(champions, users)
    scores = score(champions, rows, None)
    fresh = _fresh_scores(champions, dict(zip(rows.tolist(), users, strict=True)), now, score, tags)
    built = {"as_of": utc_text(champions.customers.as_of)}
    results = []
    for user, row, fields in zip(users, rows.tolist(), scores, strict=True):
        problem = {} if user.problem is None else {"no_score_reason": user.problem}
        results.append({**user.identity, **fields, **problem, **built, **fresh.get(row, {})})
    return results


def _fresh_scores(
    champions: Champions,
    users: Mapping[int, ResolvedUser],
    now: datetime,
    score: ScoreRows,
    tags: Collection[str],
) -> dict[int, ResponseBody]:
    """Row of the profiles → fields of a score by fresh features, for the customers who have some."""
    found: dict[int, FreshValues] = {}
    for row, user in users.items():
        if row >= 0 and (values := fresh_features(champions, user, now)) is not None:
            found[row] = values
            checkpoint()
    if not found:
        return {}
    made = _fresh_tags(champions, list(found.values()), tags)
    if made.keys() != set(tags):
        return {}
    anew = champions.with_snapshot(fresh_snapshot(champions.customers, found, made))
    # all at once: each call of a model takes milliseconds, and the moment of each customer may be another
    moments = np.array([customer.as_of for customer in found.values()], dtype="datetime64[us]")
    fields = score(anew, np.arange(len(found), dtype=np.int64), moments)
    return {
        row: {**one, "as_of": utc_text(customer.as_of), "recent_events": customer.recent_events}
        for (row, customer), one in zip(found.items(), fields, strict=True)
    }


def _fresh_tags(
    champions: Champions, customers: Sequence[FreshValues], names: Collection[str]
) -> dict[str, list[TagValue]]:
    """The tags of these names that can be computed anew: name → values, one per customer."""
    if not names or champions.live is None:
        return {}
    fresh = champions.live.fresh_tags(champions.settings)
    values = [fresh.of(customer, names) for customer in customers]
    return {name: [one[name] for one in values] for name in values[0]}


def fresh_snapshot(
    profiles: Snapshot, fresh: Mapping[int, FreshValues], tags: Mapping[str, Sequence[TagValue]]
) -> Snapshot:
    """Return profiles of some customers with fresh features; what is not among these keeps the built value.

    Parameters
    ----------
    profiles : Snapshot
        The built profiles.
    fresh : mapping of int to FreshValues
        Row of the customer in `profiles` → fresh features, each of a moment of its own.
    tags : mapping of str to sequence
        Tags of the customers that were computed anew; the others are those of `profiles`.
    """
    known = set(profiles.table.column_names)
    names = [name for name in next(iter(fresh.values())).values if name in known]
    kept = profiles.table.drop_columns(names)
    # slices copy nothing, whereas `take` may join all parts of a column first
    built = pa.concat_tables([kept.slice(row, 1) for row in fresh]).combine_chunks()
    columns = {name: built[name] for name in built.column_names}
    for name in names:
        values = [customer.values[name] for customer in fresh.values()]
        columns[name] = pa.chunked_array([pa.array(values, profiles.table.schema.field(name).type)])
    built_tags = {name: [values[row] for row in fresh] for name, values in profiles.tags.items()}
    return replace(profiles, table=pa.table(columns), tags={**built_tags, **tags})
