"""Events after the training cutoff, of a request and accepted ones, as interactions for fold-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from pydantic import Field

from features.compute.algebra import SESSION_GAP_SECONDS
from features.interaction_types import ANY, EVENT_WEIGHTS, INTERACTION_TYPES, PURCHASE, type_names
from features.interactions import Interactions
from qianmian.errors import InvalidRequest
from qianmian.schema import EVENT_TYPES
from qianmian.times import days_between
from serving.recommending.catalogue import Catalogue
from serving.requests import Identifier, RequestModel

VISIT_GAP = np.timedelta64(SESSION_GAP_SECONDS, "s")  # a longer pause between events begins another visit
EVENTS_FIELD = "context.events"


class Event(RequestModel):
    """An event of the customer after the as_of of the model."""

    item_id: Identifier
    event_type: str = Field(
        "purchase", max_length=40, description="event type", json_schema_extra={"enum": list(EVENT_TYPES)}
    )
    ts: str = Field(max_length=40, description="time of the event, ISO 8601; UTC if it has no time zone")


class ItemEvent(NamedTuple):
    """An event of the customer that was accepted and concerns an item; `ts` is naive UTC.

    `quantity`, `amount` and `discount`, all that was taken off, are those of an order line; None if unknown.
    """

    item_id: str
    event_type: str
    ts: datetime
    quantity: float | None = None
    amount: float | None = None
    discount: float | None = None


class InteractionRow(NamedTuple):
    """An event as an interaction; `line` are the quantity, amount and discount, NaN if unknown."""

    column: int
    age_days: float
    weight: float
    time: datetime
    type: int
    line: tuple[float, float, float]


NO_LINE = (np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class RecentActivity:
    """What a request and the accepted events of its customer say about the time after the cutoff.

    Attributes
    ----------
    interactions : Interactions or None
        Interactions of the target by one user, row 0, with ages relative to the moment of the list; None if no event
        is used.
    auxiliary : Interactions or None
        In the same form, the interactions of other types that the model learns from.
    elapsed_days : float
        Days from the `as_of` of the fit to the moment of the list.
    ignored : list of dict
        Events that are not used, with `index` and `reason`.
    unknown : list of str
        Item ids of events of the request that the model does not know.
    n_accepted : int
        Number of accepted events that are used.
    """

    interactions: Interactions | None
    auxiliary: Interactions | None
    elapsed_days: float
    ignored: list[dict[str, int | str]]
    unknown: list[str]
    n_accepted: int = 0


def parse_time(text: str, where: str) -> datetime:
    """Parse an ISO 8601 time as naive UTC; `where` is the field named in an error.

    Raises
    ------
    InvalidRequest
        If the text is not an ISO 8601 time.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{where}: not an ISO 8601 time", got=text, allowed="for example 2024-05-01T12:00:00Z", field=where
        ) from error
    try:
        return parsed.astimezone(UTC).replace(tzinfo=None) if parsed.tzinfo is not None else parsed
    except OverflowError as error:  # conversion to UTC can leave the years 1 to 9999
        raise InvalidRequest(f"{where}: outside the years 1 to 9999", got=text, field=where) from error


