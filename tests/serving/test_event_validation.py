"""Events are validated one by one: what is accepted can be stored and read back, and all else is said."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.event_log import open_log
from features.event_log.rows import decode
from qianmian.errors import InvalidRequest, NotReady
from qianmian.schema import EVENT_TYPES, REQUEST_TYPES, TABLES
from qianmian.settings import ServingSettings
from serving.endpoints.events import ENDPOINT, EventsResponse
from serving.events.validation import FIELDS, CustomerEvent, check_events
from serving.http import accept_answer
from serving.requests import parse_request

NOW = datetime(2026, 6, 1)
EVENT = {"event_id": "e", "user_id": "u", "user_source": "s", "event_type": "view", "ts": "2026-05-01T12:00:00+02:00"}
PURCHASE = {**EVENT, "event_type": "purchase", "item_id": "milk"}
LOGIN = {**EVENT, "event_type": "login", "anonymous_id": "v"}
CONSENT = {**EVENT, "event_type": "consent", "channel": "sms", "granted": False}
AVAILABILITY = {**EVENT, "event_type": "availability", "item_id": "milk", "available": False, "user_id": None}


def checked(event: Any, source: str | None = None, latest: datetime = NOW):
    request = parse_request(ENDPOINT.request, event if isinstance(event, bytes) else orjson.dumps({"events": [event]}))
    (found,) = check_events(request.events, source, latest)
    return found


def row_of(event: Any, **options: Any) -> tuple[str, dict[str, Any]]:
    found = checked(event, **options)
    assert found.error is None
    return decode(found.event)[:2]


def refused(event: Any, **options: Any) -> InvalidRequest:
    found = checked(event, **options)
    assert found.event is None
    return found.error


def test_an_event_has_the_columns_of_its_table():
    assert set(FIELDS) == set(REQUEST_TYPES)
    for event_type in EVENT_TYPES:
        fields = FIELDS[event_type] - {"anonymous_id"}
        assert ("anonymous_id" in FIELDS[event_type]) == (event_type in ("login", "register"))
        table = TABLES["transactions" if event_type == "purchase" else "events"]
        columns = {column.name for column in table.columns if not column.derived}
        named = {"user_id": "source_user_id", "user_source": "source"}
        assert {named.get(name, name) for name in fields} == columns | {"event_type", "event_id"}
    assert set().union(*FIELDS.values()) == set(CustomerEvent.model_fields)


def test_rows():
    base = {"source": "s", "source_user_id": "u", "ts": datetime(2026, 5, 1, 10)}
    assert row_of(EVENT) == ("events", {**base, "event_id": "e", "event_type": "view"})
    assert row_of({**EVENT, "item_id": None, "amount": None}) == row_of(EVENT), "null says nothing"
    line = {"order_id": "e", "line_no": 1, "quantity": 1.0, "status": "paid", "item_id": "milk"}
    assert row_of({**PURCHASE, "amount": 2}) == ("transactions", {**base, **line, "amount": 2.0})
    assert row_of({**PURCHASE, "order_id": "o", "line_no": 2, "status": "refunded"})[1]["order_id"] == "o"
    properties = {"b": [1, {"c": None}], "a": "x"}
    assert row_of({**EVENT, "properties": properties})[1]["properties"] == '{"a":"x","b":[1,{"c":null}]}'
    assert row_of({**EVENT, "user_source": None}, source="only")[1]["source"] == "only"
    assert row_of({**EVENT, "item_id": "\\u0000"})[1]["item_id"] == "\\u0000", "six characters, none of which is NUL"


def test_rows_of_the_other_kinds():
    base = {"source": "s", "source_user_id": "u", "ts": datetime(2026, 5, 1, 10)}
    assert row_of(CONSENT) == ("profiles", {**base, "consent_sms": False})
    assert row_of({**CONSENT, "channel": "email", "granted": True})[1]["consent_email"] is True
    about_item = {**base, "source_user_id": "", "item_id": "milk", "available": False}
    assert row_of(AVAILABILITY) == ("items", about_item)
    assert row_of({name: value for name, value in AVAILABILITY.items() if name != "user_id"})[1] == about_item
    assert row_of({**AVAILABILITY, "user_source": None}, source="only")[1]["source"] == "only"
    assert checked(AVAILABILITY).event.source_user_id == ""
    table, values = row_of({**LOGIN, "page": "/login"})
    assert (table, values["anonymous_id"], values["page"]) == ("events", "v", "/login")
    assert b'"anonymous_id":' in checked(LOGIN).event.body


def test_an_event_of_a_customer_needs_the_customer_as_before():
    hint = "see the schema of the request in /docs.json"
    for event in (EVENT, PURCHASE, LOGIN, CONSENT, {**EVENT, "event_type": "other"}):
        error = refused({name: value for name, value in event.items() if name != "user_id"})
        assert (error.field, error.as_dict()["message"], error.hint) == ("user_id", "user_id: is required", hint)
        null = refused({**event, "user_id": None})
        assert (null.field, null.hint) == ("user_id", hint)
        assert null.as_dict()["message"] == "user_id: Input should be a valid string"


def test_the_same_row_has_the_same_bytes_however_it_is_written():
    one = {**PURCHASE, "quantity": 2, "ts": "2026-05-01T10:00:00Z"}
    other = dict(reversed({**PURCHASE, "quantity": 2.0, "amount": None, "ts": "2026-05-01T10:00:00.000"}.items()))
    assert checked(one) == checked(other)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"ts": "9999-12-31T00:00:00Z"}, "ts", "in the future"),
        ({"ts": "9999-12-31T23:59:59-05:00"}, "ts", "outside the years"),
        ({"ts": "0001-01-01T00:00:00+05:00"}, "ts", "outside the years"),
        ({"ts": "0001-01-01T00:00:00"}, "ts", "before 1971"),
        ({"ts": "1970-01-01T00:00:00Z"}, "ts", "before 1971"),
        ({"ts": "2026-06-01T00:00:00.000001Z"}, "ts", "in the future"),
        ({"ts": "2026-05-01"}, "ts", "without a clock time"),
        ({"ts": "yesterday"}, "ts", "not an ISO 8601 time"),
        ({"ts": 1_777_000_000}, "ts", "valid string"),
        ({"ts": "2026-05-01T12:00:00\0"}, "ts", "NUL"),
        ({"event_type": "vieew"}, "event_type", "did you mean view"),
        ({"event_id": ""}, "event_id", "at least 1 character"),
        ({"event_id": "x" * 257}, "event_id", "at most 256"),
        ({"event_id": "\0"}, "event_id", "NUL"),
        ({"user_id": None}, "user_id", "valid string"),
        ({"user_id": 7}, "user_id", "valid string"),
        ({"user_source": None}, "user_source", "several sources"),
        ({"item_id": "a\0"}, "item_id", "NUL"),
        ({"colour": "red"}, "colour", "unknown field"),
        ({"amount": 3}, "amount", "has no amount"),
        ({"status": "paid"}, "status", "has no status"),
        ({"value": "3"}, "value", "valid number"),
        ({"duration_seconds": -1}, "duration_seconds", "greater than or equal to 0"),
        ({"properties": []}, "properties", "dictionary"),
        ({"properties": {str(n): 1 for n in range(51)}}, "properties", "at most 50"),
        ({"properties": {"a": ["x" * 10_000]}}, "properties", "too large"),
        ({"properties": {"a": {"b": ["c\0"]}}}, "properties.a.b.0", "NUL"),
        ({**PURCHASE, "session_id": "s1"}, "session_id", "a purchase has no session_id"),
        ({**PURCHASE, "status": "lost"}, "status", "unknown status"),
        ({**PURCHASE, "quantity": 0}, "quantity", "greater than 0"),
        ({**PURCHASE, "line_no": 1.5}, "line_no", "valid integer"),
        ({"anonymous_id": "v"}, "anonymous_id", "only events of type register and login have it"),
        ({**PURCHASE, "anonymous_id": "v"}, "anonymous_id", "a purchase has no anonymous_id"),
        ({**LOGIN, "anonymous_id": "u"}, "anonymous_id", "is the user_id"),
        ({**LOGIN, "anonymous_id": ""}, "anonymous_id", "at least 1 character"),
        ({**LOGIN, "anonymous_id": "x" * 257}, "anonymous_id", "at most 256"),
        ({**LOGIN, "anonymous_id": "a\0"}, "anonymous_id", "NUL"),
        ({"granted": True}, "granted", "only events of type consent have it"),
        ({"event_type": "consnt"}, "event_type", "did you mean consent"),
        ({**CONSENT, "granted": None}, "granted", "granted is required in an event of type consent"),
        ({**CONSENT, "granted": "yes"}, "granted", "valid boolean"),
        ({**CONSENT, "channel": None}, "channel", "channel is required in an event of type consent"),
        ({**CONSENT, "channel": "e-mail"}, "channel", "did you mean email"),
        ({**CONSENT, "channel": "phone"}, "channel", "allowed: email, sms, push"),
        (
            {**CONSENT, "item_id": "milk"},
            "item_id",
            "allowed: event_id, user_id, user_source, event_type, ts, channel,",
        ),
        ({**CONSENT, "properties": {"a": 1}}, "properties", "an event of type consent has no properties"),
        ({**AVAILABILITY, "user_id": "u"}, "user_id", "an event of type availability has no user_id"),
        ({**AVAILABILITY, "item_id": None}, "item_id", "item_id is required in an event of type availability"),
        ({**AVAILABILITY, "available": None}, "available", "available is required in an event of type availability"),
        ({**AVAILABILITY, "available": 1}, "available", "valid boolean"),
        ({**AVAILABILITY, "user_source": None}, "user_source", "the system whose id item_id is"),
        ({**AVAILABILITY, "channel": "web"}, "channel", "an event of type availability has no channel"),
    ],
)
def test_what_is_refused(change, field, message):
    error = refused({**EVENT, **change})
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert message in str(error)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "9" * 400])
def test_numbers_that_json_cannot_say(number):
    for field, value in (("value", number), ("properties", f'{{"a": [{number}]}}')):
        body = f'{{"events": [{orjson.dumps(EVENT).decode()[:-1]}, "{field}": {value}}}]}}'
        assert refused(body.encode()).field == field


def test_no_event_is_a_mistake_of_the_request():
    for events in ([], [EVENT] * 1_001, {}, None):
        with pytest.raises(InvalidRequest) as caught:
            parse_request(ENDPOINT.request, orjson.dumps({"events": events}))
        assert caught.value.field == "events"


def test_validate_only_says_the_first_mistake(champions):
    events = [EVENT, {**EVENT, "ts": "?"}, {**EVENT, "item_id": ""}]
    request = parse_request(ENDPOINT.request, orjson.dumps({"events": events, "validate_only": True}))
    with pytest.raises(InvalidRequest, match="2 of 3 events would be rejected; the first: ts") as caught:
        ENDPOINT.check(champions, request)
    assert caught.value.field == "events.1.ts"


# ---- with a log ------------------------------------------------------------------------------------------------------


class Server:
    """What accepting needs of a server without models."""

    serving_settings = ServingSettings()

    def __init__(self, log: Any) -> None:
        self.log = log

    async def event_log(self) -> Any:
        return self.log

    def get(self) -> Any:
        raise NotReady("the models are being loaded")


@pytest.fixture
def server(tmp_path):
    server = Server(open_log(tmp_path / "events.db"))
    yield server
    server.log.close()


def send(server: Server, events: Any, **options: Any) -> dict[str, Any]:
    answer = orjson.loads(asyncio.run(accept_answer(server, ENDPOINT, orjson.dumps({"events": events, **options})))[1])
    if not options:
        EventsResponse.model_validate(answer)
    return answer


def test_duplicates_and_conflicts(server):
    other = {**EVENT, "item_id": "other"}
    answer = send(server, [EVENT, EVENT, other, {**EVENT, "user_source": "another"}])
    assert (answer["accepted"], answer["duplicates"]) == (3, 1)
    assert [(found["index"], found["error"]["code"]) for found in answer["rejected"]] == [(2, "conflict")]
    assert answer["rejected"][0]["error"]["field"] == "event_id"
    assert send(server, [EVENT])["duplicates"] == 1
    assert server.log.header().last_seq == 2


def test_validate_only_stores_nothing(server):
    assert send(server, [EVENT], validate_only=True)["valid"] is True
    assert server.log.header().last_seq == 0


def test_events_without_a_source_need_the_profiles(server):
    nameless = {**EVENT, "user_source": None}
    with pytest.raises(NotReady, match="without user_source") as caught:
        send(server, [EVENT, nameless])
    assert "name user_source" in caught.value.hint
    assert server.log.header().last_seq == 0, "it may be sent again as it is"
    server.get = lambda: SimpleNamespace(customers=SimpleNamespace(only_source="shop"))
    assert send(server, [nameless])["accepted"] == 1
    server.get = lambda: SimpleNamespace(customers=SimpleNamespace(only_source=None))
    answer = send(server, [{**nameless, "event_id": "e2"}, {**EVENT, "event_id": "e3"}])
    assert [found["error"]["field"] for found in answer["rejected"]] == ["user_source"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
FIELD_VALUES: dict[str, Any] = {
    "event_id": st.sampled_from(["a", "b", "购买-1", "é", "🛒", "\0", ""]) | st.text(max_size=5),
    "event_type": st.sampled_from([*REQUEST_TYPES, "other"]),
    "channel": st.sampled_from(["email", "web"]),
    "granted": st.booleans(),
    "available": st.booleans(),
    "ts": st.datetimes().map(str) | st.just("2026-05-01T12:00:00Z"),
    "properties": st.dictionaries(st.text(max_size=4), JSON, max_size=3),
}
GOOD = st.fixed_dictionaries(
    {"event_id": FIELD_VALUES["event_id"], "user_id": st.just("u"), "user_source": st.just("s")},
    optional={
        name: FIELD_VALUES.get(name, JSON)
        for name in [*CustomerEvent.model_fields, "unknown"]
        if name not in ("event_id", "user_id", "user_source")
    },
).map(lambda event: {"event_type": "view", "ts": "2026-05-01T12:00:00Z", **event})


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()  # orjson writes neither NaN nor large integers


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(GOOD | JSON, min_size=1, max_size=6))
def test_every_event_is_accepted_or_rejected_and_the_accepted_ones_are_stored(tmp_path_factory, events):
    server = Server(open_log(tmp_path_factory.mktemp("log") / "events.db"))
    first, second = (
        orjson.loads(asyncio.run(accept_answer(server, ENDPOINT, as_json({"events": events})))[1]) for _ in range(2)
    )
    stored = [logged.event for logged in server.log.tail(0, 100).events]
    server.log.close()
    for answer in (first, second):
        assert answer["accepted"] + len(answer["rejected"]) == len(events)
    assert len(stored) == len({(event.source, event.event_id) for event in stored})
    assert len(stored) == first["accepted"] - first["duplicates"]
    assert second["duplicates"] == second["accepted"] == first["accepted"]
    assert [found["index"] for found in first["rejected"]] == [found["index"] for found in second["rejected"]]
    for event in stored:
        assert decode(event).values["source_user_id"] == event.source_user_id
