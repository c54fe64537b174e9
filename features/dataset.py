"""`TrainingSet`: who interacted with what, when, and what is known of both. What every model is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray
from scipy import sparse

from features.builder import Builder
from features.spec import UserFeatures
from qianmian.errors import DataError

EVENT_WEIGHTS = {"view": 1.0, "search": 1.0, "message_click": 1.0, "share": 2.0, "favourite": 3.0, "cart": 3.0, "purchase": 5.0}


@dataclass(frozen=True)
class Interactions:
    """One entry a paid order line (or a behaviour event, where there are no lines with items).

    Attributes
    ----------
    users, items : ndarray of int32, (m,)
        Indices.
    age_days : ndarray of float32, (m,)
        Days between the interaction and `as_of`, > 0; 0 where the source has no time.
    weights : ndarray of float32, (m,)
        1 a line; `EVENT_WEIGHTS` for events. A `training_set` is sorted by user, item, age, weight.
    shape : tuple of int
        (n_users, n_items).
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    age_days: NDArray[np.float32]
    weights: NDArray[np.float32]
    shape: tuple[int, int]

    def matrix(self, half_life_days: float | None = None) -> sparse.csr_matrix:
        """Summed weights, user × item; with a half-life an interaction of age a counts ``2 ** (-a / half_life)``.

        Examples
        --------
        >>> both = Interactions(np.zeros(2, np.int32), np.zeros(2, np.int32), np.array([0, 10], np.float32), np.ones(2, np.float32), (1, 1))
        >>> float(both.matrix()[0, 0]), float(both.matrix(half_life_days=10)[0, 0])
        (2.0, 1.5)
        """
        weights = self.weights if half_life_days is None else self.weights * np.exp2(-self.age_days / np.float32(half_life_days))
        counts = sparse.coo_matrix((weights.astype(np.float64), (self.users, self.items)), shape=self.shape).tocsr()
        result = counts.astype(np.float32)
        result.sort_indices()
        return result


@dataclass(frozen=True)
class TrainingSet:
    """Everything a model may learn from at `as_of`.

    Attributes
    ----------
    user_ids : ndarray of str, (n_users,)
        one_ids, sorted; customers without history included.
    item_ids : ndarray of str, (n_items,)
        By falling popularity (customers, then lines, then id): the lower index wins a tie of scores.
    item_attributes : dict of str to ndarray of str, each (n_items,)
        `category`, `brand`; '' where unknown.
    user_features : UserFeatures or None
        Rows in the order of `user_ids`.
    """

    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    interactions: Interactions
    item_attributes: dict[str, NDArray[np.str_]]
    user_features: UserFeatures | None
    as_of: datetime
    source: str = "transactions"

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @cached_property
    def item_customers(self) -> NDArray[np.int64]:
        """Distinct customers an item, (n_items,)."""
        return np.asarray((self.interactions.matrix() > 0).sum(axis=0)).ravel().astype(np.int64)

    def user_rows(self, one_ids: NDArray[np.str_]) -> NDArray[np.int64]:
        """Index of each id in `user_ids`, −1 where unknown."""
        return index_of(self.user_ids, one_ids)


def index_of(haystack: NDArray[np.str_], needles: NDArray[np.str_]) -> NDArray[np.int64]:
    """Position of each needle in an array of unique strings of any order, −1 where it is not in it."""
    if not len(haystack):
        return np.full(len(needles), -1, dtype=np.int64)
    found = pc.index_in(pa.array(needles), value_set=pa.array(haystack))
    return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)


def interaction_source(builder: Builder, as_of: datetime) -> str:
    """The table that says who had which item: `transactions` when any line before `as_of` names one, else `events`.

    Raises
    ------
    DataError
        When neither names items.
    """
    states = builder.states_at(as_of)
    for table in ("transactions", "events"):
        if table in states and "item_id" in states[table].filled:
            return table
    raise DataError(
        "neither transactions nor events name items",
        where=str(builder.lake.workspace.lake),
        hint="map `item_id` in sources.yaml; without items there is nothing to recommend",
    )


