"""Kept lists and joins: what a login changes while a list is made, or what leaves the log, shows nobody another's list."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import orjson

from features.event_log.base import AcceptedEvent
from features.event_log.rows import EventRow, encode
from qianmian.settings import Settings
from serving.champions import Champions
from serving.endpoints import ENDPOINTS
from tests.waiting import until

AS_OF = datetime(2024, 8, 1)
NOW = datetime(2024, 8, 3)


def event(event_id: str, source: str, user: str, kind: str = "view", **values: object) -> AcceptedEvent:
    row = {"event_id": event_id, "source": source, "source_user_id": user, "ts": AS_OF + timedelta(hours=1)}
    return encode(EventRow("events", {**row, "event_type": kind, **values}, event_id))


def body(champions: Champions, **fields: object) -> dict[str, object]:
    endpoint = ENDPOINTS["/recommendations"]
    found = orjson.loads(endpoint.json(champions, endpoint.request.model_validate(fields), NOW))
    del found["recommendation_id"]
    return found


def test_a_login_while_a_list_is_made_keeps_no_list_of_another(champions, buyers, log, following, monkeypatch):
    following_champions = replace(champions, events=following(log), settings=Settings())
    following_champions.warm()
    live, known = following_champions.live, champions.customers.customers.to_pylist()
    source = next(row["source"] for row in known if row["source_user_id"] == buyers[0])
    stranger = body(following_champions, user_id="nobody", num_results=7)
    body(following_champions, user_id="nobody", num_results=10)  # the JSON that is kept has another length
    has_any = live.has_any

    def has_any_just_before_a_login(one_id: str | None, user_id: str) -> bool:
        found = has_any(one_id, user_id)
        if not found:
            log.append([event("login", source, buyers[0], "login", anonymous_id="visitor")])
            until(lambda: has_any(None, "visitor"))
        return found

    monkeypatch.setattr(live, "has_any", has_any_just_before_a_login)
    body(following_champions, user_id="visitor", num_results=7)
    monkeypatch.undo()
    assert body(following_champions, user_id="nobody", num_results=7) == stranger
