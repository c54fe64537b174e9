"""The training set of contents (articles, banners, messages): interactions weighted by engagement, and purchases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.views import days_before
from features.id_map import IdMap
from features.interactions import ContentSet, Interactions, TrainingSet
from features.training_data import interactions_from_rows
from qianmian.errors import DataError

# weight of an event type, before it is multiplied by the dwell time factor
CONTENT_WEIGHTS = {
    "view": 1.0,
    "message_open": 0.5,
    "message_click": 1.0,
    "favourite": 2.0,
    "share": 2.0,
    "lead": 2.0,
    "register": 2.0,
    "cart": 2.0,
    "coupon_redeem": 2.0,
    "purchase": 2.0,
}
MIN_DWELL_SAMPLES = 5  # with fewer dwell times a content uses the median of its type, then the overall median
MIN_DWELL_FACTOR, MAX_DWELL_FACTOR = 0.1, 2.0  # bounds of the dwell time factor
CONTENT_COLUMNS = ("type", "topics", "item_ids", "channel", "language")


def engagement_weights(
    event_types: NDArray[np.str_],
    seconds: NDArray[np.floating[Any]],
    contents: NDArray[np.integer[Any]],
    types: NDArray[np.str_],
) -> NDArray[np.float32]:
    """Weight each event by its type and its dwell time.

    ``CONTENT_WEIGHTS[event type] × clip(log2(1 + seconds / median), MIN_DWELL_FACTOR, MAX_DWELL_FACTOR)``, where
    `median` is the median dwell time of the content, so that long texts get no advantage (logarithm of relative dwell
    time: Yi et al. 2014, "Beyond clicks"). With an unknown dwell time the second factor is 1, as for the median.

    Parameters
    ----------
    event_types : str array, shape (m,)
        Event types.
    seconds : float array, shape (m,)
        Dwell time in seconds; NaN or ≤ 0 if unknown.
    contents : int array, shape (m,)
        Content of each event, as an index into `types`.
    types : str array, shape (n_contents,)
        Type of each content.

    Returns
    -------
    float32 array, shape (m,)
        0 for an event type without a weight.

    Examples
    --------
    >>> kinds, spent = np.array(["view", "view", "view", "share"]), np.array([30.0, 30.0, 90.0, np.nan])
    >>> engagement_weights(kinds, spent, np.zeros(4, int), np.array(["article"])).tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    weights = np.zeros(len(event_types), dtype=np.float64)
    for kind, weight in CONTENT_WEIGHTS.items():
        weights[event_types == kind] = weight
    has_dwell_time = np.isfinite(seconds) & (np.nan_to_num(seconds) > 0)
    if not has_dwell_time.any():
        return weights.astype(np.float32)
    _, kinds = np.unique(types, return_inverse=True)
    own, many = _medians(contents[has_dwell_time], seconds[has_dwell_time], len(types))
    of_type, many_of_type = _medians(kinds[contents[has_dwell_time]], seconds[has_dwell_time], int(kinds.max()) + 1)
    overall = float(np.median(seconds[has_dwell_time]))
    median_dwell = np.where(
        many >= MIN_DWELL_SAMPLES, own, np.where(many_of_type[kinds] >= MIN_DWELL_SAMPLES, of_type[kinds], overall)
    )
    dwell_factor = np.log2(1.0 + np.where(has_dwell_time, seconds, 0.0) / median_dwell[contents])
    weights *= np.where(has_dwell_time, np.clip(dwell_factor, MIN_DWELL_FACTOR, MAX_DWELL_FACTOR), 1.0)
    return weights.astype(np.float32)