def recent_activity(
    catalogue: Catalogue,
    as_of: datetime,
    target: str,
    events: Sequence[Event],
    now: str | None,
    accepted: Sequence[ItemEvent] = (),
) -> RecentActivity:
    """Turn the events of a request, and accepted ones, into interactions.

    Parameters
    ----------
    catalogue : Catalogue
        Items of the recommender.
    as_of : datetime
        Cutoff of the fit, naive UTC.
    target : str
        What the model recommends: a type of interaction, or ``any``. Events of the target are used, and those of the
        types that the models of the catalogue learnt from besides (`Recommender.auxiliary_types`).
    events : sequence of Event
        Events of the request.
    now : str, optional
        Moment of the list, ISO 8601; default: the time of the last event that is used or in the request, or `as_of`.
    accepted : sequence of ItemEvent
        Accepted events of the customer. Those that cannot be used are left out silently, as are those that the request
        says too: of the same type, item and second.

    Raises
    ------
    InvalidRequest
        If a time is invalid or later than `now`, if `now` is before `as_of`, or if an event type is unknown.
    """
    times = [parse_time(event.ts, f"{EVENTS_FIELD}[{index}].ts") for index, event in enumerate(events)]
    of_target, besides = type_names(target), _folded_types(catalogue)
    until = parse_time(now, "context.now") if now is not None else None
    used = [
        event
        for event in _unsaid(accepted, events, times)
        if (until is None or event.ts <= until)
        and (event.event_type in of_target or event.event_type in besides)
        and catalogue.item_column(event.item_id) >= 0
    ]
    moment = until if until is not None else max([as_of, *times, *(event.ts for event in used)])
    if moment < as_of:
        raise InvalidRequest(
            "context.now: earlier than the as_of of the model",
            got=now,
            allowed=f"{as_of.isoformat()}Z or later",
            field="context.now",
        )
    ignored: list[dict[str, int | str]] = []
    unknown: dict[str, None] = {}
    rows: list[InteractionRow] = []
    auxiliary: list[InteractionRow] = []

    def take(column: int, kind: str, time: datetime, line: tuple[float, float, float] = NO_LINE) -> None:
        weight = EVENT_WEIGHTS[kind] if target == ANY else 1.0
        row = InteractionRow(column, days_between(time, moment), weight, time, INTERACTION_TYPES.index(kind), line)
        (rows if kind in of_target else auxiliary).append(row)

    for one in used:
        quantity, amount, discount = (np.nan if each is None else each for each in one[3:])
        take(catalogue.item_column(one.item_id), one.event_type, one.ts, (quantity, amount, discount))
    for index, (event, time) in enumerate(zip(events, times, strict=True)):
        column, kind = catalogue.item_column(event.item_id), event.event_type
        if event.event_type not in EVENT_TYPES:
            where = f"{EVENTS_FIELD}[{index}].event_type"
            raise InvalidRequest(
                f"{where}: unknown event type", got=event.event_type, allowed=", ".join(EVENT_TYPES), field=where
            )
        if time > moment:
            where = f"{EVENTS_FIELD}[{index}].ts"
            raise InvalidRequest(f"{where}: later than context.now", got=event.ts, allowed=f"up to {now}", field=where)
        if time < as_of:
            ignored.append({"index": index, "reason": "before as_of: already in the training data"})
        elif column < 0:
            unknown[event.item_id] = None
            ignored.append({"index": index, "reason": "the model does not know the item"})
        elif kind not in of_target and kind not in besides:
            names = [name for name in INTERACTION_TYPES if name in of_target or name in besides]
            learnt = "transactions" if names == [PURCHASE] else ", ".join(names)
            ignored.append({"index": index, "reason": f"the model learns from {learnt}: {kind} does not count"})
        else:
            take(column, kind, time)
    n_items = len(catalogue.item_ids)
    made = _interactions(rows, n_items, visits=target != PURCHASE) if rows else None
    if made is not None and target != ANY:
        made = replace(made, types=None)
    other = _interactions(auxiliary, n_items, visits=True) if auxiliary else None
    return RecentActivity(made, other, days_between(as_of, moment), ignored, list(unknown), len(used))


def _unsaid(accepted: Sequence[ItemEvent], events: Sequence[Event], times: Sequence[datetime]) -> Sequence[ItemEvent]:
    """The accepted events that the request does not say too."""
    if not accepted or not events:
        return accepted
    said = {
        (event.event_type, event.item_id, time.replace(microsecond=0))
        for event, time in zip(events, times, strict=True)
    }
    return [
        event for event in accepted if (event.event_type, event.item_id, event.ts.replace(microsecond=0)) not in said
    ]


def _folded_types(catalogue: Catalogue) -> set[str]:
    """The types beside the target whose events change the lists of a model."""
    return {name for model in catalogue.models if model.supports_fold_in for name in model.auxiliary_types}


def _interactions(rows: Sequence[InteractionRow], n_items: int, *, visits: bool) -> Interactions:
    """Interactions of one user; `orders` are visits, or orders of the events with the same timestamp."""
    items = np.asarray([row.column for row in rows], dtype=np.int32)
    ages = np.asarray([row.age_days for row in rows], dtype=np.float32)
    weights = np.asarray([row.weight for row in rows], dtype=np.float32)
    times, place = np.unique(np.asarray([row.time for row in rows], dtype="datetime64[us]"), return_inverse=True)
    orders = np.arange(len(times), dtype=np.int32)
    if visits:
        orders = np.cumsum(np.diff(times, prepend=times[:1]) > VISIT_GAP).astype(np.int32)
    orders = orders[place]
    types = np.asarray([row.type for row in rows], dtype=np.int8)
    quantities, amounts, discounts = (
        None if np.isnan(column).all() else column for column in np.array([row.line for row in rows], np.float32).T
    )
    interactions = Interactions(
        np.zeros(len(rows), np.int32),
        items,
        ages,
        weights,
        (1, n_items),
        orders,
        quantities,
        amounts,
        types=types,
        discounts=discounts,
    )
    return interactions.where(np.lexsort((weights, ages, items)))
