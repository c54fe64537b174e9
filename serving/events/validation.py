"""The events of a request: each is validated by itself, so that a wrong one does not keep the others back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import ConfigDict, Field, JsonValue, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from features.event_log import AcceptedEvent
from features.event_log.rows import NO_CUSTOMER, encode, make_row
from qianmian.errors import InvalidRequest, QianmianError, did_you_mean
from qianmian.schema import (
    ANONYMOUS_ID,
    AVAILABILITY,
    CONSENT,
    CONSENT_CHANNELS,
    EVENT_TYPES,
    LOGINS,
    ORDER_STATUSES,
    REQUEST_TYPES,
    TABLES,
)
from serving.recommending.recent import parse_time
from serving.requests import MAX_ATTRIBUTES, NUL, Identifier, RequestModel, Text, path_of_nul, request_error

EARLIEST = datetime(1971, 1, 1)  # times of 1970 are zeros and counters
DATE_LENGTH = len("2024-05-01")
MAX_PROPERTIES_BYTES = 10_000  # of the properties of an event as JSON
PURCHASE = "purchase"
REQUEST_FIELDS = {"source": "user_source", "source_user_id": "user_id"}  # of columns with another name in requests

OptionalId = Identifier | None


class CustomerEvent(RequestModel):
    """An event of a customer, or about an item (`availability`).

    A purchase has the columns of `transactions`, a consent is one of `profiles`, an availability one of `items`; every
    other type has those of `events`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    event_id: Identifier = Field(description="unique within the source; an event that is sent again is stored once")
    user_id: OptionalId = Field(
        None,
        description=f"id of the customer in the caller's system, known or not; required, but for {AVAILABILITY}",
    )
    user_source: OptionalId = Field(
        None, description="source system of the id; required unless the profiles have one source only"
    )
    event_type: str = Field(
        max_length=40, description="type of the event", json_schema_extra={"enum": [*REQUEST_TYPES]}
    )
    ts: str = Field(max_length=40, description="time of the event, ISO 8601; UTC if it has no time zone")
    item_id: OptionalId = Field(None, description="the item concerned or bought")
    channel: OptionalId = Field(
        None, description=f"app, web, store …; of a {CONSENT}: {', '.join(CONSENT_CHANNELS)} (required)"
    )
    # other events
    session_id: OptionalId = Field(None, description="the session the event belongs to")
    category: OptionalId = Field(None, description="category of the item")
    content_id: OptionalId = Field(None, description="the content concerned")
    page: Text | None = Field(None, description="page or screen")
    referrer: Text | None = Field(None, description="page or site that led to the session")
    campaign_id: OptionalId = Field(None, description="the campaign concerned")
    duration_seconds: Annotated[float, Field(ge=0)] | None = Field(None, description="time spent, seconds")
    device: OptionalId = Field(None, description="type of device")
    value: float | None = Field(None, description="money value of the event")
    properties: dict[Identifier, Annotated[JsonValue, Field(description="any JSON value")]] | None = Field(
        None, max_length=MAX_ATTRIBUTES, description=f"all other attributes, at most {MAX_PROPERTIES_BYTES} bytes"
    )
    anonymous_id: OptionalId = Field(
        None,
        description="of a login or register: the user_id, in the same source, under which the visitor's events were "
        "sent before; they belong to the customer from then on",
    )
    # consents and availabilities
    granted: bool | None = Field(None, description=f"of a {CONSENT} (required): may be contacted through the channel")
    available: bool | None = Field(None, description=f"of an {AVAILABILITY} (required): the item can be sold now")
    # purchases
    order_id: OptionalId = Field(None, description="the order of a purchase; default: event_id")
    line_no: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="line of the order; default: the one of its item"
    )
    quantity: Annotated[float, Field(gt=0)] | None = Field(None, description="units bought or returned; default: 1")
    amount: float | None = Field(None, description="what the customer paid for the line")
    discount: float | None = Field(None, description="discount by the retailer on the line")
    coupon_discount: float | None = Field(None, description="discount from coupons on the line")
    store_id: OptionalId = Field(None, description="the store")
    status: str | None = Field(
        None,
        max_length=40,
        description="status of the order line; default: paid",
        json_schema_extra={"enum": [*ORDER_STATUSES, None]},
    )


