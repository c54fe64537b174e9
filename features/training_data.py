"""Read interactions from the lake and build the `TrainingSet` of items."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.views import days_before
from features.data.tables import TOLD
from features.id_map import IdMap
from features.interactions import EVENT_WEIGHTS, Interactions, TrainingSet, sorted_interactions
from features.purchases import PURCHASE_COLUMNS, purchase_rows
from qianmian.errors import DataError
from qianmian.schema import TABLES

# columns of `items` that describe no item of a model: the source, that it is merchandise, the date of the row, when its
# columns were told
NOT_ATTRIBUTES = frozenset(
    {
        "item_id",
        "merchandise",
        TOLD,
        *(column.name for column in TABLES["items"].columns if column.derived or column.dates_row),
    }
)


def interaction_source(builder: Builder, as_of: datetime) -> str:
    """Table the interactions come from: `transactions` if any line before `as_of` has an item, else `events`.

    Raises
    ------
    DataError
        If neither table has items.
    """
    states = builder.states_at(as_of)
    for table in ("transactions", "events"):
        if table in states and "item_id" in states[table].filled:
            return table
    raise DataError(
        "neither transactions nor events have an item_id",
        where=str(builder.lake.workspace.lake),
        hint="map `item_id` in sources.yaml; without items nothing can be recommended",
    )


def interaction_rows(builder: Builder, as_of: datetime, start: datetime | None = None) -> tuple[pa.Table, str]:
    """Read the interactions in ``[start, as_of)`` and name the table they come from.

    They are paid order lines if any order line has an item, else events (`interaction_source`). Lines that refunds
    before `as_of` took back are left out (`features.returns`), and so are items that are no merchandise.

    Returns
    -------
    pyarrow.Table
        Columns one_id, item_id, age_days, weight, basket (order or visit), quantity, amount. The last three are null
        where the source does not have them.
    str
        ``transactions`` or ``events``.

    Raises
    ------
    DataError
        If the data has no items, or `start` is given and the data has no timestamps.
    """
    rows, source = _rows_with_returns(builder, as_of, start)
    rows = rows.filter(pc.is_null(rows["returned_days"]))
    return rows.drop_columns(["returned_days"]), source


def _rows_with_returns(builder: Builder, as_of: datetime, start: datetime | None = None) -> tuple[pa.Table, str]:
    """The rows of `interaction_rows` and the purchases that were returned, with the column ``returned_days``."""
    source = interaction_source(builder, as_of)
    timed = "ts" in builder.states[source].filled
    if start is not None and not timed:
        raise DataError(
            "the data has no timestamps, so a period cannot be selected",
            where=source,
            hint="map `ts` in sources.yaml",
        )
    if source == "transactions":
        return purchase_rows(builder, as_of, start), source
    views, unknown = builder.views(as_of), ibis.null("float64")
    rows = views[source].filter(_.item_id.notnull())
    rows = rows.mutate(
        weight=rows.event_type.cases(*EVENT_WEIGHTS.items(), else_=0.0).cast("float64"),
        age_days=days_before(views.cutoff, rows.ts) if timed else ibis.literal(0.0),
        basket=rows.session_id,
        quantity=unknown,
        amount=unknown,
        returned_days=unknown,
    )
    rows = rows.filter(rows.weight > 0)
    if start is not None:
        rows = rows.filter(rows.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    return rows.select(*PURCHASE_COLUMNS, "returned_days").to_pyarrow(), source


def training_set(
    builder: Builder, as_of: datetime, *, min_item_customers: int = 5, with_features: bool = True
) -> TrainingSet:
    """Build the training set at `as_of`.

    Parameters
    ----------
    min_item_customers : int
        Items with fewer customers before `as_of` are left out and cannot be recommended.
    with_features : bool
        Whether `user_features` is filled with the profile features at `as_of`.

    Raises
    ------
    DataError
        If no item has that many customers.
    """
    rows, source = _rows_with_returns(builder, as_of)
    kept = rows.filter(pc.is_null(rows["returned_days"]))
    per_item = kept.group_by("item_id").aggregate([("one_id", "count_distinct"), ("one_id", "count")])
    per_item = per_item.filter(pc.greater_equal(per_item["one_id_count_distinct"], min_item_customers))
    per_item = per_item.sort_by(
        [("one_id_count_distinct", "descending"), ("one_id_count", "descending"), ("item_id", "ascending")]
    )
    item_ids = np.asarray(per_item["item_id"].to_pylist(), dtype=np.str_)
    if not len(item_ids):
        raise DataError(
            f"no item has at least {min_item_customers} customers before {as_of.date()}",
            where=source,
            hint="lower recommend.min_item_customers in qianmian.yaml, or ingest more data",
        )
    customers = builder.views(as_of).customers.select("one_id").distinct().order_by("one_id").to_pyarrow()
    user_ids = np.asarray(customers["one_id"].to_pylist(), dtype=np.str_)
    users, items = IdMap(user_ids).rows(rows["one_id"]), IdMap(item_ids).rows(rows["item_id"])
    shape = len(user_ids), len(item_ids)
    interactions, returned = interactions_from_rows(rows, users, items, shape).without_returned()
    features = None
    if with_features:
        built = builder.build(as_of).matrix()
        features = built.take(built.rows_of(user_ids))
    return TrainingSet(
        user_ids,
        item_ids,
        interactions,
        _item_attributes(builder, item_ids, source, as_of, interactions),
        features,
        as_of,
        source,
        returned=returned,
    )


def interactions_from_rows(
    rows: pa.Table, users: NDArray[np.int64], items: NDArray[np.int64], shape: tuple[int, int]
) -> Interactions:
    """Convert rows of `interaction_rows` to arrays, in an order that does not depend on the compute engine.

    Rows whose user or item is unknown are left out.

    Parameters
    ----------
    rows : pyarrow.Table
        Result of `interaction_rows`, m rows; with a column ``returned_days``, the result has it too.
    users, items : int64 array, shape (m,)
        User and item index of each row, −1 where it is unknown.
    shape : tuple of int
        (n_users, n_items).
    """
    known = (users >= 0) & (items >= 0)
    user, item, kept = users[known].astype(np.int32), items[known].astype(np.int32), pa.array(known)
    age_days, weights = (pc.filter(rows[name], kept).to_numpy() for name in ("age_days", "weight"))
    baskets, quantities, amounts = (pc.filter(rows[name], kept) for name in ("basket", "quantity", "amount"))
    orders = None if baskets.null_count == len(baskets) else _order_numbers(user, item, age_days, baskets)
    units, paid = (None if c.null_count == len(c) else c.to_numpy().astype(np.float32) for c in (quantities, amounts))
    returned = None
    if "returned_days" in rows.column_names and rows["returned_days"].null_count < len(rows):
        returned = pc.filter(rows["returned_days"], kept).to_numpy().astype(np.float32)
    return sorted_interactions(
        user,
        item,
        age_days.astype(np.float32),
        weights.astype(np.float32),
        shape,
        orders,
        units,
        paid,
        returned,
    )


def _order_numbers(
    users: NDArray[np.int32], items: NDArray[np.int32], age_days: NDArray[np.float64], baskets: pa.ChunkedArray
) -> NDArray[np.int32]:
    """Number baskets by customer, then time, then id.

    A line without a basket gets a number of its own. A basket id of several customers is one basket per customer.
    """
    coded = baskets.combine_chunks().dictionary_encode()
    names = np.asarray(coded.dictionary.to_pylist(), dtype=np.str_)
    place = np.empty(len(names) + 1, dtype=np.int64)
    place[np.argsort(names)], place[-1] = np.arange(len(names)), -1
    code = coded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    alone = np.flatnonzero(code == len(names))
    basket = place[code]
    basket[alone] = len(names) + np.argsort(np.lexsort((age_days[alone], items[alone])))
    _, first, of = np.unique(
        users.astype(np.int64) * (len(names) + len(alone) + 1) + basket, return_index=True, return_inverse=True
    )
    oldest = np.zeros(len(first))
    np.maximum.at(oldest, of, age_days)
    number = np.empty(len(first), dtype=np.int32)
    number[np.lexsort((basket[first], -oldest, users[first]))] = np.arange(len(first), dtype=np.int32)
    return number[of]


def _item_attributes(
    builder: Builder, item_ids: NDArray[np.str_], source: str, as_of: datetime, interactions: Interactions
) -> dict[str, NDArray[Any]]:
    items = builder.backend.table("items").to_pyarrow()
    at = IdMap(items["item_id"].to_pylist()).rows(item_ids)
    known_columns = [
        name for name in items.column_names if name not in NOT_ATTRIBUTES and items[name].null_count < len(items)
    ]
    attributes = {
        name: _attribute(items[name])[at] for name in dict.fromkeys((*known_columns, "category", "brand", "price"))
    }
    attributes["price"] = np.where(
        np.isnan(attributes["price"]), _median_unit_price(interactions), attributes["price"]
    ).astype(np.float32)
    if (
        source == "events"
        and not attributes["category"].astype(bool).any()
        and "category" in builder.states["events"].filled
    ):
        t = builder.backend.table("events").filter(_.ts < ibis.timestamp(as_of.isoformat(sep=" ")))
        pairs = (
            t.filter(t.category.notnull() & t.item_id.notnull())
            .group_by("item_id")
            .aggregate(category=t.category.min())
            .to_pyarrow()
        )
        at = IdMap(pairs["item_id"].to_pylist()).rows(item_ids)
        attributes["category"] = np.asarray([*pairs["category"].to_pylist(), ""], dtype=np.str_)[at]
    return attributes


def _attribute(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of `items` as an array with one more entry: the last is the value of an item without a row."""
    if pa.types.is_boolean(column.type):
        return np.append(column.cast(pa.int8()).fill_null(-1).to_numpy(), np.int8(-1))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.append(column.cast(pa.float32(), safe=False).fill_null(float("nan")).to_numpy(), np.float32("nan"))
    return np.asarray([*column.cast(pa.string()).fill_null("").to_pylist(), ""], dtype=np.str_)


def _median_unit_price(data: Interactions) -> NDArray[np.float32]:
    """Median price paid per unit of each item, NaN if it was never bought, float32 array, shape (n_items,)."""
    paid = np.full(data.shape[1], np.nan, dtype=np.float32)
    if data.amounts is None:
        return paid
    units = np.ones_like(data.amounts) if data.quantities is None else data.quantities
    priced = (data.amounts > 0) & (units > 0)
    items, unit_prices = data.items[priced], data.amounts[priced] / units[priced]
    order = np.lexsort((unit_prices, items))
    sold, first, counts = np.unique(items[order], return_index=True, return_counts=True)
    paid[sold] = unit_prices[order][first + (counts - 1) // 2]
    return paid
