"""Bodies are bounded before they are validated, and every text is checked, whatever field it is in."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import orjson
import pytest

from qianmian.errors import InvalidRequest, MalformedRequest, QianmianError
from serving.endpoints import ENDPOINTS
from serving.requests import BodyTooLarge, has_more_values, most_values, parse_request

LARGE = orjson.dumps({"user_ids": [f"{number:08d}" for number in range(10_000)]})


def body(start: str, part: str, end: str) -> bytes:
    """A body of at most 1 MB, the limit of a server, that repeats a part; ``%x`` is its number."""
    number = (990_000 - len(start) - len(end)) // (len(part) + 5)
    parts = (part.replace("%x", f"{place:x}") for place in range(number))
    return f"{start}{','.join(parts)}{end}".encode()


HOSTILE = {
    "numbers for ids": ("/churn", body('{"user_ids": [', "7", "]}")),
    "lists for ids": ("/churn", body('{"user_ids": [', "[]", "]}")),
    "too many ids": ("/churn", body('{"user_ids": [', '"a"', "]}")),
    "unknown fields": ("/profile", body("{", '"%x": 1', "}")),
    "unknown fields of an event": (
        "/recommendations",
        body('{"user_id": "a", "context": {"events": [{', '"%x": 1', "}]}}"),
    ),
    "empty events": ("/recommendations", body('{"user_id": "a", "context": {"events": [', "{}", "]}}")),
    "empty promotions": ("/recommendations", body('{"user_id": "a", "promotions": [', "{}", "]}")),
    "attributes of wrong types": ("/similar-items", body('{"item_id": "a", "attributes": {', '"%x": []', "}}")),
    "items of wrong types": ("/rank", body('{"user_id": "a", "item_ids": ["a"], "attributes": {', '"%x": 1', "}}")),
    "filters": ("/recommendations", body('{"user_id": "a", "filters": {', '"%x": 1', "}}")),
    "open brackets": ("/churn", b'{"user_ids": ' + b"[" * 980_000),
    "punctuation in a text without an end": ("/churn", b'{"user_ids": ["' + b"," * 980_000),
    "quotes": ("/churn", b'"' * 990_000 + b"," * 10_005),
}


def seconds(route: str, text: bytes) -> float:
    """CPU seconds of this thread to parse a body, the least of five tries."""
    least = float("inf")
    for _ in range(5):
        started = time.thread_time()
        with contextlib.suppress(QianmianError):
            parse_request(ENDPOINTS[route].request, text)
        least = min(least, time.thread_time() - started)
    return least


@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_hostile_body_takes_as_long_as_some_tens_of_thousands_of_ids(what):
    """Without the bound they took up to 2,000 times as long as these 10,000 ids."""
    assert seconds(*HOSTILE[what]) < 80 * seconds("/churn", LARGE)


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_more_values_than_a_valid_request_has_are_refused_unread(route):
    model = ENDPOINTS[route].request
    most = most_values(model)
    with pytest.raises(BodyTooLarge, match=f"at most {most}"):
        parse_request(model, b"[" + b"1," * most + b"1]")
    with pytest.raises(InvalidRequest):
        parse_request(model, b"[" + b"1," * (most - 2) + b"1]")


def test_the_longest_valid_requests_are_accepted():
    ids = [f"{number},[{{" for number in range(10_000)]  # punctuation in texts is none
    for route, request in {
        "/churn": {"user_ids": ids, "user_source": "s", "explain": True, "validate_only": True},
        "/predictions": {"user_ids": ids, "user_source": "s", "validate_only": True},
        "/lookalike": {"seed_user_ids": ids, "exclude": ids, "size": 1, "with_evidence": False, "user_source": "s"},
        "/similar-items": {"item_id": "a", "exclude": ids, "filters": {"item_id": ids}},
        "/recommendations": {
            "user_id": "a",
            "exclude": ids,
            "filters": {"item_id": ids},
            "context": {"items": ids[:1000], "events": [{"item_id": "a", "ts": "t", "event_type": "view"}] * 1000},
        },
        "/rank": {
            "user_id": "a",
            "item_ids": ids[:1000],
            "attributes": {name: {str(place): 1 for place in range(50)} for name in ids[:1000]},
        },
    }.items():
        parse_request(ENDPOINTS[route].request, orjson.dumps(request))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"1", 1),
        (b'{"a": 1, "b": [1, {"c": ""}]}', 6),
        (b'["\\"", "\\\\", ",[{"]', 4),
        (b'["\\\\\\",,,", 1]', 3),
    ],
)
def test_values_are_counted_outside_of_texts(text, number):
    spaces = b" " * 100  # a short body is not counted
    assert has_more_values(text + spaces, number - 1)
    assert not has_more_values(text + spaces, number)


def test_of_a_list_the_first_mistake_is_described():
    with pytest.raises(InvalidRequest) as caught:
        parse_request(ENDPOINTS["/churn"].request, orjson.dumps({"user_ids": ["a", 1, "", 2], "colour": 1}))
    assert str(caught.value).startswith("user_ids.1: Input should be a valid string; colour: unknown field")
    assert caught.value.field == "user_ids.1"


def test_ten_mistakes_are_described_and_of_very_many_only_the_number():
    model = ENDPOINTS["/profile"].request
    for number, said in ((12, "and 3 more"), (200, "the request has 201 mistakes")):
        with pytest.raises(InvalidRequest, match=said):
            parse_request(model, orjson.dumps({f"field {place}": 1 for place in range(number)}))


# ---- texts -----------------------------------------------------------------------------------------------------------

EVENT = {"item_id": "a", "event_type": "view", "ts": "2024-08-02T00:00:00"}
FULL: dict[str, dict[str, Any]] = {
    "/recommendations": {
        "user_id": "a",
        "user_source": "s",
        "scene": "home",
        "purchased": "any",
        "exclude": ["a"],
        "filters": {"and": [{"attribute": "brand", "op": "in", "value": ["b"]}]},
        "diversity": {"max_per": {"brand": 1}},
        "promotions": [{"name": "p", "filter": {"brand": "b"}, "percent": 10}],
        "context": {"attributes": {"age": "old"}, "items": ["a"], "events": [EVENT], "now": "2024-08-02"},
    },
    "/rank": {"user_id": "a", "user_source": "s", "item_ids": ["a"], "attributes": {"a": {"brand": "b"}}},
    "/similar-items": {
        "item_id": "a",
        "attributes": {"brand": "b"},
        "filters": {"brand": ["b"]},
        "exclude": ["a"],
    },
    "/churn": {"user_ids": ["a"], "user_source": "s"},
    "/uplift": {"user_ids": ["a"], "user_source": "s", "budget": 1},
    "/predictions": {"user_ids": ["a"], "user_source": "s"},
    "/profile": {"user_id": "a", "user_source": "s"},
    "/lookalike": {
        "seed_user_ids": ["a"],
        "user_source": "s",
        "size": 1,
        "exclude": ["a"],
        "exclude_tags": {"lifecycle_stage": ["lost"]},
        "salt": "spring",
    },
    "/events": {"events": [{**EVENT, "event_id": "e", "user_id": "u", "user_source": "s"}]},
    "/erase": {"user_id": "a", "user_source": "s", "reason": "ticket"},
}


def variants(value: Any, suffix: str):
    """Copies of a value, each with one text or key changed."""
    if isinstance(value, str):
        yield value + suffix
    elif isinstance(value, dict):
        for key, part in value.items():
            yield {**value, key + suffix: part}
            yield from ({**value, key: changed} for changed in variants(part, suffix))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in variants(part, suffix))


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_every_text_refuses_nul_and_half_a_character(route, champions):
    endpoint, model = ENDPOINTS[route], ENDPOINTS[route].request
    parse_request(model, orjson.dumps(FULL[route]))
    for changed in variants(FULL[route], "\0"):
        with pytest.raises(InvalidRequest):
            endpoint.check(champions, parse_request(model, orjson.dumps(changed)))
    for changed in variants(FULL[route], "SURROGATE"):
        for half in (b"\\ud800", b"\\udc00"):
            with pytest.raises(MalformedRequest):
                parse_request(model, orjson.dumps(changed).replace(b"SURROGATE", half))


@pytest.mark.parametrize("route", list(ENDPOINTS))
def test_every_text_has_a_greatest_length(route, champions):
    endpoint = ENDPOINTS[route]
    for changed in variants(FULL[route], "x" * 1_000):
        with pytest.raises(InvalidRequest):
            endpoint.check(champions, parse_request(endpoint.request, orjson.dumps(changed)))


def test_nul_is_looked_for_with_the_parser_that_read_the_body():
    """Another one refuses numbers that Pydantic takes, which was a status 500."""
    for value in ("1e999", "NaN", "9" * 400, "[" * 150 + "]" * 150):
        with pytest.raises(InvalidRequest, match="NUL"):
            parse_request(
                ENDPOINTS["/similar-items"].request, b'{"item_id": "\\u0000", "filters": {"a": %s}}' % value.encode()
            )
