"""`/v1/events`: accept events; what is acknowledged is durable, and stored once however often it is sent."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from features.event_log import AcceptedEvent
from features.event_log.base import FORMAT
from qianmian.errors import InvalidRequest, NotReady, QianmianError
from serving import costs
from serving.champions import Champions
from serving.counting import counted_events
from serving.endpoints.base import Accepting, Endpoint
from serving.events.validation import CheckedEvent, ParsedEvent, check_events
from serving.requests import Request
from serving.responses import ErrorBody, Response, ResponseBody, error_fields, metadata_of

MAX_EVENTS = 1_000
AT_ONCE = 50  # events that are checked before others get their turn
FOREVER = datetime(9999, 12, 31)
EVENTS = "events"  # name in `model` of the responses


class EventsRequest(Request):
    """Store events of customers. An event that is wrong is rejected by itself; all others are accepted."""

    finds_nul: ClassVar[bool] = False  # in one event, which must not spoil the others

    events: list[ParsedEvent] = Field(min_length=1, max_length=MAX_EVENTS, description="events, in any order")


class RejectedEvent(BaseModel):
    """An event that was not stored."""

    index: int = Field(description="place in `events`, from 0")
    error: ErrorBody = Field(
        description="`conflict` if another event was stored under this id, `erased` if the event names an erased user, "
        "else what is wrong"
    )


class EventsResponse(Response):
    """What became of the events. `model` is the event log."""

    accepted: int = Field(description="events that are stored durably now, duplicates included")
    duplicates: int = Field(description="events among them that were stored before")
    rejected: list[RejectedEvent]


class ErasedUser(QianmianError):
    """The event names a user who was erased."""

    code, http_status, exit_code = "erased", 409, 3


class Conflict(QianmianError):
    """Another event was stored under the id of this one."""

    code, http_status, exit_code = "conflict", 409, 3


def handle(champions: Champions, request: EventsRequest, now: datetime) -> ResponseBody:
    """Return what `accept` would if no event were stored yet; it stores nothing."""
    latest = now + timedelta(seconds=champions.settings.serving.max_clock_skew_seconds)
    checked = list(check_events(request.events, champions.customers.only_source, latest))
    return _response(checked, 0, now)


async def accept(accepting: Accepting, request: EventsRequest, now: datetime) -> ResponseBody:
    """Store the events that are right; returns when they are durable."""
    latest = now + timedelta(seconds=accepting.serving_settings.max_clock_skew_seconds)
    source = _source(accepting, request)
    checked: list[CheckedEvent] = []
    for begin in range(0, len(request.events), AT_ONCE):
        if begin:
            await asyncio.sleep(0)
        checked += check_events(request.events[begin : begin + AT_ONCE], source, latest, begin)
    if request.validate_only:
        _refuse(checked)
        return {"valid": True, **_metadata(now)}
    duplicates = 0
    if events := [each.event for each in checked if each.event is not None]:
        stored = iter(await (await accepting.event_log()).append_async(events))
        for place, each in enumerate(checked):
            if each.event is None:
                continue
            status = next(stored).status
            duplicates += status == "duplicate"
            if status in REFUSED:
                checked[place] = CheckedEvent(each.place, None, REFUSED[status](each.event))
    return _response(checked, duplicates, now)


def check(champions: Champions, request: EventsRequest) -> None:
    """Raise the error of the first wrong event; that a time is in the future is not known here."""
    _refuse(list(check_events(request.events, champions.customers.only_source, FOREVER)))


def _source(accepting: Accepting, request: EventsRequest) -> str | None:
    """Source of the events that name none; if there are any, the profiles must be there."""
    if all(getattr(event, "user_source", "") is not None for event in request.events):
        return None
    try:
        return accepting.get().customers.only_source
    except QianmianError as error:
        raise NotReady(
            f"an event without user_source needs the profiles: {error.message}",
            hint="name user_source in every event, or send them again when /readyz returns 200",
        ) from error


def _refuse(checked: list[CheckedEvent]) -> None:
    wrong = [each for each in checked if each.error is not None]
    if not wrong:
        return
    first = wrong[0].error
    assert first is not None
    fields = first.as_dict()
    path = f"events.{wrong[0].place}" + (f".{fields['field']}" if fields["field"] else "")
    raise InvalidRequest(
        f"{len(wrong)} of {len(checked)} events would be rejected; the first: {fields['message']}",
        field=path,
        hint=fields["hint"],
    )


def _conflict(event: AcceptedEvent) -> Conflict:
    return Conflict(
        "another event was stored under this event_id",
        got=event.event_id,
        field="event_id",
        hint="give every event an id of its own; an event that is sent again must not change",
    )


def _erased(event: AcceptedEvent) -> ErasedUser:
    """Its texts have no id: whoever was erased stays unknown."""
    return ErasedUser(
        "the event names a user who was erased",
        field="user_id",
        hint="do not send events of this user id, nor a login from it: a customer who returns gets a new id",
    )


REFUSED = {"conflict": _conflict, "erased": _erased}  # status in the log → error of the event


def _response(checked: list[CheckedEvent], duplicates: int, now: datetime) -> ResponseBody:
    rejected: list[dict[str, Any]] = [
        {"index": each.place, "error": error_fields(each.error.as_dict())} for each in checked if each.error is not None
    ]
    accepted = len(checked) - len(rejected)
    return {"accepted": accepted, "duplicates": duplicates, "rejected": rejected, **_metadata(now)}


def _metadata(now: datetime) -> ResponseBody:
    """The response is made from no model: it is the state of the log now."""
    return metadata_of(EVENTS, str(FORMAT), now, stale=False)


ENDPOINT = Endpoint(
    "/events",
    "Store events of customers",
    EventsRequest,
    EventsResponse,
    handle,
    lambda _champions, now: _metadata(now),
    lambda request: costs.ACCEPTED_EVENT_MS * len(request.events),
    check=check,
    accept=accept,
    counted=counted_events,
    scope="events",
    errors={
        429: "too many events wait for being stored",
        503: "the event log cannot be reached",
        507: "the event log has no room",
    },
)
