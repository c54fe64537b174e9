"""The rows of promotions of the items of a catalogue, read from the table `promotions`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from ibis import _
from numpy.typing import NDArray

from features.compute.views import days_before, timestamp
from features.id_map import IdMap
from features.promotions import CATEGORY_SEPARATOR, HISTORY_DAYS, MOMENTS, Ints, ItemPromotions, Numbers


def item_promotions(
    backend: Any,
    as_of: datetime,
    item_ids: NDArray[np.str_],
    categories: NDArray[np.str_],
    *,
    known_before: datetime | None = None,
    ended_days: float = HISTORY_DAYS,
) -> ItemPromotions | None:
    """Read the promotions of the items of a catalogue that are known at `as_of`, past and planned.

    Parameters
    ----------
    backend : Ibis backend
        Of the lake (`Lake.connect`, `Builder.backend`).
    as_of : datetime
        The cutoff from which days are counted, naive UTC.
    item_ids, categories : ndarray of str, (n_items,)
        The items, and their category paths ('' if unknown).
    known_before : datetime, optional
        Read also what was known after `as_of` and before this moment; `ItemPromotions.later` keeps what is known.
    ended_days : float
        Promotions that ended earlier before `as_of` are left out.

    Returns
    -------
    ItemPromotions or None
        None if no promotion of these items is known.
    """
    t, cutoff = backend.table("promotions"), timestamp(as_of)
    oldest = timestamp(as_of - timedelta(days=ended_days))
    t = t.filter(t.known_at < timestamp(known_before or as_of))
    # a row is replaced by those of the same plan that were known later, whatever these say
    of_plan, after = ("source", "plan_id", "item_id", "category", "kind"), (ibis.interval(microseconds=1), None)
    has_plans = t.plan_id.notnull().any().execute()
    following = t.known_at.min().over(ibis.window(group_by=of_plan, order_by=t.known_at, range=after))
    t = t.mutate(replaced_at=ibis.cases((t.plan_id.notnull(), following)) if has_plans else ibis.null("timestamp"))
    t = t.filter(~t.withdrawn.fill_null(False), t["end"].isnull() | (t["end"] >= oldest))
    rows = t.select(
        _.item_id,
        _.category,
        kind=_.kind.fill_null(""),
        start_days=days_before(cutoff, t["start"]),
        end_days=days_before(cutoff, t["end"]),
        known_days=days_before(cutoff, t.known_at),
        replaced_days=days_before(cutoff, t.replaced_at),
        reach=_.reach.fill_null(1.0),
    ).to_pyarrow()
    place, items = _items_of(rows, item_ids, categories)
    if not len(items):
        return None
    names = np.asarray(rows["kind"].to_pandas().to_numpy(), dtype=np.str_)[place]
    known, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    by_count = np.lexsort((known, -counts))
    rank = np.empty(len(known), dtype=np.int16)
    rank[by_count] = np.arange(len(known), dtype=np.int16)
    kinds = rank[codes]

    moments = {name: np.asarray(rows[name].fill_null(-np.inf).to_numpy()[place], dtype=np.float32) for name in MOMENTS}
    reach = np.asarray(rows["reach"].to_numpy()[place], dtype=np.float32)
    start, end, known_days, replaced_days = moments.values()
    order = np.lexsort((reach, replaced_days, -known_days, end, kinds, -start, items))
    columns: dict[str, Numbers] = {"items": items.astype(np.int32), "kinds": kinds, **moments, "reach": reach}
    return ItemPromotions(
        **{name: column[order] for name, column in columns.items()},
        kind_names=tuple(known[by_count].tolist()),
        n_items=len(item_ids),
    )


def _items_of(rows: pa.Table, item_ids: NDArray[np.str_], categories: NDArray[np.str_]) -> tuple[Ints, Ints]:
    """Return the places of rows and the items that each of them promotes, a pair for each item of a category."""
    items = IdMap(item_ids).rows(rows["item_id"])
    named = np.flatnonzero(items >= 0)
    places, found = [named], [items[named]]
    of_category = np.asarray(rows["category"].is_valid()) & np.asarray(rows["item_id"].is_null())
    if of_category.any():
        coded = rows["category"].combine_chunks().dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        paths = categories.astype(np.str_)
        for code, category in enumerate(coded.dictionary.to_pylist()):
            own = np.flatnonzero(of_category & (codes == code))
            inside = np.flatnonzero((paths == category) | np.char.startswith(paths, f"{category}{CATEGORY_SEPARATOR}"))
            places.append(np.repeat(own, len(inside)))
            found.append(np.tile(inside, len(own)))
    return np.concatenate(places), np.concatenate(found)
