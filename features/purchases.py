"""Purchases: the order lines from which models learn, each with what was given back of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray

from features.compute.builder import Builder
from features.compute.views import days_before
from features.encoded_rows import ENCODED, concat_encoded, read_encoded
from features.id_map import IdMap
from features.returns import MIN_REFUNDS, UNDATED, Lines, are_credit_notes, has_earlier_sale, own_sales, settle
from qianmian.times import SECONDS_PER_DAY

PURCHASE_SCHEMA = pa.schema(
    {
        "one_id": ENCODED,
        "item_id": ENCODED,
        "age_days": pa.float64(),
        "weight": pa.float32(),
        "basket": ENCODED,
        "quantity": pa.float32(),
        "amount": pa.float32(),
        "discount": pa.float32(),
        "returned_days": pa.float32(),
    }
)
SEPARATOR = "\x1f"  # between the source and the order number in a basket
PAIR = ["one_id", "item_id"]


def not_merchandise(builder: Builder) -> list[str]:
    """Ids of the items that are declared to be no merchandise, sorted."""
    items = builder.backend.table("items")
    found = items.filter(~items.merchandise).select("item_id").to_pyarrow()
    return sorted(found["item_id"].to_pylist())


def purchase_rows(builder: Builder, as_of: datetime, start: datetime | None = None) -> pa.Table:
    """Read the purchases in ``[start, as_of)``: the paid lines that name an item, net of refunds before `as_of`.

    Returns
    -------
    pyarrow.Table
        `PURCHASE_SCHEMA`. ``returned_days`` are the days from the return of the whole line to `as_of` (infinite if the
        refund has no time), null if any of it was kept. `quantity`, `amount` and `discount` (with coupons) of a line
        that was given back in part are those that were kept.
    """
    views = builder.views(as_of)
    timed = "ts" in builder.states["transactions"].filled
    lines = views["lines"].filter(_.item_id.notnull())
    refunds = _read(views["refunds"].filter(_.item_id.notnull()))
    lines = lines.mutate(
        weight=ibis.literal(1.0),
        age_days=days_before(views.cutoff, lines.ts) if timed else ibis.literal(0.0),
        basket=lines.source + SEPARATOR + lines.order_id,
        discount=ibis.ifelse(
            lines.discount.isnull() & lines.coupon_discount.isnull(),
            ibis.null("float64"),
            lines.discount.fill_null(0.0) + lines.coupon_discount.fill_null(0.0),
        ),
        returned_days=ibis.null("float64"),
    )
    inside = lines if start is None else lines.filter(lines.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    if not refunds.num_rows:
        return read_encoded(inside, PURCHASE_SCHEMA)
    pairs = views["refunds"].select(*PAIR).distinct()
    untouched = read_encoded(inside.anti_join(pairs, PAIR), PURCHASE_SCHEMA)
    # of the other pairs, older sales are read too: a refund may name one
    declared = builder.lake.notes()["refunds"]
    touched = _net(lines, _read(lines.semi_join(pairs, PAIR), PURCHASE_SCHEMA.names), refunds, as_of, declared)
    if start is not None:
        touched = touched.filter(pc.greater_equal(touched["ts"], pa.scalar(start, touched["ts"].type)))
    return concat_encoded([untouched, touched], PURCHASE_SCHEMA)


def _read(rows: ir.Table, more: Sequence[str] = ()) -> pa.Table:
    """The rows in an order that does not depend on the engine: by time, order and line."""
    names = dict.fromkeys([*PAIR, "source", "order_id", "line_no", "ts", "quantity", "amount", *more])
    keys = ("ts", "source", "order_id", "line_no", "item_id", "one_id", "quantity", "amount")
    return rows.select(*names).to_pyarrow().sort_by([(name, "ascending") for name in keys])


def _net(lines: ir.Table, sold: pa.Table, refunded: pa.Table, as_of: datetime, declared: Mapping[str, str]) -> pa.Table:
    """The sales of customers and items with refunds: what was kept of each, and when the rest went back."""
    pairs, orders = _codes([sold, refunded], PAIR), _codes([sold, refunded], ["source", "order_id"])
    sales, refunds = (
        Lines(pairs[at], orders[at], _times(table), _numbers(table["quantity"]))
        for at, table in enumerate((sold, refunded))
    )
    taken_back = _are_taken_back(lines, sales, refunds, refunded["source"], declared)
    kept, return_times = settle(sales, refunds.where(taken_back))
    whole = kept == 0.0
    cutoff = int(np.datetime64(as_of, "us").astype(np.int64))
    days = np.where(
        return_times == UNDATED, np.inf, (cutoff - return_times.astype(np.float64)) / (SECONDS_PER_DAY * 1e6)
    )
    for name in ("quantity", "amount", "discount"):
        column = sold[name].cast(pa.float64())
        left = pc.multiply(column, pa.array(np.where(whole, 1.0, kept)))
        sold = sold.set_column(sold.column_names.index(name), name, left)
    return sold.set_column(sold.column_names.index("returned_days"), "returned_days", pa.array(days, mask=~whole))


def _are_taken_back(
    lines: ir.Table, sales: Lines, refunds: Lines, sources: pa.ChunkedArray, declared: Mapping[str, str]
) -> NDArray[np.bool_]:
    """Mask of the refunds that take something back, (r,): not those of sources that mark orders as refunded.

    Parameters
    ----------
    declared : mapping of str to str
        Source → ``in_place`` or ``separate``, for the sources that say how they record refunds.
    """
    own = np.array([bool(rows) for rows in own_sales(sales, refunds)], dtype=bool)
    earlier = has_earlier_sale(sales, refunds)
    counts = np.ones(len(own), dtype=bool)
    of = np.asarray(sources.to_pylist())
    for source in np.unique(of[~own]).tolist():
        alone = (of == source) & ~own
        if source in declared:
            counts[alone] = declared[source] == "separate"
            continue
        matched, total = int(earlier[alone].sum()), int(alone.sum())
        share = _repeat_share(lines, source) if total >= MIN_REFUNDS else 0.0
        counts[alone] = are_credit_notes(matched, total, share)
    return counts


def _repeat_share(lines: ir.Table, source: str) -> float:
    """Share of a source's lines that are not the first of their customer and item."""
    rows = lines.filter(lines.source == source)
    pairs = rows.select(*PAIR).distinct().count().execute()
    total = rows.count().execute()
    return 1.0 - float(pairs) / float(total) if total else 0.0


def _codes(tables: list[pa.Table], names: list[str]) -> list[NDArray[np.int64]]:
    """Number the combinations of the named columns, equal in all tables."""
    joined = [pc.binary_join_element_wise(*(table[name] for name in names), SEPARATOR) for table in tables]
    values = np.unique(np.concatenate([np.asarray(column.to_pylist(), dtype=np.str_) for column in joined]))
    return [IdMap(values).rows(column) for column in joined]


def _times(table: pa.Table) -> NDArray[np.int64]:
    micros = table["ts"].cast(pa.timestamp("us")).cast(pa.int64()).fill_null(UNDATED)
    return np.asarray(micros.to_numpy(), dtype=np.int64)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
