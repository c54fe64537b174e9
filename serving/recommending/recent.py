"""What a customer did after the recommender was fitted, as the caller tells it with the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pydantic import Field

from features.interactions import EVENT_WEIGHTS, Interactions
from qianmian.errors import InvalidRequest
from qianmian.schema import EVENT_TYPES
from qianmian.times import days_between
from serving.recommending.catalogue import Catalogue
from serving.requests import Identifier, RequestModel

EVENTS_FIELD = "context.events"


class Event(RequestModel):
    """Something the customer did since the model's as_of."""

    item_id: Identifier
    event_type: str = Field(
        "purchase", description="one of the event types", json_schema_extra={"enum": list(EVENT_TYPES)}
    )
    ts: str = Field(max_length=40, description="when; ISO 8601, UTC where it names no zone")


@dataclass(frozen=True)
class RecentActivity:
    """What a request tells of the time after the fit.

    Attributes
    ----------
    interactions : Interactions or None
        Of one user, row 0, ages counted back from `moment`; None where nothing counts.
    elapsed_days : float
        From the `as_of` of the fit to `moment`.
    ignored : list of dict
        Events that do not count: their index and why.
    unknown : list of str
        Items of events that the model does not know.
    """

    interactions: Interactions | None
    elapsed_days: float
    ignored: list[dict[str, int | str]]
    unknown: list[str]


def parse_time(text: str, where: str) -> datetime:
    """An ISO 8601 time as naive UTC.

    Raises
    ------
    InvalidRequest
        It is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{where}: not a time", got=text, allowed="ISO 8601, such as 2024-05-01T12:00:00Z", field=where
        ) from error
    try:
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo is not None else found
    except OverflowError as error:  # year 1 and year 9999 have no other time zone
        raise InvalidRequest(f"{where}: beyond the calendar", got=text, field=where) from error


def recent_activity(
    catalogue: Catalogue, as_of: datetime, interaction_source: str, events: Sequence[Event], now: str | None
) -> RecentActivity:
    """The events as interactions.

    Parameters
    ----------
    interaction_source : str
        ``transactions``: the model counts what is bought, so only purchases count. ``events``: everything counts with its weight.
    now : str, optional
        The moment to answer for; default that of the last event.

    Raises
    ------
    InvalidRequest
        A time that is none, that lies after `now`, or a `now` before the fit.
    """
    times = [parse_time(event.ts, f"{EVENTS_FIELD}[{index}].ts") for index, event in enumerate(events)]
    moment = parse_time(now, "context.now") if now is not None else max([as_of, *times])
    if moment < as_of:
        raise InvalidRequest(
            "context.now: the model has seen what came after",
            got=now,
            allowed=f"{as_of.isoformat()}Z or later",
            field="context.now",
        )
    ignored: list[dict[str, int | str]] = []
    unknown: dict[str, None] = {}
    rows: list[tuple[int, float, float, datetime]] = []
    for index, (event, time) in enumerate(zip(events, times, strict=True)):
        column, weight = catalogue.item_column(event.item_id), _weight(event.event_type, interaction_source)
        if event.event_type not in EVENT_TYPES:
            where = f"{EVENTS_FIELD}[{index}].event_type"
            raise InvalidRequest(
                f"{where}: unknown event type", got=event.event_type, allowed=", ".join(EVENT_TYPES), field=where
            )
        if time > moment:
            where = f"{EVENTS_FIELD}[{index}].ts"
            raise InvalidRequest(
                f"{where}: after the moment asked for", got=event.ts, allowed=f"up to {now}", field=where
            )
        if time < as_of:
            ignored.append({"index": index, "reason": "before as_of: the model knows it already"})
        elif column < 0:
            unknown[event.item_id] = None
            ignored.append({"index": index, "reason": "the model does not know the item"})
        elif not weight:
            ignored.append(
                {
                    "index": index,
                    "reason": f"the model learns from {interaction_source}: {event.event_type} does not count",
                }
            )
        else:
            rows.append((column, days_between(time, moment), weight, time))
    later = days_between(as_of, moment)
    return RecentActivity(_interactions(rows, len(catalogue.item_ids)) if rows else None, later, ignored, list(unknown))


def _weight(event_type: str, interaction_source: str) -> float:
    if interaction_source == "events":
        return EVENT_WEIGHTS.get(event_type, 0.0)
    return 1.0 if event_type == "purchase" else 0.0


def _interactions(rows: Sequence[tuple[int, float, float, datetime]], n_items: int) -> Interactions:
    items = np.asarray([row[0] for row in rows], dtype=np.int32)
    ages = np.asarray([row[1] for row in rows], dtype=np.float32)
    weights = np.asarray([row[2] for row in rows], dtype=np.float32)
    # what happened at one moment was one order
    orders = np.unique(np.asarray([row[3] for row in rows], dtype="datetime64[us]"), return_inverse=True)[1].astype(
        np.int32
    )
    return Interactions(np.zeros(len(rows), np.int32), items, ages, weights, (1, n_items), orders).where(
        np.lexsort((weights, ages, items))
    )