def _medians(
    groups: NDArray[np.integer[Any]], values: NDArray[np.floating[Any]], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lower median (NaN for an empty group) and size of each group, arrays of shape (n,)."""
    order = np.lexsort((values, groups))
    sizes = np.bincount(groups, minlength=n)
    middle = np.cumsum(sizes) - sizes + np.maximum(sizes - 1, 0) // 2
    medians = np.full(n, np.nan)
    medians[sizes > 0] = values[order][middle[sizes > 0]]
    return medians, sizes


def content_rows(builder: Builder, as_of: datetime, start: datetime | None = None) -> pa.Table:
    """Read the events about contents in ``[start, as_of)``.

    Returns
    -------
    pyarrow.Table
        Columns one_id, content_id, event_type, seconds, age_days; and basket, quantity and amount for
        `interactions_from_rows`.

    Raises
    ------
    DataError
        If the lake has no contents, or no event before `as_of` has a `content_id`.
    """
    states = builder.states_at(as_of)
    if "contents" not in builder.states or not builder.states["contents"].rows:
        raise DataError(
            "the lake has no contents", where=str(builder.lake.workspace.lake), hint="map `contents` in sources.yaml"
        )
    if "events" not in states or "content_id" not in states["events"].filled:
        raise DataError(
            f"no event before {as_of.date()} has a content_id",
            where="events",
            hint="map `content_id` of events in sources.yaml",
        )
    views = builder.views(as_of)
    rows = views["events"]
    age = days_before(views.cutoff, rows.ts)
    unknown = ibis.null("float64")
    rows = rows.mutate(
        age_days=age,
        seconds=rows.duration_seconds.cast("float64"),
        basket=rows.session_id,
        quantity=unknown,
        amount=unknown,
    )
    rows = rows.filter(rows.content_id.notnull() & rows.event_type.isin(list(CONTENT_WEIGHTS)))
    if start is not None:
        rows = rows.filter(rows.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    return rows.select(
        "one_id", "content_id", "event_type", "seconds", "age_days", "basket", "quantity", "amount"
    ).to_pyarrow()


def content_set(builder: Builder, as_of: datetime, purchases: TrainingSet | None = None) -> ContentSet:
    """Build the training set of contents at `as_of`.

    Contents carry no date in the lake, so a content published after `as_of` is an item too, without interactions.

    Parameters
    ----------
    purchases : TrainingSet, optional
        Purchases of the customers known at `as_of` (`features.training_data.training_set`). Its profile features become
        those of the result.

    Raises
    ------
    DataError
        See `content_rows`.
    """
    rows = content_rows(builder, as_of)
    contents = builder.backend.table("contents").to_pyarrow()
    listed_ids = np.asarray(contents["content_id"].to_pylist(), dtype=np.str_)
    interacted = rows.group_by("content_id").aggregate([("one_id", "count_distinct"), ("one_id", "count")])
    interacted_ids = np.asarray(interacted["content_id"].to_pylist(), dtype=np.str_)
    all_ids = np.union1d(listed_ids, interacted_ids)
    at = IdMap(all_ids).rows(interacted_ids)
    customers, events = np.zeros(len(all_ids), np.int64), np.zeros(len(all_ids), np.int64)
    customers[at], events[at] = interacted["one_id_count_distinct"].to_numpy(), interacted["one_id_count"].to_numpy()
    content_ids = all_ids[np.lexsort((np.arange(len(all_ids)), -events, -customers))]
    row_of = IdMap(listed_ids).rows(content_ids)  # −1, the appended '', for an id that `contents` does not list
    attributes = {
        name: np.asarray([*contents[name].fill_null("").to_pylist(), ""], dtype=np.str_)[row_of]
        for name in CONTENT_COLUMNS
        if name in contents.column_names
    }
    attributes |= {
        "category": attributes.get("type", np.full(len(content_ids), "")),
        "brand": np.full(len(content_ids), ""),
        "price": np.full(len(content_ids), np.nan, dtype=np.float32),
    }
    if purchases is None:
        known = builder.views(as_of).customers.select("one_id").distinct().order_by("one_id").to_pyarrow()
        user_ids = np.asarray(known["one_id"].to_pylist(), dtype=np.str_)
    else:
        user_ids = purchases.user_ids
    purchases_only = None if purchases is None else replace(purchases, user_features=None)
    features = None if purchases is None else purchases.user_features
    data = content_interactions(rows, user_ids, content_ids, attributes["category"])
    return ContentSet(user_ids, content_ids, data, attributes, features, as_of, "contents", purchases_only)


def content_interactions(
    rows: pa.Table, user_ids: NDArray[np.str_], content_ids: NDArray[np.str_], types: NDArray[np.str_]
) -> Interactions:
    """Convert rows of `content_rows` to interactions; rows of unknown customers or contents are left out.

    Parameters
    ----------
    rows : pyarrow.Table
        Result of `content_rows`.
    user_ids, content_ids : str array, shape (n_users,) and (n_contents,)
        Ids in the order of the indices.
    types : str array, shape (n_contents,)
        Type of each content.
    """
    users, contents = IdMap(user_ids).rows(rows["one_id"]), IdMap(content_ids).rows(rows["content_id"])
    seconds = np.asarray(rows["seconds"].to_numpy(zero_copy_only=False), dtype=np.float64)
    weights = engagement_weights(
        np.asarray(rows["event_type"].to_pylist(), dtype=np.str_), seconds, np.maximum(contents, 0), types
    )
    return interactions_from_rows(
        rows.append_column("weight", pa.array(weights)), users, contents, (len(user_ids), len(content_ids))
    )
