"""Counts in the inactivity window of each customer: the columns that `falling_asleep_reason` reads.

A window of the feature algebra ends at `as_of` for all customers. The inactivity window depends on the customer: it
begins at the last order and ends when the silence becomes longer than usual, after `USUAL_GAPS` own gaps. Later
messages, which try to reactivate the customer, are therefore not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import ibis
import numpy as np
import pyarrow as pa
from ibis import _

from features.compute.views import Views
from features.data.lake import TableState
from features.profiles.lifecycle import INACTIVITY_CONTACTS, INACTIVITY_RESPONSES, INACTIVITY_VISITS, USUAL_GAPS
from features.profiles.purchase_process.process import PROCESS_FEATURES, PurchaseProcess
from qianmian.times import SECONDS_PER_DAY

NON_VISIT_EVENTS = ("message_open", "message_click", "purchase", "service")


def inactivity_columns(
    views: Views, table: pa.Table, states: Mapping[str, TableState], process: PurchaseProcess | None
) -> dict[str, pa.Array]:
    """Delivered contacts, opened or clicked contacts, and visits in the inactivity window of each row of `table`.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    table : pyarrow.Table
        Table of the profile build, n rows.
    states : mapping of str to TableState
        State of the canonical tables at the cutoff.
    process : PurchaseProcess or None
        Purchase process of the shop; None without orders with times.

    Returns
    -------
    dict of str to pyarrow.Array
        Column name → n counts as float64. Columns whose tables are empty are missing; without orders with times, all
        are.
    """
    filled = {
        name: set(states[name].filled) if name in states and states[name].rows else set()
        for name in ("touches", "events")
    }
    if process is None or "ts" not in filled["touches"] | filled["events"]:
        return {}
    columns = {name: table[name].to_numpy() for name in PROCESS_FEATURES}
    days, buyers = columns["days_since_last_order"], columns["orders_total"] > 0
    span = np.minimum(process.own_gap_days(columns) * USUAL_GAPS, days)
    begin = [
        views.as_of - timedelta(seconds=round(float(day) * SECONDS_PER_DAY)) if buyer else None
        for day, buyer in zip(days, buyers, strict=True)
    ]
    end = [
        start and start + timedelta(seconds=round(float(long) * SECONDS_PER_DAY))
        for start, long in zip(begin, span, strict=True)
    ]
    moment = pa.timestamp("us")
    people = ibis.memtable(
        pa.table({"one_id": table["one_id"], "begin": pa.array(begin, moment), "end": pa.array(end, moment)})
    )
    made: dict[str, pa.Array] = {}
    if "ts" in filled["touches"]:
        rows = views["touches"].filter(_.delivered.fill_null(True))
        inside = rows.inner_join(people, "one_id").filter((_.ts >= _.begin) & (_.ts < _.end))
        answered = _.opened.fill_null(False) | _.clicked.fill_null(False)
        counts = inside.group_by("one_id").aggregate(contacts=_.count(), responses=_.count(where=answered)).to_pyarrow()
        made[INACTIVITY_CONTACTS] = _aligned(table, counts, "contacts")
        if filled["touches"] & {"opened", "clicked"}:
            made[INACTIVITY_RESPONSES] = _aligned(table, counts, "responses")
    if "ts" in filled["events"]:
        rows = views["events"].filter(_.event_type.notin(NON_VISIT_EVENTS))
        inside = rows.inner_join(people, "one_id").filter((_.ts > _.begin) & (_.ts < _.end))
        counts = inside.group_by("one_id").aggregate(visits=_.count()).to_pyarrow()
        made[INACTIVITY_VISITS] = _aligned(table, counts, "visits")
    return made


def _aligned(table: pa.Table, counts: pa.Table, column: str) -> pa.Array:
    found = dict(zip(counts["one_id"].to_pylist(), counts[column].to_pylist(), strict=True))
    return pa.array([float(found.get(one_id, 0)) for one_id in table["one_id"].to_pylist()], pa.float64())
