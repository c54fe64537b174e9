"""Read interactions from the lake and build the `TrainingSet` of items."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.data.tables import TOLD
from features.encoded_rows import ENCODED, concat_encoded, text_codes
from features.event_interactions import INTERACTION_SCHEMA, event_rows
from features.id_map import IdMap
from features.interaction_arrays import distinct_customers
from features.interaction_types import ANY, AUTO, EVENT_WEIGHTS, INTERACTION_TYPES, PURCHASE, type_names
from features.interactions import Interactions, TrainingSet, sorted_interactions
from features.promotion_rows import item_promotions
from features.purchases import purchase_rows
from features.targets import choose_target, lines_are_dated, tables_with_items
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


def interaction_rows(
    builder: Builder, as_of: datetime, start: datetime | None = None, *, target: str = PURCHASE
) -> pa.Table:
    """Read the interactions of a target in ``[start, as_of)``.

    Purchases are paid order lines, and purchase events of customers and items that transactions do not have. Lines that
    refunds before `as_of` took back are left out (`features.returns`), and so are items that are no merchandise.

    Returns
    -------
    pyarrow.Table
        Columns one_id, item_id, age_days, weight, basket (order or visit), quantity, amount, discount, type (index in
        `INTERACTION_TYPES`); the texts are dictionary-encoded (`features.encoded_rows`). Basket and what follows it are
        null where the source does not have them. The weight is 1, or `EVENT_WEIGHTS` where the target is ``any``.

    Raises
    ------
    DataError
        If the data has no items, or `start` is given and the data has no timestamps.
    """
    rows = _typed_rows(builder, as_of, start, target, type_names(target))
    return _not_returned(rows).drop_columns(["returned_days"])


def auxiliary_rows(
    builder: Builder, as_of: datetime, start: datetime | None = None, *, target: str = PURCHASE
) -> pa.Table | None:
    """Read the interactions of the types that are not the target, as `interaction_rows` does, each of weight 1.

    None where all types are the target, where no events name items, and beside order lines without times: the events
    would tell of purchases that are held out.
    """
    others = [name for name in INTERACTION_TYPES if name not in type_names(target)]
    states = builder.states_at(as_of)
    if not others or "events" not in tables_with_items(states) or not lines_are_dated(states):
        return None
    rows = _typed_rows(builder, as_of, start, target, others)
    return _not_returned(rows).drop_columns(["returned_days"])


def _not_returned(rows: pa.Table) -> pa.Table:
    """The rows without ``returned_days``; a copy, which takes as much memory as the rows, only where some have it."""
    returned = rows["returned_days"]
    return rows if returned.null_count == len(rows) else rows.filter(pc.is_null(returned))


def _typed_rows(
    builder: Builder, as_of: datetime, start: datetime | None, target: str, types: Collection[str]
) -> pa.Table:
    """Rows of the named types, with the column ``returned_days`` of `purchase_rows`."""
    tables = target_tables(builder, as_of, target)
    if start is not None and not lines_are_dated(builder.states) and "transactions" in tables:
        raise DataError(
            "the data has no timestamps, so a period cannot be selected",
            where="transactions",
            hint="map `ts` in sources.yaml",
        )
    parts = []
    if "transactions" in tables and PURCHASE in types:
        lines = purchase_rows(builder, as_of, start)
        parts.append(lines.append_column("type", pa.array(np.zeros(len(lines), np.int8))))
    if "events" in tables:
        parts.append(event_rows(builder, as_of, start, types, beside_lines="transactions" in tables))
    rows = concat_encoded(parts, INTERACTION_SCHEMA)
    if target != ANY:
        return rows
    weights = np.array([EVENT_WEIGHTS[name] for name in INTERACTION_TYPES], np.float32)[rows["type"].to_numpy()]
    return rows.set_column(rows.column_names.index("weight"), "weight", pa.array(weights))


def target_tables(builder: Builder, as_of: datetime, target: str) -> tuple[str, ...]:
    """The tables that are read: of undated order lines beside events, the one that the target needs."""
    states = builder.states_at(as_of)
    tables = tables_with_items(states)
    if len(tables) == 2 and not lines_are_dated(states):
        return ("transactions",) if target == PURCHASE else ("events",)
    return tables


def training_set(
    builder: Builder,
    as_of: datetime,
    *,
    min_item_customers: int | None = 5,
    max_items: int = 200_000,
    target: str = AUTO,
    with_features: bool = True,
) -> TrainingSet:
    """Build the training set at `as_of`.

    Parameters
    ----------
    min_item_customers : int or None
        Items with fewer customers before `as_of`, by interactions of any type, are left out and cannot be recommended.
        None is 1.
    max_items : int
        The most popular items that are kept.
    target : str
        What is recommended; ``auto`` is `features.targets.choose_target` at `as_of`.
    with_features : bool
        Whether `user_features` is filled with the profile features at `as_of`.

    Raises
    ------
    DataError
        If no item has that many customers, or nobody has an interaction of the target.
    """
    if target == AUTO:
        target = choose_target(builder, as_of).name
    rows = _typed_rows(builder, as_of, None, target, type_names(target))
    tables = target_tables(builder, as_of, target)
    if not len(rows):
        raise DataError(
            f"nobody has an interaction of the target ({target}) before {as_of.date()}",
            where=" and ".join(tables),
            hint="set recommend.target to a type of interaction that occurs, or ingest a longer history",
        )
    others = auxiliary_rows(builder, as_of, target=target)
    customers = builder.views(as_of).customers.select("one_id").distinct().order_by("one_id").to_pyarrow()
    user_ids = np.asarray(customers["one_id"].to_pylist(), dtype=np.str_)
    user_map = IdMap(user_ids)
    least = 1 if min_item_customers is None else min_item_customers
    item_ids, left_out = _catalogue(rows, others, user_map, least, max_items)
    if not len(item_ids):
        raise DataError(
            f"no item has at least {least} customers before {as_of.date()}",
            where=" and ".join(tables),
            hint="lower recommend.min_item_customers in qianmian.yaml, or ingest more data",
        )
    item_map, shape = IdMap(item_ids), (len(user_ids), len(item_ids))

    users, items = user_map.rows(rows["one_id"]), item_map.rows(rows["item_id"])
    rows = rows.drop_columns(["one_id", "item_id"])  # a third of the memory of the rows
    interactions, returned = interactions_from_rows(rows, users, items, shape).without_returned()
    del rows, users, items
    auxiliary = None
    if others is not None:
        users, items = user_map.rows(others["one_id"]), item_map.rows(others["item_id"])
        auxiliary = interactions_from_rows(others, users, items, shape)
        del others, users, items
    if target != ANY:
        interactions = replace(interactions, types=None)
        returned = None if returned is None else replace(returned, types=None)
    features = None
    if with_features:
        built = builder.build(as_of).matrix()
        features = built.take(built.rows_of(user_ids))
    attributes = _item_attributes(builder, item_ids, tables, as_of, interactions)
    promotions = None
    if "promotions" in builder.states and lines_are_dated(builder.states):
        promotions = item_promotions(builder.backend, as_of, item_ids, attributes["category"])
    return TrainingSet(
        user_ids,
        item_ids,
        interactions,
        attributes,
        features,
        as_of,
        " and ".join(tables),
        returned=returned,
        auxiliary=auxiliary if auxiliary is not None and len(auxiliary) else None,
        target=target,
        items_left_out=left_out,
        promotions=promotions,
    )


def _catalogue(
    rows: pa.Table, others: pa.Table | None, users: IdMap, min_item_customers: int, max_items: int
) -> tuple[NDArray[np.str_], int]:
    """Ids of the items that are kept, the most popular first, and how many popular enough items `max_items` cuts.

    Items go by their customers in the target, then lines in the target, then customers of any type, then id.
    """
    kept = _not_returned(rows.select(["one_id", "item_id", "returned_days"]))
    parts = [kept] if others is None else [kept, others]
    texts, codes = text_codes(pa.chunked_array([chunk for part in parts for chunk in part["item_id"].chunks], ENCODED))
    names = np.asarray(texts.to_pylist(), dtype=np.str_)
    owners = np.concatenate([users.rows(part["one_id"]) for part in parts])
    of_target = np.arange(len(codes)) < len(kept)

    shape, known = (len(users), len(names)), owners >= 0
    bought = distinct_customers(owners[of_target & known], codes[of_target & known], shape)
    met = bought if others is None else distinct_customers(owners[known], codes[known], shape)
    lines = np.bincount(codes[of_target], minlength=len(names))
    order = np.lexsort((names, -met, -lines, -bought))
    order = order[met[order] >= min_item_customers]
    return names[order[:max_items]], max(0, len(order) - max_items)


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
    mask = None if known.all() else pa.array(known)
    user, item = users[known].astype(np.int32), items[known].astype(np.int32)

    def kept(name: str) -> pa.ChunkedArray:
        return rows[name] if mask is None else pc.filter(rows[name], mask)

    baskets, age_days = kept("basket").dictionary_encode(), kept("age_days").to_numpy()
    orders = None if baskets.null_count == len(baskets) else _order_numbers(user, item, age_days, baskets)
    age_days = age_days.astype(np.float32)
    del baskets

    def numbers(name: str) -> NDArray[np.float32] | None:
        """A column of numbers that is left out where no kept row fills it."""
        column = kept(name)
        return None if column.null_count == len(column) else column.to_numpy().astype(np.float32, copy=False)

    def given(name: str, dtype: type[np.generic]) -> NDArray[Any] | None:
        """A column that is left out where nothing fills it."""
        if name not in rows.column_names or rows[name].null_count == len(rows):
            return None
        return np.asarray(kept(name).to_numpy(), dtype=dtype)

    return sorted_interactions(
        user,
        item,
        age_days,
        kept("weight").to_numpy().astype(np.float32, copy=False),
        shape,
        orders,
        numbers("quantity"),
        numbers("amount"),
        given("returned_days", np.float32),
        given("type", np.int8),
        given("discount", np.float32),
    )


def _order_numbers(
    users: NDArray[np.int32], items: NDArray[np.int32], age_days: NDArray[np.float64], baskets: pa.ChunkedArray
) -> NDArray[np.int32]:
    """Number baskets by customer, then time, then id.

    A line without a basket gets a number of its own. A basket id of several customers is one basket per customer.
    """
    names, codes = text_codes(baskets)
    place = np.empty(len(names) + 1, dtype=np.int64)
    place[pc.array_sort_indices(names).to_numpy()], place[-1] = np.arange(len(names)), -1
    alone = np.flatnonzero(codes < 0)
    basket = place[codes]
    basket[alone] = len(names) + np.argsort(np.lexsort((age_days[alone], items[alone])))
    owner = np.full(len(names) + len(alone), -1, dtype=np.int32)
    owner[basket] = users
    # of a basket of several customers, the rows of all but one are groups of their own; only these few are sorted
    shared = np.flatnonzero(owner[basket] != users)
    pairs, of = np.unique(users[shared].astype(np.int64) * len(owner) + basket[shared], return_inverse=True)
    group, basket_of = basket, np.concatenate([np.arange(len(owner)), pairs % len(owner)])
    group[shared] = len(owner) + of
    owner = np.concatenate([owner, (pairs // len(owner)).astype(np.int32)])
    oldest = np.zeros(len(owner))
    np.maximum.at(oldest, group, age_days)
    present = np.flatnonzero(owner >= 0)
    number = np.empty(len(owner), dtype=np.int32)
    in_order = np.lexsort((basket_of[present], -oldest[present], owner[present]))
    number[present[in_order]] = np.arange(len(present), dtype=np.int32)
    return number[group]


def _item_attributes(
    builder: Builder, item_ids: NDArray[np.str_], tables: Sequence[str], as_of: datetime, interactions: Interactions
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
        "events" in tables
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
    # one number for both keys: the bits of positive floats are in the order of the floats
    keys = (data.amounts[priced] / units[priced]).view(np.int32) | (data.items[priced].astype(np.int64) << 32)
    keys.sort()
    sold, first, counts = np.unique(keys >> 32, return_index=True, return_counts=True)
    paid[sold] = keys[first + (counts - 1) // 2].astype(np.int32).view(np.float32)
    return paid
