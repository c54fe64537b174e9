"""The price level of an item: how dear it is among the items of its category.

Quantities have the units of their goods (pieces, grams, thousandths of a gallon), so amount ÷ quantity compares
nothing. The price of an item is therefore what a usual line of it costs before discounts: the median over its lines,
which stays when the item is sold in other units, or when a few lines are very large. The level is the logarithm of this
price ÷ the usual price in the category, between −ln 4 and ln 4: 0.1 is 10 % dearer, −0.1 is 10 % cheaper. An item has
none without a category, if it is no merchandise, and in a category with too few sold items to choose from.
"""

from __future__ import annotations

import math

import ibis.expr.types as ir
from ibis import _

from features.compute.algebra import PRICE_LEVEL

PRICED_DAYS = 365  # older lines tell old prices
MIN_ITEMS = 5  # sold items of a category; from fewer there is hardly a choice between cheap and dear
MAX_LEVEL = math.log(4)  # an item further from its category is of another kind, or booked by other amounts


def item_price_levels(lines: ir.Table, items: ir.Table) -> ir.Table:
    """Price levels of the items, from the paid lines of a period.

    Parameters
    ----------
    lines : ibis.expr.types.Table
        Paid order lines with `item_id`, `amount`, `discount`, `coupon_discount`.
    items : ibis.expr.types.Table
        The canonical items.

    Returns
    -------
    ibis.expr.types.Table
        `item_id` and `price_level`, one row per item that has one, unordered.
    """
    before_discounts = lines.amount + lines.discount.fill_null(0.0) + lines.coupon_discount.fill_null(0.0)
    lines = lines.select("item_id", amount=before_discounts).filter(_.item_id.notnull(), _.amount > 0.0)
    sold = lines.group_by("item_id").aggregate(lines=lines.count().cast("float64"), price=lines.amount.median().ln())
    chosen = items.filter(items.category.notnull(), items.merchandise.fill_null(True)).select("item_id", "category")
    sold = sold.inner_join(chosen, "item_id")
    # the usual price is the geometric mean over lines, so that rarely sold items do not count as much as the others
    weighted, lines_sold = (sold.lines * sold.price).sum(), sold.lines.sum()
    usual = weighted.over(group_by="category") / lines_sold.over(group_by="category")
    levels = sold.select(
        "item_id",
        price_level=(sold.price - usual).clip(-MAX_LEVEL, MAX_LEVEL),
        items_sold=sold.item_id.count().over(group_by="category"),
    )
    return levels.filter(levels.items_sold >= MIN_ITEMS).select("item_id", PRICE_LEVEL)


def with_price_levels(rows: ir.Table, levels: ir.Table) -> ir.Table:
    """Lines or events with the column `price_level`, null where their item has none."""
    return rows.left_join(levels, "item_id").drop("item_id_right")