def interaction_rows(builder: Builder, as_of: datetime, start: datetime | None = None) -> tuple[pa.Table, str]:
    """Who did what with which item in ``[start, as_of)``: one_id, item_id, age_days, weight, and the table it came from.

    Paid order lines when any of them names an item, else events (`interaction_source`).
    """
    source = interaction_source(builder, as_of)
    views = builder.views(as_of)
    rows = views["lines" if source == "transactions" else source]
    weight = ibis.literal(1.0) if source == "transactions" else rows.event_type.cases(*EVENT_WEIGHTS.items(), else_=0.0)
    timed = "ts" in builder.states[source].filled
    age = (views.cut.epoch_seconds().cast("float64") - rows.ts.epoch_seconds().cast("float64")) / 86_400.0 if timed else ibis.literal(0.0)
    rows = rows.mutate(weight=weight.cast("float64"), age_days=age)
    rows = rows.filter(rows.item_id.notnull() & (rows.weight > 0))
    if start is not None:
        if not timed:
            raise DataError("the data has no time, so no period can be cut out of it", where=source, hint="map `ts` in sources.yaml")
        rows = rows.filter(rows.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    return rows.select("one_id", "item_id", "age_days", "weight").to_pyarrow(), source


def training_set(builder: Builder, as_of: datetime, *, min_item_customers: int = 5, with_features: bool = True) -> TrainingSet:
    """Build the training set at `as_of`.

    Parameters
    ----------
    min_item_customers : int
        An item that fewer customers had before `as_of` is left out: it cannot be recommended.

    Raises
    ------
    DataError
        When no item has that many customers.
    """
    rows, source = interaction_rows(builder, as_of)
    per_item = rows.group_by("item_id").aggregate([("one_id", "count_distinct"), ("one_id", "count")])
    per_item = per_item.filter(pc.greater_equal(per_item["one_id_count_distinct"], min_item_customers))
    per_item = per_item.sort_by([("one_id_count_distinct", "descending"), ("one_id_count", "descending"), ("item_id", "ascending")])
    item_ids = np.asarray(per_item["item_id"].to_pylist(), dtype=np.str_)
    if not len(item_ids):
        raise DataError(
            f"no item was had by at least {min_item_customers} customers before {as_of.date()}", where=source,
            hint="set recommend.min_item_customers lower in qianmian.yaml, or bring more data",
        )  # fmt: skip
    people = builder.views(as_of).customers.select("one_id").distinct().order_by("one_id").to_pyarrow()
    user_ids = np.asarray(people["one_id"].to_pylist(), dtype=np.str_)
    users = pc.index_in(rows["one_id"], value_set=pa.array(user_ids)).combine_chunks()
    items = pc.index_in(rows["item_id"], value_set=pa.array(item_ids)).combine_chunks()
    kept = pc.and_(pc.is_valid(users), pc.is_valid(items))
    columns = [pc.filter(column, kept).to_numpy() for column in (users, items, rows["age_days"], rows["weight"])]
    # an engine gives rows in whatever order its threads end in; sums of floats, and so ties, must not depend on it
    order = np.lexsort((columns[3], columns[2], columns[1], columns[0]))
    user, item, age_days, weights = (column[order] for column in columns)
    interactions = Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        age_days.astype(np.float32),
        weights.astype(np.float32),
        (len(user_ids), len(item_ids)),
    )
    features = None
    if with_features:
        built = builder.build(as_of).matrix()
        features = built.take(built.rows_of(user_ids))
    return TrainingSet(user_ids, item_ids, interactions, _item_attributes(builder, item_ids, source, as_of), features, as_of, source)


def _item_attributes(builder: Builder, item_ids: NDArray[np.str_], source: str, as_of: datetime) -> dict[str, NDArray[np.str_]]:
    items = builder.backend.table("items").select("item_id", "category", "brand").to_pyarrow()
    at = index_of(np.asarray(items["item_id"].to_pylist(), dtype=np.str_), item_ids)
    attributes = {}
    for name in ("category", "brand"):
        values = np.asarray([value or "" for value in items[name].to_pylist()] + [""], dtype=np.str_)
        attributes[name] = values[at]
    if source == "events" and not attributes["category"].astype(bool).any() and "category" in builder.states["events"].filled:
        t = builder.backend.table("events").filter(_.ts < ibis.timestamp(as_of.isoformat(sep=" ")))
        pairs = t.filter(t.category.notnull() & t.item_id.notnull()).group_by("item_id").aggregate(category=t.category.min()).to_pyarrow()
        at = index_of(np.asarray(pairs["item_id"].to_pylist(), dtype=np.str_), item_ids)
        attributes["category"] = np.asarray([*pairs["category"].to_pylist(), ""], dtype=np.str_)[at]
    return attributes