def _fields_of(table: str) -> frozenset[str]:
    names = {REQUEST_FIELDS.get(name, name) for name in TABLES[table].names}
    return frozenset(names & set(CustomerEvent.model_fields)) | {"event_id", "event_type"}


_ALWAYS = {"event_id", "event_type", "user_source", "ts"}
REQUIRED = {CONSENT: ("channel", "granted"), AVAILABILITY: ("item_id", "available")}
FIELDS = {
    **{
        event_type: _fields_of("transactions" if event_type == PURCHASE else "events")
        | ({ANONYMOUS_ID} if event_type in LOGINS else set())
        for event_type in EVENT_TYPES
    },
    CONSENT: frozenset({*_ALWAYS, "user_id", *REQUIRED[CONSENT]}),
    AVAILABILITY: frozenset({*_ALWAYS, *REQUIRED[AVAILABILITY]}),
}
OF_SOME_TYPES = {  # fields that so few types have that an error names them
    name: tuple(event_type for event_type, fields in FIELDS.items() if name in fields)
    for name in ("anonymous_id", "granted", "available")
}


@dataclass(frozen=True)
class WrongEvent:
    """An event that Pydantic refuses."""

    error: ValidationError


def _keep_error(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        return WrongEvent(error)


# what parsing gives is either; the schema is that of an event
ParsedEvent = Annotated[CustomerEvent, WrapValidator(_keep_error)]


class CheckedEvent(NamedTuple):
    """An event of a request: its place, and what the log is to keep or what is wrong."""

    place: int
    event: AcceptedEvent | None
    error: QianmianError | None


def check_events(
    events: Sequence[CustomerEvent | WrongEvent], source: str | None, latest: datetime, begin: int = 0
) -> Iterator[CheckedEvent]:
    """Check parsed events.

    Parameters
    ----------
    events : sequence
        What `ParsedEvent` gives.
    source : str or None
        Source of the events without `user_source`; None if they must have one.
    latest : datetime
        Times after it are refused, naive UTC.
    begin : int, default 0
        Place of the first one in its request.
    """
    for place, event in enumerate(events, begin):
        try:
            if isinstance(event, WrongEvent):
                raise request_error(event.error, CustomerEvent)
            yield CheckedEvent(place, _accepted(event, source, latest), None)
        except QianmianError as error:
            yield CheckedEvent(place, None, error)


def _accepted(event: CustomerEvent, source: str | None, latest: datetime) -> AcceptedEvent:
    """Make what the log keeps of an event.

    Raises
    ------
    InvalidRequest
        If a value is not allowed.
    """
    # what is null is not said: the same row is then always written in the same way
    given = event.__dict__
    values: dict[str, Any] = {name: value for name in event.model_fields_set if (value := given[name]) is not None}
    event_type = event.event_type
    if event.user_id is None and event_type != AVAILABILITY:
        raise _without_customer(event)
    if not values.keys() <= FIELDS.get(event_type, frozenset()):
        raise _wrong_type(event_type, values)
    if event.status is not None and event.status not in ORDER_STATUSES:
        raise InvalidRequest("unknown status", got=event.status, allowed=", ".join(ORDER_STATUSES), field="status")
    if event_type in REQUIRED:
        _check_required(event_type, values)
    if event.anonymous_id is not None and event.anonymous_id == event.user_id:
        raise InvalidRequest(
            "anonymous_id is the user_id",
            field="anonymous_id",
            hint="send the id under which the visitor's events were sent before, or leave it out",
        )
    event_id = values.pop("event_id")
    values["source_user_id"] = values.pop("user_id", NO_CUSTOMER)
    values["source"] = values.pop("user_source", source)
    if values["source"] is None:
        raise InvalidRequest(
            "user_source is required, because the profiles have several sources",
            field="user_source",
            hint=f"name the system whose id {'item_id' if event_type == AVAILABILITY else 'user_id'} is",
        )
    values["ts"] = _time(event.ts, latest)
    if event.properties is not None:
        values["properties"] = _properties(event.properties)
    row = encode(make_row(event_id, values))
    if NUL in row.body or "\0" in event_id or "\0" in event.ts:  # which the parser of times ignores at the end
        _refuse_nul(event)
    return row


def _wrong_type(event_type: str, values: dict[str, Any]) -> InvalidRequest:
    if event_type not in FIELDS:
        return InvalidRequest(
            f"unknown event_type{did_you_mean(event_type, REQUEST_TYPES)}",
            got=event_type,
            allowed=", ".join(REQUEST_TYPES),
            field="event_type",
        )
    allowed = FIELDS[event_type]
    wrong = next(name for name in CustomerEvent.model_fields if name in values and name not in allowed)
    kind = "a purchase" if event_type == PURCHASE else f"an event of type {event_type}"
    hint = "leave it out, or send it in properties" if "properties" in allowed else "leave it out"
    if wrong in OF_SOME_TYPES:
        hint = f"leave it out; only events of type {' and '.join(OF_SOME_TYPES[wrong])} have it"
    return InvalidRequest(
        f"{kind} has no {wrong}",
        allowed=", ".join(name for name in CustomerEvent.model_fields if name in allowed),
        field=wrong,
        hint=hint,
    )


def _without_customer(event: CustomerEvent) -> InvalidRequest:
    fault = "Input should be a valid string" if "user_id" in event.model_fields_set else "is required"
    hint = "see the schema of the request in /docs.json"  # as for all fields that every event has
    return InvalidRequest(f"user_id: {fault}", field="user_id", hint=hint)


def _check_required(event_type: str, values: dict[str, Any]) -> None:
    for name in REQUIRED[event_type]:
        if name not in values:
            raise InvalidRequest(
                f"{name} is required in an event of type {event_type}",
                field=name,
                hint=f"send {' and '.join(REQUIRED[event_type])}",
            )
    if event_type == CONSENT and (channel := values["channel"]) not in CONSENT_CHANNELS:
        raise InvalidRequest(
            f"unknown channel of a consent{did_you_mean(channel, CONSENT_CHANNELS)}",
            got=channel,
            allowed=", ".join(CONSENT_CHANNELS),
            field="channel",
        )


def _time(text: str, latest: datetime) -> datetime:
    moment = parse_time(text, "ts")
    if len(text) <= DATE_LENGTH:
        raise InvalidRequest("ts: a date without a clock time", got=text, allowed="2024-05-01T12:00:00Z", field="ts")
    if not EARLIEST <= moment <= latest:
        raise InvalidRequest(
            "ts: before 1971" if moment < EARLIEST else "ts: in the future",
            got=text,
            allowed=f"{EARLIEST:%Y-%m-%d} to {latest.isoformat(timespec='seconds')}Z",
            field="ts",
            hint="check the clock and the time zone of the sender",
        )
    return moment


def _properties(properties: dict[str, Any]) -> str:
    try:
        text = orjson.dumps(properties, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # an integer of more than 64 bits
        raise InvalidRequest(f"properties: {error}", field="properties", hint="send it as a text") from error
    if b"null" in text and has_infinite_number(properties):  # which orjson writes as null
        raise InvalidRequest("properties: a number is not finite", field="properties", hint="leave it out")
    if len(text) > MAX_PROPERTIES_BYTES:
        raise InvalidRequest(
            "properties: too large",
            got=f"{len(text)} bytes",
            allowed=f"{MAX_PROPERTIES_BYTES} bytes",
            field="properties",
        )
    return text.decode()


def has_infinite_number(value: Any) -> bool:
    """Whether a JSON value has NaN or an infinite number."""
    if isinstance(value, dict | list):
        return any(map(has_infinite_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)


def _refuse_nul(event: CustomerEvent) -> None:
    """Raise the error if a text has NUL; a text may also have a backslash followed by u0000."""
    path = path_of_nul(event.model_dump())
    if path is not None:
        raise InvalidRequest("a text contains the character NUL", field=path or None, hint="leave it out")
