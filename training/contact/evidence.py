"""What tells when and through which channel customers respond: responses to contacts, or what stands in for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray
from scipy import sparse

from features.compute.builder import Builder
from features.compute.views import Views, timestamp
from features.id_map import IdMap
from features.profiles.tags.behaviour import VISIT_EVENTS
from models.contact import N_CELLS, TIMES, cell_of
from models.pooled_patterns import Responses, compared

MIN_CUSTOMERS = 50  # with a response, in each period
MIN_SENT_TIMES = 8  # more than one slot of the week; where messages went to fewer times, none is known to be better
PERIODS = ("history", "validation", "test")
MESSAGE_EVENTS = ("message_open", "message_click")
KEYS = ("one_id", "period", "weekday", "hour", "channel")
TYPES = {"one_id": "string", "channel": "string", **dict.fromkeys(("period", "weekday", "hour"), "float64")}
TYPES |= dict.fromkeys(("responses", "exposures"), "float64")


@dataclass(frozen=True)
class ContactEvidence:
    """Counts of responses of n customers by time of the week and channel, a row for each combination that occurs.

    Attributes
    ----------
    name : str
        Kind of the responses, in words.
    customers, period, cell, channel : ndarray of int64
        Row of the customer; index in `PERIODS`; place in `models.contact.CELLS` and in `channel_names`, −1 if unknown.
    responses : ndarray of float64
    exposures : ndarray of float64 or None
        Messages sent; None if the data do not tell.
    is_stand_in : bool
        Whether these are no responses to contacts, and only stand in for them.
    """

    name: str
    n_customers: int
    channel_names: tuple[str, ...]
    customers: NDArray[np.int64]
    period: NDArray[np.int64]
    cell: NDArray[np.int64]
    channel: NDArray[np.int64]
    responses: NDArray[np.float64]
    exposures: NDArray[np.float64] | None = None
    is_stand_in: bool = False

    def of(self, part: str) -> list[Responses]:
        """Responses by time (`TIMES`) or by channel (`CHANNELS`), one matrix for each of `PERIODS`."""
        places = self.cell if part == TIMES else self.channel
        shape = (self.n_customers, N_CELLS if part == TIMES else len(self.channel_names))

        def matrix(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> sparse.csr_matrix:
            entries = (values[kept].astype(np.float32), (self.customers[kept], places[kept]))
            return sparse.csr_matrix(entries, shape=shape)

        found = []
        for period in range(len(PERIODS)):
            kept = (self.period == period) & (places >= 0)
            exposures = None if self.exposures is None else matrix(self.exposures, kept)
            found.append(Responses(matrix(self.responses, kept), exposures))
        return found


def read_evidence(
    builder: Builder, as_of: datetime, starts: tuple[datetime, datetime], people: IdMap
) -> list[ContactEvidence]:
    """Every kind of evidence that the lake has rows of, the best first.

    Opened and clicked messages of `touches` come first, because the messages that had no response are known too. Then
    come events of opened and clicked messages, and last orders and visits, which only stand in for responses.

    Parameters
    ----------
    builder : Builder
    as_of : datetime
        Only earlier rows are read.
    starts : tuple of datetime
        Where the validation and the test period begin.
    people : IdMap
        one_id → row.
    """
    views, states = builder.views(as_of), builder.states_at(as_of)
    filled = {name: frozenset(state.filled) if state.rows else frozenset() for name, state in states.items()}
    found = []
    touched = filled.get("touches", frozenset())
    if touched & {"opened", "clicked"} and "ts" in touched:
        campaigns = filled.get("campaigns", frozenset())
        rows = _touches(views, touched, "channel" in campaigns)
        found.append(_counted("opened and clicked messages", [rows], starts, people, exposed=True))
    if "ts" in filled.get("events", ()):
        events = views["events"].filter(_.event_type.isin(MESSAGE_EVENTS))
        rows = events.mutate(responses=1, exposures=1)
        found.append(_counted("events of opened and clicked messages", [rows], starts, people))
    found.append(_counted("orders and visits", list(_visits(views, filled)), starts, people, is_stand_in=True))
    return [one for one in found if len(one.customers)]


def too_little(evidence: ContactEvidence, part: str) -> str:
    """Why the evidence cannot tell times or channels, and what would be enough; empty if it can."""
    periods = evidence.of(part)
    places = evidence.cell if part == TIMES else evidence.channel
    if (places < 0).all():
        return "they are dates without a clock time" if part == TIMES else "they name no channel"
    cells = np.unique(places[places >= 0])
    if len(cells) < 2:
        one = "at one time of the week" if part == TIMES else f"through {evidence.channel_names[cells[0]]}"
        return f"all are {one}, so there is nothing to choose"
    if part == TIMES and evidence.exposures is not None:
        sent = np.unique(places[(evidence.period == 0) & (evidence.exposures > 0) & (places >= 0)])
        if len(sent) < MIN_SENT_TIMES:
            return f"messages went out at {len(sent)} of the {N_CELLS} times of the week; {MIN_SENT_TIMES} are needed"
    for name, period in zip(PERIODS, periods, strict=True):
        if (customers := len(compared(period))) < MIN_CUSTOMERS:
            return f"{customers} customers responded in the {name} period; {MIN_CUSTOMERS} are needed"
    return ""


def _touches(views: Views, filled: frozenset[str], has_channels: bool) -> ir.Table:
    touches = views["touches"]
    responded = ibis.literal(False)
    for name in ("opened", "clicked"):
        responded = responded | touches[name].fill_null(False)
    arrived = touches.delivered.fill_null(False) | responded if "delivered" in filled else ibis.literal(True)
    touches = touches.mutate(responses=responded.cast("int64"), arrived=arrived)
    touches = touches.filter(touches.arrived).mutate(exposures=1)
    if not has_channels:
        return touches.mutate(channel=ibis.null("string"))
    campaigns = views.rows.backend.table("campaigns").select("campaign_id", "channel")
    return touches.left_join(campaigns, "campaign_id")


def _visits(views: Views, filled: dict[str, frozenset[str]]) -> Iterator[ir.Table]:
    """Orders, and hours in which a customer visited."""
    if "ts" in filled.get("transactions", ()):
        yield views["orders"].filter(_.ts.notnull()).mutate(responses=1, exposures=1)
    if "ts" in filled.get("events", ()):
        events = views["events"].filter(_.event_type.isin(VISIT_EVENTS))
        hours = events.group_by(["one_id", "day", "weekday", "hour", "channel"]).aggregate(ts=events.ts.min())
        yield hours.mutate(responses=1, exposures=1)


def _counted(
    name: str,
    parts: Iterable[ir.Table],
    starts: tuple[datetime, datetime],
    people: IdMap,
    *,
    exposed: bool = False,
    is_stand_in: bool = False,
) -> ContactEvidence:
    validation, test = map(timestamp, starts)
    tables = []
    for rows in parts:
        rows = rows.mutate(period=ibis.cases((rows.ts < validation, 0), (rows.ts < test, 1), else_=2))
        counted = rows.group_by(list(KEYS)).aggregate(responses=rows.responses.sum(), exposures=rows.exposures.sum())
        tables.append(counted.cast(TYPES).select(list(TYPES)).to_pyarrow())
    table = pa.concat_tables(tables) if tables else pa.table({column: pa.array([], pa.null()) for column in TYPES})
    customers = people.rows(table["one_id"].combine_chunks())
    kept = customers >= 0
    channels = table["channel"].combine_chunks()
    channel_names = tuple(sorted({text for text in pc.unique(channels).to_pylist() if text}))
    numbers = {column: table[column].to_numpy()[kept] for column in ("period", "weekday", "hour")}
    counts = {column: table[column].to_numpy()[kept].astype(np.float64) for column in ("responses", "exposures")}
    return ContactEvidence(
        name,
        len(people),
        channel_names,
        customers[kept],
        numbers["period"].astype(np.int64),
        cell_of(numbers["weekday"].astype(np.float64), numbers["hour"].astype(np.float64)),
        IdMap(channel_names).rows(channels)[kept],
        counts["responses"],
        counts["exposures"] if exposed else None,
        is_stand_in,
    )
