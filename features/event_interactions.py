"""Interactions recorded as events: views, carts, favourites, and purchases that no order line records."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from features.compute.builder import Builder
from features.compute.views import Views, days_before
from features.encoded_rows import read_encoded
from features.interaction_types import INTERACTION_TYPES, PURCHASE
from features.purchases import PAIR, PURCHASE_SCHEMA

INTERACTION_SCHEMA = PURCHASE_SCHEMA.append(pa.field("type", pa.int8()))  # index in `INTERACTION_TYPES`


def item_events(views: Views, *, beside_lines: bool) -> ir.Table:
    """Events that name an item and are interactions, one row each.

    Parameters
    ----------
    beside_lines : bool
        Whether order lines name items: a purchase event of a customer and an item that transactions have too, whatever
        became of the order, is then the same purchase and left out.
    """
    events = views["events"].filter(_.item_id.notnull(), _.event_type.isin(INTERACTION_TYPES))
    if not beside_lines:
        return events
    sold = views["transactions"].filter(_.item_id.notnull()).select(*PAIR).distinct()
    bought = events.event_type == PURCHASE
    return events.filter(~bought).union(events.filter(bought).anti_join(sold, PAIR))


def event_rows(
    builder: Builder, as_of: datetime, start: datetime | None, types: Collection[str], *, beside_lines: bool
) -> pa.Table:
    """Read the events of some types in ``[start, as_of)`` with `INTERACTION_SCHEMA`; the basket is the session."""
    views = builder.views(as_of)
    rows = item_events(views, beside_lines=beside_lines).filter(_.event_type.isin(list(types)))
    if start is not None:
        rows = rows.filter(_.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    unknown = ibis.null("float64")
    rows = rows.mutate(
        weight=ibis.literal(1.0),
        age_days=days_before(views.cutoff, rows.ts),
        basket=rows.session_id,
        quantity=unknown,
        amount=unknown,
        discount=unknown,
        returned_days=unknown,
        type=rows.event_type.cases(
            *((name, ibis.literal(code, "int8")) for code, name in enumerate(INTERACTION_TYPES)),
            else_=ibis.literal(0, "int8"),
        ),
    )
    return read_encoded(rows, INTERACTION_SCHEMA)
