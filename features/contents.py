"""The training set of contents: who met which article, banner or message, how much it was theirs, and what they buy beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.views import days_before
from features.id_map import IdMap
from features.interactions import Interactions, TrainingSet
from features.training_data import interactions_from_rows
from qianmian.errors import DataError

# what an event says of liking a content, beside the time spent
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
READ_WEIGHT = 1.0  # an event of this weight or more: it was read to the end, or as good as
MIN_DWELL_SAMPLES = 5  # of a content, for a median of its own; else that of its type, else that of all
MIN_DWELL_FACTOR, MAX_DWELL_FACTOR = 0.1, 2.0  # what the time spent may make of an event
CONTENT_COLUMNS = ("type", "topics", "item_ids", "channel", "language")


@dataclass(frozen=True)
class ContentSet(TrainingSet):
    """A `TrainingSet` whose items are contents; `source` is ``contents``.

    `item_attributes` are the columns of `contents`; `category` is the type. A content nobody met yet is an item too, at the end. An entry of
    `interactions` is an event with a content, its weight by `engagement_weights`.

    Attributes
    ----------
    purchases : TrainingSet or None
        What the same customers bought, without profile features; None where the lake names no items.
    """

    purchases: TrainingSet | None = None

    def with_earlier_cutoff(self, days: float) -> ContentSet:
        """As `TrainingSet.with_earlier_cutoff`, purchases too."""
        before = super().with_earlier_cutoff(days)
        assert isinstance(before, ContentSet)
        return replace(before, purchases=None if self.purchases is None else self.purchases.with_earlier_cutoff(days))


def engagement_weights(
    event_types: NDArray[np.str_],
    seconds: NDArray[np.floating[Any]],
    contents: NDArray[np.integer[Any]],
    types: NDArray[np.str_],
) -> NDArray[np.float32]:
    """How much each event says of liking its content.

    ``CONTENT_WEIGHTS[event type] × clip(log2(1 + seconds / usual), SHORTEST, LONGEST)``; usual is the median of that content, so that a long text
    is not liked better for being long (dwell time against that of the content, as a logarithm: Yi et al. 2014, "Beyond clicks"). Where no time is
    told the second factor is 1, which is also that of the median.

    Parameters
    ----------
    event_types : ndarray of str, (m,)
    seconds : ndarray of float, (m,)
        NaN or ≤ 0 where unknown.
    contents : ndarray of int, (m,)
        Index into `types`.
    types : ndarray of str, (n_contents,)
        Of each content.

    Returns
    -------
    ndarray of float32, (m,)
        0 for an event that says nothing.

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
    """Lower median and size of each group; NaN for an empty one."""
    order = np.lexsort((values, groups))
    sizes = np.bincount(groups, minlength=n)
    middle = np.cumsum(sizes) - sizes + np.maximum(sizes - 1, 0) // 2
    found = np.full(n, np.nan)
    found[sizes > 0] = values[order][middle[sizes > 0]]
    return found, sizes


def content_rows(builder: Builder, as_of: datetime, start: datetime | None = None) -> pa.Table:
    """Events with a content in ``[start, as_of)``: one_id, content_id, event_type, seconds, age_days, and for `interactions_from_rows` basket, quantity, amount.

    Raises
    ------
    DataError
        There are no contents, or no event before `as_of` names one.
    """
    states = builder.states_at(as_of)
    if "contents" not in builder.states or not builder.states["contents"].rows:
        raise DataError(
            "the lake has no contents", where=str(builder.lake.workspace.lake), hint="map `contents` in sources.yaml"
        )
    if "events" not in states or "content_id" not in states["events"].filled:
        raise DataError(
            f"no event before {as_of.date()} names a content",
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

    Contents carry no date in the lake, so one that appears later is there already, as one nobody met.

    Parameters
    ----------
    purchases : TrainingSet, optional
        Purchases of the customers known at `as_of` (`features.interactions.training_set`); its profile features become this set's.

    Raises
    ------
    DataError
        See `content_rows`.
    """
    rows = content_rows(builder, as_of)
    described = builder.backend.table("contents").to_pyarrow()
    named = np.asarray(described["content_id"].to_pylist(), dtype=np.str_)
    interacted = rows.group_by("content_id").aggregate([("one_id", "count_distinct"), ("one_id", "count")])
    also = np.asarray(interacted["content_id"].to_pylist(), dtype=np.str_)
    every = np.union1d(named, also)
    at = IdMap(every).rows(also)
    customers, events = np.zeros(len(every), np.int64), np.zeros(len(every), np.int64)
    customers[at], events[at] = interacted["one_id_count_distinct"].to_numpy(), interacted["one_id_count"].to_numpy()
    content_ids = every[np.lexsort((np.arange(len(every)), -events, -customers))]
    place = IdMap(named).rows(content_ids)
    attributes = {
        name: np.asarray([*described[name].fill_null("").to_pylist(), ""], dtype=np.str_)[place]
        for name in CONTENT_COLUMNS
        if name in described.column_names
    }
    attributes |= {
        "category": attributes.get("type", np.full(len(content_ids), "")),
        "brand": np.full(len(content_ids), ""),
        "price": np.full(len(content_ids), np.nan, dtype=np.float32),
    }
    if purchases is None:
        people = builder.views(as_of).customers.select("one_id").distinct().order_by("one_id").to_pyarrow()
        user_ids = np.asarray(people["one_id"].to_pylist(), dtype=np.str_)
    else:
        user_ids = purchases.user_ids
    purchases_only = None if purchases is None else replace(purchases, user_features=None)
    features = None if purchases is None else purchases.user_features
    data = content_interactions(rows, user_ids, content_ids, attributes["category"])
    return ContentSet(user_ids, content_ids, data, attributes, features, as_of, "contents", purchases_only)


def content_interactions(
    rows: pa.Table, user_ids: NDArray[np.str_], content_ids: NDArray[np.str_], types: NDArray[np.str_]
) -> Interactions:
    """Rows of `content_rows` as interactions of known customers with known contents.

    Parameters
    ----------
    types : ndarray of str, (n_contents,)
    """
    users, contents = IdMap(user_ids).rows(rows["one_id"]), IdMap(content_ids).rows(rows["content_id"])
    seconds = np.asarray(rows["seconds"].to_numpy(zero_copy_only=False), dtype=np.float64)
    weights = engagement_weights(
        np.asarray(rows["event_type"].to_pylist(), dtype=np.str_), seconds, np.maximum(contents, 0), types
    )
    return interactions_from_rows(
        rows.append_column("weight", pa.array(weights)), users, contents, (len(user_ids), len(content_ids))
    )
